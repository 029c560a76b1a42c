//! What the store holds in memory, behind one lock: a few hundred bytes per segment and what is on
//! its way to the next commit. Nothing per chunk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, MutexGuard};

use chunk_format::record::{RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, SegmentTag};

use super::Core;
use crate::store::disk::{Disk, DiskFile};
use crate::store::index::IndexBatch;
use crate::store::index::rows::{ChunkRow, TombstoneRow};
use crate::store::{ChunkKey, StoreError};

/// Sealed segments whose files stay open.
const MAX_OPEN_SEALED: usize = 128;

pub type Guard<'a> = MutexGuard<'a, State>;

/// Where a segment is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Found unsealed at the start and being looked through.
    Recovering,
    /// Takes records.
    Active,
    /// Full; writers that began before may finish.
    Closing,
    /// Its seal record is being written.
    Sealing,
    Sealed,
    /// A write or fsync failed. What was durable is read; compaction moves it out.
    Poisoned,
}

pub struct Segment {
    /// Always there for a segment that is not sealed.
    pub file: Option<Arc<dyn DiskFile>>,
    pub tag: SegmentTag,
    pub phase: Phase,
    /// Where the next record goes.
    pub tail: u64,
    /// Length of the file: disk space taken.
    pub allocated: u64,
    pub next_sequence: u64,
    /// Records completed up to here are durable.
    pub durable_sequence: u64,
    /// Extents being written.
    pub open_writers: u32,
    /// Commits on their way that need this segment.
    pub unsynced: u32,
    /// Index rows whose data record is here.
    pub rows: u64,
    /// Bytes of records still needed.
    pub live: u64,
    /// Its own header is damaged, and what follows can still be walked: compaction moves it out before
    /// anything else, while it can.
    pub headless: bool,
    /// Compaction found something it could not move; not tried again before the next start.
    pub stuck: bool,
}

impl Segment {
    /// One whose file has this length, and into which nothing was written since it was opened.
    pub fn new(file: Option<Arc<dyn DiskFile>>, tag: SegmentTag, phase: Phase, length: u64) -> Self {
        Self {
            file,
            tag,
            phase,
            tail: length,
            allocated: length,
            next_sequence: 1,
            durable_sequence: 0,
            open_writers: 0,
            unsynced: 0,
            rows: 0,
            live: 0,
            headless: false,
            stuck: false,
        }
    }
}

/// What a commit changes once its records are durable.
#[derive(Default)]
pub struct Effect {
    pub batch: IndexBatch,
    /// Bytes that become needed, or no longer, by segment.
    pub live: Vec<(u32, i64)>,
    /// Rows that come to a segment or leave it.
    pub rows: Vec<(u32, i64)>,
    pub chunks: i64,
}

impl Effect {
    pub fn add_row(&mut self, row: &ChunkRow) {
        self.count_row(row, 1);
    }

    pub fn remove_row(&mut self, row: &ChunkRow) {
        self.count_row(row, -1);
    }

    fn count_row(&mut self, row: &ChunkRow, sign: i64) {
        self.chunks += sign;
        self.rows.push((row.place.segment, sign));
        self.live.push((row.place.segment, sign * row.extent_bytes() as i64));
        for segment in [row.touch_segment, row.quarantine_segment] {
            if segment != 0 {
                self.live.push((segment, sign * RECORD_HEADER_BYTES as i64));
            }
        }
    }

    pub fn add_tombstone(&mut self, row: &TombstoneRow) {
        self.live.push((row.place.segment, RECORD_HEADER_BYTES as i64));
    }

    pub fn remove_tombstone(&mut self, row: &TombstoneRow) {
        self.live.push((row.place.segment, -(RECORD_HEADER_BYTES as i64)));
    }
}

/// Records that are written and wait for their fsync.
pub struct Pending {
    pub ticket: u64,
    pub segments: Vec<u32>,
    /// The chunk that is held until the effect is in the index.
    pub key: ChunkKey,
    pub effect: Effect,
}

#[derive(Default)]
pub struct State {
    pub segments: BTreeMap<u32, Segment>,
    pub active: Option<u32>,
    pub last_segment: u32,
    /// Chunks with a change on its way: one at a time, so that each sees the one before.
    pub busy: BTreeSet<ChunkKey>,
    pub pending: Vec<Pending>,
    /// Somebody is syncing for all.
    pub leading: bool,
    pub results: BTreeMap<u64, Result<(), StoreError>>,
    pub last_ticket: u64,
    /// Why no change is taken any more.
    pub broken: Option<String>,
    pub chunks: u64,
    /// Sealed segments with an open file, oldest first.
    open_sealed: VecDeque<u32>,
}

