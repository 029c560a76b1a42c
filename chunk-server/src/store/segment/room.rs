//! Where the next record goes: the active segment, its growth, the next one when it is full, and
//! what happens to one that failed.

use std::io;

use chunk_format::record::{
    Poison, RECORD_HEADER_BYTES, RecordHeader, RecordKind, RecordPlace, SEGMENT_HEADER_BYTES, SegmentHeader,
};
use dfs_types::Position;

use super::state::{Phase, Segment, State, poison_name, segment_name};
use super::{Core, io_error};
use crate::store::disk::{is_no_space, write_all_at};
use crate::store::{ChunkKey, StoreError, Usage};
use crate::telemetry;

/// What room is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// A new chunk: stops at the reserve.
    Data,
    /// Marks, copies of compaction and recovery: may use it.
    Upkeep,
}

/// What a mark says; the rest of its header follows.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    pub kind: RecordKind,
    pub epoch: Position,
    pub target: RecordPlace,
}

impl Core {
    /// Reserves `need` bytes; the place is the caller's, whatever becomes of it.
    pub fn room(&self, state: &mut State, need: u64, purpose: Purpose) -> Result<RecordPlace, StoreError> {
        let fits = state.active.filter(|id| {
            let segment = &state.segments[id];
            let empty = segment.tail == SEGMENT_HEADER_BYTES as u64;
            empty || segment.tail + need <= self.settings.segment_bytes
        });
        let id = match fits {
            Some(id) => id,
            None => {
                if self.free(state, purpose)? < need {
                    return Err(StoreError::NoSpace);
                }
                self.next_segment(state)?
            }
        };
        self.grow(state, id, need, purpose)?;
        let segment = state.segment(id);
        let offset = segment.tail;
        segment.tail += need;
        Ok(RecordPlace { segment: id, offset })
    }

    /// Appends a mark to the active segment. It counts after the commit that the caller asks for.
    pub fn append_mark(
        &self,
        state: &mut State,
        key: &ChunkKey,
        mark: Mark,
    ) -> Result<RecordPlace, StoreError> {
        let place = self.room(state, RECORD_HEADER_BYTES as u64, Purpose::Upkeep)?;
        let segment = state.segment(place.segment);
        let header = RecordHeader {
            kind: mark.kind,
            quarantined: false,
            tag: segment.tag,
            realm: key.realm,
            chunk: key.chunk,
            epoch: mark.epoch,
            sealed_len: 0,
            target: mark.target,
            sequence: segment.next_sequence,
        };
        segment.next_sequence += 1;
        self.write(state, place, 0, &header.encode())?;
        Ok(place)
    }

    /// Writes into a record under the lock: short pieces only.
    pub fn write(
        &self,
        state: &mut State,
        place: RecordPlace,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        let file = state.segment(place.segment).file.clone().expect("an unsealed segment's file is open");
        write_all_at(file.as_ref(), bytes, place.offset + offset)
            .map_err(|error| self.failed(state, place.segment, &error))
    }

    /// Judges a failed write: no space is clean, anything else poisons the segment.
    pub fn failed(&self, state: &mut State, segment: u32, error: &io::Error) -> StoreError {
        if is_no_space(error) {
            return StoreError::NoSpace;
        }
        self.poison(state, segment, error);
        io_error(segment, error)
    }

    /// Never trusts this segment again past what is durable, says so beside it, and fails everybody
    /// who waits for it. When this returns, the word is durable or the store is broken.
    pub fn poison(&self, state: &mut State, id: u32, error: &io::Error) {
        let segment = state.segment(id);
        if segment.phase == Phase::Poisoned {
            return;
        }
        segment.phase = Phase::Poisoned;
        let poison = Poison { segment: id, durable_sequence: segment.durable_sequence };
        tracing::error!(segment = id, %error, "segment is poisoned: writing goes on in another");
        if state.active == Some(id) {
            state.active = None;
        }
        if let Err(error) = self.write_poison(&poison) {
            state.break_down(format!("segment {id} failed and cannot be marked: {error}"));
        }
        let (lost, kept) =
            std::mem::take(&mut state.pending).into_iter().partition(|p| p.segments.contains(&id));
        state.pending = kept;
        self.answer(state, lost, &Err(io_error(id, error)));
    }

    fn write_poison(&self, poison: &Poison) -> io::Result<()> {
        let name = poison_name(poison.segment);
        // One that was begun before a crash says nothing: only a whole one is believed.
        let file = match self.disk.create(&name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.disk.open(&name)?,
            result => result?,
        };
        write_all_at(file.as_ref(), &poison.encode(), 0)?;
        file.sync()?;
        self.disk.sync_dir()
    }

