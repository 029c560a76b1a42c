//! Compaction: the segment with most to gain is walked, what is still needed is copied to the active
//! segment, and the file goes. One segment per call.
//!
//! Crash promise: the file is unlinked only when every copy is durable and every row that points to
//! one is on disk. A delete record goes only with, or after, the last segment that may hold an older
//! data record of its chunk; its row goes after it.

use std::sync::Arc;

use chunk_format::record::{RECORD_HEADER_BYTES, RecordKind, RecordPlace, SEGMENT_HEADER_BYTES};
use chunk_format::tree::root_of_groups;

use super::change::replaced;
use super::commit::Round;
use super::room::{Mark, Purpose};
use super::scan::{CopyError, Scanned, Scanner, copy_data};
use super::state::{Effect, Phase, Segment, State, poison_name, segment_name};
use super::writer::Extent;
use super::{Core, SegmentStore, io_error};
use crate::store::disk::DiskFile;
use crate::store::index::IndexBatch;
use crate::store::index::rows::{self, ChunkRow, TombstoneRow, add_ghost};
use crate::store::{ChunkKey, Compaction, StoreError};

/// So many sealed segments smaller than an eighth of a full one are merged, the oldest first: every
/// start of the server leaves one.
const SMALL_SEGMENTS: usize = 8;

impl SegmentStore {
    pub(super) fn compact_once(&self) -> Result<Compaction, StoreError> {
        let core = &self.core;
        let _one = core.compacting.lock().expect("no one panics while compacting");
        let mut state = core.seal_quiet(core.lock());
        state.check_taking_changes()?;
        let mut victim = choose(core, &state);
        if victim.is_none() && close_wasteful(core, &mut state) {
            state = core.seal_quiet(state);
            victim = choose(core, &state);
        }
        let Some(id) = victim else { return Ok(Compaction::default()) };
        // The number of a segment is never given again: an index that forgot its last rows would take what
        // is in the new one for what it knew of the old one. The highest number is known by its file alone.
        if id == state.last_segment
            && let Err(error) = core.next_segment(&mut state)
        {
            tracing::debug!(%error, "no next segment: the highest number may be given again");
        }
        drop(state);
        Move::new(core, id)?.run()
    }
}

fn choose(core: &Core, state: &State) -> Option<u32> {
    let idle = |segment: &Segment| segment.open_writers == 0 && segment.unsynced == 0 && !segment.stuck;
    let poisoned = |segment: &Segment| segment.phase == Phase::Poisoned && idle(segment);
    if let Some((id, _)) = state.segments.iter().find(|(_, segment)| poisoned(segment)) {
        return Some(*id);
    }
    let sealed = || state.segments.iter().filter(|(_, s)| s.phase == Phase::Sealed && idle(s));
    if let Some((id, _)) = sealed().find(|(_, segment)| segment.headless) {
        return Some(*id);
    }
    let dead = |segment: &Segment| {
        let frame = (SEGMENT_HEADER_BYTES + RECORD_HEADER_BYTES) as u64;
        segment.allocated.saturating_sub(frame).saturating_sub(segment.live)
    };
    let worthwhile = |segment: &Segment| {
        segment.live == 0 || dead(segment) * 100 >= core.settings.compact_dead_percent * segment.allocated
    };
    if let Some((id, _)) = sealed().filter(|(_, s)| worthwhile(s)).max_by_key(|(_, s)| dead(s)) {
        return Some(*id);
    }
    let small = || sealed().filter(|(_, segment)| segment.allocated < core.settings.segment_bytes / 8);
    if small().count() >= SMALL_SEGMENTS { small().next().map(|(id, _)| *id) } else { None }
}

/// Closes the active segment if writes that were given up take much of it: they would lie there until
/// others have filled it. Whether it did.
fn close_wasteful(core: &Core, state: &mut State) -> bool {
    let Some(id) = state.active else { return false };
    let segment = state.segment(id);
    if segment.open_writers > 0 || segment.unsynced > 0 {
        return false;
    }
    let dead = segment.tail.saturating_sub(SEGMENT_HEADER_BYTES as u64).saturating_sub(segment.live);
    let much = dead >= core.settings.segment_bytes / 8
        && dead * 100 >= core.settings.compact_dead_percent * segment.tail;
    if much {
        segment.phase = Phase::Closing;
        state.active = None;
    }
    much
}

