//! The rows of the index. Key kinds by first byte, ordinals never reused:
//!
//! ```text
//! 'c' realm 16 chunk 32   where the chunk is, its epoch, its marks
//! 't' realm 16 chunk 32   the delete record that still has to be kept
//! 's' segment u32         the segment is sealed, and every row it calls for is written
//! 'm'                     the index is complete, and of which data directory
//! ```
//!
//! Integers are big-endian; values begin with a version. A row that does not read is an error of the
//! index, which is then made anew.

use chunk_format::record::{RecordPlace, data_extent_bytes};
use dfs_types::{ChunkId, Incarnation, Position, RealmId};

use super::{Index, IndexError};
use crate::store::{ChunkKey, ChunkMeta};

const VERSION: u8 = 1;
const KEY_BYTES: usize = 1 + 16 + 32;

/// Where a chunk is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChunkRow {
    pub place: RecordPlace,
    pub sealed_len: u64,
    pub epoch: Position,
    pub quarantined: bool,
    /// The segment of the touch record that says `epoch`; 0 if the data record itself does.
    pub touch_segment: u32,
    /// The segment of the quarantine record; 0 if there is none or the data record itself says it.
    pub quarantine_segment: u32,
    /// Of the data record, from its trailer.
    pub generation: u32,
    /// Segments that may hold older data records of this chunk. Those that are gone do not count.
    pub ghosts: Vec<u32>,
}

impl ChunkRow {
    pub fn meta(&self) -> ChunkMeta {
        ChunkMeta { sealed_len: self.sealed_len, epoch: self.epoch, quarantined: self.quarantined }
    }

    pub fn extent_bytes(&self) -> u64 {
        data_extent_bytes(self.sealed_len)
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, u8::from(self.quarantined)];
        out.extend(self.place.segment.to_be_bytes());
        out.extend(self.place.offset.to_be_bytes());
        out.extend(self.sealed_len.to_be_bytes());
        out.extend(self.epoch.0.to_be_bytes());
        out.extend(self.touch_segment.to_be_bytes());
        out.extend(self.quarantine_segment.to_be_bytes());
        out.extend(self.generation.to_be_bytes());
        encode_ghosts(&self.ghosts, &mut out);
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, IndexError> {
        let mut reader = Reader::new(bytes)?;
        let row = Self {
            quarantined: reader.take::<1>()?[0] == 1,
            place: reader.place()?,
            sealed_len: reader.u64()?,
            epoch: Position(reader.u64()?),
            touch_segment: reader.u32()?,
            quarantine_segment: reader.u32()?,
            generation: reader.u32()?,
            ghosts: reader.ghosts()?,
        };
        Ok(row)
    }
}

/// A delete record that is on disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TombstoneRow {
    pub position: Position,
    pub place: RecordPlace,
    /// The highest of the data records it deletes: what is put after it has a higher one, so that a
    /// rebuild, which may see the old data after the new, knows which is which.
    pub generation: u32,
    /// Segments that may hold data records it deletes, or older delete records of the chunk. It has to
    /// stay while one of them exists.
    pub ghosts: Vec<u32>,
}

impl TombstoneRow {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend(self.position.0.to_be_bytes());
        out.extend(self.place.segment.to_be_bytes());
        out.extend(self.place.offset.to_be_bytes());
        out.extend(self.generation.to_be_bytes());
        encode_ghosts(&self.ghosts, &mut out);
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, IndexError> {
        let mut reader = Reader::new(bytes)?;
        Ok(Self {
            position: Position(reader.u64()?),
            place: reader.place()?,
            generation: reader.u32()?,
            ghosts: reader.ghosts()?,
        })
    }
}

/// Adds a segment to a list of ghosts, in order and once.
pub fn add_ghost(ghosts: &mut Vec<u32>, segment: u32) {
    if let Err(at) = ghosts.binary_search(&segment) {
        ghosts.insert(at, segment);
    }
}

pub fn chunk_row_key(key: &ChunkKey) -> Vec<u8> {
    row_key(b'c', key)
}

pub fn tombstone_row_key(key: &ChunkKey) -> Vec<u8> {
    row_key(b't', key)
}

pub fn sealed_row_key(segment: u32) -> Vec<u8> {
    let mut out = vec![b's'];
    out.extend(segment.to_be_bytes());
    out
}

pub fn sealed_row_segment(key: &[u8]) -> Result<u32, IndexError> {
    let bytes: [u8; 4] = key.get(1..).and_then(|b| b.try_into().ok()).ok_or_else(malformed)?;
    Ok(u32::from_be_bytes(bytes))
}

