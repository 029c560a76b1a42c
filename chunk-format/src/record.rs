//! Segment records: the layout on a chunk server's disk. Pure; the store does the I/O.
//!
//! A segment is a 64-byte segment header and then records, each at a multiple of 64 bytes:
//!
//! ```text
//! data      record header 128 | sealed bytes | group hashes 32 each | trailer 64 | zeros to 64
//! mark      record header 128                      (touch, delete, quarantine)
//! seal      record header 128                      (the last record of a segment)
//! ```
//!
//! Crash promise: a mark is one checksummed header, a data record counts only with its trailer, whose
//! checksum covers header and group hashes; the sealed bytes are held by the group hashes, and those by
//! the chunk id. So a torn record is always told from a whole one. The extent of a record follows from
//! its header alone, so that one that was begun and never finished can be stepped over.
//!
//! The tag is random per segment, never leaves the node and is in every record header: sealed bytes
//! are chosen by clients, and a scan that has lost its place must not take a record from inside them.

use dfs_types::limits::MAX_SEALED_BYTES;
use dfs_types::{ChunkId, Incarnation, Position, RealmId};

use crate::tree::{GroupHash, group_count};

/// Everything in a segment starts at a multiple of this.
pub const ALIGNMENT: u64 = 64;
pub const SEGMENT_HEADER_BYTES: usize = 64;
pub const RECORD_HEADER_BYTES: usize = 128;
pub const TRAILER_BYTES: usize = 64;

const SEGMENT_MAGIC: [u8; 8] = *b"DFSSEGMT";
const POISON_MAGIC: [u8; 8] = *b"DFSPOISN";
const TRAILER_MAGIC: [u8; 8] = *b"DFSRCEND";
/// First bytes of every record header: what a scan that lost its place looks for.
pub const RECORD_MAGIC: [u8; 8] = *b"DFSRECRD";
const FORMAT: u8 = 1;

const FLAG_QUARANTINED: u8 = 1;

/// Random per segment.
pub type SegmentTag = [u8; 16];

/// Why bytes are not what was looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    #[error("too short")]
    Short,
    #[error("another magic")]
    Magic,
    #[error("format {0} is not known")]
    Format(u8),
    #[error("checksum")]
    Checksum,
    #[error("of another segment")]
    Tag,
    #[error("kind {0} is not known")]
    Kind(u8),
    #[error("a field has a value it cannot have")]
    Field,
}

/// The first 64 bytes of a segment file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    pub segment: u32,
    pub tag: SegmentTag,
    pub incarnation: Incarnation,
}

impl SegmentHeader {
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut out = [0u8; SEGMENT_HEADER_BYTES];
        out[..8].copy_from_slice(&SEGMENT_MAGIC);
        out[8] = FORMAT;
        out[12..16].copy_from_slice(&self.segment.to_be_bytes());
        out[16..32].copy_from_slice(&self.tag);
        out[32..48].copy_from_slice(self.incarnation.as_bytes());
        seal_checksum(&mut out);
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let bytes: &[u8; SEGMENT_HEADER_BYTES] = checked(bytes, &SEGMENT_MAGIC)?;
        if bytes[9..12] != [0; 3] || bytes[48..60] != [0; 12] {
            return Err(RecordError::Field);
        }
        Ok(Self {
            segment: u32_at(bytes, 12),
            tag: array_at(bytes, 16),
            incarnation: Incarnation(array_at(bytes, 32)),
        })
    }

    /// The format of a header that is sound and of a format not known here. Every format keeps magic,
    /// format byte and checksum of these 64 bytes in their places, so that this is not taken for damage.
    pub fn unknown_format(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> Option<u8> {
        let body = SEGMENT_HEADER_BYTES - 4;
        let sound =
            bytes[..8] == SEGMENT_MAGIC && crc_fast::crc32_iscsi(&bytes[..body]) == u32_at(bytes, body);
        (sound && bytes[8] != FORMAT).then_some(bytes[8])
    }
}

/// What a record is. The numbers are on disk and are never reused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum RecordKind {
    /// A chunk's sealed bytes.
    Data = 1,
    /// The data record at the target has at least this epoch.
    Touch = 2,
    /// Every data record of this chunk with an epoch below this one is deleted.
    Delete = 3,
    /// The data record at the target is bad.
    Quarantine = 4,
    /// Nothing follows in this segment, and all before it was durable when this was written.
    Seal = 5,
}