/// One segment on its way out.
struct Move<'a> {
    core: &'a Arc<Core>,
    id: u32,
    file: Arc<dyn DiskFile>,
    tag: [u8; 16],
    round: Round<'a>,
    copied: u64,
    /// Delete records that need not be kept once this segment is gone.
    spared: u64,
}

impl<'a> Move<'a> {
    fn new(core: &'a Arc<Core>, id: u32) -> Result<Self, StoreError> {
        let mut state = core.lock();
        let file = state.file(core.disk.as_ref(), id).map_err(|error| io_error(id, &error))?;
        let tag = state.segment(id).tag;
        drop(state);
        Ok(Self { core, id, file, tag, round: Round::new(core), copied: 0, spared: 0 })
    }

    fn run(mut self) -> Result<Compaction, StoreError> {
        let file = self.file.clone();
        let mut scanner = Scanner::new(file.as_ref(), self.tag).map_err(|error| io_error(self.id, &error))?;
        for record in scanner.by_ref() {
            let key = ChunkKey::new(record.header.realm, record.header.chunk);
            match record.header.kind {
                RecordKind::Data => self.data(&key, &record)?,
                RecordKind::Touch => self.touch(&key, &record)?,
                RecordKind::Delete => self.delete(&key, &record)?,
                RecordKind::Quarantine => self.quarantine(&key, &record)?,
                RecordKind::Seal => {}
            }
            if self.round.is_full() {
                self.round.flush()?;
            }
        }
        let damaged = scanner.damaged != 0;
        self.round.flush()?;
        self.remove(damaged)
    }

    fn place(&self, record: &Scanned) -> RecordPlace {
        RecordPlace { segment: self.id, offset: record.offset }
    }

    fn row(&self, key: &ChunkKey) -> Result<Option<ChunkRow>, StoreError> {
        Ok(rows::chunk_row(self.core.index.as_ref(), key)?)
    }

    fn data(&mut self, key: &ChunkKey, record: &Scanned) -> Result<(), StoreError> {
        let here = self.place(record);
        let Some(row) = self.row(key)?.filter(|row| row.place == here) else { return Ok(()) };
        if root_of_groups(&record.groups) != Some(key.chunk) {
            // Its row stays and keeps the segment: see `remove`.
            return Ok(());
        }
        let (len, epoch, marked) = (row.sealed_len, row.epoch, row.quarantined);
        let extent = Extent::reserve(self.core, key, len, epoch, marked, Purpose::Upkeep)?;
        let sound = match copy_data(self.file.as_ref(), record, |offset, bytes| extent.write(offset, bytes)) {
            Ok(sound) => sound,
            Err(CopyError::Read(why)) => {
                tracing::error!(segment = self.id, %key, why, "a chunk cannot be read for compaction");
                return Ok(());
            }
            Err(CopyError::Write(error)) => return Err(error),
        };
        if !sound && !marked {
            tracing::error!(segment = self.id, %key, "a chunk is bad; it is quarantined");
        }
        extent.write_groups(&record.groups)?;
        self.copied += record.header.extent_bytes();

        let mut state = self.round.hold(key)?;
        match self.switch(&mut state, key, here, &extent, sound, &record.groups) {
            Ok(Some((segments, effect))) => self.round.add(&mut state, *key, segments, effect),
            Ok(None) => self.core.let_go(&mut state, key),
            Err(error) => {
                self.core.let_go(&mut state, key);
                drop(state);
                return Err(error);
            }
        }
        drop(state);
        Ok(())
    }

