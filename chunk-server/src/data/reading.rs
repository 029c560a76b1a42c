//! Stored bytes read ahead in pieces on a blocking thread, and handed out in smaller ones.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use chunk_format::tree::GROUP_BYTES;
use dfs_types::DfsError;
use dfs_types::limits::INGEST_BATCH_BYTES;

use crate::blocking::BlockingPool;
use crate::store::{ChunkKey, ChunkStore, StoreError};

/// Bytes of one chunk, in order. Holds one piece of at most a batch.
pub struct ChunkBytes {
    store: Arc<dyn ChunkStore>,
    pool: BlockingPool,
    key: ChunkKey,
    /// Ranges yet to be read, not empty, ascending.
    ranges: VecDeque<Range<u64>>,
    piece: Bytes,
    /// The copy is known to be bad: what the disk does not give is zeros, and read by groups.
    damaged: bool,
}

impl ChunkBytes {
    pub fn new(store: Arc<dyn ChunkStore>, pool: BlockingPool, key: ChunkKey, range: Range<u64>) -> Self {
        Self::of_ranges(store, pool, key, [range])
    }

    pub fn of_ranges(
        store: Arc<dyn ChunkStore>,
        pool: BlockingPool,
        key: ChunkKey,
        ranges: impl IntoIterator<Item = Range<u64>>,
    ) -> Self {
        let ranges = ranges.into_iter().filter(|range| !range.is_empty()).collect();
        Self { store, pool, key, ranges, piece: Bytes::new(), damaged: false }
    }

    /// Groups of a copy that is bad. Those that cannot be read are zeros: no reader believes any of it.
    pub fn of_damaged(
        store: Arc<dyn ChunkStore>,
        pool: BlockingPool,
        key: ChunkKey,
        sealed_length: u64,
        groups: Range<u32>,
    ) -> Self {
        let at = |group: u32| (u64::from(group) * GROUP_BYTES).min(sealed_length);
        let mut bytes = Self::new(store, pool, key, at(groups.start)..at(groups.end));
        bytes.damaged = true;
        bytes
    }

    pub fn key(&self) -> ChunkKey {
        self.key
    }

    /// The next bytes, at most `most`; none at the end. A piece never spans two ranges.
    ///
    /// # Errors
    /// The store's; after one the rest is not to be trusted.
    pub async fn next(&mut self, most: usize) -> Result<Option<Bytes>, DfsError> {
        if self.piece.is_empty() {
            let Some(range) = self.ranges.front_mut() else { return Ok(None) };
            let most = if self.damaged { GROUP_BYTES } else { INGEST_BATCH_BYTES as u64 };
            let length = (range.end - range.start).min(most);
            let (store, key, offset, damaged) = (self.store.clone(), self.key, range.start, self.damaged);
            let read = move || match store.read(&key, offset, length as usize) {
                Err(StoreError::Io(_) | StoreError::Corrupt(_)) if damaged => {
                    Ok(Bytes::from(vec![0; length as usize]))
                }
                result => result,
            };
            self.piece = self.pool.run(read).await?;
            range.start += length;
            if range.is_empty() {
                self.ranges.pop_front();
            }
        }
        let take = self.piece.len().min(most);
        Ok(Some(self.piece.split_to(take)))
    }
}