    /// Closes the active segment, if any, and makes the next one durable, header and name.
    pub fn next_segment(&self, state: &mut State) -> Result<u32, StoreError> {
        if let Some(id) = state.active.take() {
            state.segment(id).phase = Phase::Closing;
        }
        let id = state.last_segment + 1;
        state.last_segment = id;
        let mut tag = [0u8; 16];
        self.entropy.fill(&mut tag);
        let header = SegmentHeader { segment: id, tag, incarnation: self.settings.incarnation };
        let name = segment_name(id);
        let create = || {
            let file = self.disk.create(&name)?;
            write_all_at(file.as_ref(), &header.encode(), 0)?;
            file.sync()?;
            self.disk.sync_dir()?;
            Ok::<_, io::Error>(file)
        };
        let file = create().map_err(|error| {
            // What is left of it holds no record; the next start clears it away if this does not.
            let _ = self.disk.remove(&name);
            if is_no_space(&error) { StoreError::NoSpace } else { io_error(id, &error) }
        })?;
        let segment = Segment::new(Some(file), tag, Phase::Active, SEGMENT_HEADER_BYTES as u64);
        state.segments.insert(id, segment);
        state.active = Some(id);
        Ok(id)
    }

    /// Takes disk space for `need` more bytes at the tail, in steps while there is plenty.
    fn grow(&self, state: &mut State, id: u32, need: u64, purpose: Purpose) -> Result<(), StoreError> {
        let segment = state.segment(id);
        let (allocated, least) = (segment.allocated, (segment.tail + need).saturating_sub(segment.allocated));
        if least == 0 {
            return Ok(());
        }
        let file = segment.file.clone().expect("an unsealed segment's file is open");
        let rest = self.settings.segment_bytes.saturating_sub(allocated);
        let step = self.settings.preallocate_bytes.min(rest).max(least);
        let free = self.free(state, purpose)?;
        if free < least {
            return Err(StoreError::NoSpace);
        }
        let mut size = step.min(free).max(least);
        let mut result = file.allocate(allocated, size);
        if size > least && result.as_ref().is_err_and(is_no_space) {
            size = least;
            result = file.allocate(allocated, size);
        }
        result.map_err(|error| self.failed(state, id, &error))?;
        state.segment(id).allocated += size;
        Ok(())
    }

    /// Bytes that files may still grow by.
    fn free(&self, state: &State, purpose: Purpose) -> Result<u64, StoreError> {
        let space = self.disk.space().map_err(|error| StoreError::Io(error.to_string()))?;
        let allowed = match self.settings.capacity_bytes {
            0 => space.available,
            capacity => space.available.min(capacity.saturating_sub(state.used())),
        };
        Ok(match purpose {
            Purpose::Data if space.new_files => allowed.saturating_sub(self.reserve(space.total)),
            Purpose::Data => 0,
            Purpose::Upkeep => allowed,
        })
    }

    /// What new chunks leave free. A small store would otherwise be all reserve.
    fn reserve(&self, disk_total: u64) -> u64 {
        self.settings.reserve_bytes.min(self.whole(disk_total) / 4)
    }

    /// What the store may take in all.
    fn whole(&self, disk_total: u64) -> u64 {
        match self.settings.capacity_bytes {
            0 => disk_total,
            capacity => capacity,
        }
    }

    pub fn usage(&self) -> Result<Usage, StoreError> {
        let state = self.lock();
        let space = self.disk.space().map_err(|error| StoreError::Io(error.to_string()))?;
        let slack = state.active.map_or(0, |id| {
            let segment = &state.segments[&id];
            segment.allocated.saturating_sub(segment.tail)
        });
        let capacity = self.whole(space.total);
        let used = state.used();
        let (hits, misses) = self.index.block_cache();
        telemetry::block_cache(hits, misses);
        let stopped = state.broken.is_some() || space.read_only;
        let free = match stopped {
            true => 0,
            false => self.free(&state, Purpose::Data)? + if space.new_files { slack } else { 0 },
        };
        let upkeep = self.free(&state, Purpose::Upkeep)?.min(self.reserve(space.total));
        let upkeep_wanted = self.settings.segment_bytes;
        let (segments, written, live) = state.fill();
        Ok(Usage {
            used,
            free,
            capacity,
            chunks: state.chunks,
            stopped,
            upkeep,
            upkeep_wanted,
            segments,
            written,
            live,
        })
    }
}
