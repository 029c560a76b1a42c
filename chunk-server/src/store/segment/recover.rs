//! Finding out what unsealed segments hold that the index has no row for, and making it count; in a
//! rebuild, what all segments hold.
//!
//! First all records are merged into the index where they are, so that it is known which of them count;
//! then those that count and were not known to be durable are copied to the active segment and synced.
//! Nothing is copied before all is merged: a copy of what lost would look newer than what won.
//!
//! Crash promise: rows of the first step are no proof of durability, so before the first of them the
//! index is marked incomplete, durably, and whoever starts after a crash rebuilds it. A copy that was
//! left by such a crash carries all the marks of its original, so either of them may win.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chunk_format::record::{
    Poison, RecordKind, RecordPlace, SEGMENT_HEADER_BYTES, SegmentTag, TRAILER_BYTES, trailer_offset,
};
use dfs_types::Position;

use super::change::replaced;
use super::commit::Round;
use super::open::{OpenReport, Suspects};
use super::room::{Mark, Purpose};
use super::scan::{CopyError, Scanned, Scanner, copy_data};
use super::state::Effect;
use super::writer::Extent;
use super::{Core, io_error};
use crate::store::disk::{DiskFile, write_all_at};
use crate::store::index::IndexBatch;
use crate::store::index::rows::{self, ChunkRow, TombstoneRow, add_ghost};
use crate::store::{ChunkKey, StoreError};

/// What looking through segments showed.
pub struct Found {
    /// The end of the last record of each.
    pub ends: BTreeMap<u32, u64>,
    /// Data records that are complete and count; not noted in a rebuild, in which no row is older.
    pub complete: BTreeSet<RecordPlace>,
}

/// Recovers these segments, ascending.
pub fn recover(
    core: &Arc<Core>,
    segments: &[u32],
    poisons: &BTreeMap<u32, Poison>,
    report: &mut OpenReport,
    suspects: &mut Suspects,
) -> Result<Found, StoreError> {
    let rebuild = report.rebuilt;
    let mut survey = Survey::default();
    for id in segments {
        survey.look(core, *id, poisons.get(id), rebuild)?;
    }
    let mut merge = Merge {
        core,
        survey,
        report,
        suspects,
        rebuild,
        fresh: BTreeSet::new(),
        complete: BTreeSet::new(),
        void: Vec::new(),
        marked: rebuild,
    };
    let mut ends = BTreeMap::new();
    for id in segments {
        ends.insert(*id, merge.segment(*id, poisons.get(id))?);
    }
    let Merge { fresh, complete, mut void, .. } = merge;
    let ids: BTreeSet<u32> = fresh.iter().map(|place| place.segment).collect();
    for id in ids {
        let (file, tag) = file_of(core, id)?;
        let mut settle = Settle { core, id, file, round: Round::new(core), copied: Vec::new() };
        for record in Scanner::new(settle.file.clone().as_ref(), tag).map_err(|error| io_error(id, &error))? {
            if fresh.contains(&RecordPlace { segment: id, offset: record.offset }) {
                report.recovered += u64::from(settle.record(&record)?);
            }
        }
        settle.round.flush()?;
        void.append(&mut settle.copied);
    }
    for place in void.into_iter().filter(|place| !poisons.contains_key(&place.segment)) {
        blank_trailer(core, place)?;
    }
    Ok(Found { ends, complete })
}

/// Makes a record incomplete that this disk may not have: once the segment is sealed it would be taken
/// for durable. Synced with the seal record; if this fails, so will that.
fn blank_trailer(core: &Core, place: RecordPlace) -> Result<(), StoreError> {
    let (file, _) = file_of(core, place.segment)?;
    if let Err(error) = write_all_at(file.as_ref(), &[0; TRAILER_BYTES], place.offset) {
        tracing::error!(segment = place.segment, %error, "a record cannot be voided");
    }
    Ok(())
}

fn trailer_place(record: &Scanned, segment: u32) -> RecordPlace {
    RecordPlace { segment, offset: record.offset + trailer_offset(record.header.sealed_len) }
}

