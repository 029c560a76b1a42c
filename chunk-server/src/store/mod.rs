//! The chunk store: where sealed chunks live on one node.
//!
//! Owner: this module and what is below it; the service sees only [`ChunkStore`] and the free
//! functions over it. Everything here is synchronous and is called through a blocking pool.
//!
//! Crash promise, for every implementation that keeps anything: what a call returned `Ok` for is
//! there after a crash (bytes, epoch, deletes and quarantine marks), what was never answered is there
//! whole or not at all, and epochs never go back.

pub mod check;
pub mod disk;
pub mod index;
pub mod memory;
pub mod segment;
pub mod watched;

#[cfg(test)]
pub mod faulty;
#[cfg(test)]
mod suite;

use bytes::Bytes;
use dfs_types::{ChunkId, DfsError, ErrorCode, Position, RealmId};

/// A chunk's identity on a node: the same bytes in two realms are two chunks.
/// Ordered by realm, then chunk id; lists use this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ChunkKey {
    pub realm: RealmId,
    pub chunk: ChunkId,
}

impl ChunkKey {
    pub fn new(realm: RealmId, chunk: ChunkId) -> Self {
        Self { realm, chunk }
    }
}

impl std::fmt::Display for ChunkKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.realm, self.chunk)
    }
}

/// What the store knows of a chunk without reading it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkMeta {
    /// Length of the sealed bytes.
    pub sealed_len: u64,
    /// The stored epoch; durable, never lower than any epoch acknowledged for this chunk.
    pub epoch: Position,
    /// Marked as bad: readable (for merging good groups), but not a copy to count on.
    pub quarantined: bool,
}

/// What [`ChunkStore::change`] is to do to a chunk. Each change is fsynced before it is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// Raise the stored epoch to at least this.
    Touch(Position),
    /// Delete if the stored epoch is below this.
    DeleteBelow(Position),
    /// Mark as bad; a later put of the same chunk replaces the bytes.
    Quarantine,
}

/// What became of a [`Change`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Changed {
    /// No such chunk. For a touch also: there is one, but it is quarantined, so send the bytes.
    Absent,
    /// Done and durable, or already so.
    Done,
    /// The delete was too old: the chunk stays, with this epoch.
    Kept(Position),
}

/// What became of a delete ticket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeleteOutcome {
    Deleted,
    /// There was nothing to delete.
    Absent,
    /// The stored epoch is not below the ticket's position.
    Kept(Position),
}

/// Space and count. Bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Bytes of disk taken, dead records included until they are compacted.
    pub used: u64,
    /// Bytes new chunks may still take; the headroom for deletes and compaction is not in it.
    pub free: u64,
    /// What the store may take in all: the setting, or the disk.
    pub capacity: u64,
    /// Chunks present, quarantined ones included.
    pub chunks: u64,
    /// The store takes no change until it is opened again: a disk that failed, or is read-only.
    pub stopped: bool,
    /// Bytes that new chunks leave free, as far as they are there: for marks, compaction, and what a start after
    /// a power loss writes again.
    pub upkeep: u64,
    /// Bytes that such a start may need: those of one segment.
    pub upkeep_wanted: u64,
    /// Segment files.
    pub segments: u64,
    /// Bytes of records in them, and of those the bytes still needed. The difference is what compaction frees.
    pub written: u64,
    pub live: u64,
}

/// What one call of [`ChunkStore::compact`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Compaction {
    /// Segments removed: 0 means there is nothing to do now.
    pub segments_removed: u64,
    /// Bytes of records copied elsewhere.
    pub bytes_copied: u64,
    /// Bytes of files given back.
    pub bytes_freed: u64,
}

/// Where sealed chunks are kept. Eight methods; the helpers on [`ChunkStoreExt`] and the free
/// functions `check::verify` and `check::scrub` are written over them once.
///
/// All methods block: on the disk, and those that change something until the next group commit.
pub trait ChunkStore: Send + Sync {
    /// Starts a chunk of exactly `sealed_len` bytes (1..=[`dfs_types::limits::MAX_SEALED_BYTES`]) that
    /// will be stored with `epoch`. Space is reserved now: errs with `NoSpace` before a byte is sent.
    fn begin(
        &self,
        key: &ChunkKey,
        sealed_len: u64,
        epoch: Position,
    ) -> Result<Box<dyn ChunkWriter>, StoreError>;

    fn get(&self, key: &ChunkKey) -> Result<Option<ChunkMeta>, StoreError>;

    /// `len` bytes from `offset` of the sealed bytes, exactly; `OutOfRange` if they are not all inside
    /// the chunk, `NotFound` if there is none. The bytes are as the disk gave them: the reader checks
    /// them against the chunk id (a range by the tree, a whole chunk with `check::verify`).
    fn read(&self, key: &ChunkKey, offset: u64, len: usize) -> Result<Bytes, StoreError>;

    /// The chaining values of the chunk's 64 KiB groups, as stored with it and checksummed; `Corrupt`
    /// if the record around them does not check.
    fn groups(&self, key: &ChunkKey) -> Result<Vec<[u8; 32]>, StoreError>;

