//! What every store must do. Each check takes an empty store.

use std::sync::Arc;

use chunk_format::tree::GroupHasher;
use dfs_types::{ChunkId, Position, RealmId};

use super::check::{Verdict, scrub, verify};
use super::faulty::Dice;
use super::{ChunkKey, ChunkMeta, ChunkStore, ChunkStoreExt, DeleteOutcome, StoreError};

pub const REALM: RealmId = RealmId([7; 16]);

/// Bytes that a seed stands for, with their key and group hashes.
pub struct Sample {
    pub key: ChunkKey,
    pub bytes: Vec<u8>,
    pub groups: Vec<[u8; 32]>,
}

impl Sample {
    pub fn new(seed: u64, len: usize) -> Self {
        let mut dice = Dice::new(seed);
        let bytes: Vec<u8> = (0..len).map(|_| dice.below(256) as u8).collect();
        let mut hasher = GroupHasher::new();
        hasher.update(&bytes);
        let (chunk, groups) = hasher.finish();
        Self { key: ChunkKey::new(REALM, chunk), bytes, groups }
    }

    pub fn put(&self, store: &dyn ChunkStore, epoch: u64) -> Result<ChunkMeta, StoreError> {
        let mut writer = store.begin(&self.key, self.bytes.len() as u64, Position(epoch))?;
        for piece in self.bytes.chunks(100_000) {
            writer.write(piece)?;
        }
        writer.finish(&self.groups)
    }
}

/// One check.
type Check = fn(&dyn ChunkStore);

/// All checks over stores that `make` makes.
pub fn run(make: &dyn Fn() -> Arc<dyn ChunkStore>) {
    let checks: [(&str, Check); 8] = [
        ("what is put is read", put_and_read),
        ("wrong chunks are refused", wrong_chunks),
        ("epochs only rise", epochs),
        ("deletes", deletes),
        ("quarantine", quarantine),
        ("lists", lists),
        ("abandoned writers", abandoned),
        ("realms are apart", realms),
    ];
    for (name, check) in checks {
        println!("{name}");
        check(make().as_ref());
    }
    println!("many writers at once");
    at_once(&make());
}

fn put_and_read(store: &dyn ChunkStore) {
    for (seed, len) in [(1, 1), (2, 65_535), (3, 65_536), (4, 65_537), (5, 1_000_000)] {
        let sample = Sample::new(seed, len);
        assert_eq!(store.get(&sample.key), Ok(None));
        assert_eq!(store.read(&sample.key, 0, 1), Err(StoreError::NotFound));
        let meta = ChunkMeta { sealed_len: len as u64, epoch: Position(9), quarantined: false };
        assert_eq!(sample.put(store, 9), Ok(meta));
        assert_eq!(store.get(&sample.key), Ok(Some(meta)));
        assert_eq!(&store.read(&sample.key, 0, len).unwrap()[..], sample.bytes);
        let middle = len / 3;
        assert_eq!(
            &store.read(&sample.key, middle as u64, len - middle).unwrap()[..],
            &sample.bytes[middle..]
        );
        for (offset, count) in [(1, len), (len as u64 + 1, 0), (u64::MAX, 1)] {
            assert!(matches!(store.read(&sample.key, offset, count), Err(StoreError::OutOfRange(_))));
        }
        assert_eq!(store.groups(&sample.key).unwrap(), sample.groups);
        assert_eq!(verify(store, &sample.key), Ok(Verdict::Good));
    }
    let walked = scrub(store, None, u64::MAX).unwrap();
    assert_eq!((walked.chunks, walked.bad.len(), walked.next), (5, 0, None));
    let first = scrub(store, None, 1).unwrap();
    assert_eq!(first.chunks, 1);
    assert_eq!(scrub(store, first.next.as_ref(), u64::MAX).unwrap().chunks, 4);
}

