//! The suite over the store, in memory, on a simulated and on a real disk; compaction, full disks,
//! failing disks and refusals.

use std::sync::Arc;

use dfs_types::{Incarnation, OsEntropy, Position};

use super::super::check::{Verdict, scrub, verify};
use super::super::faulty::{Fault, FaultyDisk, Kept};
use super::super::index::memory::MemoryIndex;
use super::super::memory::MemoryStore;
use super::super::suite::{self, Sample};
use super::super::{ChunkStore, ChunkStoreExt, DeleteOutcome, StoreError};
use super::{OpenReport, SegmentStore, Settings};

const MIB: u64 = 1 << 20;

pub fn settings() -> Settings {
    let mut settings = Settings::new(Incarnation([3; 16])).with_segment_bytes(256 << 10);
    settings.preallocate_bytes = 64 << 10;
    settings.reserve_bytes = 512 << 10;
    settings
}

pub fn open(disk: &FaultyDisk, index: &MemoryIndex) -> (SegmentStore, OpenReport) {
    try_open(disk, index).unwrap()
}

pub fn try_open(disk: &FaultyDisk, index: &MemoryIndex) -> Result<(SegmentStore, OpenReport), StoreError> {
    SegmentStore::open(Arc::new(disk.clone()), Arc::new(index.clone()), Arc::new(OsEntropy), settings())
}

fn compact_all(store: &SegmentStore) -> u64 {
    let mut removed = 0;
    for _ in 0..1000 {
        let done = store.compact().unwrap();
        if done.segments_removed == 0 {
            return removed;
        }
        removed += done.segments_removed;
    }
    panic!("compaction does not come to an end");
}

#[test]
fn the_suite_in_memory() {
    suite::run(&|| Arc::new(MemoryStore::new(1 << 30)));
}

#[test]
fn the_suite_on_a_simulated_disk() {
    suite::run(&|| Arc::new(open(&FaultyDisk::new(1 << 30), &MemoryIndex::default()).0));
}

#[test]
fn the_suite_on_a_real_disk() {
    let folders = tempfile::tempdir().unwrap();
    let make = || -> Arc<dyn ChunkStore> {
        let folder = folders.path().join(std::fs::read_dir(folders.path()).unwrap().count().to_string());
        std::fs::create_dir(&folder).unwrap();
        let settings = Settings::new(Incarnation([3; 16])).with_segment_bytes(4 * MIB);
        Arc::new(SegmentStore::open_directory(&folder, Arc::new(OsEntropy), settings).unwrap().0)
    };
    suite::run(&make);
}

#[test]
fn a_real_directory_is_opened_again_with_and_without_its_index() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings::new(Incarnation([3; 16])).with_segment_bytes(4 * MIB);
    let open = || SegmentStore::open_directory(folder.path(), Arc::new(OsEntropy), settings.clone()).unwrap();
    let samples: Vec<Sample> = (0..12).map(|seed| Sample::new(seed, 900_000)).collect();
    let (store, report) = open();
    assert_eq!((report.segments, report.rebuilt), (0, true));
    for (place, sample) in samples.iter().enumerate() {
        sample.put(&store, place as u64 + 1).unwrap();
    }
    store.touch(&samples[0].key, Position(77)).unwrap();
    store.delete_below(&samples[1].key, Position(78)).unwrap();
    drop(store);
    let check = |store: &SegmentStore, report: OpenReport| {
        assert_eq!((report.chunks, report.lost, report.damaged), (11, 0, 0));
        assert_eq!(scrub(store, None, u64::MAX).unwrap().bad, []);
        assert_eq!(store.get(&samples[0].key).unwrap().unwrap().epoch, Position(77));
        assert_eq!(store.get(&samples[1].key), Ok(None));
    };
    let (store, report) = open();
    assert!(!report.rebuilt && report.recovered == 0);
    check(&store, report);
    drop(store);
    std::fs::remove_dir_all(folder.path().join("index")).unwrap();
    let (store, report) = open();
    assert!(report.rebuilt);
    check(&store, report);
    drop(store);

    let other = Settings { incarnation: Incarnation([4; 16]), ..settings.clone() };
    let refused = SegmentStore::open_directory(folder.path(), Arc::new(OsEntropy), other);
    assert!(matches!(refused.map(|_| ()), Err(StoreError::Refused(_))));
    let pipe = folder.path().join("segments/0000009999.seg");
    std::os::unix::fs::symlink("/dev/null", pipe).unwrap();
    let refused = SegmentStore::open_directory(folder.path(), Arc::new(OsEntropy), settings.clone());
    assert!(matches!(refused.map(|_| ()), Err(StoreError::Refused(_))));
}

