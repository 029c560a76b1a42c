//! Chunk format v1: sealing and opening whole chunks.
//!
//! A sealed chunk is its frames in place, then their tags, then header and key commitment. Owner: the
//! client seals and opens; nodes see only the sealed bytes. Hash and seal must read one immutable
//! buffer: a source read twice could put two plaintexts under one key and nonce. So the caller hashes
//! a buffer with [`plain_hash`], asks for the content secret, and hands over that same buffer.

use bytes::{BufMut, Bytes, BytesMut};
use dfs_types::limits::{CHUNK_TRAILER_BYTES, FRAME_BYTES, MAX_CHUNK_BYTES, MAX_SEALED_BYTES};
use dfs_types::{ChunkId, Secret};
use subtle::ConstantTimeEq;

use crate::aead::{Cipher, NONCE_BYTES, TAG_BYTES, expand};
use crate::error::FormatError;
use crate::tree::{GroupHash, GroupHasher};

/// What a sealed chunk is opened with, kept in its manifest entry.
pub type ContentSecret = Secret<32>;

pub(crate) const HEADER_BYTES: usize = 32;
const FORMAT: u8 = 1;
const SUITE: u8 = 1;
const FRAME_LOG2: u8 = FRAME_BYTES.ilog2() as u8;
const KIND_DATA: u8 = 1;
const CODEC_NONE: u8 = 0;

const _: () = assert!(1 << FRAME_LOG2 == FRAME_BYTES);
const _: () = assert!(CHUNK_TRAILER_BYTES == HEADER_BYTES + 32);

/// A chunk as it is stored.
pub struct SealedChunk {
    pub bytes: Bytes,
    pub id: ChunkId,
    /// The chaining value of every 64 KiB group of `bytes` (crate::tree).
    pub groups: Vec<GroupHash>,
}

/// BLAKE3-256 of a chunk's plaintext: what a content secret is asked for with. Never stored or logged.
pub fn plain_hash(plain: &[u8]) -> [u8; 32] {
    *blake3::hash(plain).as_bytes()
}

/// X: the content secret of a plaintext in a realm.
pub fn content_secret(realm_secret: &Secret<32>, plain_hash: &[u8; 32]) -> ContentSecret {
    expand(realm_secret, &[b"dfs chunk v1 content\0", plain_hash])
}

/// Sealed bytes of a chunk of `plain_length` bytes.
pub const fn sealed_length(plain_length: u64) -> u64 {
    plain_length + plain_length.div_ceil(FRAME_BYTES as u64) * TAG_BYTES as u64 + CHUNK_TRAILER_BYTES as u64
}

/// Plaintext bytes of a sealed chunk, from its length alone.
pub fn plain_length(sealed_length: u64) -> Result<u64, FormatError> {
    const SEALED_FRAME: u64 = (FRAME_BYTES + TAG_BYTES) as u64;
    let refused = FormatError::SealedLength { length: sealed_length };
    if sealed_length > MAX_SEALED_BYTES {
        return Err(refused);
    }
    let frames_and_tags = sealed_length.checked_sub(CHUNK_TRAILER_BYTES as u64).ok_or(refused)?;
    let frames = frames_and_tags.div_ceil(SEALED_FRAME);
    // The last frame has at least one byte beside its tag; zero frames are no chunk.
    let last = frames_and_tags - frames.saturating_sub(1) * SEALED_FRAME;
    if last <= TAG_BYTES as u64 {
        return Err(refused);
    }
    Ok(frames_and_tags - frames * TAG_BYTES as u64)
}

/// Seals a copy of `plain`, 1 byte to 64 MiB.
pub fn seal(secret: &ContentSecret, plain: &[u8]) -> Result<SealedChunk, FormatError> {
    check_plain_length(plain.len() as u64)?;
    let mut buffer = BytesMut::with_capacity(sealed_length(plain.len() as u64) as usize);
    buffer.put_slice(plain);
    seal_in_place(secret, buffer)
}

/// Seals 1 byte to 64 MiB where they lie. Does not copy when the buffer has room for
/// [`sealed_length`] bytes.
pub fn seal_in_place(secret: &ContentSecret, mut plain: BytesMut) -> Result<SealedChunk, FormatError> {
    let length = plain.len() as u64;
    check_plain_length(length)?;
    let total = sealed_length(length);
    plain.reserve((total - length) as usize);
    let keys = ChunkKeys::derive(secret, header(length));
    let mut hasher = GroupHasher::with_length(total);
    let frames = frame_count(length);
    let mut tags = Vec::with_capacity(frames as usize * TAG_BYTES);
    for (index, frame) in plain.chunks_mut(FRAME_BYTES).enumerate() {
        let tag = keys.cipher.seal(&nonce(index as u32, frames), &keys.header, frame);
        tags.extend_from_slice(&tag);
        // Hashed while the frame is still in the cache.
        hasher.update(frame);
    }
    plain.put_slice(&tags);
    plain.put_slice(&keys.header);
    plain.put_slice(keys.commitment.expose());
    hasher.update(&plain[length as usize..]);
    debug_assert_eq!(plain.len() as u64, total);
    let (id, groups) = hasher.finish();
    Ok(SealedChunk { bytes: plain.freeze(), id, groups })
}