/// What has to be known of all segments before two records of a chunk can be compared.
#[derive(Default)]
struct Survey {
    /// Segments with a seal record: all in them was durable, so nothing needs to be copied.
    trusted: BTreeSet<u32>,
    /// The highest touch of each data record that has one. Some 100 bytes for each, while this lasts.
    marks: BTreeMap<RecordPlace, Position>,
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
                RecordKind::Touch => {
                    let highest = self.marks.entry(header.target).or_default();
                    *highest = (*highest).max(header.epoch);
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

/// The first step.
struct Merge<'a> {
    core: &'a Core,
    survey: Survey,
    report: &'a mut OpenReport,
    suspects: &'a mut Suspects,
    rebuild: bool,
    /// Records that a row speaks of now and that are not known to be durable.
    fresh: BTreeSet<RecordPlace>,
    complete: BTreeSet<RecordPlace>,
    /// Trailers to blank at the end.
    void: Vec<RecordPlace>,
    /// The index says that it is not complete.
    marked: bool,
}

impl Merge<'_> {
    /// Gives the end of the last record.
    fn segment(&mut self, id: u32, poison: Option<&Poison>) -> Result<u64, StoreError> {
        let (file, tag) = file_of(self.core, id)?;
        let mut scanner = Scanner::new(file.as_ref(), tag).map_err(|error| io_error(id, &error))?;
        let mut last_sequence = 0;
        let mut end = SEGMENT_HEADER_BYTES as u64;
        while let Some(record) = scanner.next() {
            if record.header.kind == RecordKind::Seal {
                continue;
            }
            end = scanner.position();
            last_sequence = last_sequence.max(record.sequence.unwrap_or(0));
            let key = ChunkKey::new(record.header.realm, record.header.chunk);
            let here = RecordPlace { segment: id, offset: record.offset };
            if !counts(record.sequence, poison) {
                if self.rebuild && record.header.kind == RecordKind::Data {
                    self.suspects.add(key);
                }
                continue;
            }
            if !self.rebuild && record.header.kind == RecordKind::Data {
                self.complete.insert(here);
            }
            match record.header.kind {
                RecordKind::Data => self.data(&key, &record, here, file.as_ref())?,
                RecordKind::Touch => self.touch(&key, &record, here)?,
                RecordKind::Delete => self.delete(&key, &record, here)?,
                RecordKind::Quarantine => self.quarantine(&key, &record, here)?,
                RecordKind::Seal => {}
            }
        }
        self.report.damaged += scanner.damaged;
        self.core.lock().segment(id).next_sequence = last_sequence + 1;
        Ok(end)
    }

    fn trusted(&self, here: RecordPlace) -> bool {
        self.survey.trusted.contains(&here.segment)
    }

    fn row(&self, key: &ChunkKey) -> Result<Option<ChunkRow>, StoreError> {
        Ok(rows::chunk_row(self.core.index.as_ref(), key)?)
    }

    fn put(&mut self, batch: &IndexBatch) -> Result<(), StoreError> {
        if !self.marked {
            let mut batch = IndexBatch::default();
            batch.remove(rows::COMPLETE_ROW_KEY.to_vec());
            self.core.index.write(&batch, true)?;
            self.marked = true;
        }
        self.core.index_now(batch)
    }

    fn put_row(&mut self, key: &ChunkKey, row: &ChunkRow) -> Result<(), StoreError> {
        let mut batch = IndexBatch::default();
        batch.put(rows::chunk_row_key(key), row.encode());
        self.put(&batch)
    }

    fn put_tombstone(&mut self, key: &ChunkKey, row: &TombstoneRow) -> Result<(), StoreError> {
        let mut batch = IndexBatch::default();
        batch.put(rows::tombstone_row_key(key), row.encode());
        self.put(&batch)
    }

    /// A row speaks of this record from now on.
    fn counts_now(&mut self, here: RecordPlace) {
        if !self.trusted(here) {
            self.fresh.insert(here);
        }
    }

