//! The log: entries, vote and bounds in a RocksDB of their own, every write synced.
//!
//! Crash promise: the append callback runs, and votes and cuts return, only after fsync. A purge
//! waits until the state is durable up to where the log is cut. The first error of a write stops
//! the member: openraft ends its core, nothing is acknowledged after it. So that a full disk is not
//! such an error, each write first lets [`Space`] look; if it is one all the same, the ballast goes.
//!
//! Writes come one at a time (openraft awaits each), so completions cannot change their order.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{EntryPayload, ErrorSubject, ErrorVerb, LogState, OptionalSend, RaftLogReader};
use rocksdb::{ColumnFamily, DB, ReadOptions, WriteBatch, WriteOptions};

use tokio::time::Instant;

use super::slots::Slots;
use super::types::{Entry, LogId, StorageError, StorageIOError, TypeConfig, Vote, decode, encode};
use crate::kv::{Damage, StoreOptions, log_options};
use crate::space::Space;
use crate::telemetry;

const IDENTITY: &[u8] = b"identity";
const VOTE: &[u8] = b"vote";
const PURGED: &[u8] = b"purged";
const COMMITTED: &[u8] = b"committed";

/// Recent entries kept in memory: replication and apply read them without touching the database.
const CACHE_BYTES: usize = 8 << 20;
/// Bytes of entries one AppendEntries carries, unless a single entry is larger.
const REPLICATION_BYTES: usize = 1 << 20;

/// Tells a purge when the state no longer needs the entries.
#[async_trait::async_trait]
pub trait PurgeGate: Send + Sync {
    /// Returns when the state up to `upto` would survive a power loss.
    async fn durable(&self, upto: LogId) -> io::Result<()>;
}

/// A handle; clones share the log.
#[derive(Clone)]
pub struct LogStore {
    log: Arc<Log>,
}

struct Log {
    db: DB,
    damage: Damage,
    /// This member's, as the database has it.
    raft_id: Option<u64>,
    slots: Slots,
    gate: Arc<dyn PurgeGate>,
    space: Arc<Space>,
    bounds: Mutex<Bounds>,
    cache: Mutex<Cache>,
    /// Entry bytes appended since the process started.
    appended: AtomicU64,
}

/// What is durable, as memory has it.
#[derive(Clone, Copy, Default, Debug)]
pub struct Bounds {
    pub vote: Option<Vote>,
    pub purged: Option<LogId>,
    pub last: Option<LogId>,
}

#[derive(Default)]
struct Cache {
    entries: BTreeMap<u64, (Entry, usize)>,
    bytes: usize,
}

impl Cache {
    fn put(&mut self, entry: Entry, size: usize) {
        if let Some((_, old)) = self.entries.insert(entry.log_id.index, (entry, size)) {
            self.bytes -= old;
        }
        self.bytes += size;
        while self.bytes > CACHE_BYTES {
            let Some((_, (_, size))) = self.entries.pop_first() else { break };
            self.bytes -= size;
        }
    }

    fn forget_from(&mut self, index: u64) {
        for (_, size) in self.entries.split_off(&index).into_values() {
            self.bytes -= size;
        }
    }

    fn forget_upto(&mut self, index: u64) {
        let keep = self.entries.split_off(&(index + 1));
        self.entries = keep;
        self.bytes = self.entries.values().map(|(_, size)| size).sum();
    }
}

/// The raw log database before it is trusted.
pub struct RawLog {
    db: DB,
    damage: Damage,
}

/// Why the log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("log: {0}")]
    Rocks(#[from] rocksdb::Error),
    #[error("log: {0}")]
    Damaged(String),
}

impl RawLog {
    /// Makes an empty log that belongs to `raft_id`.
    pub fn create(path: &Path, options: &StoreOptions, raft_id: u64) -> Result<Self, LogError> {
        let (db, families) = log_options(options, true);
        let raw = Self { db: DB::open_cf_descriptors(&db, path, families)?, damage: options.damage.clone() };
        raw.db.put_opt(IDENTITY, encode(&raft_id), &synced())?;
        Ok(raw)
    }

