//! The state on disk: which of several databases counts, what it has applied, snapshots of it and
//! their installation.
//!
//! ```text
//! state/CURRENT        "dfs-state 1\ndb-7\n": the database that counts
//! state/db-7/          it
//! snapshots/N/         checkpoints, hard links of tables; nothing here counts after a restart
//! incoming/N/          snapshots being received
//! ```
//! Crash promise: installing makes the new database complete and durable beside the old one, then
//! replaces CURRENT by a rename: at any moment one of the two counts, whole. Applied writes, the id
//! of the last applied entry and the membership are one batch.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use dfs_proto::v1;
use dfs_types::{DfsError, Position};
use metadata_core::kv::{KvError, KvRead, WriteSet};
use openraft::EntryPayload;
use prost::Message;
use tokio::sync::watch;

use super::files;
use super::identity::DirectoryLock;
use super::log_store::PurgeGate;
use super::machine::Machine;
use super::snapshot::SnapshotHandle;
use super::spans;
use super::types::{Entry, LogId, Results, SnapshotMeta, StoredMembership, decode, encode};
use crate::kv::{StateDb, StateView, StoreOptions};

const APPLIED: &[u8] = b"applied";
const MEMBERSHIP: &[u8] = b"membership";
const RAFT_ID: &[u8] = b"raft-id";
const POINTER: &str = "CURRENT";
const POINTER_HEAD: &str = "dfs-state 1\n";

/// How far the state is, for those who wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    pub applied: Option<LogId>,
    /// It will not go any further: an error stopped the member.
    pub failed: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error(transparent)]
    Kv(#[from] KvError),
    #[error("state database: {0}")]
    Rocks(#[from] rocksdb::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{0}")]
    Damaged(String),
    /// The log and the state machine disagree; going on would fork the state.
    #[error("{0}")]
    Apply(String),
}

/// The steps of an installation after each of which a crash must leave old or new.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InstallStep {
    Copied,
    Opened,
    PointerWritten,
    PointerRenamed,
    PointerDurable,
}

impl InstallStep {
    #[cfg(test)]
    pub const ALL: [Self; 5] =
        [Self::Copied, Self::Opened, Self::PointerWritten, Self::PointerRenamed, Self::PointerDurable];
}

pub struct StateStore {
    dir: PathBuf,
    snapshots: PathBuf,
    incoming: PathBuf,
    options: StoreOptions,
    raft_id: u64,
    machine: Arc<dyn Machine>,
    current: RwLock<Arc<StateDb>>,
    progress: watch::Sender<Progress>,
    /// Numbers for new directories.
    next: AtomicU64,
    #[cfg(test)]
    pub crash_at: std::sync::Mutex<Option<InstallStep>>,
    // Dropped last. The log holds this store as its gate, so the lock outlives both databases.
    _lock: Arc<DirectoryLock>,
}

fn row<T: serde::de::DeserializeOwned>(bytes: Option<Vec<u8>>, what: &str) -> Result<Option<T>, KvError> {
    let Some(bytes) = bytes else { return Ok(None) };
    decode(&bytes).map(Some).map_err(|error| KvError::new(format!("Raft's row {what} is {error}")))
}

/// What a database says it has applied.
fn applied_state(db: &StateDb) -> Result<(Option<LogId>, StoredMembership), KvError> {
    Ok((row(db.row(APPLIED)?, "applied")?, row(db.row(MEMBERSHIP)?, "membership")?.unwrap_or_default()))
}

impl StateStore {
    /// Makes an empty state in `root` that belongs to `raft_id`.
    pub fn create(
        root: &Path,
        options: &StoreOptions,
        raft_id: u64,
        machine: Arc<dyn Machine>,
        lock: Arc<DirectoryLock>,
    ) -> Result<Arc<Self>, StateError> {
        let dir = root.join("state");
        fs::create_dir_all(&dir)?;
        let db = StateDb::open(&dir.join("db-1"), options, true)?;
        db.commit(&WriteSet::default(), &[(RAFT_ID, encode(&raft_id))])?;
        db.make_durable()?;
        drop(db);
        files::sync_dir(&dir)?;
        files::replace(&dir, POINTER, format!("{POINTER_HEAD}db-1\n").as_bytes())?;
        Self::open(root, options, raft_id, machine, lock)
    }

