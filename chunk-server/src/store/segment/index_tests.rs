//! The index directory cut, emptied, flipped and half deleted while the store is closed: the store opens by
//! itself and has everything, epochs, deletes and quarantine marks included.
//!
//! The story: RocksDB makes an empty database where CURRENT is missing and replays what logs are left into
//! it. The row that calls the index complete was among them, so a store without CURRENT opened as whole and
//! said "absent" of everything that stood in a table.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dfs_types::{OsEntropy, Position};

use super::super::check::{Verdict, verify};
use super::super::suite::Sample;
use super::super::{ChunkStore, ChunkStoreExt, StoreError};
use super::tests::settings;
use super::{OpenReport, SegmentStore};

/// Chunks 0 to 5; 1 was touched, 2 deleted, 3 quarantined, 4 deleted and put again.
struct World {
    folder: tempfile::TempDir,
    samples: Vec<Sample>,
}

fn open(path: &Path) -> Result<(SegmentStore, OpenReport), StoreError> {
    SegmentStore::open_directory(path, Arc::new(OsEntropy), settings())
}

impl World {
    /// Rows in tables and rows in the log.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let samples: Vec<Sample> = [(1, 300), (2, 70_000), (3, 5_000), (4, 150_000), (5, 90_000), (6, 900)]
            .map(|(s, l)| Sample::new(s, l))
            .into();
        let home = folder.path().join("home");
        fs::create_dir(&home).unwrap();
        let (store, _) = open(&home).unwrap();
        for sample in &samples[..5] {
            sample.put(&store, 5).unwrap();
        }
        store.delete_below(&samples[2].key, Position(8)).unwrap();
        store.delete_below(&samples[4].key, Position(8)).unwrap();
        drop(store);
        // A start takes the log's rows into a table.
        let (store, _) = open(&home).unwrap();
        store.touch(&samples[1].key, Position(9)).unwrap();
        store.quarantine(&samples[3].key).unwrap();
        samples[4].put(&store, 11).unwrap();
        samples[5].put(&store, 6).unwrap();
        drop(store);
        Self { folder, samples }
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// Copies the directory, lets `spoil` have its index, and opens it.
    fn after(
        &self,
        spoil: impl FnOnce(&Path),
    ) -> (tempfile::TempDir, Result<(SegmentStore, OpenReport), StoreError>) {
        let copy = tempfile::tempdir_in(self.folder.path()).unwrap();
        for part in ["segments", "index"] {
            fs::create_dir(copy.path().join(part)).unwrap();
            for entry in fs::read_dir(self.home().join(part)).unwrap() {
                let entry = entry.unwrap();
                fs::copy(entry.path(), copy.path().join(part).join(entry.file_name())).unwrap();
            }
        }
        spoil(&copy.path().join("index"));
        let opened = open(copy.path());
        (copy, opened)
    }

    fn check(&self, what: &str, store: &SegmentStore) {
        let expected =
            [Some((5, false)), Some((9, false)), None, Some((5, true)), Some((11, false)), Some((6, false))];
        for (which, (sample, expected)) in self.samples.iter().zip(expected).enumerate() {
            let meta = store.get(&sample.key).unwrap().map(|meta| (meta.epoch.0, meta.quarantined));
            assert_eq!(meta, expected, "{what}: chunk {which}");
            let verdict = verify(store, &sample.key).unwrap();
            assert_eq!(verdict == Verdict::Good, expected.is_some(), "{what}: chunk {which}: {verdict:?}");
        }
        // The delete is still known, so a late put does not bring the chunk back.
        assert!(self.samples[2].put(store, 7).is_err(), "{what}: a put from before the delete");
        assert!(self.samples[2].put(store, 12).is_ok(), "{what}: takes chunks");
    }
}

type Spoil<'a> = Box<dyn Fn(&Path) + 'a>;

/// Every file of an index, by name.
fn files(index: &Path) -> Vec<(String, PathBuf)> {
    let mut files: Vec<(String, PathBuf)> = fs::read_dir(index)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), path))
        .collect();
    files.sort();
    files
}