    fn data(
        &mut self,
        key: &ChunkKey,
        record: &Scanned,
        here: RecordPlace,
        file: &dyn DiskFile,
    ) -> Result<(), StoreError> {
        let marks = |place| self.survey.marks.get(&place).map_or(Position::ZERO, |mark| *mark);
        let whole_epoch = record.header.epoch.max(marks(here));
        let old = self.row(key)?;
        if old.as_ref().is_some_and(|row| row.place == here) {
            return Ok(());
        }
        let tombstone = rows::tombstone_row(self.core.index.as_ref(), key)?;
        if let Some(mut row) = tombstone.filter(|row| whole_epoch < row.position) {
            let before = row.clone();
            add_ghost(&mut row.ghosts, here.segment);
            row.generation = row.generation.max(record.generation);
            return if row == before { Ok(()) } else { self.put_tombstone(key, &row) };
        }
        if let Some(row) = &old {
            // Two of one generation are copies that several starts made of one record, each with all the
            // marks there were: the later has them all.
            let old_epoch = row.epoch.max(marks(row.place));
            if (record.generation, whole_epoch, here) < (row.generation, old_epoch, row.place) {
                let mut row = row.clone();
                if !row.ghosts.contains(&here.segment) {
                    add_ghost(&mut row.ghosts, here.segment);
                    self.put_row(key, &row)?;
                }
                if !self.trusted(here) {
                    self.void.push(trailer_place(record, here.segment));
                }
                return Ok(());
            }
        }
        // A copy of a bad record is bad too, and cannot be told from one that was not written whole: it is
        // believed only if what it is a copy of is gone, which is after it was durable.
        if !self.trusted(here) && (!record.header.quarantined || old.is_some()) {
            match copy_data(file, record, |_, _| Ok::<_, StoreError>(())) {
                Ok(true) => {}
                Ok(false) => {
                    self.report.voided += 1;
                    self.suspects.add(*key);
                    self.void.push(trailer_place(record, here.segment));
                    return Ok(());
                }
                Err(CopyError::Write(error)) => return Err(error),
                Err(CopyError::Read(why)) => {
                    tracing::error!(segment = here.segment, %key, why, "a record cannot be read");
                    self.report.damaged += 1;
                    self.suspects.add(*key);
                    return Ok(());
                }
            }
        }
        let mut row = ChunkRow {
            place: here,
            sealed_len: record.header.sealed_len,
            epoch: record.header.epoch,
            quarantined: record.header.quarantined,
            touch_segment: 0,
            quarantine_segment: 0,
            generation: record.generation,
            ghosts: Vec::new(),
        };
        if let Some(old) = &old {
            row.ghosts.clone_from(&old.ghosts);
            add_ghost(&mut row.ghosts, old.place.segment);
        }
        self.counts_now(here);
        self.put_row(key, &row)
    }

    fn touch(&mut self, key: &ChunkKey, record: &Scanned, here: RecordPlace) -> Result<(), StoreError> {
        let (epoch, target) = (record.header.epoch, record.header.target);
        let Some(row) = self.row(key)?.filter(|row| row.place == target) else { return Ok(()) };
        // Without a rebuild, what the index says is durable already.
        if epoch < row.epoch || (epoch == row.epoch && (!self.rebuild || row.touch_segment == here.segment)) {
            return Ok(());
        }
        self.counts_now(here);
        self.put_row(key, &ChunkRow { epoch, touch_segment: here.segment, ..row })
    }

    fn quarantine(&mut self, key: &ChunkKey, record: &Scanned, here: RecordPlace) -> Result<(), StoreError> {
        let wanted = |row: &ChunkRow| row.place == record.header.target && !row.quarantined;
        let Some(row) = self.row(key)?.filter(wanted) else { return Ok(()) };
        self.counts_now(here);
        self.put_row(key, &ChunkRow { quarantined: true, quarantine_segment: here.segment, ..row })
    }

    fn delete(&mut self, key: &ChunkKey, record: &Scanned, here: RecordPlace) -> Result<(), StoreError> {
        let position = record.header.epoch;
        let mut tombstone = TombstoneRow { position, place: here, generation: 0, ghosts: Vec::new() };
        if let Some(mut old) = rows::tombstone_row(self.core.index.as_ref(), key)? {
            if old.position >= position {
                if old.place == here || old.ghosts.contains(&here.segment) {
                    return Ok(());
                }
                add_ghost(&mut old.ghosts, here.segment);
                return self.put_tombstone(key, &old);
            }
            (tombstone.ghosts, tombstone.generation) = (old.ghosts, old.generation);
            add_ghost(&mut tombstone.ghosts, old.place.segment);
        }
        let mut batch = IndexBatch::default();
        if let Some(row) = self.row(key)? {
            tombstone.generation = tombstone.generation.max(row.generation);
            row.ghosts.iter().for_each(|segment| add_ghost(&mut tombstone.ghosts, *segment));
            if row.epoch < position {
                add_ghost(&mut tombstone.ghosts, row.place.segment);
                batch.remove(rows::chunk_row_key(key));
            }
        }
        batch.put(rows::tombstone_row_key(key), tombstone.encode());
        self.counts_now(here);
        self.put(&batch)
    }
}