#[test]
fn a_chunk_longer_than_a_segment_gets_its_own() {
    let (disk, index) = (FaultyDisk::new(1 << 30), MemoryIndex::default());
    let (store, _) = open(&disk, &index);
    let (small, large) = (Sample::new(1, 10), Sample::new(2, 2_000_000));
    small.put(&store, 1).unwrap();
    large.put(&store, 1).unwrap();
    small.put(&store, 2).unwrap();
    drop(store);
    let (store, _) = open(&disk, &index);
    assert_eq!(verify(&store, &large.key), Ok(Verdict::Good));
}

/// A slow writer holds its place in a full segment while others go on, and may still finish.
#[test]
fn slow_writers_do_not_hold_others() {
    let (disk, index) = (FaultyDisk::new(1 << 30), MemoryIndex::default());
    let (store, _) = open(&disk, &index);
    let slow = Sample::new(99, 100_000);
    let mut writer = store.begin(&slow.key, 100_000, Position(1)).unwrap();
    writer.write(&slow.bytes[..50_000]).unwrap();
    for seed in 0..20 {
        Sample::new(seed, 100_000).put(&store, 1).unwrap();
    }
    writer.write(&slow.bytes[50_000..]).unwrap();
    writer.finish(&slow.groups).unwrap();
    assert_eq!(verify(&store, &slow.key), Ok(Verdict::Good));
    drop(store);
    let (store, report) = open(&disk, &index);
    assert_eq!((report.chunks, report.recovered), (21, 0));
    assert_eq!(verify(&store, &slow.key), Ok(Verdict::Good));
}

#[test]
fn compaction_gives_space_back_and_forgets_nothing() {
    let (disk, index) = (FaultyDisk::new(1 << 30), MemoryIndex::default());
    let (store, _) = open(&disk, &index);
    let samples: Vec<Sample> = (0..60).map(|seed| Sample::new(seed, 40_000)).collect();
    for sample in &samples {
        sample.put(&store, 5).unwrap();
    }
    for (place, sample) in samples.iter().enumerate() {
        match place % 3 {
            0 => assert_eq!(store.delete_below(&sample.key, Position(9)), Ok(DeleteOutcome::Deleted)),
            1 => assert!(store.touch(&sample.key, Position(20 + place as u64)).unwrap()),
            _ => assert!(place % 2 == 0 || store.quarantine(&sample.key).unwrap()),
        }
    }
    let before = store.usage().unwrap();
    assert!(compact_all(&store) > 0);
    let after = store.usage().unwrap();
    assert!(after.used < before.used * 8 / 10, "{before:?} {after:?}");
    assert!(before.live < before.written * 3 / 4 && after.live <= after.written, "{before:?} {after:?}");
    assert!(after.live > after.written * 3 / 4 && after.segments < before.segments, "{before:?} {after:?}");
    let check = |store: &SegmentStore| {
        for (place, sample) in samples.iter().enumerate() {
            let meta = store.get(&sample.key).unwrap();
            if place % 3 == 0 {
                assert_eq!(meta, None);
                continue;
            }
            let epoch = if place % 3 == 1 { 20 + place as u64 } else { 5 };
            let meta = meta.unwrap();
            assert_eq!(meta.epoch, Position(epoch));
            assert_eq!(meta.quarantined, place % 3 == 2 && place % 2 == 1);
            assert_eq!(verify(store, &sample.key), Ok(Verdict::Good));
        }
    };
    check(&store);
    drop(store);
    let (store, _) = open(&disk, &index);
    check(&store);
    drop(store);
    let (store, report) = open(&disk, &MemoryIndex::default());
    assert!(report.rebuilt);
    check(&store);
    // All dead: everything goes, the delete records too.
    for sample in &samples {
        let _ = store.delete_below(&sample.key, Position(1000)).unwrap();
    }
    drop(store);
    let index = MemoryIndex::default();
    let (store, _) = open(&disk, &index);
    compact_all(&store);
    drop(store);
    let (store, _) = open(&disk, &index);
    compact_all(&store);
    assert_eq!(store.usage().unwrap().chunks, 0);
    assert!(store.usage().unwrap().used < 100_000, "{:?}", store.usage());
}

