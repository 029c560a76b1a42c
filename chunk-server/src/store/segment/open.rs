//! Start: what is in the directory, what the index knows of it, and the difference.
//!
//! Crash promise: any number of crashes while this runs leave the same chunks; `recover` says how.
//!
//! Cost: segments that are sealed are not read, one header each; unsealed ones (one, and those held
//! open by slow writers) are walked. Without an index all are walked, headers and trailers only.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Condvar, Mutex};

use chunk_format::record::{Poison, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use dfs_types::Entropy;
use dfs_types::limits::MAX_FAULTS_WAITING;

use super::recover::{Found, recover};
use super::scan::{foreign_format, read_identity};
use super::seal::{seal_record, sealed_batch, write_seal};
use super::state::{Effect, Phase, Segment, State, parse_name, poison_name, segment_name};
use super::{Core, SegmentStore, Settings, io_error};
use crate::store::disk::{Disk, read_exact_at};
use crate::store::index::rows::{self, ChunkRow, TombstoneRow};
use crate::store::index::{Index, IndexBatch};
use crate::store::{ChunkKey, StoreError};

/// Rows looked at together.
const PAGE: usize = 1024;

/// What a start found. Worth a log line; `lost` and `damaged` are worth an alarm.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OpenReport {
    pub segments: u64,
    pub chunks: u64,
    /// The index was made anew from the segments.
    pub rebuilt: bool,
    /// Records that counted only now, after they were copied and synced.
    pub recovered: u64,
    /// Records that looked finished and were not.
    pub voided: u64,
    /// Chunks of the index whose segment is gone, and that are nowhere else.
    pub lost: u64,
    /// Places in segments at which a record was expected and not found.
    pub damaged: u64,
    /// Why an index was set aside.
    pub index_damaged: Option<String>,
    /// What the metadata service has to hear, so that it asks: chunks that are gone or that do not check,
    /// and those whose record is there and does not count, for it may be one that was acknowledged and
    /// rotted. At most [`MAX_FAULTS_WAITING`].
    pub faults: Vec<Fault>,
}

/// A chunk that is not as it was promised, perhaps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    pub key: ChunkKey,
    /// It is there and does not check; else it is gone.
    pub corrupt: bool,
}

/// Chunks to look at again once everything is merged.
#[derive(Default)]
pub struct Suspects {
    keys: BTreeSet<ChunkKey>,
}

impl Suspects {
    pub fn add(&mut self, key: ChunkKey) {
        if self.keys.len() < MAX_FAULTS_WAITING {
            self.keys.insert(key);
        }
    }
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
        let opening = Opening {
            core: &core,
            report: OpenReport::default(),
            suspects: Suspects::default(),
            lost: BTreeSet::new(),
        };
        let report = opening.run()?;
        Ok((Self { core }, report))
    }
}

fn disk_error(error: io::Error) -> StoreError {
    StoreError::Io(error.to_string())
}

