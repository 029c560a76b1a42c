//! Start: what is in the directory, what the index knows of it, and the difference.
//!
//! Crash promise: any number of crashes while this runs leave the same chunks. What the index has no
//! row for is copied and synced before it counts; what was begun and not finished is stepped over.
//!
//! Cost: segments that are sealed are not read, one header each; unsealed ones (one, and those held
//! open by slow writers) are walked. Without an index all are walked, headers and trailers only.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Condvar, Mutex};

use chunk_format::record::{
    Poison, RECORD_HEADER_BYTES, RecordKind, RecordPlace, SEGMENT_HEADER_BYTES, SegmentTag, TRAILER_BYTES,
    trailer_offset,
};
use dfs_types::{Entropy, Position};

use super::change::replaced;
use super::commit::Round;
use super::room::{Mark, Purpose};
use super::scan::{CopyError, Scanned, Scanner, copy_data, data_is_sound, read_identity};
use super::seal::{seal_record, sealed_batch, write_seal};
use super::state::{Effect, Phase, Segment, State, parse_name, poison_name, segment_name};
use super::writer::Extent;
use super::{Core, SegmentStore, Settings, io_error};
use crate::store::disk::{Disk, DiskFile, read_exact_at, write_all_at};
use crate::store::index::rows::{self, ChunkRow, TombstoneRow, add_ghost};
use crate::store::index::{Index, IndexBatch};
use crate::store::{ChunkKey, StoreError};

/// Rows looked at together.
const PAGE: usize = 1024;

/// What a start found. Worth a log line; `lost` and `damaged` are worth an alarm.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OpenReport {
    pub segments: u64,
    pub chunks: u64,
    /// The index was made anew from the segments.
    pub rebuilt: bool,
    /// Records that counted only now, after they were copied and synced.
    pub recovered: u64,
    /// Records that looked finished and were not.
    pub voided: u64,
    /// Chunks of the index whose segment is gone.
    pub lost: u64,
    /// Places in segments at which a record was expected and not found.
    pub damaged: u64,
}

impl SegmentStore {
    /// Opens what is on `disk`, with its index.
    ///
    /// # Errors
    /// `Refused` for segments of another data directory; what the disk or the index says.
    pub fn open(
        disk: Arc<dyn Disk>,
        index: Arc<dyn Index>,
        entropy: Arc<dyn Entropy>,
        settings: Settings,
    ) -> Result<(Self, OpenReport), StoreError> {
        let core = Core {
            disk,
            index,
            entropy,
            settings,
            state: Mutex::new(State::default()),
            changed: Condvar::new(),
            compacting: Mutex::new(()),
        };
        let core = Arc::new(core);
        let report = Opening { core: &core, report: OpenReport::default() }.run()?;
        Ok((Self { core }, report))
    }
}

fn disk_error(error: io::Error) -> StoreError {
    StoreError::Io(error.to_string())
}

struct Opening<'a> {
    core: &'a Arc<Core>,
    report: OpenReport,
}

