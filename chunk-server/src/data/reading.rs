//! Stored bytes read ahead in pieces on a blocking thread, and handed out in smaller ones.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use dfs_types::DfsError;
use dfs_types::limits::INGEST_BATCH_BYTES;

use crate::blocking::BlockingPool;
use crate::store::{ChunkKey, ChunkStore};

/// Bytes of one chunk, in order. Holds one piece of at most a batch.
pub struct ChunkBytes {
    store: Arc<dyn ChunkStore>,
    pool: BlockingPool,
    key: ChunkKey,
    /// Ranges yet to be read, not empty, ascending.
    ranges: VecDeque<Range<u64>>,
    piece: Bytes,
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
        Self { store, pool, key, ranges, piece: Bytes::new() }
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
            let length = (range.end - range.start).min(INGEST_BATCH_BYTES as u64);
            let (store, key, offset) = (self.store.clone(), self.key, range.start);
            self.piece = self.pool.run(move || store.read(&key, offset, length as usize)).await?;
            range.start += length;
            if range.is_empty() {
                self.ranges.pop_front();
            }
        }
        let take = self.piece.len().min(most);
        Ok(Some(self.piece.split_to(take)))
    }
}