    /// The copy takes the place of the record, with all that was marked meanwhile.
    fn switch(
        &self,
        state: &mut State,
        key: &ChunkKey,
        here: RecordPlace,
        extent: &Extent,
        sound: bool,
        groups: &[[u8; 32]],
    ) -> Result<Option<(Vec<u32>, Effect)>, StoreError> {
        let Some(row) = self.row(key)?.filter(|row| row.place == here) else { return Ok(None) };
        let mut new = ChunkRow {
            place: extent.place,
            quarantined: row.quarantined || !sound,
            touch_segment: 0,
            quarantine_segment: 0,
            generation: row.generation.saturating_add(1),
            ..row.clone()
        };
        new.ghosts.retain(|segment| state.segments.contains_key(segment));
        add_ghost(&mut new.ghosts, self.id);
        let mut segments = vec![extent.place.segment];
        if row.epoch > extent.header.epoch {
            let mark = Mark { kind: RecordKind::Touch, epoch: row.epoch, target: extent.place };
            new.touch_segment = self.core.append_mark(state, key, mark)?.segment;
            segments.push(new.touch_segment);
        }
        if new.quarantined && !extent.header.quarantined {
            let mark = Mark { kind: RecordKind::Quarantine, epoch: row.epoch, target: extent.place };
            new.quarantine_segment = self.core.append_mark(state, key, mark)?.segment;
            segments.push(new.quarantine_segment);
        }
        extent.close(state, groups, new.generation)?;
        Ok(Some((segments, replaced(key, &row, &new))))
    }

    fn touch(&mut self, key: &ChunkKey, record: &Scanned) -> Result<(), StoreError> {
        let (epoch, target) = (record.header.epoch, record.header.target);
        let needed =
            |row: &ChunkRow| row.touch_segment == self.id && row.epoch == epoch && row.place == target;
        if !self.row(key)?.is_some_and(|row| needed(&row)) {
            return Ok(());
        }
        let id = self.id;
        self.rewrite_mark(key, Mark { kind: RecordKind::Touch, epoch, target }, |row, segment| {
            let needed = row.touch_segment == id && row.epoch == epoch && row.place == target;
            needed.then(|| ChunkRow { touch_segment: segment, ..row.clone() })
        })
    }

    fn quarantine(&mut self, key: &ChunkKey, record: &Scanned) -> Result<(), StoreError> {
        let (id, epoch, target) = (self.id, record.header.epoch, record.header.target);
        if !self.row(key)?.is_some_and(|row| row.quarantine_segment == id && row.place == target) {
            return Ok(());
        }
        self.rewrite_mark(key, Mark { kind: RecordKind::Quarantine, epoch, target }, |row, segment| {
            let needed = row.quarantine_segment == id && row.place == target;
            needed.then(|| ChunkRow { quarantine_segment: segment, ..row.clone() })
        })
    }

    /// Writes a mark again, if the row under the hold still wants it.
    fn rewrite_mark(
        &mut self,
        key: &ChunkKey,
        mark: Mark,
        change: impl Fn(&ChunkRow, u32) -> Option<ChunkRow>,
    ) -> Result<(), StoreError> {
        let mut state = self.round.hold(key)?;
        let step = |state: &mut State| -> Result<Option<(u32, Effect)>, StoreError> {
            let Some(row) = self.row(key)?.filter(|row| change(row, 0).is_some()) else { return Ok(None) };
            let segment = self.core.append_mark(state, key, mark)?.segment;
            Ok(change(&row, segment).map(|new| (segment, replaced(key, &row, &new))))
        };
        match step(&mut state) {
            Ok(Some((segment, effect))) => self.round.add(&mut state, *key, vec![segment], effect),
            Ok(None) => self.core.let_go(&mut state, key),
            Err(error) => {
                self.core.let_go(&mut state, key);
                return Err(error);
            }
        }
        self.copied += RECORD_HEADER_BYTES as u64;
        Ok(())
    }

    fn tombstone(&self, key: &ChunkKey, place: RecordPlace) -> Result<Option<TombstoneRow>, StoreError> {
        let row = rows::tombstone_row(self.core.index.as_ref(), key)?;
        Ok(row.filter(|row| row.place == place))
    }

