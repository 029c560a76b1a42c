//! One behaviour suite for every implementation of the key-value door. A store's own tests call
//! [`check`] with a way to make an empty store.

use bytes::Bytes;

use crate::kv::{KvRead, Space, WriteSet};

/// A store under test: commits write sets and gives consistent views.
pub trait Store {
    fn commit(&mut self, writes: WriteSet);
    /// A view that later commits do not change.
    fn view(&self) -> Box<dyn KvRead + '_>;
}

impl Store for crate::kv::MemoryKv {
    fn commit(&mut self, writes: WriteSet) {
        self.apply(writes);
    }

    fn view(&self) -> Box<dyn KvRead + '_> {
        Box::new(self.clone())
    }
}

fn value(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// # Panics
/// If the store does not behave.
pub fn check<S: Store>(mut empty: impl FnMut() -> S) {
    reads_what_was_written(&mut empty());
    scans_in_byte_order(&mut empty());
    a_batch_replaces_and_deletes(&mut empty());
    keeps_spaces_apart(&mut empty());
}

fn reads_what_was_written(store: &mut impl Store) {
    assert_eq!(store.view().get(Space::State, b"a").unwrap(), None);
    let mut writes = WriteSet::default();
    writes.put(Space::State, b"a".to_vec(), value("1"));
    writes.put(Space::State, b"empty".to_vec(), value(""));
    writes.put(Space::Inline, b"big".to_vec(), Bytes::from(vec![7; 20_000]));
    store.commit(writes);
    let view = store.view();
    assert_eq!(view.get(Space::State, b"a").unwrap(), Some(value("1")));
    assert_eq!(view.get(Space::State, b"empty").unwrap(), Some(value("")));
    assert_eq!(view.get(Space::State, b"b").unwrap(), None);
    assert_eq!(view.get(Space::Inline, b"big").unwrap(), Some(Bytes::from(vec![7; 20_000])));
}

fn scans_in_byte_order(store: &mut impl Store) {
    let keys: [&[u8]; 7] = [b"", b"a", b"a\0", b"a\x01", b"b", b"\xff", b"\xff\xff"];
    let mut writes = WriteSet::default();
    for key in keys.iter().skip(1) {
        writes.put(Space::State, key.to_vec(), Bytes::copy_from_slice(key));
    }
    store.commit(writes);
    let view = store.view();
    let scan = |from: &[u8], to: &[u8], limit| -> Vec<Vec<u8>> {
        let pairs = view.scan(Space::State, from, to, limit).unwrap();
        pairs
            .into_iter()
            .map(|(key, value)| {
                assert_eq!(key, value);
                key.to_vec()
            })
            .collect()
    };
    assert_eq!(scan(b"", b"\xff\xff\xff", 99), keys[1..]);
    assert_eq!(scan(b"a", b"b", 99), keys[1..4]);
    assert_eq!(scan(b"a\0", b"b", 1), keys[2..3]);
    assert_eq!(scan(b"aa", b"b\0", 99), keys[4..5]);
    assert_eq!(scan(b"a", b"a", 99), [] as [Vec<u8>; 0]);
    assert_eq!(scan(b"b", b"a", 99), [] as [Vec<u8>; 0]);
    assert_eq!(scan(b"a", b"b", 0), [] as [Vec<u8>; 0]);
}

fn a_batch_replaces_and_deletes(store: &mut impl Store) {
    let mut writes = WriteSet::default();
    writes.put(Space::State, b"a".to_vec(), value("1"));
    writes.put(Space::State, b"b".to_vec(), value("1"));
    store.commit(writes);
    let mut writes = WriteSet::default();
    writes.put(Space::State, b"a".to_vec(), value("2"));
    writes.delete(Space::State, b"b".to_vec());
    writes.delete(Space::State, b"never".to_vec());
    store.commit(writes);
    let pairs = store.view().scan(Space::State, b"", b"z", 9).unwrap();
    assert_eq!(pairs, [(value("a"), value("2"))]);
}

fn keeps_spaces_apart(store: &mut impl Store) {
    let mut writes = WriteSet::default();
    writes.put(Space::State, b"k".to_vec(), value("state"));
    writes.put(Space::Inline, b"k".to_vec(), value("inline"));
    store.commit(writes);
    for (space, text) in [(Space::State, "state"), (Space::Inline, "inline")] {
        assert_eq!(store.view().get(space, b"k").unwrap(), Some(value(text)));
        assert_eq!(store.view().scan(space, b"", b"z", 9).unwrap().len(), 1);
    }
    let mut writes = WriteSet::default();
    writes.delete(Space::State, b"k".to_vec());
    store.commit(writes);
    assert_eq!(store.view().get(Space::Inline, b"k").unwrap(), Some(value("inline")));
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_store_in_memory() {
        super::check(crate::kv::MemoryKv::new);
    }
}