    pub fn open(path: &Path, options: &StoreOptions) -> Result<Self, LogError> {
        let (db, families) = log_options(options, false);
        Ok(Self { db: DB::open_cf_descriptors(&db, path, families)?, damage: options.damage.clone() })
    }

    pub fn raft_id(&self) -> Result<Option<u64>, LogError> {
        self.row(IDENTITY)
    }

    fn row<T: serde::de::DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, LogError> {
        let Some(bytes) = self.db.get(key)? else { return Ok(None) };
        decode(&bytes)
            .map(Some)
            .map_err(|error| LogError::Damaged(format!("row {:?}: {error}", String::from_utf8_lossy(key))))
    }

    pub fn bounds(&self) -> Result<Bounds, LogError> {
        let purged = self.row::<LogId>(PURGED)?;
        let mut rows = self.db.raw_iterator_cf(entries(&self.db));
        rows.seek_to_last();
        let last = match rows.value() {
            Some(value) => Some(read_entry(value).map_err(LogError::Damaged)?.log_id),
            None => purged,
        };
        rows.status()?;
        Ok(Bounds { vote: self.row(VOTE)?, purged, last })
    }

    /// Reads every entry there is, so that a damaged one is found before the member takes part with it;
    /// snapshots keep the log short.
    pub fn verify(&self) -> Result<(), LogError> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        let mut rows = self.db.raw_iterator_cf_opt(entries(&self.db), options);
        rows.seek_to_first();
        while let Some(value) = rows.value() {
            read_entry(value).map_err(LogError::Damaged)?;
            rows.next();
        }
        Ok(rows.status()?)
    }

    /// The first entry still there.
    pub fn first(&self) -> Result<Option<LogId>, LogError> {
        let mut rows = self.db.raw_iterator_cf(entries(&self.db));
        rows.seek_to_first();
        let first = match rows.value() {
            Some(value) => Some(read_entry(value).map_err(LogError::Damaged)?.log_id),
            None => None,
        };
        rows.status()?;
        Ok(first)
    }

    pub fn entry_id(&self, index: u64) -> Result<Option<LogId>, LogError> {
        match self.db.get_cf(entries(&self.db), index.to_be_bytes())? {
            Some(bytes) => read_entry(&bytes).map(|entry| Some(entry.log_id)).map_err(LogError::Damaged),
            None => Ok(None),
        }
    }
}

fn entries(db: &DB) -> &ColumnFamily {
    db.cf_handle("entries").expect("opened with all families")
}

fn synced() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options
}