    fn delete(&mut self, key: &ChunkKey, record: &Scanned) -> Result<(), StoreError> {
        let here = self.place(record);
        if self.tombstone(key, here)?.is_none() {
            return Ok(());
        }
        let mut state = self.round.hold(key)?;
        let step = |state: &mut State| -> Result<Option<(u32, Effect)>, StoreError> {
            let Some(row) = self.tombstone(key, here)? else { return Ok(None) };
            if !state.any_exists(&row.ghosts, self.id) {
                return Ok(None);
            }
            let mark = Mark { kind: RecordKind::Delete, epoch: row.position, target: RecordPlace::default() };
            let place = self.core.append_mark(state, key, mark)?;
            let mut ghosts = row.ghosts.clone();
            ghosts.retain(|segment| state.segments.contains_key(segment));
            add_ghost(&mut ghosts, self.id);
            let new = TombstoneRow { place, ghosts, ..row.clone() };
            let mut effect = Effect::default();
            effect.remove_tombstone(&row);
            effect.add_tombstone(&new);
            effect.batch.put(rows::tombstone_row_key(key), new.encode());
            Ok(Some((place.segment, effect)))
        };
        match step(&mut state) {
            Ok(Some((segment, effect))) => {
                self.round.add(&mut state, *key, vec![segment], effect);
                self.copied += RECORD_HEADER_BYTES as u64;
            }
            Ok(None) => {
                self.core.let_go(&mut state, key);
                self.spared += 1;
            }
            Err(error) => {
                self.core.let_go(&mut state, key);
                return Err(error);
            }
        }
        Ok(())
    }

    fn remove(self, damaged: bool) -> Result<Compaction, StoreError> {
        let core = self.core;
        let mut state = core.lock();
        let segment = state.segment(self.id);
        let spared = self.spared * RECORD_HEADER_BYTES as u64;
        // Chunks that could not be moved, or marks that a damaged place may hide, keep it.
        if segment.rows != 0 || (damaged && segment.live > spared) {
            segment.stuck = true;
            tracing::error!(segment = self.id, chunks = segment.rows, "a segment cannot be compacted away");
            return Ok(Compaction { bytes_copied: self.copied, ..Compaction::default() });
        }
        let freed = segment.allocated;
        drop(state);
        core.index.write(&IndexBatch::default(), true)?;
        let gone = core.disk.remove(&segment_name(self.id)).and_then(|()| core.disk.sync_dir());
        let mut state = core.lock();
        if let Err(error) = gone {
            state.segment(self.id).stuck = true;
            return Err(io_error(self.id, &error));
        }
        if state.segment(self.id).phase == Phase::Poisoned {
            // Without its segment it says nothing, so that it may as well come back after a crash.
            let _ = core.disk.remove(&poison_name(self.id));
        }
        state.segments.remove(&self.id);
        drop(state);
        self.forget()?;
        Ok(Compaction { segments_removed: 1, bytes_copied: self.copied, bytes_freed: freed })
    }

    /// Takes the removed segment out of the index: walks the open file once more, for its keys.
    fn forget(&self) -> Result<(), StoreError> {
        let core = self.core;
        let mut batch = IndexBatch::default();
        batch.remove(rows::sealed_row_key(self.id));
        core.index_now(&batch)?;
        let scanner =
            Scanner::new(self.file.as_ref(), self.tag).map_err(|error| io_error(self.id, &error))?;
        for record in scanner {
            let key = ChunkKey::new(record.header.realm, record.header.chunk);
            let data = record.header.kind == RecordKind::Data && record.sequence.is_some();
            if !data && record.header.kind != RecordKind::Delete {
                continue;
            }
            let Some(row) = rows::tombstone_row(core.index.as_ref(), &key)? else { continue };
            if row.place.segment != self.id && !row.ghosts.contains(&self.id) {
                continue;
            }
            let mut state = core.hold(core.lock(), &key)?;
            let result = self.forget_ghost(&mut state, &key);
            core.let_go(&mut state, &key);
            result?;
        }
        Ok(())
    }

    fn forget_ghost(&self, state: &mut State, key: &ChunkKey) -> Result<(), StoreError> {
        let Some(mut row) = rows::tombstone_row(self.core.index.as_ref(), key)? else { return Ok(()) };
        let mut batch = IndexBatch::default();
        if row.place.segment == self.id {
            batch.remove(rows::tombstone_row_key(key));
        } else if row.ghosts.contains(&self.id) {
            row.ghosts.retain(|segment| state.segments.contains_key(segment));
            if row.ghosts.is_empty() {
                let mut effect = Effect::default();
                effect.remove_tombstone(&row);
                state.count(&effect);
            }
            batch.put(rows::tombstone_row_key(key), row.encode());
        }
        self.core.index_now(&batch)
    }
}