impl Opening<'_> {
    fn run(mut self) -> Result<OpenReport, StoreError> {
        self.report.rebuilt = self.prepare_index()?;
        let poisons = self.load_segments()?;
        self.drop_rows_of_missing_segments()?;
        let unsealed: Vec<u32> = {
            let state = self.core.lock();
            let open = state.segments.iter().filter(|(_, segment)| segment.phase != Phase::Sealed);
            open.map(|(id, _)| *id).collect()
        };
        let mut survey = Survey::default();
        for id in &unsealed {
            survey.look(self.core, *id, poisons.get(id), self.report.rebuilt)?;
        }
        let mut ends = BTreeMap::new();
        for id in unsealed {
            let recovery = Recovery::new(self.core, id, poisons.get(&id), &survey, &mut self.report)?;
            ends.insert(id, recovery.run()?);
        }
        self.recount(&mut ends)?;
        self.close_recovered(&ends, &poisons)?;
        let mut batch = IndexBatch::default();
        let complete = rows::complete_row(&self.core.settings.incarnation);
        batch.put(rows::COMPLETE_ROW_KEY.to_vec(), complete);
        self.core.index.write(&batch, true)?;
        let state = self.core.lock();
        self.report.segments = state.segments.len() as u64;
        self.report.chunks = state.chunks;
        Ok(self.report)
    }

    /// Empties an index that is not complete or is of another directory; true if there is a rebuild.
    fn prepare_index(&self) -> Result<bool, StoreError> {
        let index = self.core.index.as_ref();
        let complete = rows::complete_row(&self.core.settings.incarnation);
        if index.get(rows::COMPLETE_ROW_KEY)? == Some(complete) {
            return Ok(false);
        }
        loop {
            let page = index.scan(&[0], &[255], PAGE)?;
            let mut batch = IndexBatch::default();
            for (key, _) in &page {
                batch.remove(key.clone());
            }
            index.write(&batch, true)?;
            if page.len() < PAGE {
                return Ok(true);
            }
        }
    }

    /// Fills the list of segments; gives the poison marks that are to be believed.
    fn load_segments(&mut self) -> Result<BTreeMap<u32, Poison>, StoreError> {
        let core = self.core;
        let names = core.disk.list().map_err(disk_error)?;
        let mut segments = BTreeSet::new();
        let mut marks = BTreeSet::new();
        for (id, poison) in names.iter().filter_map(|name| parse_name(name)) {
            if poison {
                marks.insert(id)
            } else {
                segments.insert(id)
            };
        }
        let mut poisons = BTreeMap::new();
        for id in marks {
            // One that is not whole was never finished, so nobody was told anything yet.
            match read_poison(core.disk.as_ref(), id).filter(|_| segments.contains(&id)) {
                Some(poison) => drop(poisons.insert(id, poison)),
                None => core.disk.remove(&poison_name(id)).map_err(disk_error)?,
            }
        }
        let mut sealed = BTreeSet::new();
        let (from, to) = rows::kind_bounds(b's');
        each_row(core.index.as_ref(), &from, &to, |key, _, batch| {
            let id = rows::sealed_row_segment(key)?;
            if segments.contains(&id) {
                sealed.insert(id);
            } else {
                batch.remove(key.to_vec());
            }
            Ok(())
        })?;
        let mut state = core.lock();
        state.last_segment = segments.last().copied().unwrap_or(0);
        for id in segments {
            let file = core.disk.open(&segment_name(id)).map_err(|error| {
                let link = error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
                if link || error.kind() == io::ErrorKind::InvalidInput {
                    return StoreError::Refused(format!("segment {id} is not a regular file"));
                }
                io_error(id, &error)
            })?;
            let identity = read_identity(file.as_ref());
            match identity {
                Some((_, Some(header)))
                    if header.segment != id || header.incarnation != core.settings.incarnation =>
                {
                    let why = format!("segment {id} is segment {} of another data directory", header.segment);
                    return Err(StoreError::Refused(why));
                }
                Some((_, Some(_))) => {}
                Some((_, None)) | None => self.report.damaged += 1,
            }
            let length = file.len().map_err(|error| io_error(id, &error))?;
            let phase = match (poisons.contains_key(&id), sealed.contains(&id)) {
                (false, true) => Phase::Sealed,
                _ => Phase::Recovering,
            };
            let segment = Segment {
                file: (phase == Phase::Recovering).then_some(file),
                tag: identity.map_or([0; 16], |(tag, _)| tag),
                phase,
                tail: length,
                allocated: length,
                next_sequence: 1,
                durable_sequence: 0,
                open_writers: 0,
                unsynced: 0,
                rows: 0,
                live: 0,
                stuck: false,
            };
            state.segments.insert(id, segment);
        }
        Ok(poisons)
    }

    fn drop_rows_of_missing_segments(&mut self) -> Result<(), StoreError> {
        let index = self.core.index.as_ref();
        let exists: BTreeSet<u32> = self.core.lock().segments.keys().copied().collect();
        let lost = &mut self.report.lost;
        let (from, to) = rows::kind_bounds(b'c');
        each_row(index, &from, &to, |key, value, batch| {
            if !exists.contains(&ChunkRow::decode(value)?.place.segment) {
                *lost += 1;
                batch.remove(key.to_vec());
            }
            Ok(())
        })?;
        let (from, to) = rows::kind_bounds(b't');
        each_row(index, &from, &to, |key, value, batch| {
            if !exists.contains(&TombstoneRow::decode(value)?.place.segment) {
                batch.remove(key.to_vec());
            }
            Ok(())
        })
    }

    /// Counts what is needed in every segment, from the rows alone, and moves `ends` behind the last
    /// record that a row points to.
    fn recount(&self, ends: &mut BTreeMap<u32, u64>) -> Result<(), StoreError> {
        let core = self.core;
        let mut state = core.lock();
        for segment in state.segments.values_mut() {
            (segment.rows, segment.live) = (0, 0);
        }
        state.chunks = 0;
        let (from, to) = rows::kind_bounds(b'c');
        each_row(core.index.as_ref(), &from, &to, |_, value, _| {
            let row = ChunkRow::decode(value)?;
            if let Some(end) = ends.get_mut(&row.place.segment) {
                *end = (*end).max(row.place.offset + row.extent_bytes());
            }
            let mut effect = Effect::default();
            effect.add_row(&row);
            state.count(&effect);
            Ok(())
        })?;
        let (from, to) = rows::kind_bounds(b't');
        each_row(core.index.as_ref(), &from, &to, |_, value, _| {
            let row = TombstoneRow::decode(value)?;
            if state.any_exists(&row.ghosts, 0) {
                let mut effect = Effect::default();
                effect.add_tombstone(&row);
                state.count(&effect);
            }
            if let Some(end) = ends.get_mut(&row.place.segment) {
                *end = (*end).max(row.place.offset + RECORD_HEADER_BYTES as u64);
            }
            Ok(())
        })
    }

    /// Seals what was looked through; removes what never held a record; leaves what is poisoned.
    fn close_recovered(
        &self,
        ends: &BTreeMap<u32, u64>,
        poisons: &BTreeMap<u32, Poison>,
    ) -> Result<(), StoreError> {
        let core = self.core;
        let mut state = core.lock();
        for (id, end) in ends {
            let segment = state.segment(*id);
            if poisons.contains_key(id) {
                segment.phase = Phase::Poisoned;
                continue;
            }
            if *end == SEGMENT_HEADER_BYTES as u64 && segment.rows == 0 {
                state.segments.remove(id);
                let gone = core.disk.remove(&segment_name(*id)).and_then(|()| core.disk.sync_dir());
                gone.map_err(|error| io_error(*id, &error))?;
                continue;
            }
            let file = segment.file.clone().expect("an unsealed segment's file is open");
            let written = write_seal(file.as_ref(), &seal_record(segment), *end);
            match written {
                Ok(()) => {
                    segment.tail = end + RECORD_HEADER_BYTES as u64;
                    segment.allocated = segment.tail;
                    core.index.write(&sealed_batch(*id), true)?;
                    state.now_sealed(*id);
                }
                Err(error) => {
                    // All its complete records count, so nothing needs to be excluded at the next start:
                    // compaction moves them out.
                    tracing::error!(segment = id, %error, "a recovered segment cannot be sealed");
                    segment.phase = Phase::Poisoned;
                }
            }
        }
        Ok(())
    }
}