impl State {
    pub fn segment(&mut self, id: u32) -> &mut Segment {
        self.segments.get_mut(&id).expect("a segment in use is not removed")
    }

    /// The open file of a segment; opened now if need be.
    pub fn file(&mut self, disk: &dyn Disk, id: u32) -> io::Result<Arc<dyn DiskFile>> {
        let segment = self.segments.get_mut(&id).ok_or(io::ErrorKind::NotFound)?;
        if let Some(file) = &segment.file {
            return Ok(file.clone());
        }
        let file = disk.open(&segment_name(id))?;
        segment.file = Some(file.clone());
        self.open_sealed.push_back(id);
        self.close_some();
        Ok(file)
    }

    /// A segment was sealed: its file may be closed when others need the place.
    pub fn now_sealed(&mut self, id: u32) {
        self.segment(id).phase = Phase::Sealed;
        self.open_sealed.push_back(id);
        self.close_some();
    }

    fn close_some(&mut self) {
        while self.open_sealed.len() > MAX_OPEN_SEALED {
            if let Some(id) = self.open_sealed.pop_front()
                && let Some(segment) = self.segments.get_mut(&id)
                && segment.phase == Phase::Sealed
            {
                segment.file = None;
            }
        }
    }

    /// Bytes of disk taken.
    pub fn used(&self) -> u64 {
        self.segments.values().map(|segment| segment.allocated).sum()
    }

    /// How many segments there are, the bytes of records in them, and of those the bytes still needed.
    pub fn fill(&self) -> (u64, u64, u64) {
        let header = SEGMENT_HEADER_BYTES as u64;
        self.segments.values().fold((0, 0, 0), |(count, written, live), segment| {
            (count + 1, written + segment.tail.saturating_sub(header), live + segment.live)
        })
    }

    pub fn check_taking_changes(&self) -> Result<(), StoreError> {
        match &self.broken {
            Some(why) => Err(StoreError::Broken(why.clone())),
            None => Ok(()),
        }
    }

    pub fn break_down(&mut self, why: String) {
        tracing::error!(why, "the chunk store takes no more changes until it is opened again");
        self.broken.get_or_insert(why);
    }

    /// Applies what an effect says about sizes and counts.
    pub fn count(&mut self, effect: &Effect) {
        for (id, bytes) in &effect.live {
            if let Some(segment) = self.segments.get_mut(id) {
                segment.live = segment.live.saturating_add_signed(*bytes);
            }
        }
        for (id, rows) in &effect.rows {
            if let Some(segment) = self.segments.get_mut(id) {
                segment.rows = segment.rows.saturating_add_signed(*rows);
            }
        }
        self.chunks = self.chunks.saturating_add_signed(effect.chunks);
    }

    /// Whether one of these segments still exists, other than `except`.
    pub fn any_exists(&self, ghosts: &[u32], except: u32) -> bool {
        ghosts.iter().any(|id| *id != except && self.segments.contains_key(id))
    }
}

impl Core {
    pub fn lock(&self) -> Guard<'_> {
        self.state.lock().expect("no one panics while holding the store's state")
    }

    pub fn wait<'a>(&'a self, state: Guard<'a>) -> Guard<'a> {
        self.changed.wait(state).expect("no one panics while holding the store's state")
    }

    /// Waits until nothing else is on its way for this chunk, and holds it.
    pub fn hold<'a>(&'a self, mut state: Guard<'a>, key: &ChunkKey) -> Result<Guard<'a>, StoreError> {
        loop {
            state.check_taking_changes()?;
            if state.busy.insert(*key) {
                return Ok(state);
            }
            state = self.wait(state);
        }
    }

    /// Lets go of a chunk that no commit took over.
    pub fn let_go(&self, state: &mut State, key: &ChunkKey) {
        state.busy.remove(key);
        self.changed.notify_all();
    }
}

pub fn segment_name(id: u32) -> String {
    format!("{id:010}.seg")
}

pub fn poison_name(id: u32) -> String {
    format!("{id:010}.poison")
}

/// The segment and whether the name is that of its poison file.
pub fn parse_name(name: &str) -> Option<(u32, bool)> {
    let (digits, extension) = name.split_once('.')?;
    let poison = match extension {
        "seg" => false,
        "poison" => true,
        _ => return None,
    };
    let plain = digits.len() == 10 && digits.bytes().all(|digit| digit.is_ascii_digit());
    let id = digits.parse().ok().filter(|id| plain && *id != 0)?;
    Some((id, poison))
}