impl RecordKind {
    fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Data,
            2 => Self::Touch,
            3 => Self::Delete,
            4 => Self::Quarantine,
            5 => Self::Seal,
            _ => return None,
        })
    }
}

/// Where a record starts. Segment 0 does not exist and stands for "nowhere".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct RecordPlace {
    pub segment: u32,
    pub offset: u64,
}

/// The first 128 bytes of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordHeader {
    pub kind: RecordKind,
    /// Data only: it was already marked bad where it was copied from.
    pub quarantined: bool,
    pub tag: SegmentTag,
    pub realm: RealmId,
    pub chunk: ChunkId,
    pub epoch: Position,
    /// Data: length of the sealed bytes; 0 otherwise.
    pub sealed_len: u64,
    /// Touch and quarantine: the data record meant; nowhere otherwise.
    pub target: RecordPlace,
    /// Marks: place in the order in which the segment's records were completed, from 1. Data records
    /// have it in the trailer, as it is not known when they begin.
    pub sequence: u64,
}

impl RecordHeader {
    pub fn encode(&self) -> [u8; RECORD_HEADER_BYTES] {
        let mut out = [0u8; RECORD_HEADER_BYTES];
        out[..8].copy_from_slice(&RECORD_MAGIC);
        out[8] = FORMAT;
        out[9] = self.kind as u8;
        out[10] = if self.quarantined { FLAG_QUARANTINED } else { 0 };
        out[12..16].copy_from_slice(&self.target.segment.to_be_bytes());
        out[16..32].copy_from_slice(&self.tag);
        out[32..48].copy_from_slice(self.realm.as_bytes());
        out[48..80].copy_from_slice(self.chunk.as_bytes());
        out[80..88].copy_from_slice(&self.epoch.0.to_be_bytes());
        out[88..96].copy_from_slice(&self.sealed_len.to_be_bytes());
        out[96..104].copy_from_slice(&self.target.offset.to_be_bytes());
        out[104..112].copy_from_slice(&self.sequence.to_be_bytes());
        seal_checksum(&mut out);
        out
    }

    /// Reads a header. With `tag`, one of another segment is refused.
    pub fn decode(bytes: &[u8], tag: Option<&SegmentTag>) -> Result<Self, RecordError> {
        let bytes: &[u8; RECORD_HEADER_BYTES] = checked(bytes, &RECORD_MAGIC)?;
        let kind = RecordKind::from_number(bytes[9]).ok_or(RecordError::Kind(bytes[9]))?;
        let header = Self {
            kind,
            quarantined: bytes[10] & FLAG_QUARANTINED != 0,
            tag: array_at(bytes, 16),
            realm: RealmId(array_at(bytes, 32)),
            chunk: ChunkId(array_at(bytes, 48)),
            epoch: Position(u64_at(bytes, 80)),
            sealed_len: u64_at(bytes, 88),
            target: RecordPlace { segment: u32_at(bytes, 12), offset: u64_at(bytes, 96) },
            sequence: u64_at(bytes, 104),
        };
        if tag.is_some_and(|tag| *tag != header.tag) {
            return Err(RecordError::Tag);
        }
        let data = kind == RecordKind::Data;
        let aims = matches!(kind, RecordKind::Touch | RecordKind::Quarantine);
        let sound = bytes[10] & !FLAG_QUARANTINED == 0
            && bytes[11] == 0
            && bytes[112..124] == [0; 12]
            && (data || !header.quarantined)
            && (data == (header.sequence == 0))
            && (if data {
                (1..=MAX_SEALED_BYTES).contains(&header.sealed_len)
            } else {
                header.sealed_len == 0
            })
            && (aims == (header.target.segment != 0))
            && (aims || header.target.offset == 0);
        if sound { Ok(header) } else { Err(RecordError::Field) }
    }

    /// Bytes from this record's start to the next one's.
    pub fn extent_bytes(&self) -> u64 {
        match self.kind {
            RecordKind::Data => data_extent_bytes(self.sealed_len),
            RecordKind::Touch | RecordKind::Delete | RecordKind::Quarantine | RecordKind::Seal => {
                RECORD_HEADER_BYTES as u64
            }
        }
    }
}

/// Where the group hashes of a data record start, from its start.
pub fn groups_offset(sealed_len: u64) -> u64 {
    RECORD_HEADER_BYTES as u64 + sealed_len
}

/// Where its trailer starts, right behind the group hashes.
pub fn trailer_offset(sealed_len: u64) -> u64 {
    groups_offset(sealed_len) + 32 * u64::from(group_count(sealed_len))
}