fn read_entry(bytes: &[u8]) -> Result<Entry, String> {
    decode(bytes).map_err(|error| format!("an entry is {error}"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LogStore {
    pub fn new(
        raw: RawLog,
        slots: Slots,
        gate: Arc<dyn PurgeGate>,
        space: Arc<Space>,
    ) -> Result<Self, LogError> {
        let bounds = raw.bounds()?;
        let raft_id = raw.raft_id()?;
        let log = Log {
            raft_id,
            db: raw.db,
            damage: raw.damage,
            slots,
            gate,
            space,
            bounds: Mutex::new(bounds),
            cache: Mutex::default(),
            appended: AtomicU64::new(0),
        };
        Ok(Self { log: Arc::new(log) })
    }

    pub fn bounds(&self) -> Bounds {
        *lock(&self.log.bounds)
    }

    pub fn appended_bytes(&self) -> u64 {
        self.log.appended.load(Ordering::Relaxed)
    }

    /// Runs `work` on the log where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        wrap: fn(io::Error) -> StorageIOError,
        work: impl FnOnce(&Log) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StorageError> {
        let log = Arc::clone(&self.log);
        let done = tokio::task::spawn_blocking(move || work(&log)).await;
        done.unwrap_or_else(|panic| Err(io::Error::other(panic))).map_err(|error| wrap(error).into())
    }

    async fn read(&self, from: u64, to: u64, max_bytes: usize) -> Result<Vec<Entry>, StorageError> {
        if from >= to {
            return Ok(Vec::new());
        }
        if let Some(found) = self.log.cached(from, to, max_bytes) {
            return Ok(found);
        }
        self.blocking(|e| StorageIOError::read_logs(&e), move |log| log.read(from, to, max_bytes)).await
    }
}

impl Log {
    fn failed(&self, error: rocksdb::Error) -> io::Error {
        self.damage.note(&error);
        io::Error::other(error)
    }

    /// The range from memory, if its first entry is there; the cache has no holes and ends with the log.
    fn cached(&self, from: u64, to: u64, max_bytes: usize) -> Option<Vec<Entry>> {
        let cache = lock(&self.cache);
        cache.entries.get(&from)?;
        let mut out = Vec::new();
        let mut bytes = 0;
        for (entry, size) in cache.entries.range(from..to).map(|(_, cached)| cached) {
            bytes += size;
            if bytes > max_bytes && !out.is_empty() {
                break;
            }
            out.push(entry.clone());
        }
        Some(out)
    }

    fn read(&self, from: u64, to: u64, max_bytes: usize) -> io::Result<Vec<Entry>> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(to.to_be_bytes());
        let mut rows = self.db.raw_iterator_cf_opt(entries(&self.db), options);
        rows.seek(from.to_be_bytes());
        let mut out: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        while let Some((key, value)) = rows.item() {
            bytes += value.len();
            if bytes > max_bytes && !out.is_empty() {
                break;
            }
            let entry = read_entry(value).map_err(io::Error::other)?;
            if key != entry.log_id.index.to_be_bytes() {
                return Err(io::Error::other(format!("entry {} is under a foreign key", entry.log_id)));
            }
            out.push(entry);
            rows.next();
        }
        rows.status().map_err(|error| self.failed(error))?;
        Ok(out)
    }

    /// The one way into the database while the member runs: synced.
    fn write(&self, batch: WriteBatch) -> io::Result<()> {
        self.space.before_write();
        self.db.write_opt(batch, &synced()).map_err(|error| {
            self.space.failed(&error);
            self.failed(error)
        })
    }

    fn append(&self, new: Vec<Entry>) -> io::Result<()> {
        let Some(last) = new.last().map(|entry| entry.log_id) else { return Ok(()) };
        let mut next = lock(&self.bounds).last.map_or(new[0].log_id.index, |last| last.index + 1);
        let mut batch = WriteBatch::default();
        let mut sizes = Vec::with_capacity(new.len());
        for entry in &new {
            let index = entry.log_id.index;
            if index > next {
                return Err(io::Error::other(format!("entry {index} would leave a hole before it: {next}")));
            }
            next = index + 1;
            let bytes = encode(entry);
            batch.put_cf(entries(&self.db), index.to_be_bytes(), &bytes);
            sizes.push(bytes.len());
        }
        for entry in &new {
            if let EntryPayload::Normal(data) = &entry.payload
                && let Some(reached) = &data.reached_log
            {
                reached.store(true, Ordering::Release);
            }
        }
        let began = Instant::now();
        self.write(batch)?;
        telemetry::appended(&sizes, began.elapsed());
        self.appended.fetch_add(sizes.iter().sum::<usize>() as u64, Ordering::Relaxed);
        let mut cache = lock(&self.cache);
        for (entry, size) in new.into_iter().zip(sizes) {
            cache.put(entry, size);
        }
        drop(cache);
        lock(&self.bounds).last = Some(last);
        self.slots.note(Some(last))
    }

    fn save_vote(&self, vote: Vote) -> io::Result<()> {
        let mut batch = WriteBatch::default();
        batch.put(VOTE, encode(&vote));
        self.write(batch)?;
        self.slots.commit(|witness| witness.vote = Some(vote))?;
        lock(&self.bounds).vote = Some(vote);
        Ok(())
    }

    fn truncate(&self, since: u64) -> io::Result<()> {
        let bounds = *lock(&self.bounds);
        let before = match since.checked_sub(1) {
            Some(index) => self.read(index, since, usize::MAX)?.first().map(|entry| entry.log_id),
            None => None,
        };
        let last = before.or(bounds.purged).filter(|last| bounds.last.is_some_and(|end| *last <= end));
        // The witness first: it must never ask for more than the log has.
        self.slots.commit(|witness| witness.last = last)?;
        let mut batch = WriteBatch::default();
        // The end of a range is exclusive; index u64::MAX does not occur.
        batch.delete_range_cf(entries(&self.db), since.to_be_bytes(), u64::MAX.to_be_bytes());
        self.write(batch)?;
        lock(&self.cache).forget_from(since);
        lock(&self.bounds).last = last;
        Ok(())
    }

    fn purge(&self, upto: LogId) -> io::Result<()> {
        let mut bounds = *lock(&self.bounds);
        let mut batch = WriteBatch::default();
        let end = (upto.index + 1).to_be_bytes();
        batch.put(PURGED, encode(&upto));
        batch.delete_range_cf(entries(&self.db), 0u64.to_be_bytes(), end);
        self.write(batch)?;
        // Whole tables go at once; what is left of the range goes with compaction.
        if let Err(error) = self.db.delete_file_in_range_cf(entries(&self.db), 0u64.to_be_bytes(), end) {
            tracing::warn!(%error, "purged log files stay until compaction");
        }
        lock(&self.cache).forget_upto(upto.index);
        bounds.purged = Some(upto);
        if bounds.last.is_none_or(|last| last.index <= upto.index) {
            bounds.last = Some(upto);
        }
        *lock(&self.bounds) = bounds;
        self.slots.note(bounds.last)
    }
}

fn edges(range: impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(index) => *index,
        Bound::Excluded(index) => index.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(index) => index.saturating_add(1),
        Bound::Excluded(index) => *index,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, StorageError> {
        let (from, to) = edges(range);
        self.read(from, to, usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        self.read(start, end, REPLICATION_BYTES).await
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let bounds = self.bounds();
        Ok(LogState { last_purged_log_id: bounds.purged, last_log_id: bounds.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let vote = *vote;
        self.blocking(|e| StorageIOError::write_vote(&e), move |log| log.save_vote(vote)).await
    }

    /// Asked once, when Raft starts. A vote with which this member led counts as one that it asked for and
    /// did not get: openraft would resume the lead on it without asking anybody, and if the disk had
    /// gone back in time, write other entries under ids that the others already have. So a leader that
    /// restarts stands for election in a later term, and whoever has more than it refuses.
    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        let mut vote = self.bounds().vote;
        if let Some(vote) = &mut vote
            && vote.leader_id.voted_for() == self.log.raft_id
        {
            vote.committed = false;
        }
        Ok(vote)
    }

    /// Not synced: what it says is known again as soon as a leader speaks. It is written with the
    /// next append's sync, or lost.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        let Some(committed) = committed else { return Ok(()) };
        self.log.db.put(COMMITTED, encode(&committed)).map_err(|e| StorageIOError::write(&e).into())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        let Some(bytes) = self.log.db.get(COMMITTED).map_err(|e| StorageIOError::read(&e))? else {
            return Ok(None);
        };
        let committed: LogId = decode(&bytes).map_err(|e| StorageIOError::read(&e))?;
        // It may be ahead of a log that lost its unsynced tail, never of what was acknowledged.
        Ok(Some(committed).min(self.bounds().last))
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let new: Vec<Entry> = entries.into_iter().collect();
        match self.blocking(|e| StorageIOError::write_logs(&e), move |log| log.append(new)).await {
            Ok(()) => {
                callback.log_io_completed(Ok(()));
                Ok(())
            }
            Err(error) => {
                callback.log_io_completed(Err(io::Error::other(error.to_string())));
                Err(error)
            }
        }
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.blocking(|e| StorageIOError::write_logs(&e), move |log| log.truncate(log_id.index)).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.log
            .gate
            .durable(log_id)
            .await
            .map_err(|e| StorageIOError::new(ErrorSubject::StateMachine, ErrorVerb::Write, &e))?;
        self.blocking(|e| StorageIOError::write_logs(&e), move |log| log.purge(log_id)).await
    }
}