    fn change(&self, key: &ChunkKey, change: Change) -> Result<Changed, StoreError>;

    /// At most `limit` chunks with keys above `after`, in order. Fewer than `limit` means the end.
    fn list(&self, after: Option<&ChunkKey>, limit: usize) -> Result<Vec<(ChunkKey, ChunkMeta)>, StoreError>;

    fn usage(&self) -> Result<Usage, StoreError>;

    /// One unit of space reclaiming. Call again while `segments_removed` is not 0.
    fn compact(&self) -> Result<Compaction, StoreError>;
}

/// One chunk being received. Dropping it abandons the chunk; nothing of it is ever visible.
/// Memory: none beyond the slices given to `write`.
pub trait ChunkWriter: Send {
    /// Appends. `OutOfRange` if more comes than `begin` was told.
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError>;

    /// Makes the chunk visible, once bytes and epoch are durable; `groups` are the chaining values of
    /// its 64 KiB groups and must add up to the chunk id (`Mismatch`). The caller has hashed the bytes
    /// it wrote. If the chunk arrived by another way meanwhile, this raises its epoch instead.
    /// `StaleEpoch` if a delete at or above this epoch was acknowledged since `begin`.
    fn finish(self: Box<Self>, groups: &[[u8; 32]]) -> Result<ChunkMeta, StoreError>;
}

/// The changes by name.
pub trait ChunkStoreExt: ChunkStore {
    /// Raises the stored epoch to at least `epoch`, durably; false if there is no good copy to touch.
    fn touch(&self, key: &ChunkKey, epoch: Position) -> Result<bool, StoreError> {
        Ok(self.change(key, Change::Touch(epoch))? == Changed::Done)
    }

    /// Deletes the chunk, durably, if its stored epoch is below `position`.
    fn delete_below(&self, key: &ChunkKey, position: Position) -> Result<DeleteOutcome, StoreError> {
        Ok(match self.change(key, Change::DeleteBelow(position))? {
            Changed::Absent => DeleteOutcome::Absent,
            Changed::Done => DeleteOutcome::Deleted,
            Changed::Kept(epoch) => DeleteOutcome::Kept(epoch),
        })
    }

    /// Marks the chunk as bad, durably; false if there is none.
    fn quarantine(&self, key: &ChunkKey) -> Result<bool, StoreError> {
        Ok(self.change(key, Change::Quarantine)? == Changed::Done)
    }
}

impl<S: ChunkStore + ?Sized> ChunkStoreExt for S {}

/// Why a store refused or failed. Who must act is said per variant.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StoreError {
    /// The caller: there is no such chunk.
    #[error("no such chunk")]
    NotFound,
    /// The caller: lengths or ranges that cannot be.
    #[error("out of range: {0}")]
    OutOfRange(String),
    /// The sender: fewer bytes than announced, or groups that do not make the chunk id.
    #[error("the chunk is not what was announced: {0}")]
    Mismatch(String),
    /// The planner: a delete at this position was acknowledged; put with a newer epoch.
    #[error("epoch is below the delete at position {0}")]
    StaleEpoch(Position),
    /// The operator: no room for new chunks. Reads, deletes and compaction go on.
    #[error("no space for new chunks")]
    NoSpace,
    /// The repairer: what is on disk for this chunk does not check.
    #[error("corrupt on disk: {0}")]
    Corrupt(String),
    /// The caller may retry: this write failed, the store goes on in a new file.
    #[error("disk: {0}")]
    Io(String),
    /// The operator: the store cannot promise anything any more and refuses to change until the
    /// server is restarted. Reads go on.
    #[error("the store stopped taking changes: {0}")]
    Broken(String),
    /// Whoever opened the store: nothing this store says can be believed. Close it, set its index aside
    /// and open it again, which makes the index anew.
    #[error("the index is damaged and is made anew: {0}")]
    IndexDamaged(String),
    /// The operator: the disk does not give the index. Says nothing about any chunk.
    #[error("the index cannot be read: {0}")]
    IndexUnreadable(String),
    /// The operator: this directory must not be opened by this server.
    #[error("data directory refused: {0}")]
    Refused(String),
}

impl From<StoreError> for DfsError {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::NotFound => ErrorCode::ChunkNotFound,
            StoreError::OutOfRange(_) => ErrorCode::InvalidArgument,
            StoreError::Mismatch(_) | StoreError::Corrupt(_) => ErrorCode::Integrity,
            StoreError::StaleEpoch(_) => ErrorCode::GrantRefused,
            StoreError::NoSpace => ErrorCode::NoSpace,
            StoreError::Io(_) => ErrorCode::Io,
            StoreError::Broken(_) | StoreError::IndexDamaged(_) | StoreError::IndexUnreadable(_) => {
                ErrorCode::Unavailable
            }
            StoreError::Refused(_) => ErrorCode::FailedPrecondition,
        };
        DfsError::new(code, error.to_string())
    }
}
