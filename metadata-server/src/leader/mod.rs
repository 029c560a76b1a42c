//! What only the leader does, in the background: cluster time, the liveness of nodes, repair,
//! deletion, expiry.
//!
//! Owner: [`run`], one task per server. Workers start once an entry of the leader's own term is
//! applied and end with the leadership; each unit is bounded and leaves nothing behind but commands
//! that apply checks again, so a leader that was replaced without noticing does no harm.

pub mod book;
pub mod copies;
pub mod holders;
pub mod housekeeping;
pub mod inventory;
pub mod liveness;
pub mod repair;
pub mod rescue;
mod resting;
pub mod spread;
pub mod tickets;
pub mod trim;

use std::future::Future;
use std::time::Duration;

use dfs_proto::v1;
use dfs_proto::v1::command::Kind;
use dfs_types::DfsError;
use dfs_types::limits::DEFAULT_DEADLINE_MS;
use futures::future::BoxFuture;
use server_kit::{Next, Work, Workers};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::service::Operations;

/// How long the workers of a lost leadership may take to finish their unit.
const FINISH_LIMIT: Duration = Duration::from_secs(2);

/// Intervals and periods; cluster time where they decide something, the leader's own clock else.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    pub tick_ms: u64,
    /// Pause of a worker that found nothing to do.
    pub background_ms: u64,
    /// A node is down for this long before its chunks are copied elsewhere, but for last copies.
    pub repair_delay_ms: u64,
    pub trash_period_ms: u64,
    /// The epoch floor stays this far behind.
    pub floor_lag_ms: u64,
    /// An upload without a new page for this long is ended.
    pub upload_expiry_ms: u64,
    /// Copies under way at once.
    pub repair_parallel: usize,
    /// Of them, at most so many to one node, and from one.
    pub repair_per_node: usize,
    /// Bytes that background copies may move to and from one node; 0: no limit.
    pub repair_bytes_per_second: u64,
    /// Between two looks at all that a node has.
    pub inventory_interval_ms: u64,
}

impl Timing {
    fn pause(&self) -> Next {
        Next::After(Duration::from_millis(self.background_ms))
    }

    /// A pause for work that need not be prompt.
    pub(crate) fn pause_at_least(&self, least: Duration) -> Next {
        Next::After(Duration::from_millis(self.background_ms).max(least))
    }

    /// At once if something was done, else after a pause.
    fn again_if(&self, done: bool) -> Next {
        if done { Next::Now } else { self.pause() }
    }
}

/// A worker made of a closure that does one unit.
struct Chore<F>(F);

impl<F> Work for Chore<F>
where
    F: FnMut() -> BoxFuture<'static, Result<Next, DfsError>> + Send + 'static,
{
    fn step(&mut self) -> impl Future<Output = Result<Next, DfsError>> + Send {
        (self.0)()
    }
}

/// Starts and ends the leader's workers with the leadership, until `stop`.
pub async fn run(operations: Operations, timing: Timing, stop: CancellationToken) {
    let mut leadership = operations.parts.consensus.leadership();
    loop {
        let now = *leadership.borrow_and_update();
        if now.leading {
            tracing::info!(term = now.term, "leading");
            if let Err(error) = operations.begin_leading(now.term) {
                // The first call tries again; until then no node is known.
                tracing::error!(code = %error.code, %error, "cannot read the nodes");
            }
            let workers = Workers::new(CancellationToken::new());
            start(&operations, timing, now.term, &workers);
            // Another term means another leadership, even if this server won it again.
            let ended = leadership.wait_for(|later| !later.leading || later.term != now.term);
            let end = tokio::select! {
                () = stop.cancelled() => true,
                ended = ended => ended.is_err(),
            };
            workers.finish(Instant::now() + FINISH_LIMIT).await;
            tracing::info!(term = now.term, "not leading any more");
            if end {
                return;
            }
        } else {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = leadership.changed() => if changed.is_err() { return },
            }
        }
    }
}

macro_rules! chore {
    ($workers:expr, $name:literal, $operations:expr, $timing:expr, $function:path) => {{
        let (operations, timing) = ($operations.clone(), $timing);
        $workers.start(
            $name,
            Chore(move || -> BoxFuture<'static, Result<Next, DfsError>> {
                let operations = operations.clone();
                Box::pin(async move { $function(&operations, timing).await })
            }),
        );
    }};
}

fn start(operations: &Operations, timing: Timing, term: u64, workers: &Workers) {
    workers.start("tick", housekeeping::Ticker::new(operations.clone(), timing));
    let pace = copies::Pace::new(timing.repair_bytes_per_second);
    workers.start("repair", repair::Repair::new(operations.clone(), timing, term, pace.clone()));
    workers.start("spread", spread::Spread::new(operations.clone(), timing, term, pace));
    workers.start("rescue", rescue::Rescue::new(operations.clone(), timing, term));
    workers.start("trim", trim::Trim::new(operations.clone(), timing));
    workers.start("tickets", tickets::Tickets::new(operations.clone(), timing, term));
    workers.start("inventory", inventory::Inventory::new(operations.clone(), timing));
    chore!(workers, "liveness", operations, timing, liveness::step);
    chore!(workers, "recheck", operations, timing, liveness::recheck);
    chore!(workers, "faults", operations, timing, repair::settle_faults);
    chore!(workers, "trash", operations, timing, housekeeping::purge_trash);
    chore!(workers, "release", operations, timing, housekeeping::release_references);
    chore!(workers, "uploads", operations, timing, housekeeping::end_uploads);
    chore!(workers, "versions", operations, timing, housekeeping::purge_versions);
    chore!(workers, "floor", operations, timing, housekeeping::raise_floor);
    chore!(workers, "results", operations, timing, housekeeping::forget_results);
    chore!(workers, "gauges", operations, timing, crate::telemetry::measure);
}

/// Proposes background work in the cluster's name.
async fn propose(operations: &Operations, kind: Kind) -> Result<v1::CommandResult, DfsError> {
    let deadline = Instant::now() + Duration::from_millis(DEFAULT_DEADLINE_MS);
    operations.propose_as_cluster(kind, deadline).await
}
