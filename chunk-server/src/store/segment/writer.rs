//! One chunk arriving: its extent is reserved at `begin`, filled without any lock, and closed by the
//! trailer at `finish`. Dropped before that it leaves an extent that scans step over and compaction
//! reclaims.

use std::sync::Arc;

use chunk_format::record::{
    RECORD_HEADER_BYTES, RecordHeader, RecordKind, RecordPlace, Trailer, data_extent_bytes, groups_offset,
    trailer_offset,
};
use chunk_format::tree::{group_count, root_of_groups};
use dfs_types::Position;
use dfs_types::limits::MAX_SEALED_BYTES;

use super::Core;
use super::change::touched;
use super::room::{Mark, Purpose};
use super::state::{Effect, Phase, State};
use crate::store::disk::{DiskFile, write_all_at};
use crate::store::index::rows::{self, ChunkRow, add_ghost};
use crate::store::{ChunkKey, ChunkMeta, ChunkWriter, StoreError};

/// A reserved extent with its header written. Given back by drop.
pub struct Extent {
    pub core: Arc<Core>,
    pub file: Arc<dyn DiskFile>,
    pub place: RecordPlace,
    pub header: RecordHeader,
}

pub struct Writer {
    extent: Extent,
    key: ChunkKey,
    written: u64,
}

/// What finishing comes to.
enum Step {
    /// It is there already, with an epoch that is high enough, durably.
    Already(ChunkMeta),
    /// These segments have to be synced for this.
    Commit(ChunkMeta, Vec<u32>, Effect),
}

pub fn begin(
    core: &Arc<Core>,
    key: &ChunkKey,
    sealed_len: u64,
    epoch: Position,
) -> Result<Writer, StoreError> {
    if !(1..=MAX_SEALED_BYTES).contains(&sealed_len) {
        return Err(StoreError::OutOfRange(format!("no chunk has {sealed_len} bytes")));
    }
    let extent = Extent::reserve(core, key, sealed_len, epoch, false, Purpose::Data)?;
    Ok(Writer { extent, key: *key, written: 0 })
}

impl Extent {
    pub fn reserve(
        core: &Arc<Core>,
        key: &ChunkKey,
        sealed_len: u64,
        epoch: Position,
        quarantined: bool,
        purpose: Purpose,
    ) -> Result<Self, StoreError> {
        let mut state = core.lock();
        state.check_taking_changes()?;
        let place = core.room(&mut state, data_extent_bytes(sealed_len), purpose)?;
        let segment = state.segment(place.segment);
        let header = RecordHeader {
            kind: RecordKind::Data,
            quarantined,
            tag: segment.tag,
            realm: key.realm,
            chunk: key.chunk,
            epoch,
            sealed_len,
            target: RecordPlace::default(),
            sequence: 0,
        };
        let file = segment.file.clone().expect("an unsealed segment's file is open");
        core.write(&mut state, place, 0, &header.encode())?;
        state.segment(place.segment).open_writers += 1;
        Ok(Self { core: core.clone(), file, place, header })
    }

    /// Writes sealed bytes at their place. No lock is held.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let at = self.place.offset + RECORD_HEADER_BYTES as u64 + offset;
        write_all_at(self.file.as_ref(), bytes, at).map_err(|error| self.failed(&error))
    }

    pub fn write_groups(&self, groups: &[[u8; 32]]) -> Result<(), StoreError> {
        let at = self.place.offset + groups_offset(self.header.sealed_len);
        write_all_at(self.file.as_ref(), groups.as_flattened(), at).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &std::io::Error) -> StoreError {
        self.core.failed(&mut self.core.lock(), self.place.segment, error)
    }

    /// Completes the record: from here on it counts as soon as it is durable.
    pub fn close(&self, state: &mut State, groups: &[[u8; 32]], generation: u32) -> Result<(), StoreError> {
        let segment = state.segment(self.place.segment);
        if !matches!(segment.phase, Phase::Active | Phase::Closing) {
            return Err(StoreError::Io(format!("segment {} failed meanwhile", self.place.segment)));
        }
        let trailer = Trailer { sequence: segment.next_sequence, generation };
        segment.next_sequence += 1;
        let bytes = trailer.encode(&self.header.encode(), groups);
        self.core.write(state, self.place, trailer_offset(self.header.sealed_len), &bytes)
    }
}

