//! Sealing: a full segment whose writers are done gets a last record, loses its spare room, and never
//! changes again. Done by whoever led a commit, after everybody was answered, or by upkeep.

use chunk_format::record::{RECORD_HEADER_BYTES, RecordHeader, RecordKind, RecordPlace};
use dfs_types::{ChunkId, Position, RealmId};

use super::Core;
use super::state::{Guard, Phase, Segment};
use crate::store::disk::{DiskFile, is_no_space, write_all_at};
use crate::store::index::IndexBatch;
use crate::store::index::rows;

impl Core {
    /// Seals the closed segments that nobody writes to any more. The lock is given up while the disk
    /// works; the phase keeps everybody else away.
    pub fn seal_quiet<'a>(&'a self, mut state: Guard<'a>) -> Guard<'a> {
        loop {
            let quiet = |segment: &Segment| {
                segment.phase == Phase::Closing && segment.open_writers == 0 && segment.unsynced == 0
            };
            let Some((id, segment)) = state.segments.iter_mut().find(|(_, segment)| quiet(segment)) else {
                return state;
            };
            let id = *id;
            segment.phase = Phase::Sealing;
            let file = segment.file.clone().expect("an unsealed segment's file is open");
            let (header, tail) = (seal_record(segment), segment.tail);
            drop(state);
            let written = write_seal(file.as_ref(), &header, tail);
            let indexed = written.is_ok().then(|| self.index.write(&sealed_batch(id), true));
            state = self.lock();
            match (written, indexed) {
                (Ok(()), Some(Ok(()))) => {
                    let segment = state.segment(id);
                    segment.tail = tail + RECORD_HEADER_BYTES as u64;
                    segment.allocated = segment.tail;
                    state.now_sealed(id);
                }
                // Full disk: it stays closed, the next start or upkeep seals it.
                (Err(error), _) if is_no_space(&error) => {
                    state.segment(id).phase = Phase::Closing;
                    return state;
                }
                // All its records are durable and known; the mark beside it says so.
                (Err(error), _) => self.poison(&mut state, id, &error),
                (Ok(()), Some(Err(error))) => state.break_down(error.to_string()),
                (Ok(()), None) => unreachable!("the index is written when the file is"),
            }
        }
    }
}

pub fn seal_record(segment: &Segment) -> RecordHeader {
    RecordHeader {
        kind: RecordKind::Seal,
        quarantined: false,
        tag: segment.tag,
        realm: RealmId([0; 16]),
        chunk: ChunkId([0; 32]),
        epoch: Position::ZERO,
        sealed_len: 0,
        target: RecordPlace::default(),
        sequence: segment.next_sequence,
    }
}

/// Writes the seal record at `tail`, cuts the file behind it, and makes both durable.
pub fn write_seal(file: &dyn DiskFile, header: &RecordHeader, tail: u64) -> std::io::Result<()> {
    write_all_at(file, &header.encode(), tail)?;
    file.set_len(tail + RECORD_HEADER_BYTES as u64)?;
    file.sync()
}

pub fn sealed_batch(id: u32) -> IndexBatch {
    let mut batch = IndexBatch::default();
    batch.put(rows::sealed_row_key(id), rows::sealed_row());
    batch
}
