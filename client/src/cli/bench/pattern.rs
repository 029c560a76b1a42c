//! Content that no deduplication finds and that costs next to nothing to make: one random block,
//! stamped anew where each chunk begins.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use dfs_types::limits::CHUNK_BYTES_FIRST;
use dfs_types::{Entropy, OsEntropy};
use tokio::io::{AsyncRead, ReadBuf};

/// A chunk of any size begins at a multiple of this.
const BLOCK: usize = CHUNK_BYTES_FIRST as usize;

pub(super) struct Pattern {
    block: Arc<Vec<u8>>,
    /// Differs for every block of the run; begins at random, so runs differ too.
    stamp: Arc<AtomicU64>,
}

impl Pattern {
    pub fn new() -> Self {
        let mut block = vec![0u8; BLOCK];
        let seed: [u8; 32] = OsEntropy.array();
        blake3::Hasher::new_keyed(&seed).finalize_xof().fill(&mut block);
        let stamp = u64::from_le_bytes(OsEntropy.array());
        Self { block: Arc::new(block), stamp: Arc::new(AtomicU64::new(stamp)) }
    }

    /// `size` bytes of it.
    pub fn reader(&self, size: u64) -> PatternReader {
        PatternReader { block: Arc::clone(&self.block), stamp: Arc::clone(&self.stamp), offset: 0, size }
    }
}

pub(super) struct PatternReader {
    block: Arc<Vec<u8>>,
    stamp: Arc<AtomicU64>,
    offset: u64,
    size: u64,
}

impl AsyncRead for PatternReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let place = (self.offset % BLOCK as u64) as usize;
        let left = (self.size - self.offset).min((BLOCK - place) as u64) as usize;
        let count = left.min(buffer.remaining());
        if place == 0 && count >= 8 {
            let stamp = self.stamp.fetch_add(1, Ordering::Relaxed);
            buffer.put_slice(&stamp.to_le_bytes());
            buffer.put_slice(&self.block[8..count]);
        } else {
            buffer.put_slice(&self.block[place..place + count]);
        }
        self.offset += count as u64;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn no_two_blocks_are_alike() {
        let pattern = Pattern::new();
        let mut bytes = Vec::new();
        pattern.reader(2 * BLOCK as u64 + 100).read_to_end(&mut bytes).await.unwrap();
        assert_eq!(bytes.len(), 2 * BLOCK + 100);
        assert_ne!(bytes[..BLOCK], bytes[BLOCK..2 * BLOCK]);
        let mut other = Vec::new();
        pattern.reader(100).read_to_end(&mut other).await.unwrap();
        assert_ne!(other, bytes[..100]);
    }
}