struct Opening<'a> {
    core: &'a Arc<Core>,
    report: OpenReport,
    suspects: Suspects,
    /// The first of the chunks whose segment is gone.
    lost: BTreeSet<ChunkKey>,
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
        let mut found = recover(self.core, &unsealed, &poisons, &mut self.report, &mut self.suspects)?;
        self.recount(&mut found)?;
        self.close_recovered(&found.ends, &poisons)?;
        self.note_missing()?;
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
                if link || matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::IsADirectory) {
                    let why = "is not a regular file: put back the file that was here, or let the node be \
                               removed and start it on an empty directory";
                    return StoreError::Refused(format!("segment {id} {why}"));
                }
                io_error(id, &error)
            })?;
            if let Some(format) = foreign_format(file.as_ref()) {
                return Err(StoreError::Refused(format!(
                    "segment {id} is of format {format}, which this release does not know: start the one that wrote it"
                )));
            }
            let identity = read_identity(file.as_ref());
            match identity {
                Some((_, Some(header)))
                    if header.segment != id || header.incarnation != core.settings.incarnation =>
                {
                    let why = format!(
                        "segment {id} is segment {} of another data directory: move it back to where it came from",
                        header.segment
                    );
                    return Err(StoreError::Refused(why));
                }
                Some((_, Some(_))) => {}
                Some((_, None)) | None => self.report.damaged += 1,
            }
            let length = file.length().map_err(|error| io_error(id, &error))?;
            let phase = match (poisons.contains_key(&id), sealed.contains(&id)) {
                (false, true) => Phase::Sealed,
                _ => Phase::Recovering,
            };
            let tag = identity.map_or([0; 16], |(tag, _)| tag);
            let file = (phase == Phase::Recovering).then_some(file);
            let headless = matches!(identity, Some((_, None)));
            let segment = Segment { headless, ..Segment::new(file, tag, phase, length) };
            state.segments.insert(id, segment);
        }
        Ok(poisons)
    }

    fn drop_rows_of_missing_segments(&mut self) -> Result<(), StoreError> {
        let index = self.core.index.as_ref();
        let exists: BTreeSet<u32> = self.core.lock().segments.keys().copied().collect();
        let (count, lost) = (&mut self.report.lost, &mut self.lost);
        let (from, to) = rows::kind_bounds(b'c');
        each_row(index, &from, &to, |key, value, batch| {
            if !exists.contains(&ChunkRow::decode(value)?.place.segment) {
                *count += 1;
                if lost.len() < MAX_FAULTS_WAITING {
                    lost.insert(rows::key_of_row(key)?);
                }
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
    /// record that a row points to. A row whose record was looked for and not found sound is a fault.
    fn recount(&mut self, found: &mut Found) -> Result<(), StoreError> {
        let Found { ends, complete } = found;
        let core = self.core;
        let (rebuilt, faults) = (self.report.rebuilt, &mut self.report.faults);
        let mut state = core.lock();
        for segment in state.segments.values_mut() {
            (segment.rows, segment.live) = (0, 0);
        }
        state.chunks = 0;
        let (from, to) = rows::kind_bounds(b'c');
        each_row(core.index.as_ref(), &from, &to, |key, value, _| {
            let row = ChunkRow::decode(value)?;
            if let Some(end) = ends.get_mut(&row.place.segment) {
                *end = (*end).max(row.place.offset + row.extent_bytes());
                let seen = rebuilt || complete.contains(&row.place);
                if !seen && !row.quarantined && faults.len() < MAX_FAULTS_WAITING {
                    faults.push(Fault { key: rows::key_of_row(key)?, corrupt: true });
                }
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

    /// Adds what has no row after all.
    fn note_missing(&mut self) -> Result<(), StoreError> {
        let index = self.core.index.as_ref();
        for key in &self.lost {
            if rows::chunk_row(index, key)?.is_some() {
                self.report.lost -= 1;
            }
        }
        for key in self.lost.union(&self.suspects.keys) {
            if self.report.faults.len() < MAX_FAULTS_WAITING && rows::chunk_row(index, key)?.is_none() {
                self.report.faults.push(Fault { key: *key, corrupt: false });
            }
        }
        Ok(())
    }

    /// Seals what was looked through; removes what never held a record; leaves what is poisoned.
    fn close_recovered(
        &self,
        ends: &BTreeMap<u32, u64>,
        poisons: &BTreeMap<u32, Poison>,
    ) -> Result<(), StoreError> {
        let core = self.core;
        let mut state = core.lock();
        let highest = state.last_segment;
        for (id, end) in ends {
            let segment = state.segment(*id);
            if poisons.contains_key(id) {
                segment.phase = Phase::Poisoned;
                continue;
            }
            // The highest number is remembered by its file, if that was ever whole.
            let remembers = *id == highest && segment.tag != [0; 16];
            if *end == SEGMENT_HEADER_BYTES as u64 && segment.rows == 0 && !remembers {
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