/// Bytes from the start of a data record of a chunk of this length to the next record.
pub fn data_extent_bytes(sealed_len: u64) -> u64 {
    (trailer_offset(sealed_len) + TRAILER_BYTES as u64).next_multiple_of(ALIGNMENT)
}

/// What closes a data record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trailer {
    /// Place in the order in which the segment's records were completed, from 1.
    pub sequence: u64,
    /// Of two data records of a chunk the one with the higher generation counts: one more than the
    /// record it takes the place of, when a bad copy is replaced or a good one is moved.
    pub generation: u32,
}

impl Trailer {
    /// The trailer of the record with this header and these group hashes.
    pub fn encode(&self, header: &[u8; RECORD_HEADER_BYTES], groups: &[GroupHash]) -> [u8; TRAILER_BYTES] {
        let mut out = [0u8; TRAILER_BYTES];
        out[..8].copy_from_slice(&TRAILER_MAGIC);
        out[8] = FORMAT;
        out[16..24].copy_from_slice(&self.sequence.to_be_bytes());
        out[24..28].copy_from_slice(&self.generation.to_be_bytes());
        let sum = trailer_checksum(header, groups.as_flattened(), &out);
        out[60..].copy_from_slice(&sum.to_be_bytes());
        out
    }

    /// Reads the trailer that must belong to this header and these group hashes (as on disk).
    pub fn decode(
        bytes: &[u8],
        header: &[u8; RECORD_HEADER_BYTES],
        groups: &[u8],
    ) -> Result<Self, RecordError> {
        let bytes: &[u8; TRAILER_BYTES] = bytes.try_into().map_err(|_| RecordError::Short)?;
        if bytes[..8] != TRAILER_MAGIC {
            return Err(RecordError::Magic);
        }
        if bytes[8] != FORMAT {
            return Err(RecordError::Format(bytes[8]));
        }
        if trailer_checksum(header, groups, bytes) != u32_at(bytes, 60) {
            return Err(RecordError::Checksum);
        }
        if bytes[9..16] != [0; 7] || bytes[28..60] != [0; 32] {
            return Err(RecordError::Field);
        }
        Ok(Self { sequence: u64_at(bytes, 16), generation: u32_at(bytes, 24) })
    }
}

/// The content of the file beside a segment that may not be trusted past a point: after a failed
/// write or fsync the page cache shows records that the disk does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Poison {
    pub segment: u32,
    /// Records completed up to this sequence count; later ones were never acknowledged.
    pub durable_sequence: u64,
}

impl Poison {
    pub const BYTES: usize = 64;

    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut out = [0u8; Self::BYTES];
        out[..8].copy_from_slice(&POISON_MAGIC);
        out[8] = FORMAT;
        out[12..16].copy_from_slice(&self.segment.to_be_bytes());
        out[16..24].copy_from_slice(&self.durable_sequence.to_be_bytes());
        seal_checksum(&mut out);
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let bytes: &[u8; Self::BYTES] = checked(bytes, &POISON_MAGIC)?;
        Ok(Self { segment: u32_at(bytes, 12), durable_sequence: u64_at(bytes, 16) })
    }
}

fn trailer_checksum(header: &[u8], groups: &[u8], trailer: &[u8; TRAILER_BYTES]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(header);
    digest.update(groups);
    digest.update(&trailer[..60]);
    digest.finalize() as u32
}

/// Writes the CRC-32C of all but the last four bytes into those.
fn seal_checksum(block: &mut [u8]) {
    let body = block.len() - 4;
    let sum = crc_fast::crc32_iscsi(&block[..body]);
    block[body..].copy_from_slice(&sum.to_be_bytes());
}

