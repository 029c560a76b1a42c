//! The store in memory: the shortest statement of what a store does, for tests of what uses one.
//! Keeps everything and loses everything at the end of the process.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use chunk_format::tree::root_of_groups;
use dfs_types::Position;
use dfs_types::limits::MAX_SEALED_BYTES;

use super::{Change, Changed, ChunkKey, ChunkMeta, ChunkStore, ChunkWriter, Compaction, StoreError, Usage};

/// A handle; clones share the chunks.
#[derive(Clone)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
    capacity: u64,
}

#[derive(Default)]
struct State {
    chunks: BTreeMap<ChunkKey, Chunk>,
    /// Positions of deletes: a put below one is refused.
    deleted: BTreeMap<ChunkKey, Position>,
    used: u64,
}

struct Chunk {
    meta: ChunkMeta,
    bytes: Bytes,
    groups: Vec<[u8; 32]>,
}

impl MemoryStore {
    /// A store that takes up to `capacity` bytes of chunks.
    pub fn new(capacity: u64) -> Self {
        Self { state: Arc::default(), capacity }
    }

    /// Changes a stored byte, as rot would. For tests.
    pub fn rot(&self, key: &ChunkKey, offset: usize) {
        let mut state = self.lock();
        let chunk = state.chunks.get_mut(key).expect("the chunk is there");
        let mut bytes = BytesMut::from(&chunk.bytes[..]);
        bytes[offset] ^= 1;
        chunk.bytes = bytes.freeze();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ChunkStore for MemoryStore {
    fn begin(
        &self,
        key: &ChunkKey,
        sealed_len: u64,
        epoch: Position,
    ) -> Result<Box<dyn ChunkWriter>, StoreError> {
        if !(1..=MAX_SEALED_BYTES).contains(&sealed_len) {
            return Err(StoreError::OutOfRange(format!("no chunk has {sealed_len} bytes")));
        }
        let mut state = self.lock();
        if state.used + sealed_len > self.capacity {
            return Err(StoreError::NoSpace);
        }
        state.used += sealed_len;
        drop(state);
        Ok(Box::new(Writer {
            store: self.clone(),
            key: *key,
            sealed_len,
            epoch,
            bytes: BytesMut::new(),
            kept: false,
        }))
    }

    fn get(&self, key: &ChunkKey) -> Result<Option<ChunkMeta>, StoreError> {
        Ok(self.lock().chunks.get(key).map(|chunk| chunk.meta))
    }

    fn read(&self, key: &ChunkKey, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        let state = self.lock();
        let chunk = state.chunks.get(key).ok_or(StoreError::NotFound)?;
        let end = offset.checked_add(len as u64).filter(|end| *end <= chunk.meta.sealed_len);
        let end = end.ok_or_else(|| StoreError::OutOfRange(format!("{len} bytes at {offset}")))?;
        Ok(chunk.bytes.slice(offset as usize..end as usize))
    }

    fn groups(&self, key: &ChunkKey) -> Result<Vec<[u8; 32]>, StoreError> {
        self.lock().chunks.get(key).map(|chunk| chunk.groups.clone()).ok_or(StoreError::NotFound)
    }

    fn change(&self, key: &ChunkKey, change: Change) -> Result<Changed, StoreError> {
        let mut state = self.lock();
        let Some(chunk) = state.chunks.get_mut(key) else { return Ok(Changed::Absent) };
        match change {
            Change::Touch(_) if chunk.meta.quarantined => return Ok(Changed::Absent),
            Change::Touch(epoch) => chunk.meta.epoch = chunk.meta.epoch.max(epoch),
            Change::DeleteBelow(position) if chunk.meta.epoch >= position => {
                return Ok(Changed::Kept(chunk.meta.epoch));
            }
            Change::DeleteBelow(position) => {
                state.used -= state.chunks.remove(key).map_or(0, |chunk| chunk.meta.sealed_len);
                state.deleted.insert(*key, position);
            }
            Change::Quarantine => chunk.meta.quarantined = true,
        }
        Ok(Changed::Done)
    }

    fn list(&self, after: Option<&ChunkKey>, limit: usize) -> Result<Vec<(ChunkKey, ChunkMeta)>, StoreError> {
        let from = after.map_or(Bound::Unbounded, |key| Bound::Excluded(*key));
        let state = self.lock();
        let range = state.chunks.range((from, Bound::Unbounded));
        Ok(range.take(limit).map(|(key, chunk)| (*key, chunk.meta)).collect())
    }

    fn usage(&self) -> Result<Usage, StoreError> {
        let state = self.lock();
        let (used, chunks) = (state.used, state.chunks.len() as u64);
        let (free, capacity) = (self.capacity - used, self.capacity);
        Ok(Usage { used, free, capacity, chunks, ..Usage::default() })
    }

    fn compact(&self) -> Result<Compaction, StoreError> {
        Ok(Compaction::default())
    }
}

struct Writer {
    store: MemoryStore,
    key: ChunkKey,
    sealed_len: u64,
    epoch: Position,
    bytes: BytesMut,
    kept: bool,
}

impl ChunkWriter for Writer {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if self.bytes.len() as u64 + bytes.len() as u64 > self.sealed_len {
            return Err(StoreError::OutOfRange(format!("more than the {} bytes announced", self.sealed_len)));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(mut self: Box<Self>, groups: &[[u8; 32]]) -> Result<ChunkMeta, StoreError> {
        if self.bytes.len() as u64 != self.sealed_len {
            return Err(StoreError::Mismatch(format!("{} of {} bytes", self.bytes.len(), self.sealed_len)));
        }
        if root_of_groups(groups) != Some(self.key.chunk) {
            return Err(StoreError::Mismatch("the groups do not make the chunk id".to_owned()));
        }
        let store = self.store.clone();
        let mut state = store.lock();
        let old = state.chunks.get(&self.key).map(|chunk| chunk.meta);
        let mut meta = ChunkMeta { sealed_len: self.sealed_len, epoch: self.epoch, quarantined: false };
        match old {
            Some(old) if !old.quarantined => {
                let chunk = state.chunks.get_mut(&self.key).expect("it was just there");
                chunk.meta.epoch = chunk.meta.epoch.max(self.epoch);
                return Ok(chunk.meta);
            }
            Some(old) => meta.epoch = meta.epoch.max(old.epoch),
            None => {}
        }
        if let Some(position) = state.deleted.get(&self.key)
            && self.epoch < *position
        {
            return Err(StoreError::StaleEpoch(*position));
        }
        state.used -= old.map_or(0, |old| old.sealed_len);
        let bytes = std::mem::take(&mut self.bytes).freeze();
        state.chunks.insert(self.key, Chunk { meta, bytes, groups: groups.to_vec() });
        self.kept = true;
        Ok(meta)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.kept {
            self.store.lock().used -= self.sealed_len;
        }
    }
}