/// The value of a sealed row.
pub fn sealed_row() -> Vec<u8> {
    vec![VERSION]
}

pub const COMPLETE_ROW_KEY: &[u8] = b"m";

/// The value of the row that says that the index is complete.
pub fn complete_row(incarnation: &Incarnation) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend(incarnation.as_bytes());
    out
}

/// All rows of one kind: from the first bound to the second, exclusive.
pub fn kind_bounds(kind: u8) -> (Vec<u8>, Vec<u8>) {
    (vec![kind], vec![kind + 1])
}

/// The chunk a 'c' or 't' row speaks of.
pub fn key_of_row(row: &[u8]) -> Result<ChunkKey, IndexError> {
    if row.len() != KEY_BYTES {
        return Err(malformed());
    }
    let realm = RealmId(row[1..17].try_into().expect("16 bytes"));
    let chunk = ChunkId(row[17..].try_into().expect("32 bytes"));
    Ok(ChunkKey { realm, chunk })
}

pub fn chunk_row(index: &dyn Index, key: &ChunkKey) -> Result<Option<ChunkRow>, IndexError> {
    index.get(&chunk_row_key(key))?.map(|value| ChunkRow::decode(&value)).transpose()
}

pub fn tombstone_row(index: &dyn Index, key: &ChunkKey) -> Result<Option<TombstoneRow>, IndexError> {
    index.get(&tombstone_row_key(key))?.map(|value| TombstoneRow::decode(&value)).transpose()
}

fn row_key(kind: u8, key: &ChunkKey) -> Vec<u8> {
    let mut out = Vec::with_capacity(KEY_BYTES);
    out.push(kind);
    out.extend(key.realm.as_bytes());
    out.extend(key.chunk.as_bytes());
    out
}

fn encode_ghosts(ghosts: &[u32], out: &mut Vec<u8>) {
    for segment in ghosts {
        out.extend(segment.to_be_bytes());
    }
}

fn malformed() -> IndexError {
    IndexError::Damaged("a row does not read".to_owned())
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, IndexError> {
        match bytes.split_first() {
            Some((&VERSION, rest)) => Ok(Self(rest)),
            _ => Err(malformed()),
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], IndexError> {
        let (first, rest) = self.0.split_first_chunk::<N>().ok_or_else(malformed)?;
        self.0 = rest;
        Ok(*first)
    }

    fn u32(&mut self) -> Result<u32, IndexError> {
        Ok(u32::from_be_bytes(self.take()?))
    }

    fn u64(&mut self) -> Result<u64, IndexError> {
        Ok(u64::from_be_bytes(self.take()?))
    }

    fn place(&mut self) -> Result<RecordPlace, IndexError> {
        Ok(RecordPlace { segment: self.u32()?, offset: self.u64()? })
    }

    /// The rest.
    fn ghosts(&mut self) -> Result<Vec<u32>, IndexError> {
        let (segments, rest) = self.0.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(malformed());
        }
        Ok(segments.iter().map(|bytes| u32::from_be_bytes(*bytes)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_read_back(segment: u32, offset: u64, epoch: u64, quarantined: bool, ghosts: Vec<u32>) {
            let place = RecordPlace { segment, offset };
            let row = ChunkRow {
                place, sealed_len: offset, epoch: Position(epoch), quarantined, touch_segment: segment,
                quarantine_segment: 3, generation: segment, ghosts: ghosts.clone(),
            };
            prop_assert_eq!(ChunkRow::decode(&row.encode()), Ok(row));
            let row = TombstoneRow { position: Position(epoch), place, generation: segment, ghosts };
            prop_assert_eq!(TombstoneRow::decode(&row.encode()), Ok(row));
        }

        #[test]
        fn arbitrary_rows_never_panic(bytes: Vec<u8>) {
            let _ = ChunkRow::decode(&bytes);
            let _ = TombstoneRow::decode(&bytes);
            let _ = key_of_row(&bytes);
        }
    }

    #[test]
    fn keys_order_as_chunks_do() {
        let low = ChunkKey::new(RealmId([1; 16]), ChunkId([9; 32]));
        let high = ChunkKey::new(RealmId([2; 16]), ChunkId([0; 32]));
        assert!(low < high && chunk_row_key(&low) < chunk_row_key(&high));
        assert_eq!(key_of_row(&chunk_row_key(&high)), Ok(high));
    }
}
