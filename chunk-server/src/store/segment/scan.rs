//! Walking a segment from its first record to its last, over whatever is damaged between.

use chunk_format::record::{
    ALIGNMENT, RECORD_HEADER_BYTES, RECORD_MAGIC, RecordHeader, RecordKind, SEGMENT_HEADER_BYTES,
    SegmentHeader, SegmentTag, TRAILER_BYTES, Trailer, groups_offset,
};
use chunk_format::tree::{GroupHasher, group_count};

use crate::store::disk::{DiskFile, read_exact_at};

/// Headers are read through a window of this: marks lie densely.
const WINDOW_BYTES: usize = 16 << 10;
/// The same when the place is lost.
const SEARCH_BYTES: usize = 1 << 20;

/// A record whose header is sound.
#[derive(Clone, Debug)]
pub struct Scanned {
    pub offset: u64,
    pub header: RecordHeader,
    /// Its sequence, if it is complete: a mark, or a data record with its trailer.
    pub sequence: Option<u64>,
    /// Complete data records: from the trailer.
    pub generation: u32,
    /// Data records that are complete: the group hashes, with their checksum right.
    pub groups: Vec<[u8; 32]>,
}

/// Reads what a segment file says of itself; from its first record if its own header is damaged.
/// None if neither is sound.
pub fn read_identity(file: &dyn DiskFile) -> Option<(SegmentTag, Option<SegmentHeader>)> {
    let mut bytes = [0u8; SEGMENT_HEADER_BYTES];
    if read_exact_at(file, &mut bytes, 0).is_ok()
        && let Ok(header) = SegmentHeader::decode(&bytes)
    {
        return Some((header.tag, Some(header)));
    }
    // The place of the first record is fixed, so this is one of ours and not from inside a chunk.
    let mut bytes = [0u8; RECORD_HEADER_BYTES];
    read_exact_at(file, &mut bytes, SEGMENT_HEADER_BYTES as u64).ok()?;
    RecordHeader::decode(&bytes, None).ok().map(|header| (header.tag, None))
}

/// The format of a segment that another release wrote, if it says so in a sound header.
pub fn foreign_format(file: &dyn DiskFile) -> Option<u8> {
    let mut bytes = [0u8; SEGMENT_HEADER_BYTES];
    read_exact_at(file, &mut bytes, 0).ok()?;
    SegmentHeader::unknown_format(&bytes)
}

pub struct Scanner<'a> {
    file: &'a dyn DiskFile,
    tag: SegmentTag,
    length: u64,
    at: u64,
    window: Vec<u8>,
    window_at: u64,
    /// Places at which a sound record was expected and not found, the zeros at the end left out.
    pub damaged: u64,
}

impl<'a> Scanner<'a> {
    pub fn new(file: &'a dyn DiskFile, tag: SegmentTag) -> std::io::Result<Self> {
        let length = file.length()?;
        let at = SEGMENT_HEADER_BYTES as u64;
        Ok(Self { file, tag, length, at, window: Vec::new(), window_at: 0, damaged: 0 })
    }

    /// Where the last record seen ends.
    pub fn position(&self) -> u64 {
        self.at
    }

    fn next_header(&mut self) -> Option<(u64, RecordHeader)> {
        let header = self.view(self.at, RECORD_HEADER_BYTES, WINDOW_BYTES).map(<[u8]>::to_vec);
        if let Some(header) = header.and_then(|bytes| RecordHeader::decode(&bytes, Some(&self.tag)).ok()) {
            return Some((self.at, header));
        }
        self.search(self.at + ALIGNMENT)
    }

    /// The next place from `from` with a sound header of this segment. Reads on over what cannot be
    /// read.
    fn search(&mut self, from: u64) -> Option<(u64, RecordHeader)> {
        let mut at = from;
        while at + RECORD_HEADER_BYTES as u64 <= self.length {
            let tag = self.tag;
            let Some(window) = self.view_some(at, SEARCH_BYTES) else {
                at += SEARCH_BYTES as u64;
                continue;
            };
            let places = (0..=window.len() - RECORD_HEADER_BYTES).step_by(ALIGNMENT as usize);
            let mut steps = 0;
            for place in places {
                steps += ALIGNMENT;
                if window[place..place + 8] == RECORD_MAGIC
                    && let Ok(header) = RecordHeader::decode(&window[place..], Some(&tag))
                {
                    self.damaged += 1;
                    return Some((at + place as u64, header));
                }
            }
            at += steps;
        }
        None
    }