fn wrong_chunks(store: &dyn ChunkStore) {
    let sample = Sample::new(1, 100_000);
    let begin = |len| store.begin(&sample.key, len, Position(1));
    for len in [0, dfs_types::limits::MAX_SEALED_BYTES + 1, u64::MAX] {
        assert!(matches!(begin(len).map(|_| ()), Err(StoreError::OutOfRange(_))));
    }
    let mut short = begin(100_000).unwrap();
    short.write(&sample.bytes[..99_999]).unwrap();
    assert!(matches!(short.finish(&sample.groups), Err(StoreError::Mismatch(_))));
    let mut long = begin(99_999).unwrap();
    assert!(matches!(long.write(&sample.bytes), Err(StoreError::OutOfRange(_))));
    let mut other = begin(100_000).unwrap();
    other.write(&sample.bytes).unwrap();
    assert!(matches!(other.finish(&Sample::new(2, 100_000).groups), Err(StoreError::Mismatch(_))));
    assert_eq!(store.get(&sample.key), Ok(None));
    assert_eq!(store.usage().unwrap().chunks, 0);
}

fn epochs(store: &dyn ChunkStore) {
    let sample = Sample::new(1, 1000);
    assert_eq!(store.touch(&sample.key, Position(1)), Ok(false));
    sample.put(store, 10).unwrap();
    assert_eq!(store.touch(&sample.key, Position(5)), Ok(true));
    assert_eq!(store.get(&sample.key).unwrap().unwrap().epoch, Position(10));
    assert_eq!(store.touch(&sample.key, Position(20)), Ok(true));
    assert_eq!(store.get(&sample.key).unwrap().unwrap().epoch, Position(20));
    assert_eq!(sample.put(store, 15).unwrap().epoch, Position(20));
    assert_eq!(sample.put(store, 30).unwrap().epoch, Position(30));
    assert_eq!(store.get(&sample.key).unwrap().unwrap().epoch, Position(30));
    assert_eq!(store.usage().unwrap().chunks, 1);
}

fn deletes(store: &dyn ChunkStore) {
    let sample = Sample::new(1, 1000);
    assert_eq!(store.delete_below(&sample.key, Position(5)), Ok(DeleteOutcome::Absent));
    sample.put(store, 10).unwrap();
    assert_eq!(store.delete_below(&sample.key, Position(10)), Ok(DeleteOutcome::Kept(Position(10))));
    store.touch(&sample.key, Position(20)).unwrap();
    assert_eq!(store.delete_below(&sample.key, Position(15)), Ok(DeleteOutcome::Kept(Position(20))));
    assert_eq!(store.delete_below(&sample.key, Position(21)), Ok(DeleteOutcome::Deleted));
    assert_eq!(store.get(&sample.key), Ok(None));
    assert_eq!(store.usage().unwrap().chunks, 0);
    assert_eq!(store.delete_below(&sample.key, Position(21)), Ok(DeleteOutcome::Absent));
    assert_eq!(sample.put(store, 20), Err(StoreError::StaleEpoch(Position(21))));
    assert_eq!(sample.put(store, 21).unwrap().epoch, Position(21));
    assert_eq!(verify(store, &sample.key), Ok(Verdict::Good));

    // A delete that is acknowledged while the bytes arrive.
    let other = Sample::new(2, 1000);
    other.put(store, 3).unwrap();
    store.quarantine(&other.key).unwrap();
    let mut writer = store.begin(&other.key, 1000, Position(4)).unwrap();
    writer.write(&other.bytes).unwrap();
    assert_eq!(store.delete_below(&other.key, Position(9)), Ok(DeleteOutcome::Deleted));
    assert_eq!(writer.finish(&other.groups), Err(StoreError::StaleEpoch(Position(9))));
}

