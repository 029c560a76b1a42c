//! The store on append-only segments.
//!
//! Owner of everything below one directory of segments and one index. A map:
//! `state` what is in memory and who may change it; `room` where the next record goes; `writer` a chunk
//! arriving; `change` touch, delete, quarantine; `commit` the group commit; `seal` closing a segment;
//! `compact` reclaiming; `scan` walking a segment; `open` start; `aside` a damaged index;
//! `recover` what a start finds unsealed, and rebuild.
//!
//! # How a chunk is written
//!
//! `begin` reserves the record's extent at the tail of the active segment and writes its header; bytes
//! go to their place as they arrive, so that a slow sender holds neither memory nor other writers; group
//! hashes and trailer close it. Who reaches the commit first fsyncs for all who wait, then the index is
//! written, then everybody is answered.
//!
//! # Why a crash is survived, by the point at which it strikes
//!
//! - *Before the trailer*: the header alone gives the extent, a scan steps over it. If the header did
//!   not reach the disk, the scan looks for the next header with the segment's tag.
//! - *Trailer written, not synced*: never acknowledged. If all of it happens to be there (checked by
//!   the hash tree) recovery makes it count by copying it and syncing the copy; if not, it is voided.
//! - *Synced, index not written or lost*: the scan at the next start finds a whole record without a row
//!   and does the same. A row is therefore the proof that its record was durable.
//! - *fsync or write fails, process lives on*: the page cache may show records the disk has not. The
//!   segment is poisoned: a file beside it says up to which sequence its records count, durable before
//!   anybody is answered, so that nothing acknowledged later can contradict a record that failed. If
//!   even that file cannot be written, the store takes no change until it is opened again.
//! - *Between seal record and sealed row*: sealed again, or found sealed by a rebuild.
//! - *During compaction*: copies are durable and the index's rows on disk before the victim is
//!   unlinked; until then both copies exist and either is right.
//!
//! The state of a chunk follows from its records in any order: P is the highest delete position, E the
//! highest epoch of a data record and the touches that target it; data records with E < P are dead; of
//! the others the one with the highest (generation, E, place) is the chunk. That is why a put below a
//! known P is refused, why what replaces a record has the next generation, and why a delete record stays
//! as long as a segment that may hold an older record of the chunk (its *ghosts*).

mod aside;
mod change;
mod commit;
mod compact;
mod open;
mod recover;
mod room;
mod scan;
mod seal;
mod state;
mod writer;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod index_tests;
#[cfg(test)]
mod rot_tests;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use bytes::{Bytes, BytesMut};
use chunk_format::record::{
    RECORD_HEADER_BYTES, RecordHeader, RecordKind, TRAILER_BYTES, Trailer, groups_offset,
};
use chunk_format::tree::{group_count, root_of_groups};
use dfs_types::limits::{GIB, MIB};
use dfs_types::{Entropy, Incarnation, Position};

use super::disk::{Disk, FsDisk, read_exact_at};
use super::index::Index;
use super::index::rocks::RocksIndex;
use super::index::rows::{self, ChunkRow};
use super::{Change, Changed, ChunkKey, ChunkMeta, ChunkStore, ChunkWriter, Compaction, StoreError, Usage};
pub use open::{Fault, OpenReport};
use state::State;

/// What an operator may set, and who the directory is. Sizes in bytes.
#[derive(Clone, Debug)]
pub struct Settings {
    pub incarnation: Incarnation,
    /// A segment is closed when the next record would pass this. A longer record gets its own.
    pub segment_bytes: u64,
    /// Disk space is taken in steps of this.
    pub preallocate_bytes: u64,
    /// What all segments may take; 0 is what the disk has.
    pub capacity_bytes: u64,
    /// Kept free of new chunks, for deletes, touches and compaction; at most a quarter of the capacity.
    pub reserve_bytes: u64,
    /// A sealed segment is compacted when at least this much of it is dead.
    pub compact_dead_percent: u64,
}

impl Settings {
    pub fn new(incarnation: Incarnation) -> Self {
        Self {
            incarnation,
            segment_bytes: GIB,
            preallocate_bytes: 64 * MIB,
            capacity_bytes: 0,
            reserve_bytes: GIB + 128 * MIB,
            compact_dead_percent: 30,
        }
    }

    /// The same with smaller segments, and a reserve that fits them.
    pub fn with_segment_bytes(mut self, segment_bytes: u64) -> Self {
        self.segment_bytes = segment_bytes;
        self.preallocate_bytes = (64 * MIB).min(segment_bytes);
        self.reserve_bytes = segment_bytes + 2 * self.preallocate_bytes;
        self
    }
}

/// A handle on an open directory of segments; writers keep it open too.
pub struct SegmentStore {
    core: Arc<Core>,
}

struct Core {
    disk: Arc<dyn Disk>,
    index: Arc<dyn Index>,
    entropy: Arc<dyn Entropy>,
    settings: Settings,
    state: Mutex<State>,
    /// Something waited for may have happened: a commit, a chunk released, a new leader needed.
    changed: Condvar,
    /// Held by the one who compacts.
    compacting: Mutex<()>,
}

