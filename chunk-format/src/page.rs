//! Manifest pages: the clear list of a page's chunks, and one sealed message with their secrets.
//!
//! The message's associated data is the hash of the clear list and its key holds upload and place, so
//! entries cannot be swapped, cut or mixed with every check passing.

use dfs_types::limits::{MAX_CHUNK_BYTES, MAX_PAGE_CHUNKS};
use dfs_types::{ChunkId, Entropy, Secret, UploadId};
use zeroize::Zeroizing;

use crate::aead::{MESSAGE_OVERHEAD, expand, open_message, seal_message};
use crate::error::FormatError;

/// Bytes of one entry of a clear list.
pub const CLEAR_ENTRY_BYTES: usize = 36;
const SECRET_BYTES: usize = 32;

/// One chunk of a page as the metadata service may see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClearEntry {
    pub chunk: ChunkId,
    /// Plaintext bytes, 1 to 64 MiB.
    pub length: u32,
}

/// L: `(chunk_id || u32 length)*`.
pub fn encode_clear(entries: &[ClearEntry]) -> Vec<u8> {
    let mut list = Vec::with_capacity(entries.len() * CLEAR_ENTRY_BYTES);
    for entry in entries {
        list.extend_from_slice(entry.chunk.as_bytes());
        list.extend_from_slice(&entry.length.to_be_bytes());
    }
    list
}

/// Reads a clear list of 1 to 1,024 chunks.
pub fn decode_clear(list: &[u8]) -> Result<Vec<ClearEntry>, FormatError> {
    count_clear(list)?;
    let (entries, _) = list.as_chunks::<CLEAR_ENTRY_BYTES>();
    let read = |(index, entry): (u32, &[u8; CLEAR_ENTRY_BYTES])| {
        let (chunk, length) = entry.split_first_chunk::<32>().expect("36 bytes begin with 32");
        let length = u32::from_be_bytes(length.try_into().expect("36 bytes end with 4"));
        if length == 0 || u64::from(length) > MAX_CHUNK_BYTES {
            return Err(FormatError::ClearEntryLength { index });
        }
        Ok(ClearEntry { chunk: ChunkId(*chunk), length })
    };
    (0..).zip(entries).map(read).collect()
}

/// Seals the secrets of a page's chunks, in the order of its clear list. `first_index` is the index of
/// the page's first chunk in the upload.
pub fn seal_page(
    version_key: &Secret<32>,
    upload: &UploadId,
    first_index: u32,
    clear: &[u8],
    secrets: &[Secret<32>],
    entropy: &dyn Entropy,
) -> Result<Vec<u8>, FormatError> {
    let count = count_clear(clear)?;
    if secrets.len() != count {
        return Err(FormatError::PageCount { expected: count as u64, found: secrets.len() as u64 });
    }
    let mut plain = Zeroizing::new(Vec::with_capacity(count * SECRET_BYTES));
    for secret in secrets {
        plain.extend_from_slice(secret.expose());
    }
    let key = page_key(version_key, upload, first_index);
    Ok(seal_message(&key, blake3::hash(clear).as_bytes(), &plain, entropy))
}

/// The secrets of a page's chunks, in the order of its clear list.
pub fn open_page(
    version_key: &Secret<32>,
    upload: &UploadId,
    first_index: u32,
    clear: &[u8],
    blob: &[u8],
) -> Result<Vec<Secret<32>>, FormatError> {
    let count = count_clear(clear)?;
    if blob.len() != count * SECRET_BYTES + MESSAGE_OVERHEAD {
        let found = (blob.len().saturating_sub(MESSAGE_OVERHEAD) / SECRET_BYTES) as u64;
        return Err(FormatError::PageCount { expected: count as u64, found });
    }
    let key = page_key(version_key, upload, first_index);
    let plain = open_message(&key, blake3::hash(clear).as_bytes(), blob).ok_or(FormatError::PageForged)?;
    Ok(plain.as_chunks::<SECRET_BYTES>().0.iter().map(|secret| Secret::new(*secret)).collect())
}

/// The hash over all pages of a version, which its root keeps: `BLAKE3` over `BLAKE3(L) ||
/// BLAKE3(blob)` of each page in order.
pub struct PagesHasher(blake3::Hasher);

impl PagesHasher {
    pub fn new() -> Self {
        Self(blake3::Hasher::new())
    }

    pub fn page(&mut self, clear: &[u8], blob: &[u8]) {
        self.0.update(blake3::hash(clear).as_bytes());
        self.0.update(blake3::hash(blob).as_bytes());
    }

    pub fn finish(self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }
}

impl Default for PagesHasher {
    fn default() -> Self {
        Self::new()
    }
}

fn page_key(version_key: &Secret<32>, upload: &UploadId, first_index: u32) -> Secret<32> {
    expand(version_key, &[b"dfs manifest v1 page\0", upload.as_bytes(), &first_index.to_be_bytes()])
}

fn count_clear(clear: &[u8]) -> Result<usize, FormatError> {
    let count = clear.len() / CLEAR_ENTRY_BYTES;
    if clear.len().is_multiple_of(CLEAR_ENTRY_BYTES) && (1..=MAX_PAGE_CHUNKS).contains(&count) {
        Ok(count)
    } else {
        Err(FormatError::ClearListLength { length: clear.len() as u64 })
    }
}
