//! Background care of the store: compaction gives space back, scrub reads everything again and again
//! so that rot is found while other copies are good. Both are slow on purpose and step aside while
//! the disk is wanted by callers.

use std::sync::Arc;
use std::time::Duration;

use dfs_types::DfsError;
use server_kit::{Next, Work};
use tokio::time::Instant;

use crate::blocking::BlockingPool;
use crate::node::Node;
use crate::store::check::{self, Scrub, Verdict};
use crate::store::{ChunkKey, ChunkStore, ChunkStoreExt, StoreError};
use crate::telemetry;

/// How fast, and how often. Bytes per second.
#[derive(Clone, Debug)]
pub struct Pace {
    pub compact_bytes_per_sec: u64,
    /// Between two looks that found nothing to compact.
    pub compact_idle: Duration,
    pub scrub_bytes_per_sec: u64,
    /// Between the end of one pass over everything and the next.
    pub scrub_idle: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            compact_bytes_per_sec: 64 << 20,
            compact_idle: Duration::from_secs(10),
            scrub_bytes_per_sec: 16 << 20,
            scrub_idle: Duration::from_secs(3600),
        }
    }
}

/// What one unit of scrub reads.
const UNIT_BYTES: u64 = 4 << 20;
const WHILE_BUSY: Duration = Duration::from_secs(1);
const WHILE_OPENING: Duration = Duration::from_millis(200);

pub struct Compactor {
    pub node: Arc<Node>,
    pub pool: BlockingPool,
    pub pace: Pace,
}

impl Work for Compactor {
    /// One unit: at most one segment.
    async fn step(&mut self) -> Result<Next, DfsError> {
        let Some(store) = self.node.opened_store() else { return Ok(Next::After(WHILE_OPENING)) };
        let done = self.pool.run(move || store.compact()).await?;
        if done.segments_removed == 0 {
            return Ok(Next::After(self.pace.compact_idle));
        }
        telemetry::compacted(done.bytes_freed);
        tracing::info!(copied = done.bytes_copied, freed = done.bytes_freed, "compacted");
        Ok(Next::After(spread(done.bytes_copied, self.pace.compact_bytes_per_sec)))
    }
}

pub struct Scrubber {
    node: Arc<Node>,
    pool: BlockingPool,
    pace: Pace,
    /// The last chunk looked at in this pass.
    after: Option<ChunkKey>,
    /// When the last pass ended; at first, when this began.
    whole: Instant,
}

impl Scrubber {
    pub fn new(node: Arc<Node>, pool: BlockingPool, pace: Pace) -> Self {
        Self { node, pool, pace, after: None, whole: Instant::now() }
    }
}

/// Quarantines, durably, every bad chunk the walk found.
fn scrub_once(store: &dyn ChunkStore, after: Option<&ChunkKey>) -> Result<Scrub, StoreError> {
    let done = check::scrub(store, after, UNIT_BYTES)?;
    for (key, _) in &done.bad {
        store.quarantine(key)?;
    }
    Ok(done)
}

impl Work for Scrubber {
    /// One unit: chunks of about 4 MiB together, at least one.
    async fn step(&mut self) -> Result<Next, DfsError> {
        let Some(store) = self.node.opened_store() else { return Ok(Next::After(WHILE_OPENING)) };
        if self.pool.is_busy() {
            return Ok(Next::After(WHILE_BUSY));
        }
        let after = self.after;
        let done = self.pool.run(move || scrub_once(&*store, after.as_ref())).await?;
        for (key, why) in &done.bad {
            telemetry::fault_found(true);
            tracing::error!(chunk = %key, why, "a stored chunk is corrupt: quarantined");
            self.node.faults.report(key.realm, key.chunk, true);
        }
        self.after = done.next;
        if done.next.is_none() {
            self.whole = Instant::now();
        }
        telemetry::scrubbed(done.bytes, self.whole.elapsed());
        let pause = spread(done.bytes, self.pace.scrub_bytes_per_sec);
        Ok(Next::After(if done.next.is_some() { pause } else { pause + self.pace.scrub_idle }))
    }
}

/// Reads and hashes one chunk that is not quarantined yet; quarantines it, durably, if it is bad.
/// Bad is also what the disk cannot read.
pub fn is_corrupt(store: &dyn ChunkStore, key: &ChunkKey) -> Result<bool, StoreError> {
    match check::verify(store, key)? {
        Verdict::Good | Verdict::Absent => Ok(false),
        Verdict::Bad(why) => {
            tracing::error!(chunk = %key, why, "a stored chunk is corrupt: quarantined");
            store.quarantine(key)?;
            Ok(true)
        }
    }
}

/// The wait that makes `bytes` take no less than their time at `per_sec`.
fn spread(bytes: u64, per_sec: u64) -> Duration {
    Duration::from_millis(bytes.saturating_mul(1000) / per_sec.max(1))
}