impl SegmentStore {
    /// Opens the segments in `path/segments` with the index in `path/index`, creating what is not
    /// there. The caller holds the directory's lock and has checked its identity.
    ///
    /// Blocks while unsealed segments are scanned; if the index is gone, while all are. A damaged index is
    /// renamed to `path/index.damaged`, which stays until a whole one is there.
    pub fn open_directory(
        path: &Path,
        entropy: Arc<dyn Entropy>,
        settings: Settings,
    ) -> Result<(Self, OpenReport), StoreError> {
        let segments = path.join("segments");
        let create = || -> io::Result<FsDisk> {
            std::fs::create_dir_all(&segments)?;
            std::fs::File::open(path)?.sync_all()?;
            FsDisk::open(&segments)
        };
        let disk = create().map_err(|error| StoreError::Io(format!("{}: {error}", segments.display())))?;
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let open = || {
            let index = RocksIndex::open(&path.join(aside::INDEX))?;
            Self::open(disk.clone(), Arc::new(index), entropy.clone(), settings.clone())
        };
        let opened = match open() {
            Err(StoreError::IndexDamaged(why)) => {
                aside::set(path, &why)?;
                let (store, mut report) = open()?;
                report.index_damaged = Some(why);
                (store, report)
            }
            opened => opened?,
        };
        aside::clear(path);
        Ok(opened)
    }

    /// The row and the open file of a chunk, through `work`; again if the segment went away between.
    fn with_chunk<T>(
        &self,
        key: &ChunkKey,
        work: impl Fn(&ChunkRow, &dyn super::disk::DiskFile) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut tries = 0;
        loop {
            let row = rows::chunk_row(self.core.index.as_ref(), key)?.ok_or(StoreError::NotFound)?;
            match self.core.lock().file(self.core.disk.as_ref(), row.place.segment) {
                Ok(file) => return work(&row, file.as_ref()),
                // Compacted since the row was read: there is a newer row.
                Err(error) if error.kind() == io::ErrorKind::NotFound && tries < 10 => tries += 1,
                Err(error) => return Err(io_error(row.place.segment, &error)),
            }
        }
    }
}

impl ChunkStore for SegmentStore {
    fn begin(
        &self,
        key: &ChunkKey,
        sealed_len: u64,
        epoch: Position,
    ) -> Result<Box<dyn ChunkWriter>, StoreError> {
        Ok(Box::new(writer::begin(&self.core, key, sealed_len, epoch)?))
    }

    fn get(&self, key: &ChunkKey) -> Result<Option<ChunkMeta>, StoreError> {
        Ok(rows::chunk_row(self.core.index.as_ref(), key)?.map(|row| row.meta()))
    }

    fn read(&self, key: &ChunkKey, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.with_chunk(key, |row, file| {
            if offset.checked_add(len as u64).is_none_or(|end| end > row.sealed_len) {
                return Err(StoreError::OutOfRange(format!("{len} bytes at {offset} of {}", row.sealed_len)));
            }
            let mut bytes = BytesMut::zeroed(len);
            read_exact_at(file, &mut bytes, row.place.offset + RECORD_HEADER_BYTES as u64 + offset)
                .map_err(|error| io_error(row.place.segment, &error))?;
            Ok(bytes.freeze())
        })
    }

    fn groups(&self, key: &ChunkKey) -> Result<Vec<[u8; 32]>, StoreError> {
        self.with_chunk(key, |row, file| {
            let read = |offset, len| {
                let mut bytes = vec![0u8; len];
                read_exact_at(file, &mut bytes, row.place.offset + offset)
                    .map_err(|error| io_error(row.place.segment, &error))?;
                Ok::<_, StoreError>(bytes)
            };
            let corrupt = |why: String| StoreError::Corrupt(format!("record at {:?}: {why}", row.place));
            let head = read(0, RECORD_HEADER_BYTES)?;
            let header = RecordHeader::decode(&head, None).map_err(|error| corrupt(error.to_string()))?;
            if header.kind != RecordKind::Data
                || (header.realm, header.chunk, header.sealed_len) != (key.realm, key.chunk, row.sealed_len)
            {
                return Err(corrupt("the header names something else".to_owned()));
            }
            let hash_bytes = 32 * group_count(row.sealed_len) as usize;
            let tail = read(groups_offset(row.sealed_len), hash_bytes + TRAILER_BYTES)?;
            let (hashes, trailer) = tail.split_at(hash_bytes);
            let head = head.as_slice().try_into().expect("the header was read whole");
            Trailer::decode(trailer, head, hashes).map_err(|error| corrupt(error.to_string()))?;
            let (groups, _) = hashes.as_chunks::<32>();
            if root_of_groups(groups) != Some(key.chunk) {
                return Err(corrupt("the group hashes do not make the chunk id".to_owned()));
            }
            Ok(groups.to_vec())
        })
    }

    fn change(&self, key: &ChunkKey, change: Change) -> Result<Changed, StoreError> {
        self.core.change(key, change)
    }

    fn list(&self, after: Option<&ChunkKey>, limit: usize) -> Result<Vec<(ChunkKey, ChunkMeta)>, StoreError> {
        let (start, end) = rows::kind_bounds(b'c');
        let from = after.map_or(start, |key| {
            let mut above = rows::chunk_row_key(key);
            above.push(0);
            above
        });
        let found = self.core.index.scan(&from, &end, limit)?;
        found
            .iter()
            .map(|(key, value)| Ok((rows::key_of_row(key)?, ChunkRow::decode(value)?.meta())))
            .collect()
    }

    fn usage(&self) -> Result<Usage, StoreError> {
        self.core.usage()
    }

    fn compact(&self) -> Result<Compaction, StoreError> {
        self.compact_once()
    }
}

fn io_error(segment: u32, error: &io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => StoreError::Corrupt(format!("segment {segment} is cut short")),
        _ => StoreError::Io(format!("segment {segment}: {error}")),
    }
}