/// A delete record outlives compaction as long as the data record it deletes.
#[test]
fn a_deleted_chunk_never_comes_back() {
    let (disk, index) = (FaultyDisk::new(1 << 30), MemoryIndex::default());
    let (store, _) = open(&disk, &index);
    let victim = Sample::new(1000, 1000);
    victim.put(&store, 5).unwrap();
    // Live neighbours, so that the first segment is never worth compacting.
    for seed in 0..6 {
        Sample::new(seed, 40_000).put(&store, 5).unwrap();
    }
    let dying: Vec<Sample> = (100..110).map(|seed| Sample::new(seed, 40_000)).collect();
    for sample in &dying {
        sample.put(&store, 5).unwrap();
    }
    store.delete_below(&victim.key, Position(6)).unwrap();
    for sample in &dying {
        store.delete_below(&sample.key, Position(6)).unwrap();
    }
    for round in 0..5 {
        for seed in 0..10 {
            let filler = Sample::new(200 + round * 10 + seed, 40_000);
            filler.put(&store, 5).unwrap();
            store.delete_below(&filler.key, Position(6)).unwrap();
        }
        compact_all(&store);
    }
    assert_eq!(victim.put(&store, 5), Err(StoreError::StaleEpoch(Position(6))));
    drop(store);
    let (store, report) = open(&disk, &MemoryIndex::default());
    assert!(report.rebuilt);
    assert_eq!(store.get(&victim.key), Ok(None));
    assert_eq!(store.usage().unwrap().chunks, 6);
}

#[test]
fn on_a_full_disk_reads_deletes_and_compaction_go_on() {
    let (disk, index) = (FaultyDisk::new(4 * MIB), MemoryIndex::default());
    let (store, _) = open(&disk, &index);
    let mut kept = Vec::new();
    for seed in 0.. {
        let sample = Sample::new(seed, 50_000);
        match sample.put(&store, 1) {
            Ok(_) => kept.push(sample),
            Err(error) => {
                assert_eq!(error, StoreError::NoSpace);
                break;
            }
        }
    }
    assert!(kept.len() > 50);
    assert!(store.usage().unwrap().free < 60_000);
    disk.set_capacity(store.usage().unwrap().used + (600 << 10));
    for sample in &kept {
        assert_eq!(verify(&store, &sample.key), Ok(Verdict::Good));
    }
    for sample in kept.iter().step_by(2) {
        assert_eq!(store.delete_below(&sample.key, Position(2)), Ok(DeleteOutcome::Deleted));
        assert!(matches!(sample.put(&store, 5).map(|_| ()), Err(StoreError::NoSpace) | Ok(())));
        store.delete_below(&sample.key, Position(9)).unwrap();
    }
    assert!(compact_all(&store) > 0);
    Sample::new(9999, 50_000).put(&store, 3).unwrap();
}

#[test]
fn a_capacity_setting_is_kept() {
    let (disk, index) = (FaultyDisk::new(1 << 40), MemoryIndex::default());
    let settings = Settings { capacity_bytes: 2 * MIB, ..settings() };
    let store = SegmentStore::open(Arc::new(disk), Arc::new(index), Arc::new(OsEntropy), settings).unwrap().0;
    let stored = (0..100).take_while(|seed| Sample::new(*seed, 50_000).put(&store, 1).is_ok()).count();
    assert!((20..32).contains(&stored), "{stored}");
    let usage = store.usage().unwrap();
    assert!(usage.used + usage.free <= usage.capacity && usage.capacity == 2 * MIB);
    // A quarter at most is left by new chunks, be it less than a segment.
    assert_eq!((usage.upkeep, usage.upkeep_wanted), (512 << 10, 256 << 10));
}

#[test]
fn it_says_when_a_start_after_a_power_loss_may_lack_room() {
    for (bytes, upkeep) in [(MIB / 2, MIB / 8), (8 * MIB, MIB / 2)] {
        let (store, _) = open(&FaultyDisk::new(bytes), &MemoryIndex::default());
        let usage = store.usage().unwrap();
        assert_eq!((usage.upkeep, usage.upkeep_wanted), (upkeep, MIB / 4), "a disk of {bytes}");
    }
    // Filled by somebody else: what is not there is not counted.
    let disk = FaultyDisk::new(8 * MIB);
    let (store, _) = open(&disk, &MemoryIndex::default());
    disk.set_capacity(store.usage().unwrap().used + MIB / 8);
    let usage = store.usage().unwrap();
    assert!(usage.upkeep <= MIB / 8 && usage.upkeep < usage.upkeep_wanted, "{usage:?}");
}