#[test]
fn whatever_happens_to_a_file_of_the_index() {
    let world = World::new();
    let (_copy, untouched) = world.after(|_| {});
    let (store, report) = untouched.unwrap();
    assert!(!report.rebuilt && report.index_damaged.is_none() && report.faults.is_empty(), "{report:?}");
    world.check("untouched", &store);
    drop(store);

    let names: Vec<String> = files(&world.home().join("index")).into_iter().map(|(name, _)| name).collect();
    for kind in ["CURRENT", "MANIFEST-", ".sst", ".log"] {
        assert!(names.iter().any(|name| name.contains(kind)), "no {kind} among {names:?}");
    }
    for name in &names {
        let length = fs::metadata(world.home().join("index").join(name)).unwrap().len();
        let deleted = |index: &Path| fs::remove_file(index.join(name)).unwrap();
        let cut = |to: u64| {
            move |index: &Path| {
                OpenOptions::new().write(true).open(index.join(name)).unwrap().set_len(to).unwrap();
            }
        };
        let mut cases: Vec<(String, Spoil<'_>)> = vec![
            (format!("{name} deleted"), Box::new(deleted)),
            (format!("{name} empty"), Box::new(cut(0))),
            (format!("{name} cut in half"), Box::new(cut(length / 2))),
            (format!("{name} one byte short"), Box::new(cut(length.saturating_sub(1)))),
        ];
        // What RocksDB writes for people is looked at once.
        let told = ["LOG", "OPTIONS", "LOCK", "IDENTITY"].iter().any(|prefix| name.starts_with(prefix));
        if told {
            cases.truncate(1);
        }
        let flips = if told { 1 } else { 6 };
        for at in (0..length).step_by((length / flips + 1) as usize) {
            cases.push((
                format!("{name} flipped at {at}"),
                Box::new(move |index: &Path| {
                    let file = OpenOptions::new().read(true).write(true).open(index.join(name)).unwrap();
                    let mut byte = [0u8];
                    file.read_exact_at(&mut byte, at).unwrap();
                    file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
                }),
            ));
        }
        for (what, spoil) in cases {
            let (copy, opened) = world.after(spoil);
            let (store, report) = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!((report.lost, report.damaged), (0, 0), "{what}: {report:?}");
            world.check(&what, &store);
            assert!(!copy.path().join("index.damaged").exists(), "{what}: the old index stayed");
            drop(store);
            let (store, again) = open(copy.path()).unwrap();
            assert!(!again.rebuilt, "{what}: rebuilt at the next start too");
            drop(store);
        }
    }
}

/// Not a prefix of what was written, and not the whole: tables of different ages.
#[test]
fn all_of_one_kind_gone() {
    let world = World::new();
    for kind in [".sst", ".log", "MANIFEST", "CURRENT", ""] {
        let (_copy, opened) = world.after(|index| {
            files(index)
                .into_iter()
                .filter(|(name, _)| name.contains(kind))
                .for_each(|(_, path)| fs::remove_file(path).unwrap());
        });
        let (store, report) = opened.unwrap();
        assert_eq!((report.lost, report.damaged), (0, 0), "without {kind:?}");
        world.check(&format!("without {kind:?}"), &store);
    }
    let (_copy, opened) = world.after(|index| fs::remove_dir_all(index).unwrap());
    world.check("without the directory", &opened.unwrap().0);
}

/// Rows that read as rows of nothing: damage that RocksDB cannot see.
#[test]
fn rows_that_do_not_decode() {
    use super::super::index::rocks::RocksIndex;
    use super::super::index::{Index, IndexBatch};
    let world = World::new();
    for kind in [b'c', b't', b's'] {
        let (copy, opened) = world.after(|path| {
            let index = RocksIndex::open(path).unwrap();
            let mut batch = IndexBatch::default();
            let mut key = vec![kind];
            key.extend([0xee; 48]);
            batch.put(key, vec![77; 5]);
            index.write(&batch, true).unwrap();
        });
        let (store, report) = opened.unwrap();
        assert!(report.rebuilt && report.index_damaged.is_some(), "kind {}", kind as char);
        world.check("a row of nothing", &store);
        drop((store, copy));
    }
}

/// A crash between setting aside and the end of the rebuild.
#[test]
fn a_rebuild_that_was_cut_off_goes_on() {
    let world = World::new();
    let (copy, opened) = world.after(|index| {
        let directory = index.parent().unwrap();
        fs::create_dir(directory.join("index.damaged")).unwrap();
        fs::write(directory.join("index.damaged/CURRENT"), "x").unwrap();
        fs::remove_dir_all(index).unwrap();
    });
    let (store, report) = opened.unwrap();
    assert!(report.rebuilt);
    world.check("cut off", &store);
    assert!(!copy.path().join("index.damaged").exists());
}