fn quarantine(store: &dyn ChunkStore) {
    let sample = Sample::new(1, 70_000);
    assert_eq!(store.quarantine(&sample.key), Ok(false));
    sample.put(store, 10).unwrap();
    assert_eq!(store.quarantine(&sample.key), Ok(true));
    assert_eq!(store.quarantine(&sample.key), Ok(true));
    assert!(store.get(&sample.key).unwrap().unwrap().quarantined);
    assert_eq!(store.touch(&sample.key, Position(50)), Ok(false));
    assert_eq!(&store.read(&sample.key, 0, 70_000).unwrap()[..], sample.bytes);
    assert_eq!(store.usage().unwrap().chunks, 1);
    let healed = ChunkMeta { sealed_len: 70_000, epoch: Position(10), quarantined: false };
    assert_eq!(sample.put(store, 4), Ok(healed));
    assert_eq!(store.get(&sample.key), Ok(Some(healed)));
    assert_eq!(store.usage().unwrap().chunks, 1);
    assert_eq!(verify(store, &sample.key), Ok(Verdict::Good));
}

fn lists(store: &dyn ChunkStore) {
    let mut keys: Vec<ChunkKey> = (0..10)
        .map(|seed| {
            let sample = Sample::new(seed, 100);
            sample.put(store, seed + 1).unwrap();
            sample.key
        })
        .collect();
    keys.sort_unstable();
    let names = |after: Option<&ChunkKey>, limit| -> Vec<ChunkKey> {
        store.list(after, limit).unwrap().into_iter().map(|(key, _)| key).collect()
    };
    assert_eq!(names(None, 100), keys);
    assert_eq!(names(None, 4), keys[..4]);
    assert_eq!(names(Some(&keys[3]), 4), keys[4..8]);
    assert_eq!(names(Some(&keys[9]), 4), []);
    store.delete_below(&keys[4], Position(99)).unwrap();
    assert_eq!(names(Some(&keys[3]), 1), keys[5..6]);
}

fn abandoned(store: &dyn ChunkStore) {
    let sample = Sample::new(1, 100_000);
    for sent in [0, 1, 70_000, 100_000] {
        let mut writer = store.begin(&sample.key, 100_000, Position(1)).unwrap();
        writer.write(&sample.bytes[..sent]).unwrap();
        drop(writer);
        assert_eq!(store.get(&sample.key), Ok(None));
    }
    sample.put(store, 1).unwrap();
    assert_eq!(verify(store, &sample.key), Ok(Verdict::Good));
}

fn realms(store: &dyn ChunkStore) {
    let mut sample = Sample::new(1, 1000);
    sample.put(store, 5).unwrap();
    let first = sample.key;
    sample.key.realm = RealmId([9; 16]);
    assert_eq!(store.get(&sample.key), Ok(None));
    sample.put(store, 6).unwrap();
    assert_eq!(store.delete_below(&first, Position(9)), Ok(DeleteOutcome::Deleted));
    assert_eq!(store.get(&sample.key).unwrap().unwrap().epoch, Position(6));
    let nobody = ChunkKey::new(REALM, ChunkId([0; 32]));
    assert_eq!(store.get(&nobody), Ok(None));
}

fn at_once(store: &Arc<dyn ChunkStore>) {
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let store = store.clone();
            scope.spawn(move || {
                for round in 0..20u64 {
                    // Half are everybody's, half one's own.
                    let seed = if round % 2 == 0 { round } else { 1000 + thread * 100 + round };
                    let sample = Sample::new(seed, 3000 + seed as usize);
                    sample.put(store.as_ref(), round + 1).unwrap();
                    store.touch(&sample.key, Position(round + thread + 2)).unwrap();
                    if round % 5 == 4 {
                        store.compact().unwrap();
                    }
                    if seed >= 1000 && round % 3 == 0 {
                        let outcome = store.delete_below(&sample.key, Position(500)).unwrap();
                        assert_eq!(outcome, DeleteOutcome::Deleted);
                    }
                }
            });
        }
    });
    let walked = scrub(store.as_ref(), None, u64::MAX).unwrap();
    assert_eq!(walked.bad, []);
    // Rounds 3, 9 and 15 of each thread were deleted.
    assert_eq!(walked.chunks, 10 + 8 * (10 - 3));
    for round in (0..20).step_by(2) {
        let sample = Sample::new(round, 3000 + round as usize);
        assert_eq!(store.get(&sample.key).unwrap().unwrap().epoch, Position(round + 9));
    }
}
