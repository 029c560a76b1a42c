//! The state database: two key spaces and a small space for Raft's own rows, written together.
//!
//! Crash promise: a batch is there whole or not at all, in all spaces; after a power loss the newest
//! batches may be missing, but never one before another that is there. [`StateDb::make_durable`]
//! pins everything written so far.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use dfs_types::Position;
use metadata_core::kv::{KvError, KvPair, KvRead, Space, WriteSet};
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{ColumnFamily, DB, DBPinnableSlice, ReadOptions, Snapshot, WriteBatch, WriteOptions};

use super::damage::Damage;
use super::fronts::{Fronts, Moment};
use super::options::{StoreOptions, state_families, state_options};

/// An open state database. Closed when its last handle and view are gone.
pub struct StateDb {
    db: DB,
    fronts: Fronts,
    damage: Damage,
    // Dropped after `db`: fields go in order.
    directory: Directory,
}

/// Removes the directory once the database is closed, if something newer took its place.
struct Directory {
    path: PathBuf,
    doomed: AtomicBool,
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.doomed.load(Ordering::Acquire)
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            // The next start removes it: only the pointer file says which one counts.
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a replaced state");
        }
    }
}

fn family(space: Space) -> &'static str {
    match space {
        Space::State => "state",
        Space::Inline => "inline",
    }
}

impl StateDb {
    /// Opens the database in `path`; `create`: makes it if it is missing.
    pub fn open(path: &Path, options: &StoreOptions, create: bool) -> Result<Self, rocksdb::Error> {
        let db = DB::open_cf_descriptors(&state_options(options, create), path, state_families(options))?;
        Ok(Self::of(db, path, options.damage.clone()))
    }

    /// Opens it without writing to the directory: for looking into a checkpoint, which may be another
    /// member's, so what is damaged in it is only its reader's error.
    pub fn open_read_only(path: &Path, options: &StoreOptions) -> Result<Self, rocksdb::Error> {
        let db = DB::open_cf_descriptors_read_only(
            &state_options(options, false),
            path,
            state_families(options),
            false,
        )?;
        Ok(Self::of(db, path, Damage::default()))
    }

    fn of(db: DB, path: &Path, damage: Damage) -> Self {
        let directory = Directory { path: path.to_owned(), doomed: AtomicBool::new(false) };
        Self { db, fronts: Fronts::default(), damage, directory }
    }

    fn failed(&self, error: rocksdb::Error) -> KvError {
        self.damage.note(&error);
        KvError::new(error.to_string())
    }

    /// Reads every block and blob, whose checksums are compared on the way. Takes as long as reading
    /// the files does, and leaves the cache alone.
    pub fn verify(&self) -> Result<(), rocksdb::Error> {
        for name in ["default", family(Space::State), family(Space::Inline)] {
            let mut options = ReadOptions::default();
            options.fill_cache(false);
            let mut rows = self.db.raw_iterator_cf_opt(self.cf(name), options);
            rows.seek_to_first();
            while rows.valid() {
                rows.next();
            }
            rows.status()?;
        }
        Ok(())
    }

    pub fn path(&self) -> &Path {
        &self.directory.path
    }

    /// Removes the files when the last handle goes.
    pub fn doom(&self) {
        self.directory.doomed.store(true, Ordering::Release);
    }

    fn cf(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("opened with all families")
    }

    /// Commits `writes` and `rows` (Raft's own, in a space apart) as one atomic batch.
    pub fn commit(&self, writes: &WriteSet, rows: &[(&[u8], Vec<u8>)]) -> Result<(), KvError> {
        let mut batch = WriteBatch::default();
        for ((space, key), value) in &writes.map {
            let cf = self.cf(family(*space));
            match value {
                Some(value) => batch.put_cf(cf, key, value),
                None => batch.delete_cf(cf, key),
            }
        }
        for (key, value) in rows {
            batch.put(key, value);
        }
        let _writing = self.fronts.writing(writes);
        self.db.write_opt(batch, &WriteOptions::default()).map_err(|error| self.failed(error))
    }

    /// Scans what `rows` reads of a moment, from where its rows begin.
    fn scan_at(
        &self,
        moment: &Moment,
        from: &[u8],
        to: &[u8],
        rows: impl FnOnce(&[u8]) -> Result<Vec<KvPair>, KvError>,
    ) -> Result<Vec<KvPair>, KvError> {
        let start = moment.start(from);
        let found = if start < to { rows(start)? } else { Vec::new() };
        self.fronts.found(moment, from, to, found.first().map(|(key, _)| key.as_ref()));
        Ok(found)
    }