/// Opens a copy of a whole chunk. `plain_length` and `id` come from the manifest.
pub fn open(
    secret: &ContentSecret,
    plain_length: u64,
    id: &ChunkId,
    sealed: &[u8],
) -> Result<Bytes, FormatError> {
    check_whole(plain_length, id, sealed)?;
    open_checked(secret, plain_length, BytesMut::from(sealed))
}

/// Opens a whole chunk where it lies. Nothing is returned unless every check passes: the length, the
/// chunk id, the header, the commitment, every frame's tag.
pub fn open_in_place(
    secret: &ContentSecret,
    plain_length: u64,
    id: &ChunkId,
    sealed: BytesMut,
) -> Result<Bytes, FormatError> {
    check_whole(plain_length, id, &sealed)?;
    open_checked(secret, plain_length, sealed)
}

fn check_whole(plain_length: u64, id: &ChunkId, sealed: &[u8]) -> Result<(), FormatError> {
    check_plain_length(plain_length)?;
    let found = sealed.len() as u64;
    crate::seal::plain_length(found)?;
    let expected = sealed_length(plain_length);
    if found != expected {
        return Err(FormatError::LengthMismatch { expected, found });
    }
    if *blake3::hash(sealed).as_bytes() == id.0 { Ok(()) } else { Err(FormatError::ChunkIdMismatch) }
}

fn open_checked(
    secret: &ContentSecret,
    plain_length: u64,
    mut sealed: BytesMut,
) -> Result<Bytes, FormatError> {
    let tail = sealed.split_off(plain_length as usize);
    let keys = ChunkKeys::derive(secret, header(plain_length));
    let tags = keys.check_tail(&tail)?;
    keys.open_frames(plain_length, 0, &mut sealed, tags)?;
    Ok(sealed.freeze())
}

pub(crate) fn check_plain_length(length: u64) -> Result<(), FormatError> {
    if (1..=MAX_CHUNK_BYTES).contains(&length) { Ok(()) } else { Err(FormatError::PlainLength { length }) }
}

/// H: rebuilt by every reader from what the manifest says.
pub(crate) fn header(plain_length: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0u8; HEADER_BYTES];
    header[..8].copy_from_slice(b"DFSCHUNK");
    header[8] = FORMAT;
    header[9] = SUITE;
    header[10] = FRAME_LOG2;
    header[11] = KIND_DATA;
    header[12] = CODEC_NONE;
    header[16..24].copy_from_slice(&plain_length.to_be_bytes());
    header
}

pub(crate) fn frame_count(plain_length: u64) -> u32 {
    plain_length.div_ceil(FRAME_BYTES as u64) as u32
}

/// Seven zero bytes, the frame's index, and whether it is the last: reordering and truncation fail.
pub(crate) fn nonce(index: u32, frames: u32) -> [u8; NONCE_BYTES] {
    let mut nonce = [0u8; NONCE_BYTES];
    nonce[7..11].copy_from_slice(&index.to_be_bytes());
    nonce[11] = u8::from(index + 1 == frames);
    nonce
}

/// K and Z of one chunk, with the header they were derived from.
pub(crate) struct ChunkKeys {
    header: [u8; HEADER_BYTES],
    cipher: Cipher,
    commitment: Secret<32>,
}

impl ChunkKeys {
    pub(crate) fn derive(secret: &ContentSecret, header: [u8; HEADER_BYTES]) -> Self {
        let (key, commitment) = key_and_commitment(secret, &header);
        Self { header, cipher: Cipher::new(&key), commitment }
    }

    /// Checks header and commitment of `tags || header || commitment`; answers the tags.
    pub(crate) fn check_tail<'a>(&self, tail: &'a [u8]) -> Result<&'a [[u8; TAG_BYTES]], FormatError> {
        let (rest, commitment) = tail.split_last_chunk::<32>().ok_or(FormatError::HeaderMismatch)?;
        let (tags, header) = rest.split_last_chunk::<HEADER_BYTES>().ok_or(FormatError::HeaderMismatch)?;
        if header != &self.header {
            return Err(FormatError::HeaderMismatch);
        }
        if !bool::from(commitment.ct_eq(self.commitment.expose())) {
            return Err(FormatError::CommitmentMismatch);
        }
        Ok(tags.as_chunks().0)
    }

    /// Opens consecutive frames from `first`, which begin `frames` and have `tags`, where they lie.
    pub(crate) fn open_frames(
        &self,
        plain_length: u64,
        first: u32,
        frames: &mut [u8],
        tags: &[[u8; TAG_BYTES]],
    ) -> Result<(), FormatError> {
        let count = frame_count(plain_length);
        for (index, (frame, tag)) in (first..).zip(frames.chunks_mut(FRAME_BYTES).zip(tags)) {
            if !self.cipher.open(&nonce(index, count), &self.header, frame, tag) {
                return Err(FormatError::FrameForged { index });
            }
        }
        Ok(())
    }
}

/// `K || Z`. The header is in the derivation, so that no two different messages can ever meet under
/// one key and nonce, whatever a later format changes.
pub(crate) fn key_and_commitment(
    secret: &ContentSecret,
    header: &[u8; HEADER_BYTES],
) -> (Secret<32>, Secret<32>) {
    let both: Secret<64> = expand(secret, &[b"dfs chunk v1 keys\0", header]);
    let half = |at: usize| Secret::from_slice(&both.expose()[at..at + 32]).expect("half of 64 bytes");
    (half(0), half(32))
}