/// The second step, for one segment.
struct Settle<'a> {
    core: &'a Arc<Core>,
    id: u32,
    file: Arc<dyn DiskFile>,
    round: Round<'a>,
    /// Trailers of what was copied.
    copied: Vec<RecordPlace>,
}

impl Settle<'_> {
    /// Makes a fresh record durable, if its row still speaks of it; true if so.
    fn record(&mut self, record: &Scanned) -> Result<bool, StoreError> {
        let key = ChunkKey::new(record.header.realm, record.header.chunk);
        drop(self.round.hold(&key)?);
        let added = match record.header.kind {
            RecordKind::Data => self.data(&key, record),
            RecordKind::Touch | RecordKind::Quarantine => self.mark(&key, record),
            RecordKind::Delete => self.delete(&key, record),
            RecordKind::Seal => Ok(false),
        };
        // A change in the round has taken the hold over.
        if !matches!(added, Ok(true)) {
            self.core.let_go(&mut self.core.lock(), &key);
        }
        if self.round.is_full() {
            self.round.flush()?;
        }
        added
    }

    fn data(&mut self, key: &ChunkKey, record: &Scanned) -> Result<bool, StoreError> {
        let here = RecordPlace { segment: self.id, offset: record.offset };
        let index = self.core.index.as_ref();
        let Some(old) = rows::chunk_row(index, key)?.filter(|row| row.place == here) else {
            return Ok(false);
        };
        // With all that is known of it: marks that aim at the old place would mean nothing to the copy.
        let extent =
            Extent::reserve(self.core, key, old.sealed_len, old.epoch, old.quarantined, Purpose::Upkeep)?;
        match copy_data(self.file.as_ref(), record, |offset, bytes| extent.write(offset, bytes)) {
            Ok(_) => {}
            Err(CopyError::Read(why)) => return Err(StoreError::Io(why)),
            Err(CopyError::Write(error)) => return Err(error),
        }
        extent.write_groups(&record.groups)?;
        // The generation stays: what replaced this record has the next one.
        let mut new =
            ChunkRow { place: extent.place, touch_segment: 0, quarantine_segment: 0, ..old.clone() };
        add_ghost(&mut new.ghosts, self.id);
        let mut state = self.core.lock();
        let closed = extent.close(&mut state, &record.groups, new.generation);
        if closed.is_ok() {
            self.round.add(&mut state, *key, vec![extent.place.segment], replaced(key, &old, &new));
        }
        drop(state);
        closed?;
        self.copied.push(trailer_place(record, self.id));
        Ok(true)
    }

    fn mark(&mut self, key: &ChunkKey, record: &Scanned) -> Result<bool, StoreError> {
        let (kind, epoch, target) = (record.header.kind, record.header.epoch, record.header.target);
        let touch = kind == RecordKind::Touch;
        let wanted = |row: &ChunkRow| {
            let mine = if touch {
                row.touch_segment == self.id && row.epoch == epoch
            } else {
                row.quarantine_segment == self.id
            };
            mine && row.place == target
        };
        let Some(old) = rows::chunk_row(self.core.index.as_ref(), key)?.filter(wanted) else {
            return Ok(false);
        };
        let mut state = self.core.lock();
        let segment = self.core.append_mark(&mut state, key, Mark { kind, epoch, target })?.segment;
        let mut new = old.clone();
        *(if touch { &mut new.touch_segment } else { &mut new.quarantine_segment }) = segment;
        self.round.add(&mut state, *key, vec![segment], replaced(key, &old, &new));
        Ok(true)
    }

    fn delete(&mut self, key: &ChunkKey, record: &Scanned) -> Result<bool, StoreError> {
        let here = RecordPlace { segment: self.id, offset: record.offset };
        let row = rows::tombstone_row(self.core.index.as_ref(), key)?;
        let Some(mut row) = row.filter(|row| row.place == here) else { return Ok(false) };
        let mut state = self.core.lock();
        let mark = Mark { kind: RecordKind::Delete, epoch: row.position, target: RecordPlace::default() };
        row.place = self.core.append_mark(&mut state, key, mark)?;
        add_ghost(&mut row.ghosts, self.id);
        let mut effect = Effect::default();
        effect.batch.put(rows::tombstone_row_key(key), row.encode());
        self.round.add(&mut state, *key, vec![row.place.segment], effect);
        Ok(true)
    }
}