/// The first `N` bytes, with the magic, a known format and a right checksum.
fn checked<'a, const N: usize>(bytes: &'a [u8], magic: &[u8; 8]) -> Result<&'a [u8; N], RecordError> {
    let block: &[u8; N] = bytes.get(..N).and_then(|b| b.try_into().ok()).ok_or(RecordError::Short)?;
    if block[..8] != *magic {
        return Err(RecordError::Magic);
    }
    if block[8] != FORMAT {
        return Err(RecordError::Format(block[8]));
    }
    if crc_fast::crc32_iscsi(&block[..N - 4]) != u32_at(block, N - 4) {
        return Err(RecordError::Checksum);
    }
    Ok(block)
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the slice has N bytes")
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(array_at(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_types::ids::hex;
    use proptest::prelude::*;

    fn data_header() -> RecordHeader {
        RecordHeader {
            kind: RecordKind::Data,
            quarantined: false,
            tag: [0x77; 16],
            realm: RealmId([0x11; 16]),
            chunk: ChunkId([0x22; 32]),
            epoch: Position(0x0102_0304_0506_0708),
            sealed_len: 65_616,
            target: RecordPlace::default(),
            sequence: 0,
        }
    }

    /// The bytes of format 1, which every later version must still read. Change the format number
    /// and add a file, never edit this one.
    #[test]
    fn golden_format_1() {
        let segment = SegmentHeader { segment: 7, tag: [0x77; 16], incarnation: Incarnation([0x33; 16]) };
        let header = data_header();
        let groups = [[0x44; 32], [0x55; 32]];
        let trailer = Trailer { sequence: 9, generation: 2 };
        let touch = RecordHeader {
            kind: RecordKind::Touch,
            sealed_len: 0,
            target: RecordPlace { segment: 7, offset: 64 },
            sequence: 10,
            ..header
        };
        let delete =
            RecordHeader { kind: RecordKind::Delete, target: RecordPlace::default(), sequence: 11, ..touch };
        let poison = Poison { segment: 7, durable_sequence: 11 };
        let text = format!(
            "segment {}\ndata    {}\ntrailer {}\ntouch   {}\ndelete  {}\npoison  {}\n",
            hex(&segment.encode()),
            hex(&header.encode()),
            hex(&trailer.encode(&header.encode(), &groups)),
            hex(&touch.encode()),
            hex(&delete.encode()),
            hex(&poison.encode()),
        );
        assert_eq!(text, include_str!("record_format_1.golden"));
        assert_eq!(SegmentHeader::decode(&segment.encode()), Ok(segment));
        assert_eq!(Poison::decode(&poison.encode()), Ok(poison));
        for mark in [touch, delete] {
            assert_eq!(RecordHeader::decode(&mark.encode(), Some(&mark.tag)), Ok(mark));
        }
        let sum = Trailer::decode(
            &trailer.encode(&header.encode(), &groups),
            &header.encode(),
            groups.as_flattened(),
        );
        assert_eq!(sum, Ok(trailer));
    }

    #[test]
    fn a_header_of_another_segment_is_not_taken() {
        let bytes = data_header().encode();
        assert_eq!(RecordHeader::decode(&bytes, Some(&[0x78; 16])), Err(RecordError::Tag));
        assert_eq!(RecordHeader::decode(&bytes[..127], None), Err(RecordError::Short));
    }

    #[test]
    fn extents_follow_from_the_length() {
        assert_eq!(data_extent_bytes(1), 256);
        assert_eq!(data_extent_bytes(65_536), 65_536 + 128 + 32 + 64 + 32);
        assert_eq!(data_extent_bytes(MAX_SEALED_BYTES) % ALIGNMENT, 0);
    }

    #[test]
    fn lengths_no_chunk_has_are_refused() {
        for sealed_len in [0, MAX_SEALED_BYTES + 1, 1 << 32, u64::MAX] {
            let bytes = RecordHeader { sealed_len, ..data_header() }.encode();
            assert_eq!(RecordHeader::decode(&bytes, None), Err(RecordError::Field));
        }
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_noticed(at in 0usize..128, bit in 0u8..8) {
            let mut bytes = data_header().encode();
            bytes[at] ^= 1 << bit;
            prop_assert!(RecordHeader::decode(&bytes, None).is_err());
        }

        #[test]
        fn headers_read_back(realm: [u8; 16], chunk: [u8; 32], epoch: u64, kind in 1u8..=5,
                             len in 1..=MAX_SEALED_BYTES, segment in 1u32.., offset: u64, sequence in 1u64..) {
            let kind = RecordKind::from_number(kind).unwrap();
            let data = kind == RecordKind::Data;
            let aims = matches!(kind, RecordKind::Touch | RecordKind::Quarantine);
            let header = RecordHeader {
                kind, quarantined: data, tag: [1; 16], realm: RealmId(realm), chunk: ChunkId(chunk),
                epoch: Position(epoch), sealed_len: if data { len } else { 0 },
                target: if aims { RecordPlace { segment, offset } } else { RecordPlace::default() },
                sequence: if data { 0 } else { sequence },
            };
            prop_assert_eq!(RecordHeader::decode(&header.encode(), None), Ok(header));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = RecordHeader::decode(&bytes, None);
            let _ = SegmentHeader::decode(&bytes);
            let _ = Poison::decode(&bytes);
        }
    }
}