fn read_poison(disk: &dyn Disk, id: u32) -> Option<Poison> {
    let file = disk.open(&poison_name(id)).ok()?;
    let mut bytes = [0u8; Poison::BYTES];
    read_exact_at(file.as_ref(), &mut bytes, 0).ok()?;
    Poison::decode(&bytes).ok().filter(|poison| poison.segment == id)
}

/// Visits rows by pages; what the visit puts into its batch is written after each page.
fn each_row(
    index: &dyn Index,
    from: &[u8],
    to: &[u8],
    mut visit: impl FnMut(&[u8], &[u8], &mut IndexBatch) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut from = from.to_vec();
    loop {
        let page = index.scan(&from, to, PAGE)?;
        let mut batch = IndexBatch::default();
        for (key, value) in &page {
            visit(key, value, &mut batch)?;
        }
        if !batch.rows.is_empty() {
            index.write(&batch, false)?;
        }
        match page.last() {
            Some((key, _)) if page.len() == PAGE => {
                from.clone_from(key);
                from.push(0);
            }
            _ => return Ok(()),
        }
    }
}

/// What has to be known of all segments before the first record is copied. A copy must carry the marks
/// of what it is copied from: they aim at the old place, and the next start would not know the new one.
#[derive(Default)]
struct Survey {
    /// Segments with a seal record: all in them was durable, so nothing needs to be copied.
    trusted: BTreeSet<u32>,
    /// For the data records that marks aim at: the highest touch, and whether one was quarantined. Some
    /// 100 bytes for each, while a rebuild lasts.
    marks: BTreeMap<RecordPlace, (Position, bool)>,
}