    /// Opens the state that CURRENT names and removes all others, and all snapshots.
    pub fn open(
        root: &Path,
        options: &StoreOptions,
        raft_id: u64,
        machine: Arc<dyn Machine>,
        lock: Arc<DirectoryLock>,
    ) -> Result<Arc<Self>, StateError> {
        let dir = root.join("state");
        let pointer = fs::read_to_string(dir.join(POINTER))
            .map_err(|error| StateError::Damaged(format!("state/CURRENT: {error}")))?;
        let number = pointer
            .strip_prefix(POINTER_HEAD)
            .and_then(|rest| rest.strip_suffix('\n'))
            .and_then(|name| name.strip_prefix("db-"))
            .and_then(|number| number.parse::<u64>().ok())
            .ok_or_else(|| StateError::Damaged("state/CURRENT is damaged".into()))?;
        let name = format!("db-{number}");
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            if entry.file_name() != name.as_str() && entry.file_name() != POINTER {
                if entry.file_type()?.is_dir() {
                    fs::remove_dir_all(entry.path())?;
                } else {
                    fs::remove_file(entry.path())?;
                }
            }
        }
        let (snapshots, incoming) = (root.join("snapshots"), root.join("incoming"));
        for scratch in [&snapshots, &incoming] {
            files::remove_tree(scratch)?;
            fs::create_dir(scratch)?;
        }
        if !dir.join(&name).exists() {
            return Err(StateError::Damaged(format!("state/{name} is missing")));
        }
        let db = StateDb::open(&dir.join(&name), options, false)?;
        if row(db.row(RAFT_ID)?, "raft-id")? != Some(raft_id) {
            return Err(StateError::Damaged("the state belongs to another raft id".into()));
        }
        let (applied, _) = applied_state(&db)?;
        Ok(Arc::new(Self {
            dir,
            snapshots,
            incoming,
            options: options.clone(),
            raft_id,
            machine,
            current: RwLock::new(Arc::new(db)),
            progress: watch::Sender::new(Progress { applied, failed: false }),
            next: AtomicU64::new(number + 1),
            #[cfg(test)]
            crash_at: std::sync::Mutex::default(),
            _lock: lock,
        }))
    }

    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    pub fn machine(&self) -> &dyn Machine {
        &*self.machine
    }

    /// Whether the cluster takes this command, by what is applied here.
    pub fn permit(&self, command: &v1::Command) -> Result<(), DfsError> {
        self.machine.permit(&*self.db(), command)
    }

    fn db(&self) -> Arc<StateDb> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn applied_state(&self) -> Result<(Option<LogId>, StoredMembership), StateError> {
        Ok(applied_state(&self.db())?)
    }

    /// The state as it is now.
    pub fn view(&self) -> Result<StateView, KvError> {
        StateView::pin(self.db(), |get| {
            let applied: Option<LogId> = row(get(APPLIED)?, "applied")?;
            Ok(applied.map_or(Position::ZERO, |id| Position::new(id.index, u16::MAX)))
        })
    }

    /// From now on nothing is applied: wakes all who wait.
    pub fn fail(&self) {
        self.progress.send_modify(|progress| progress.failed = true);
    }

    /// Hits and misses of the block cache.
    pub fn block_cache(&self) -> (u64, u64) {
        self.options.block_cache()
    }

    /// Applies committed entries in order; each is one atomic batch.
    pub fn apply(&self, entries: &[Entry]) -> Result<Vec<Results>, StateError> {
        let db = self.db();
        let began = tokio::time::Instant::now();
        let mut all = Vec::with_capacity(entries.len());
        for entry in entries {
            let mut rows = vec![(APPLIED, encode(&entry.log_id))];
            let mut spans = Vec::new();
            let (writes, results) = match &entry.payload {
                EntryPayload::Blank => Default::default(),
                EntryPayload::Membership(membership) => {
                    let stored = StoredMembership::new(Some(entry.log_id), membership.clone());
                    rows.push((MEMBERSHIP, encode(&stored)));
                    Default::default()
                }
                EntryPayload::Normal(data) => {
                    let index = entry.log_id.index;
                    let decoded = v1::Entry::decode(data.bytes.clone())
                        .map_err(|error| StateError::Apply(format!("entry {index}: {error}")))?;
                    spans = spans::of_entry(index, &decoded);
                    let kv: &dyn KvRead = &*db;
                    let applied = self.machine.apply(kv, index, &decoded).map_err(StateError::Apply)?;
                    if applied.results.len() != decoded.commands.len() {
                        return Err(StateError::Apply(format!("entry {index}: results are missing")));
                    }
                    (applied.writes, applied.results)
                }
            };
            db.commit(&writes, &rows)?;
            drop(spans);
            all.push(Results(results));
        }
        if let Some(last) = entries.last() {
            self.progress.send_modify(|progress| progress.applied = Some(last.log_id));
        }
        crate::telemetry::applied(began.elapsed());
        Ok(all)
    }

    fn fresh(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// An empty place to receive a snapshot in.
    pub fn incoming(&self) -> io::Result<SnapshotHandle> {
        let path = self.incoming.join(self.fresh().to_string());
        fs::create_dir(&path)?;
        Ok(SnapshotHandle::new(path))
    }

    /// A snapshot of this moment. What it contains is read from itself.
    pub fn checkpoint(&self) -> Result<(SnapshotMeta, SnapshotHandle), StateError> {
        let number = self.fresh();
        let handle = SnapshotHandle::new(self.snapshots.join(number.to_string()));
        self.db().checkpoint(handle.path())?;
        let (last_log_id, last_membership) = self.inspect(handle.path())?;
        let index = last_log_id.map_or(0, |id| id.index);
        let snapshot_id = format!("{:016x}-{index}-{number}", self.raft_id);
        Ok((SnapshotMeta { last_log_id, last_membership, snapshot_id }, handle))
    }

    /// What the checkpoint in `path` has applied.
    pub fn inspect(&self, path: &Path) -> Result<(Option<LogId>, StoredMembership), StateError> {
        Ok(applied_state(&StateDb::open_read_only(path, &self.options)?)?)
    }

    /// Replaces the state by the checkpoint in `snapshot`, which stays as it is.
    ///
    /// # Errors
    /// The state is then the old one, or after a failed last sync either; the member must stop.
    pub fn install(&self, meta: &SnapshotMeta, snapshot: &Path) -> Result<(), StateError> {
        let (applied, _) = self.applied_state()?;
        if let (Some(old), Some(new)) = (applied, meta.last_log_id)
            && new > old
            && new.index <= old.index
        {
            // Two committed entries under one index: one of the histories is not this cluster's.
            return Err(StateError::Damaged(format!("snapshot {new} contradicts applied entry {old}")));
        }
        let name = format!("db-{}", self.fresh());
        let path = self.dir.join(&name);
        files::clone_checkpoint(snapshot, &path)?;
        files::sync_dir(&self.dir)?;
        self.step(InstallStep::Copied)?;
        let db = StateDb::open(&path, &self.options, false)?;
        let (last_log_id, last_membership) = applied_state(&db)?;
        if last_log_id != meta.last_log_id || last_membership != meta.last_membership {
            db.doom();
            return Err(StateError::Damaged("the snapshot is not what its head says".into()));
        }
        db.commit(&WriteSet::default(), &[(RAFT_ID, encode(&self.raft_id))])?;
        db.make_durable()?;
        self.step(InstallStep::Opened)?;
        files::write_aside(&self.dir, POINTER, format!("{POINTER_HEAD}{name}\n").as_bytes())?;
        self.step(InstallStep::PointerWritten)?;
        fs::rename(files::aside(&self.dir, POINTER), self.dir.join(POINTER))?;
        self.step(InstallStep::PointerRenamed)?;
        files::sync_dir(&self.dir)?;
        self.step(InstallStep::PointerDurable)?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *current, Arc::new(db));
        drop(current);
        old.doom();
        self.progress.send_modify(|progress| progress.applied = last_log_id);
        Ok(())
    }

    #[cfg(test)]
    fn step(&self, step: InstallStep) -> Result<(), StateError> {
        if *self.crash_at.lock().unwrap() == Some(step) {
            return Err(StateError::Io(io::Error::other(format!("crash at {step:?}"))));
        }
        Ok(())
    }

    #[cfg(not(test))]
    fn step(&self, _: InstallStep) -> Result<(), StateError> {
        Ok(())
    }
}

#[async_trait::async_trait]
impl PurgeGate for StateStore {
    /// openraft 0.9 asks for the purge while the installation that covers it may still run, and
    /// awaits the answer in its core; an installation is a rename and an open, so that is short.
    async fn durable(&self, upto: LogId) -> io::Result<()> {
        let mut progress = self.progress();
        let reached = progress
            .wait_for(|progress| progress.failed || progress.applied.is_some_and(|id| id.index >= upto.index))
            .await
            .map_err(io::Error::other)?
            .failed;
        if reached {
            return Err(io::Error::other("the state stopped before it reached what is to be purged"));
        }
        let db = self.db();
        tokio::task::spawn_blocking(move || db.make_durable())
            .await
            .map_err(io::Error::other)?
            .map_err(io::Error::other)
    }
}