impl Drop for Extent {
    fn drop(&mut self) {
        // Never called with the lock held: every holder drops its guard before its extents.
        self.core.lock().segment(self.place.segment).open_writers -= 1;
    }
}

impl Writer {
    fn complete(&self, state: &mut State, groups: &[[u8; 32]]) -> Result<Step, StoreError> {
        let Extent { core, place, header, .. } = &self.extent;
        let old = rows::chunk_row(core.index.as_ref(), &self.key)?;
        if let Some(row) = old.as_ref().filter(|row| !row.quarantined) {
            if row.epoch >= header.epoch {
                return Ok(Step::Already(row.meta()));
            }
            let (segment, row, effect) = touched(core, state, &self.key, row, header.epoch)?;
            return Ok(Step::Commit(row.meta(), vec![segment], effect));
        }
        let tombstone = rows::tombstone_row(core.index.as_ref(), &self.key)?;
        if let Some(tombstone) = &tombstone
            && header.epoch < tombstone.position
        {
            return Err(StoreError::StaleEpoch(tombstone.position));
        }
        let before = [old.as_ref().map(|row| row.generation), tombstone.map(|row| row.generation)];
        let generation = before.into_iter().flatten().max().map_or(0, |highest| highest.saturating_add(1));
        let mut row = ChunkRow {
            place: *place,
            sealed_len: header.sealed_len,
            epoch: header.epoch,
            quarantined: false,
            touch_segment: 0,
            quarantine_segment: 0,
            generation,
            ghosts: Vec::new(),
        };
        let mut effect = Effect::default();
        let mut segments = vec![place.segment];
        if let Some(old) = &old {
            // The bad copy is replaced; its epoch was acknowledged, so it is carried over.
            effect.remove_row(old);
            row.ghosts.clone_from(&old.ghosts);
            add_ghost(&mut row.ghosts, old.place.segment);
            if old.epoch > row.epoch {
                let mark = Mark { kind: RecordKind::Touch, epoch: old.epoch, target: *place };
                row.touch_segment = core.append_mark(state, &self.key, mark)?.segment;
                row.epoch = old.epoch;
                if row.touch_segment != place.segment {
                    segments.push(row.touch_segment);
                }
            }
        }
        // The trailer last: if the mark failed, nothing of this may count. A mark alone aims at nothing.
        self.extent.close(state, groups, row.generation)?;
        effect.add_row(&row);
        effect.batch.put(rows::chunk_row_key(&self.key), row.encode());
        Ok(Step::Commit(row.meta(), segments, effect))
    }
}

impl ChunkWriter for Writer {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let sealed_len = self.extent.header.sealed_len;
        if bytes.len() as u64 > sealed_len - self.written {
            return Err(StoreError::OutOfRange(format!("more than the {sealed_len} bytes announced")));
        }
        self.extent.write(self.written, bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn finish(self: Box<Self>, groups: &[[u8; 32]]) -> Result<ChunkMeta, StoreError> {
        let sealed_len = self.extent.header.sealed_len;
        if self.written != sealed_len {
            return Err(StoreError::Mismatch(format!("{} of {sealed_len} bytes", self.written)));
        }
        if groups.len() != group_count(sealed_len) as usize || root_of_groups(groups) != Some(self.key.chunk)
        {
            return Err(StoreError::Mismatch("the groups do not make the chunk id".to_owned()));
        }
        self.extent.write_groups(groups)?;
        let core = self.extent.core.clone();
        let mut state = core.hold(core.lock(), &self.key)?;
        match self.complete(&mut state, groups) {
            Ok(Step::Commit(meta, segments, effect)) => {
                core.commit(state, self.key, segments, effect).map(|()| meta)
            }
            Ok(Step::Already(meta)) => {
                core.let_go(&mut state, &self.key);
                Ok(meta)
            }
            Err(error) => {
                core.let_go(&mut state, &self.key);
                Err(error)
            }
        }
    }
}