impl Survey {
    fn look(
        &mut self,
        core: &Core,
        id: u32,
        poison: Option<&Poison>,
        rebuild: bool,
    ) -> Result<(), StoreError> {
        let (file, tag) = file_of(core, id)?;
        for record in Scanner::new(file.as_ref(), tag).map_err(|error| io_error(id, &error))? {
            let (header, sequence) = (&record.header, record.sequence);
            if !counts(sequence, poison) {
                continue;
            }
            match header.kind {
                RecordKind::Seal if rebuild && poison.is_none() => drop(self.trusted.insert(id)),
                RecordKind::Touch | RecordKind::Quarantine => {
                    let mark = self.marks.entry(header.target).or_default();
                    if header.kind == RecordKind::Touch {
                        mark.0 = mark.0.max(header.epoch);
                    } else {
                        mark.1 = true;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether a record is complete, and not one that a failed write made worthless.
fn counts(sequence: Option<u64>, poison: Option<&Poison>) -> bool {
    sequence.is_some_and(|sequence| poison.is_none_or(|poison| sequence <= poison.durable_sequence))
}

fn file_of(core: &Core, id: u32) -> Result<(Arc<dyn DiskFile>, SegmentTag), StoreError> {
    let mut state = core.lock();
    let file = state.file(core.disk.as_ref(), id).map_err(|error| io_error(id, &error))?;
    Ok((file, state.segment(id).tag))
}

/// One unsealed segment, or any in a rebuild.
struct Recovery<'a, 'b> {
    core: &'a Arc<Core>,
    id: u32,
    file: Arc<dyn DiskFile>,
    tag: SegmentTag,
    poison: Option<&'b Poison>,
    survey: &'b Survey,
    trusted: bool,
    round: Round<'a>,
    /// Trailers to blank once the copies are durable, and those that the index prefers another to.
    void: Vec<u64>,
    report: &'b mut OpenReport,
}

impl<'a, 'b> Recovery<'a, 'b> {
    fn new(
        core: &'a Arc<Core>,
        id: u32,
        poison: Option<&'b Poison>,
        survey: &'b Survey,
        report: &'b mut OpenReport,
    ) -> Result<Self, StoreError> {
        let (file, tag) = file_of(core, id)?;
        let (round, trusted) = (Round::new(core), survey.trusted.contains(&id));
        Ok(Self { core, id, file, tag, poison, survey, trusted, round, void: Vec::new(), report })
    }

    /// Gives the end of the last record.
    fn run(mut self) -> Result<u64, StoreError> {
        let file = self.file.clone();
        let mut scanner = Scanner::new(file.as_ref(), self.tag).map_err(|error| io_error(self.id, &error))?;
        let mut last_sequence = 0;
        let mut end = SEGMENT_HEADER_BYTES as u64;
        while let Some(record) = scanner.next() {
            if record.header.kind == RecordKind::Seal {
                continue;
            }
            end = scanner.position();
            last_sequence = last_sequence.max(record.sequence.unwrap_or(0));
            if !counts(record.sequence, self.poison) {
                continue;
            }
            let key = ChunkKey::new(record.header.realm, record.header.chunk);
            drop(self.round.hold(&key)?);
            let added = match record.header.kind {
                RecordKind::Data => self.data(&key, &record),
                RecordKind::Touch => self.touch(&key, &record),
                RecordKind::Delete => self.delete(&key, &record),
                RecordKind::Quarantine => self.quarantine(&key, &record),
                RecordKind::Seal => Ok(false),
            };
            // A change in the round has taken the hold over.
            if !matches!(added, Ok(true)) {
                self.core.let_go(&mut self.core.lock(), &key);
            }
            self.report.recovered += u64::from(added?);
            if self.round.is_full() {
                self.flush()?;
            }
        }
        self.report.damaged += scanner.damaged;
        self.flush()?;
        self.core.lock().segment(self.id).next_sequence = last_sequence + 1;
        Ok(end)
    }

    /// Makes the copies durable, then blanks the trailers of what was copied: a later rebuild must not
    /// find what this disk may not have.
    fn flush(&mut self) -> Result<(), StoreError> {
        self.round.flush()?;
        for at in std::mem::take(&mut self.void) {
            // Synced with the seal record. If it fails, so will that.
            if let Err(error) = write_all_at(self.file.as_ref(), &[0; TRAILER_BYTES], at) {
                tracing::error!(segment = self.id, %error, "a record cannot be voided");
            }
        }
        Ok(())
    }

    fn row(&self, key: &ChunkKey) -> Result<Option<ChunkRow>, StoreError> {
        Ok(rows::chunk_row(self.core.index.as_ref(), key)?)
    }

    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> Result<(), StoreError> {
        let mut batch = IndexBatch::default();
        batch.put(key, value);
        self.core.index_now(&batch)
    }

    fn void(&mut self, record: &Scanned) {
        if self.poison.is_none() {
            self.void.push(record.offset + trailer_offset(record.header.sealed_len));
        }
    }

    fn data(&mut self, key: &ChunkKey, record: &Scanned) -> Result<bool, StoreError> {
        let here = RecordPlace { segment: self.id, offset: record.offset };
        let (mut epoch, mut bad) = (record.header.epoch, record.header.quarantined);
        let marks = |place| self.survey.marks.get(&place).copied().unwrap_or_default();
        let whole_epoch = epoch.max(marks(here).0);
        if !self.trusted {
            // A copy carries them; otherwise they are met later and make the row.
            (epoch, bad) = (whole_epoch, bad || marks(here).1);
        }
        let old = self.row(key)?;
        if old.as_ref().is_some_and(|row| row.place == here) {
            return Ok(false);
        }
        if let Some(mut tombstone) = rows::tombstone_row(self.core.index.as_ref(), key)?
            && whole_epoch < tombstone.position
        {
            add_ghost(&mut tombstone.ghosts, self.id);
            tombstone.generation = tombstone.generation.max(record.generation);
            self.put(rows::tombstone_row_key(key), tombstone.encode())?;
            return Ok(false);
        }
        if let Some(mut row) = old.clone() {
            // Two of one generation are copies that several starts made of one record. The last of them to
            // be in the index is the one that was touched, and if none was, the one in the later place.
            let old_epoch = row.epoch.max(marks(row.place).0);
            let wins = (record.generation, whole_epoch, here) > (row.generation, old_epoch, row.place);
            if !wins {
                add_ghost(&mut row.ghosts, self.id);
                self.put(rows::chunk_row_key(key), row.encode())?;
                if !self.trusted {
                    self.void(record);
                }
                return Ok(false);
            }
        }
        let mut row = ChunkRow {
            place: here,
            sealed_len: record.header.sealed_len,
            epoch,
            quarantined: bad,
            touch_segment: 0,
            quarantine_segment: 0,
            generation: record.generation,
            ghosts: Vec::new(),
        };
        if let Some(old) = &old {
            row.ghosts.clone_from(&old.ghosts);
            add_ghost(&mut row.ghosts, old.place.segment);
            if old.epoch > row.epoch {
                (row.epoch, row.touch_segment) = (old.epoch, old.touch_segment);
            }
        }
        if self.trusted {
            self.put(rows::chunk_row_key(key), row.encode())?;
            return Ok(false);
        }
        if !bad && !data_is_sound(self.file.as_ref(), record) {
            self.report.voided += 1;
            self.void(record);
            return Ok(false);
        }
        self.copy(key, record, old.as_ref(), row)
    }

    fn copy(
        &mut self,
        key: &ChunkKey,
        record: &Scanned,
        old: Option<&ChunkRow>,
        mut row: ChunkRow,
    ) -> Result<bool, StoreError> {
        let extent =
            Extent::reserve(self.core, key, row.sealed_len, row.epoch, row.quarantined, Purpose::Upkeep)?;
        match copy_data(self.file.as_ref(), record, |offset, bytes| extent.write(offset, bytes)) {
            Ok(_) => {}
            Err(CopyError::Read(why)) => return Err(StoreError::Io(why)),
            Err(CopyError::Write(error)) => return Err(error),
        }
        extent.write_groups(&record.groups)?;
        add_ghost(&mut row.ghosts, self.id);
        row.place = extent.place;
        // The generation stays: what replaced this record has the next one.
        row.touch_segment = 0;
        let mut effect = Effect::default();
        if let Some(old) = old {
            effect.remove_row(old);
        }
        effect.add_row(&row);
        effect.batch.put(rows::chunk_row_key(key), row.encode());
        let mut state = self.core.lock();
        let closed = extent.close(&mut state, &record.groups, row.generation);
        if closed.is_ok() {
            self.round.add(&mut state, *key, vec![extent.place.segment], effect);
        }
        drop(state);
        closed?;
        self.void(record);
        Ok(true)
    }

    fn touch(&mut self, key: &ChunkKey, record: &Scanned) -> Result<bool, StoreError> {
        let (epoch, target) = (record.header.epoch, record.header.target);
        let Some(row) = self.row(key)?.filter(|row| row.place == target) else { return Ok(false) };
        if self.trusted && epoch >= row.epoch {
            let new = ChunkRow { epoch, touch_segment: self.id, ..row };
            self.put(rows::chunk_row_key(key), new.encode())?;
            return Ok(false);
        }
        if epoch <= row.epoch {
            return Ok(false);
        }
        let mark = Mark { kind: RecordKind::Touch, epoch, target };
        self.rewrite(key, mark, |place| {
            let new = ChunkRow { epoch, touch_segment: place.segment, ..row.clone() };
            replaced(key, &row, &new)
        })
    }

    fn quarantine(&mut self, key: &ChunkKey, record: &Scanned) -> Result<bool, StoreError> {
        let target = record.header.target;
        let wanted = |row: &ChunkRow| row.place == target && !row.quarantined;
        let Some(row) = self.row(key)?.filter(wanted) else { return Ok(false) };
        if self.trusted {
            let new = ChunkRow { quarantined: true, quarantine_segment: self.id, ..row };
            self.put(rows::chunk_row_key(key), new.encode())?;
            return Ok(false);
        }
        let mark = Mark { kind: RecordKind::Quarantine, epoch: record.header.epoch, target };
        self.rewrite(key, mark, |place| {
            let new = ChunkRow { quarantined: true, quarantine_segment: place.segment, ..row.clone() };
            replaced(key, &row, &new)
        })
    }

    fn delete(&mut self, key: &ChunkKey, record: &Scanned) -> Result<bool, StoreError> {
        let position = record.header.epoch;
        let here = RecordPlace { segment: self.id, offset: record.offset };
        let old = rows::tombstone_row(self.core.index.as_ref(), key)?;
        if let Some(mut row) = old.clone().filter(|row| row.position >= position) {
            if row.place != here {
                add_ghost(&mut row.ghosts, self.id);
                self.put(rows::tombstone_row_key(key), row.encode())?;
            }
            return Ok(false);
        }
        let mut tombstone = TombstoneRow { position, place: here, generation: 0, ghosts: Vec::new() };
        if let Some(old) = old {
            (tombstone.ghosts, tombstone.generation) = (old.ghosts, old.generation);
            add_ghost(&mut tombstone.ghosts, old.place.segment);
        }
        let row = self.row(key)?;
        if let Some(row) = &row {
            tombstone.generation = tombstone.generation.max(row.generation);
            row.ghosts.iter().for_each(|segment| add_ghost(&mut tombstone.ghosts, *segment));
        }
        let gone = row.filter(|row| row.epoch < position);
        let mut effect = Effect::default();
        if let Some(row) = &gone {
            add_ghost(&mut tombstone.ghosts, row.place.segment);
            effect.remove_row(row);
            effect.batch.remove(rows::chunk_row_key(key));
        }
        let put = |tombstone: &TombstoneRow, mut effect: Effect| {
            effect.batch.put(rows::tombstone_row_key(key), tombstone.encode());
            effect
        };
        if self.trusted {
            self.core.index_now(&put(&tombstone, effect).batch)?;
            return Ok(false);
        }
        add_ghost(&mut tombstone.ghosts, self.id);
        let mark = Mark { kind: RecordKind::Delete, epoch: position, target: RecordPlace::default() };
        self.rewrite(key, mark, |place| put(&TombstoneRow { place, ..tombstone }, effect))
    }

    /// Writes a mark again, in the active segment, with its effect.
    fn rewrite(
        &mut self,
        key: &ChunkKey,
        mark: Mark,
        effect: impl FnOnce(RecordPlace) -> Effect,
    ) -> Result<bool, StoreError> {
        let mut state = self.core.lock();
        let place = self.core.append_mark(&mut state, key, mark)?;
        self.round.add(&mut state, *key, vec![place.segment], effect(place));
        Ok(true)
    }
}