    /// `len` bytes at `at`, or none if they cannot be had.
    fn view(&mut self, at: u64, len: usize, ahead: usize) -> Option<&[u8]> {
        let inside = at >= self.window_at && at + len as u64 <= self.window_at + self.window.len() as u64;
        if !inside {
            self.load(at, ahead.max(len))?;
        }
        let start = (at - self.window_at) as usize;
        self.window.get(start..start + len)
    }

    /// Up to `most` bytes at `at`, at least a header's worth.
    fn view_some(&mut self, at: u64, most: usize) -> Option<&[u8]> {
        self.load(at, most)?;
        (self.window.len() >= RECORD_HEADER_BYTES).then_some(&self.window)
    }

    fn load(&mut self, at: u64, most: usize) -> Option<()> {
        let len = self.length.checked_sub(at)?.min(most as u64) as usize;
        self.window.resize(len, 0);
        self.window_at = at;
        if read_exact_at(self.file, &mut self.window, at).is_err() {
            self.window.clear();
            return None;
        }
        Some(())
    }

    fn trailer(&self, offset: u64, header: &RecordHeader) -> Option<(Trailer, Vec<[u8; 32]>)> {
        let hash_bytes = 32 * group_count(header.sealed_len) as usize;
        let mut bytes = vec![0u8; hash_bytes + TRAILER_BYTES];
        read_exact_at(self.file, &mut bytes, offset + groups_offset(header.sealed_len)).ok()?;
        let (hashes, trailer) = bytes.split_at(hash_bytes);
        let trailer = Trailer::decode(trailer, &header.encode(), hashes).ok()?;
        Some((trailer, hashes.as_chunks::<32>().0.to_vec()))
    }
}

impl Iterator for Scanner<'_> {
    type Item = Scanned;

    fn next(&mut self) -> Option<Scanned> {
        let (offset, header) = self.next_header()?;
        self.at = offset + header.extent_bytes();
        let (sequence, generation, groups) = match header.kind {
            RecordKind::Data => match self.trailer(offset, &header) {
                Some((trailer, groups)) => (Some(trailer.sequence), trailer.generation, groups),
                None => (None, 0, Vec::new()),
            },
            RecordKind::Touch | RecordKind::Delete | RecordKind::Quarantine | RecordKind::Seal => {
                (Some(header.sequence), 0, Vec::new())
            }
        };
        Some(Scanned { offset, header, sequence, generation, groups })
    }
}

/// Why a copy stopped.
#[derive(PartialEq, Eq, Debug)]
pub enum CopyError<E> {
    Read(String),
    Write(E),
}

/// Gives the sealed bytes of a data record to `write`, by 1 MiB; whether they are sound.
pub fn copy_data<E>(
    file: &dyn DiskFile,
    record: &Scanned,
    mut write: impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<bool, CopyError<E>> {
    let sealed_len = record.header.sealed_len;
    let mut hasher = GroupHasher::with_length(sealed_len);
    let mut piece = vec![0u8; SEARCH_BYTES.min(sealed_len as usize)];
    let mut done = 0;
    while done < sealed_len {
        let len = (piece.len() as u64).min(sealed_len - done) as usize;
        let at = record.offset + RECORD_HEADER_BYTES as u64 + done;
        read_exact_at(file, &mut piece[..len], at).map_err(|error| CopyError::Read(error.to_string()))?;
        hasher.update(&piece[..len]);
        write(done, &piece[..len]).map_err(CopyError::Write)?;
        done += len as u64;
    }
    let (id, groups) = hasher.finish();
    Ok(id == record.header.chunk && groups == record.groups)
}
