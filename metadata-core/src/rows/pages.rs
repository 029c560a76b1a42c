//! Manifest pages, by index of the first chunk and by offset of the first byte.

use dfs_proto::v1;
use dfs_types::limits::{CHUNK_TRAILER_BYTES, FRAME_BYTES, TAG_BYTES};
use dfs_types::{ChunkId, UploadId};

use super::Part;
use super::codec::row;
use super::versions::Newest;

row!(
    /// (manifest, index of its first chunk).
    Pages: Page, (UploadId, u32) => v1::PageRow);
row!(
    /// (manifest, inverted offset of its first byte) -> index of its first chunk: the first row at or
    /// behind an offset is the page that holds it.
    PageStarts: PageStart, (UploadId, Newest) => v1::PositionRow);

/// Bytes of one entry of the clear list: chunk id and plaintext length (u32 big-endian).
pub const ENTRY_BYTES: usize = 36;

/// A chunk as a manifest lists it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    pub chunk: ChunkId,
    /// Plaintext bytes, at least 1.
    pub plain: u32,
}

impl Entry {
    /// Bytes of the chunk once sealed (sealing.md: a tag per frame, and the trailer).
    pub fn sealed_length(&self) -> u64 {
        let plain = u64::from(self.plain);
        let frames = plain.div_ceil(FRAME_BYTES as u64);
        plain + frames * TAG_BYTES as u64 + CHUNK_TRAILER_BYTES as u64
    }
}

/// The entries of a clear list, in order; None unless it is a whole number of entries.
pub fn entries(clear: &[u8]) -> Option<Vec<Entry>> {
    if !clear.len().is_multiple_of(ENTRY_BYTES) {
        return None;
    }
    let entry = |mut bytes: &[u8]| {
        let chunk = ChunkId::read(&mut bytes)?;
        Some(Entry { chunk, plain: u32::read(&mut bytes)? })
    };
    clear.chunks_exact(ENTRY_BYTES).map(entry).collect()
}

/// The clear list of these entries.
pub fn clear_list(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(entries.len() * ENTRY_BYTES);
    for entry in entries {
        entry.chunk.write(&mut out);
        entry.plain.write(&mut out);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::testing::golden;

    #[test]
    fn rows() {
        let row = v1::PageRow { clear: vec![1; 36].into(), sealed: vec![2; 4].into(), offset: 0, size: 9 };
        golden::<Pages>(
            (UploadId([3; 16]), 1024),
            row,
            "410303030303030303030303030303030300000400",
            "010a240101010101010101010101010101010101010101010101010101010101010101010101011204020202022009",
        );
        golden::<PageStarts>(
            (UploadId([3; 16]), Newest(4096)),
            v1::PositionRow { position: 1 },
            "4203030303030303030303030303030303ffffffffffffefff",
            "010801",
        );
    }

    #[test]
    fn entries_read_back() {
        let list =
            [Entry { chunk: ChunkId([1; 32]), plain: 1 }, Entry { chunk: ChunkId([2; 32]), plain: 65_537 }];
        assert_eq!(entries(&clear_list(&list)).unwrap(), list);
        assert_eq!(list.map(|e| e.sealed_length()), [81, 65_633]);
        assert!(entries(&[0; 37]).is_none());
    }
}
