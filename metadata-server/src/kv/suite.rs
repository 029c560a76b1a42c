//! One behaviour suite over every store behind the key-value door.

use std::sync::Arc;

use bytes::Bytes;
use dfs_types::Position;
use metadata_core::kv::{KvRead, MemoryKv, Space, WriteSet};
use proptest::prelude::*;

use super::{Compression, StateDb, StateView, StoreOptions};

trait Store: KvRead {
    fn write(&mut self, writes: WriteSet);
}

impl Store for MemoryKv {
    fn write(&mut self, writes: WriteSet) {
        self.apply(writes);
    }
}

impl Store for StateDb {
    fn write(&mut self, writes: WriteSet) {
        self.commit(&writes, &[]).unwrap();
    }
}

fn options() -> StoreOptions {
    StoreOptions::new(Compression::None, 4 << 20)
}

fn on_both(check: impl Fn(&mut dyn Store)) {
    check(&mut MemoryKv::new());
    let dir = tempfile::tempdir().unwrap();
    check(&mut StateDb::open(&dir.path().join("db"), &options(), true).unwrap());
}

/// A row to write, or None to delete.
type Row<'a> = (Space, &'a [u8], Option<&'a [u8]>);

fn set(rows: &[Row<'_>]) -> WriteSet {
    let mut writes = WriteSet::default();
    for (space, key, value) in rows {
        match value {
            Some(value) => writes.put(*space, key.to_vec(), Bytes::copy_from_slice(value)),
            None => writes.delete(*space, key.to_vec()),
        }
    }
    writes
}

#[test]
fn spaces_are_apart_and_deletions_delete() {
    on_both(|store| {
        store.write(set(&[(Space::State, b"k", Some(b"s")), (Space::Inline, b"k", Some(&[7; 9000]))]));
        assert_eq!(store.get(Space::State, b"k").unwrap().unwrap().as_ref(), b"s");
        assert_eq!(store.get(Space::Inline, b"k").unwrap().unwrap().len(), 9000);
        store.write(set(&[(Space::State, b"k", None), (Space::State, b"absent", None)]));
        assert_eq!(store.get(Space::State, b"k").unwrap(), None);
        assert!(store.get(Space::Inline, b"k").unwrap().is_some());
        assert_eq!(store.get(Space::State, b"").unwrap(), None);
    });
}

#[test]
fn scans_are_ordered_half_open_and_limited() {
    on_both(|store| {
        store.write(set(&[
            (Space::State, b"b", Some(b"2")),
            (Space::State, b"a", Some(b"1")),
            (Space::State, b"b\0", Some(b"3")),
            (Space::State, b"\xff", Some(b"4")),
            (Space::Inline, b"aa", Some(b"x")),
        ]));
        let keys = |from: &[u8], to: &[u8], limit| -> Vec<Vec<u8>> {
            store.scan(Space::State, from, to, limit).unwrap().iter().map(|(k, _)| k.to_vec()).collect()
        };
        assert_eq!(keys(b"a", b"\xff", 9), [b"a".to_vec(), b"b".to_vec(), b"b\0".to_vec()]);
        assert_eq!(keys(b"a", b"b", 9), [b"a".to_vec()]);
        assert_eq!(keys(b"", b"\xff\xff", 2).len(), 2);
        assert!(keys(b"b", b"a", 9).is_empty());
        assert!(keys(b"a", b"a", 9).is_empty());
        assert!(keys(b"", b"\xff\xff", 0).is_empty());
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn rocksdb_reads_like_memory(
        batches in prop::collection::vec(
            prop::collection::btree_map(0u8..30, prop::option::of(0u8..9), 0..12), 0..6),
        from in 0u8..30, to in 0u8..32, limit in 0usize..9,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let rocks = StateDb::open(&dir.path().join("db"), &options(), true).unwrap();
        let mut memory = MemoryKv::new();
        for batch in &batches {
            let mut writes = WriteSet::default();
            for (key, value) in batch {
                match value {
                    Some(value) => writes.put(Space::State, vec![*key], Bytes::copy_from_slice(&[*value])),
                    None => writes.delete(Space::State, vec![*key]),
                }
            }
            rocks.commit(&writes, &[]).unwrap();
            memory.apply(writes);
        }
        prop_assert_eq!(
            rocks.scan(Space::State, &[from], &[to], limit).unwrap(),
            memory.scan(Space::State, &[from], &[to], limit).unwrap()
        );
        prop_assert_eq!(rocks.get(Space::State, &[from]).unwrap(), memory.get(Space::State, &[from]).unwrap());
    }
}

/// A batch to write, or a scan.
#[derive(Clone, Debug)]
enum Step {
    Write(Vec<(u8, u8, bool)>),
    Scan(u8, Option<u8>, u8, usize),
    Pin,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        prop::collection::vec((1u8..4, 0u8..12, any::<bool>()), 1..6).prop_map(Step::Write),
        (1u8..4, prop::option::weighted(0.2, 0u8..12), 1u8..3, 1usize..5)
            .prop_map(|(kind, from, kinds, limit)| Step::Scan(kind, from, kinds, limit)),
        Just(Step::Pin),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// What is known of where rows begin changes no answer, of the present or of a view.
    #[test]
    fn scans_find_the_same_whatever_was_scanned_before(steps in prop::collection::vec(step(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let rocks = Arc::new(StateDb::open(&dir.path().join("db"), &options(), true).unwrap());
        let mut memory = MemoryKv::new();
        let mut pinned: Option<(StateView, MemoryKv)> = None;
        for step in steps {
            match step {
                Step::Write(rows) => {
                    let mut writes = WriteSet::default();
                    for (kind, place, there) in rows {
                        match there {
                            true => writes.put(Space::State, vec![kind, place], Bytes::new()),
                            false => writes.delete(Space::State, vec![kind, place]),
                        }
                    }
                    rocks.commit(&writes, &[]).unwrap();
                    memory.apply(writes);
                }
                Step::Scan(kind, from, kinds, limit) => {
                    let from: Vec<u8> = [kind].into_iter().chain(from).collect();
                    let scan = |kv: &dyn KvRead| kv.scan(Space::State, &from, &[kind + kinds], limit).unwrap();
                    prop_assert_eq!(scan(&*rocks), scan(&memory));
                    if let Some((view, then)) = &pinned {
                        prop_assert_eq!(scan(view), scan(then));
                    }
                }
                Step::Pin => {
                    let view = StateView::pin(Arc::clone(&rocks), |_| Ok(Position(1))).unwrap();
                    pinned = Some((view, memory.clone()));
                }
            }
        }
    }
}

#[test]
fn a_view_does_not_move_and_a_checkpoint_is_of_one_moment() {
    let dir = tempfile::tempdir().unwrap();
    let db = Arc::new(StateDb::open(&dir.path().join("db"), &options(), true).unwrap());
    db.commit(
        &set(&[(Space::State, b"k", Some(b"old")), (Space::Inline, b"i", Some(&[1; 4000]))]),
        &[(b"row", vec![1])],
    )
    .unwrap();
    let view = StateView::pin(Arc::clone(&db), |row| {
        assert_eq!(row(b"row").unwrap(), Some(vec![1]));
        Ok(Position(7))
    })
    .unwrap();
    let copy = dir.path().join("copy");
    db.checkpoint(&copy).unwrap();
    db.commit(&set(&[(Space::State, b"k", Some(b"new")), (Space::Inline, b"i", None)]), &[(b"row", vec![2])])
        .unwrap();
    assert_eq!(view.get(Space::State, b"k").unwrap().unwrap().as_ref(), b"old");
    assert_eq!(view.scan(Space::Inline, b"", b"z", 9).unwrap().len(), 1);
    assert_eq!(view.position(), Position(7));
    let checkpoint = StateDb::open_read_only(&copy, &options()).unwrap();
    assert_eq!(checkpoint.get(Space::State, b"k").unwrap().unwrap().as_ref(), b"old");
    assert_eq!(checkpoint.get(Space::Inline, b"i").unwrap().unwrap().len(), 4000);
    assert_eq!(checkpoint.row(b"row").unwrap(), Some(vec![1]));
    assert_eq!(db.get(Space::State, b"k").unwrap().unwrap().as_ref(), b"new");
}

#[test]
fn a_doomed_database_is_removed_with_its_last_view() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = Arc::new(StateDb::open(&path, &options(), true).unwrap());
    let view = StateView::pin(Arc::clone(&db), |_| Ok(Position(1))).unwrap();
    db.doom();
    drop(db);
    assert!(path.exists() && view.get(Space::State, b"k").unwrap().is_none());
    drop(view);
    assert!(!path.exists());
}

/// Every error that a flipped byte leads to must be told as corruption: another kind is taken for a disk
/// that may answer later, and the server would end at each start with no command that helps.
#[test]
fn a_flipped_byte_of_a_table_is_corruption_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let lz4 = || StoreOptions::new(Compression::Lz4, 4 << 20);
    for round in 0..2u8 {
        // The next opening writes what the log before it had into tables.
        let db = StateDb::open(&path, &lz4(), true).unwrap();
        let text = vec![b'x' + round; 300];
        db.commit(
            &set(&[(Space::State, b"k", Some(&text)), (Space::Inline, b"i", Some(&[round; 4000]))]),
            &[(b"row", vec![round])],
        )
        .unwrap();
    }
    let mut tables: Vec<_> = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
    tables.retain(|file| file.extension().is_some_and(|end| end == "sst" || end == "blob"));
    assert!(tables.len() >= 3, "{tables:?}");
    for table in tables {
        let good = std::fs::read(&table).unwrap();
        for offset in (0..good.len()).step_by(7) {
            let mut bad = good.clone();
            bad[offset] ^= 0x40;
            std::fs::write(&table, bad).unwrap();
            let outcome = StateDb::open_read_only(&path, &lz4()).and_then(|db| db.verify());
            let kind = outcome.as_ref().err().map(rocksdb::Error::kind);
            assert!(
                matches!(kind, None | Some(rocksdb::ErrorKind::Corruption)),
                "{table:?} {offset}: {outcome:?}"
            );
        }
        std::fs::write(&table, good).unwrap();
    }
}