/// After a failed fsync nothing of that segment is acknowledged any more, now or after a restart
/// that still sees the page cache, and the next put goes elsewhere.
#[test]
fn a_failed_fsync_poisons_the_segment() {
    let (disk, index) = (FaultyDisk::new(1 << 30), MemoryIndex::default());
    let (store, _) = open(&disk, &index);
    let (before, lost, after) = (Sample::new(1, 5000), Sample::new(2, 5000), Sample::new(3, 5000));
    before.put(&store, 1).unwrap();
    store.touch(&before.key, Position(5)).unwrap();
    // Header, data, groups, trailer, then the fsync.
    disk.fail_at(disk.operations() + 4, Fault::Error);
    assert!(matches!(lost.put(&store, 1), Err(StoreError::Io(_))));
    assert_eq!(store.get(&lost.key), Ok(None));
    after.put(&store, 1).unwrap();
    disk.fail_at(disk.operations() + 1, Fault::Error);
    assert!(matches!(store.delete_below(&before.key, Position(7)), Err(StoreError::Io(_))));
    store.touch(&before.key, Position(6)).unwrap();
    for kept in [Kept::Everything, Kept::Nothing, Kept::Some(1)] {
        for index in [MemoryIndex::default(), index.clone()] {
            let disk = disk.fork();
            disk.restart(kept);
            let (store, _) = open(&disk, &index);
            assert_eq!(store.get(&before.key).unwrap().unwrap().epoch, Position(6), "{kept:?}");
            assert_eq!(store.get(&lost.key), Ok(None));
            assert_eq!(verify(&store, &after.key), Ok(Verdict::Good));
        }
    }
    // Poisoned segments are moved out.
    assert!(compact_all(&store) >= 2);
    assert_eq!(verify(&store, &before.key), Ok(Verdict::Good));
    assert!(disk.bytes("0000000003.seg").len() > 100);
}

#[test]
fn when_the_poison_mark_cannot_be_written_no_change_is_taken() {
    let (disk, index) = (FaultyDisk::new(1 << 30), MemoryIndex::default());
    let (store, _) = open(&disk, &index);
    let sample = Sample::new(1, 5000);
    sample.put(&store, 1).unwrap();
    disk.fail_at(disk.operations() + 1, Fault::Error);
    disk.fail_at(disk.operations() + 2, Fault::Error);
    assert!(store.touch(&sample.key, Position(9)).is_err());
    assert!(matches!(store.touch(&sample.key, Position(9)), Err(StoreError::Broken(_))));
    assert!(matches!(Sample::new(2, 50).put(&store, 1), Err(StoreError::Broken(_))));
    assert_eq!(verify(&store, &sample.key), Ok(Verdict::Good));
}

#[test]
fn short_writes_are_completed() {
    let (disk, index) = (FaultyDisk::new(1 << 30), MemoryIndex::default());
    let (store, _) = open(&disk, &index);
    let sample = Sample::new(1, 300_000);
    for operation in 0..40 {
        disk.fail_at(operation, Fault::Short);
        if operation % 3 == 0 {
            disk.fail_at(operation, Fault::Error);
        }
    }
    while sample.put(&store, 1).is_err() {}
    assert_eq!(verify(&store, &sample.key), Ok(Verdict::Good));
}

/// Puts that break off leave their extents behind. Those in the active segment lay there until other puts had
/// filled it: on a quiet node, for ever.
#[test]
fn a_thousand_abandoned_puts_leave_nothing() {
    let (disk, index) = (FaultyDisk::new(1 << 30), MemoryIndex::default());
    let (store, _) = open(&disk, &index);
    let kept = Sample::new(1, 20_000);
    kept.put(&store, 5).unwrap();
    let mut most = 0;
    for seed in 0..1000 {
        let sample = Sample::new(2 + seed % 7, 50_000);
        let mut writer = store.begin(&sample.key, 50_000, Position(5)).unwrap();
        writer.write(&sample.bytes[..30_000]).unwrap();
        drop(writer);
        if seed % 10 == 9 {
            compact_all(&store);
            most = most.max(store.usage().unwrap().used);
        }
    }
    let used = store.usage().unwrap().used;
    assert!(most <= 4 * (256 << 10), "{most} bytes at most");
    assert!(used <= 128 << 10, "{used} bytes in the end");
    assert_eq!(verify(&store, &kept.key).unwrap(), Verdict::Good);
    drop(store);
    disk.restart(Kept::Everything);
    assert_eq!(open(&disk, &index).1.chunks, 1);
}