    /// One of Raft's own rows.
    pub fn row(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.db.get(key).map_err(|error| self.failed(error))
    }

    /// Returns when everything committed so far would survive a power loss.
    pub fn make_durable(&self) -> Result<(), KvError> {
        self.db.flush_wal(true).map_err(|error| self.failed(error))
    }

    /// A copy of this moment in `path`, which must not exist: hard links to immutable files.
    pub fn checkpoint(&self, path: &Path) -> Result<(), KvError> {
        Checkpoint::new(&self.db)
            .and_then(|checkpoint| checkpoint.create_checkpoint(path))
            .map_err(|error| self.failed(error))
    }
}

fn to_bytes(value: Option<DBPinnableSlice<'_>>) -> Option<Bytes> {
    value.map(|value| Bytes::copy_from_slice(&value))
}

fn bounded(to: &[u8]) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_iterate_upper_bound(to);
    options
}

fn collect(
    mut rows: rocksdb::DBRawIteratorWithThreadMode<'_, DB>,
    from: &[u8],
    limit: usize,
) -> Result<Vec<KvPair>, rocksdb::Error> {
    let mut out = Vec::with_capacity(limit.min(256));
    rows.seek(from);
    while out.len() < limit {
        let Some((key, value)) = rows.item() else { break };
        out.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        rows.next();
    }
    rows.status()?;
    Ok(out)
}

/// Reads of the newest state: for apply, the only writer.
impl KvRead for StateDb {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        let found = self.db.get_pinned_cf(self.cf(family(space)), key);
        found.map(to_bytes).map_err(|error| self.failed(error))
    }

    fn scan(&self, space: Space, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<KvPair>, KvError> {
        if from >= to || limit == 0 {
            return Ok(Vec::new());
        }
        let rows = |from: &[u8]| {
            let rows = self.db.raw_iterator_cf_opt(self.cf(family(space)), bounded(to));
            collect(rows, from, limit).map_err(|error| self.failed(error))
        };
        match space {
            Space::State => self.scan_at(&self.fronts.present(), from, to, rows),
            Space::Inline => rows(from),
        }
    }
}

/// The applied state at one moment: writes applied later are not seen. Cheap to clone; while one is
/// held, RocksDB keeps what it sees, so hold it for a request, not longer.
#[derive(Clone)]
pub struct StateView {
    inner: Arc<Pinned>,
}

struct Pinned {
    // Dropped before `db`, which it borrows.
    snapshot: Snapshot<'static>,
    db: Arc<StateDb>,
    moment: Moment,
    position: Position,
}

impl StateView {
    /// Pins the present moment. `position` tells, from inside the moment, what was applied.
    pub(crate) fn pin(
        db: Arc<StateDb>,
        position: impl FnOnce(&dyn Fn(&[u8]) -> Result<Option<Vec<u8>>, KvError>) -> Result<Position, KvError>,
    ) -> Result<Self, KvError> {
        let database: *const DB = &db.db;
        // SAFETY: the snapshot borrows the database inside `db`. An Arc's content never moves, the
        // Arc is kept beside the snapshot for as long as it lives, and is declared after it, so it
        // is dropped after it. The 'static borrow never leaves `Pinned`: methods give out copies.
        #[allow(unsafe_code)]
        let (snapshot, moment) = db.fronts.pinned(|| unsafe { (*database).snapshot() });
        let position = position(&|key| snapshot.get(key).map_err(|error| db.failed(error)))?;
        Ok(Self { inner: Arc::new(Pinned { snapshot, db, moment, position }) })
    }

    /// The position of the last applied entry, place 0xffff; zero if nothing was applied.
    pub fn position(&self) -> Position {
        self.inner.position
    }
}

impl KvRead for StateView {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        let inner = &*self.inner;
        let found = inner.snapshot.get_pinned_cf(inner.db.cf(family(space)), key);
        found.map(to_bytes).map_err(|error| inner.db.failed(error))
    }

    fn scan(&self, space: Space, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<KvPair>, KvError> {
        if from >= to || limit == 0 {
            return Ok(Vec::new());
        }
        let inner = &*self.inner;
        let rows = |from: &[u8]| {
            let rows = inner.snapshot.raw_iterator_cf_opt(inner.db.cf(family(space)), bounded(to));
            collect(rows, from, limit).map_err(|error| inner.db.failed(error))
        };
        match space {
            Space::State => inner.db.scan_at(&inner.moment, from, to, rows),
            Space::Inline => rows(from),
        }
    }
}
