//! The key-value door: what the state machine needs of a store, and write sets on top of one.
//!
//! Owner: whoever holds the store (RocksDB in metadata-server, [`MemoryKv`] in tests and simulation).
//! Promise: nothing here writes; apply hands out a [`WriteSet`] that the owner commits as one batch.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

/// Two ordered key spaces. Large sealed contents live apart, so that compaction and snapshots do not
/// rewrite them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Space {
    State = 0,
    Inline = 1,
}

impl Space {
    pub const ALL: [Space; 2] = [Space::State, Space::Inline];
}

/// The store failed: an I/O error or damage. Never "not found".
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("key-value store: {message}")]
pub struct KvError {
    pub message: String,
}

impl KvError {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

/// Key and value, in key order.
pub type KvPair = (Bytes, Bytes);

/// A consistent view of the store.
pub trait KvRead {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, KvError>;

    /// Pairs with `from <= key < to` in byte order, at most `limit`.
    fn scan(&self, space: Space, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<KvPair>, KvError>;
}

impl<T: KvRead + ?Sized> KvRead for &T {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        (**self).get(space, key)
    }

    fn scan(&self, space: Space, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<KvPair>, KvError> {
        (**self).scan(space, from, to, limit)
    }
}

/// What to write: a value, or None to delete. Ordered, so that its encoding is canonical.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WriteSet {
    pub map: BTreeMap<(Space, Vec<u8>), Option<Bytes>>,
}

impl WriteSet {
    pub fn put(&mut self, space: Space, key: Vec<u8>, value: Bytes) {
        self.map.insert((space, key), Some(value));
    }

    pub fn delete(&mut self, space: Space, key: Vec<u8>) {
        self.map.insert((space, key), None);
    }

    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Takes over everything `later` wrote.
    pub fn absorb(&mut self, later: WriteSet) {
        self.map.extend(later.map);
    }

    /// Hands the canonical encoding, piece by piece, to `sink`: for each write in key order: space
    /// (1 byte), key length (u32 big-endian), key, then 0 for a deletion or 1, value length (u32) and value.
    pub fn canonical(&self, mut sink: impl FnMut(&[u8])) {
        for ((space, key), value) in &self.map {
            sink(&[*space as u8]);
            sink(&(key.len() as u32).to_be_bytes());
            sink(key);
            match value {
                None => sink(&[0]),
                Some(value) => {
                    sink(&[1]);
                    sink(&(value.len() as u32).to_be_bytes());
                    sink(value);
                }
            }
        }
    }
}

/// Uncommitted writes over a store; reads see them. Overlays stack: one per entry, one per command.
pub struct Overlay<'a> {
    base: &'a dyn KvRead,
    writes: WriteSet,
}

impl<'a> Overlay<'a> {
    pub fn new(base: &'a dyn KvRead) -> Self {
        Self { base, writes: WriteSet::default() }
    }

    pub fn put(&mut self, space: Space, key: Vec<u8>, value: Bytes) {
        self.writes.put(space, key, value);
    }

    pub fn delete(&mut self, space: Space, key: Vec<u8>) {
        self.writes.delete(space, key);
    }

    pub fn absorb(&mut self, later: WriteSet) {
        self.writes.absorb(later);
    }

    pub fn writes(&self) -> &WriteSet {
        &self.writes
    }

    pub fn into_writes(self) -> WriteSet {
        self.writes
    }
}

impl KvRead for Overlay<'_> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        // A borrowed lookup in a map keyed by (Space, Vec) would need a key type of its own; the
        // copy is a few dozen bytes.
        match self.writes.map.get(&(space, key.to_vec())) {
            Some(written) => Ok(written.clone()),
            None => self.base.get(space, key),
        }
    }

    fn scan(&self, space: Space, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<KvPair>, KvError> {
        let mut out = Vec::new();
        let mut start = from.to_vec();
        while out.len() < limit && start.as_slice() < to {
            let wanted = limit - out.len();
            let below = self.base.scan(space, &start, to, wanted)?;
            // What this round covers: all of the range, or up to the last row the store gave.
            let complete = below.len() < wanted;
            let end = if complete {
                to.to_vec()
            } else {
                let (last, _) = below.last().expect("wanted is at least 1");
                let mut end = last.to_vec();
                end.push(0);
                end
            };
            let bounds = (Bound::Included((space, start.clone())), Bound::Excluded((space, end.clone())));
            let mut above = self.writes.map.range(bounds).peekable();
            let mut below = below.into_iter().peekable();
            while out.len() < limit {
                let take_above = match (above.peek(), below.peek()) {
                    (None, None) => break,
                    (Some(_), None) => true,
                    (None, Some(_)) => false,
                    (Some(((_, written), _)), Some((stored, _))) => {
                        if written.as_slice() == stored.as_ref() {
                            below.next();
                            true
                        } else {
                            written.as_slice() < stored.as_ref()
                        }
                    }
                };
                if take_above {
                    let ((_, key), value) = above.next().expect("peeked");
                    if let Some(value) = value {
                        out.push((Bytes::copy_from_slice(key), value.clone()));
                    }
                } else {
                    out.push(below.next().expect("peeked"));
                }
            }
            if complete {
                break;
            }
            start = end;
        }
        Ok(out)
    }
}

/// A store in memory: for tests and simulation.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct MemoryKv {
    map: BTreeMap<(Space, Vec<u8>), Bytes>,
}

impl MemoryKv {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn apply(&mut self, writes: WriteSet) {
        for (key, value) in writes.map {
            match value {
                Some(value) => self.map.insert(key, value),
                None => self.map.remove(&key),
            };
        }
    }

    pub fn len(&self) -> usize {
        self.map.len()
    }

    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }
}

impl KvRead for MemoryKv {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        Ok(self.map.get(&(space, key.to_vec())).cloned())
    }

    fn scan(&self, space: Space, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<KvPair>, KvError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let bounds = (Bound::Included((space, from.to_vec())), Bound::Excluded((space, to.to_vec())));
        Ok(self
            .map
            .range(bounds)
            .take(limit)
            .map(|((_, key), value)| (Bytes::copy_from_slice(key), value.clone()))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// An overlay reads exactly as the store would after its writes were applied.
        #[test]
        fn an_overlay_reads_like_the_store_it_would_become(
            stored in prop::collection::btree_map(0u8..40, 0u8..9, 0..20),
            written in prop::collection::btree_map(0u8..40, prop::option::of(0u8..9), 0..20),
            from in 0u8..40, to in 0u8..42, limit in 0usize..9,
        ) {
            let mut store = MemoryKv::new();
            let mut first = WriteSet::default();
            for (key, value) in &stored {
                first.put(Space::State, vec![*key], Bytes::copy_from_slice(&[*value]));
            }
            store.apply(first);
            let base = store.clone();
            let mut overlay = Overlay::new(&base);
            for (key, value) in &written {
                match value {
                    Some(value) => overlay.put(Space::State, vec![*key], Bytes::copy_from_slice(&[*value])),
                    None => overlay.delete(Space::State, vec![*key]),
                }
            }
            let seen = overlay.scan(Space::State, &[from], &[to], limit).unwrap();
            let one = overlay.get(Space::State, &[from]).unwrap();
            store.apply(overlay.into_writes());
            prop_assert_eq!(seen, store.scan(Space::State, &[from], &[to], limit).unwrap());
            prop_assert_eq!(one, store.get(Space::State, &[from]).unwrap());
        }
    }
}
