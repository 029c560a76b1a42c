//! Chunks for which something did not work out rest before it is tried again: each time twice as long.

use std::collections::BTreeMap;

use dfs_types::MonotonicMillis;
use metadata_core::rows::ChunkKey;

/// Chunks that rest and are remembered; beyond it all are tried again.
const MAX_RESTING: usize = 10_000;

pub struct Resting {
    first_ms: u64,
    longest_ms: u64,
    chunks: BTreeMap<ChunkKey, Rest>,
}

struct Rest {
    until: MonotonicMillis,
    millis: u64,
    tries: usize,
}

impl Resting {
    /// The first rest and the longest, in milliseconds.
    pub fn new(first_ms: u64, longest_ms: u64) -> Self {
        Self { first_ms, longest_ms, chunks: BTreeMap::new() }
    }

    pub fn is_over(&self, key: &ChunkKey, now: MonotonicMillis) -> bool {
        self.chunks.get(key).is_none_or(|rest| rest.until <= now)
    }

    /// Notes a try, after which the chunk rests; which one it was, from 0.
    pub fn tried(&mut self, key: ChunkKey, now: MonotonicMillis) -> usize {
        let (millis, tries) = self
            .chunks
            .get(&key)
            .map_or((self.first_ms, 0), |rest| ((rest.millis * 2).min(self.longest_ms), rest.tries + 1));
        self.insert(key, Rest { until: now + millis, millis, tries });
        tries
    }

    /// The shortest rest, whatever was tried before: for what may change any moment.
    pub fn shortly(&mut self, key: ChunkKey, now: MonotonicMillis) {
        self.insert(key, Rest { until: now + self.first_ms, millis: self.first_ms, tries: 0 });
    }

    pub fn forget(&mut self, key: &ChunkKey) {
        self.chunks.remove(key);
    }

    fn insert(&mut self, key: ChunkKey, rest: Rest) {
        if self.chunks.len() >= MAX_RESTING && !self.chunks.contains_key(&key) {
            self.chunks.clear();
        }
        self.chunks.insert(key, rest);
    }
}

#[cfg(test)]
mod tests {
    use dfs_types::{ChunkId, RealmId};

    use super::*;

    fn key(number: u64) -> ChunkKey {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_be_bytes());
        ChunkKey { realm: RealmId([0; 16]), chunk: ChunkId(id) }
    }

    #[test]
    fn rests_grow_to_the_longest() {
        let mut resting = Resting::new(100, 350);
        let mut now = 1_000;
        assert!(resting.is_over(&key(1), now));
        for (tries, millis) in [(0, 100), (1, 200), (2, 350), (3, 350)] {
            assert_eq!(resting.tried(key(1), now), tries);
            assert!(!resting.is_over(&key(1), now + millis - 1));
            now += millis;
            assert!(resting.is_over(&key(1), now));
        }
        resting.shortly(key(1), now);
        assert!(resting.is_over(&key(1), now + 100));
        resting.tried(key(1), now);
        resting.forget(&key(1));
        assert!(resting.is_over(&key(1), now));
        assert_eq!(resting.tried(key(1), now), 0);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut resting = Resting::new(100, 100);
        for number in 0..3 * MAX_RESTING as u64 {
            resting.shortly(key(number), 0);
            assert!(resting.chunks.len() <= MAX_RESTING);
        }
    }
}
