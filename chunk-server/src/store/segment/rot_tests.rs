//! One flipped byte anywhere in a segment, while the store is closed: never a wrong byte that verifies,
//! and everything the flip did not hit is there. Also files cut short or grown.

use std::collections::BTreeMap;

use chunk_format::record::{
    RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, TRAILER_BYTES, data_extent_bytes, groups_offset,
    trailer_offset,
};
use dfs_types::Position;

use super::super::check::{Verdict, scrub, verify};
use super::super::disk::Disk;
use super::super::faulty::{FaultyDisk, Kept};
use super::super::index::memory::MemoryIndex;
use super::super::suite::Sample;
use super::super::{ChunkStore, ChunkStoreExt};
use super::tests::{open, try_open};

const FIRST: &str = "0000000001.seg";

/// Three chunks, a touch of the first, a delete of a fourth; sealed.
fn world() -> (FaultyDisk, MemoryIndex, Vec<Sample>) {
    let (disk, index) = (FaultyDisk::new(64 << 20), MemoryIndex::default());
    let samples: Vec<Sample> =
        [(1, 300), (2, 70_000), (3, 5_000), (4, 900)].map(|(s, l)| Sample::new(s, l)).into();
    let (store, _) = open(&disk, &index);
    for sample in &samples {
        sample.put(&store, 5).unwrap();
    }
    store.touch(&samples[0].key, Position(9)).unwrap();
    store.delete_below(&samples[3].key, Position(8)).unwrap();
    drop(store);
    disk.restart(Kept::Everything);
    drop(open(&disk, &index));
    (disk, index, samples)
}

/// Interesting offsets of a segment with these records: the ends and the middle of every region.
fn regions(samples: &[Sample]) -> Vec<(u64, Option<usize>)> {
    let mut places: Vec<(u64, Option<usize>)> =
        (0..SEGMENT_HEADER_BYTES as u64).map(|at| (at, None)).collect();
    let mut start = SEGMENT_HEADER_BYTES as u64;
    for (which, sample) in samples.iter().enumerate() {
        let len = sample.bytes.len() as u64;
        let (header, groups, trailer) = (RECORD_HEADER_BYTES as u64, groups_offset(len), trailer_offset(len));
        let end = trailer + TRAILER_BYTES as u64;
        let mut offsets: Vec<u64> = (0..header).step_by(3).collect();
        offsets.extend([header, header + len / 2, groups - 1]);
        offsets.extend((groups..trailer).step_by(7));
        offsets.extend((trailer..end).step_by(3));
        places.extend(offsets.into_iter().map(|at| (start + at, Some(which))));
        start += data_extent_bytes(len);
    }
    // The two marks and the seal.
    places.extend((start..start + 3 * RECORD_HEADER_BYTES as u64).step_by(5).map(|at| (at, None)));
    places
}

#[test]
fn one_flipped_byte_anywhere() {
    let (disk, index, samples) = world();
    for (at, hit) in regions(&samples) {
        for rebuild in [false, true] {
            let disk = disk.fork();
            disk.flip(FIRST, at);
            let index = if rebuild { MemoryIndex::default() } else { index.clone() };
            let (store, _) = open(&disk, &index);
            for (which, sample) in samples.iter().enumerate() {
                let verdict = verify(&store, &sample.key).unwrap();
                if verdict == Verdict::Good {
                    let len = sample.bytes.len();
                    assert_eq!(&store.read(&sample.key, 0, len).unwrap()[..], sample.bytes, "byte {at}");
                }
                // Its own delete record may be what was hit; then the chunk is an orphan again.
                if which == 3 {
                    continue;
                }
                if hit != Some(which) {
                    assert_eq!(verdict, Verdict::Good, "byte {at} spoiled chunk {which}, rebuild {rebuild}");
                } else {
                    assert_ne!(verdict, Verdict::Good, "byte {at} of chunk {which} went unnoticed");
                }
            }
        }
    }
}

/// A flip that compaction meets costs at most the chunk it hit, and never the copy of another.
#[test]
fn compaction_over_a_flipped_byte() {
    let (disk, _, samples) = world();
    for (at, hit) in regions(&samples).into_iter().step_by(3) {
        let (disk, index) = (disk.fork(), MemoryIndex::default());
        drop(open(&disk, &index));
        disk.flip(FIRST, at);
        let (store, _) = open(&disk, &index);
        // The second is the largest: without it the segment is worth compacting.
        store.delete_below(&samples[1].key, Position(6)).unwrap();
        for _ in 0..5 {
            store.compact().unwrap();
        }
        for which in [0, 2] {
            let verdict = verify(&store, &samples[which].key).unwrap();
            assert_eq!(verdict == Verdict::Good, hit != Some(which), "byte {at}, chunk {which}: {verdict:?}");
        }
        assert_eq!(store.get(&samples[0].key).unwrap().unwrap().epoch, Position(9));
    }
}

/// A segment whose own header is bad still reads, by the index alone: its chunks are moved out at once.
#[test]
fn a_segment_with_a_bad_header_is_moved_out() {
    let (disk, index, samples) = world();
    for at in 0..SEGMENT_HEADER_BYTES as u64 {
        let disk = disk.fork();
        disk.flip(FIRST, at);
        // The index without this segment's rows would tell nothing: made anew it is the same.
        let index = if at % 2 == 0 { index.clone() } else { MemoryIndex::default() };
        let (store, report) = open(&disk, &index);
        assert_eq!(report.damaged, 1, "byte {at}");
        while store.compact().unwrap().segments_removed > 0 {}
        assert!(disk.open(FIRST).is_err(), "byte {at}: the damaged file is still there");
        drop(store);
        disk.restart(Kept::Everything);
        let (store, report) = open(&disk, &MemoryIndex::default());
        assert_eq!((report.damaged, report.lost), (0, 0), "byte {at}");
        for sample in &samples[..3] {
            assert_eq!(verify(&store, &sample.key).unwrap(), Verdict::Good, "byte {at}");
        }
    }
}

#[test]
fn files_cut_short_or_grown() {
    let (disk, index, samples) = world();
    let length = disk.bytes(FIRST).len() as u64;
    for len in
        [0, 1, 63, 64, 191, 192, 5_000, 60_000, length - 129, length - 128, length - 1, length + 1, 1 << 20]
    {
        for rebuild in [false, true] {
            let disk = disk.fork();
            disk.open(FIRST).unwrap().set_len(len).unwrap();
            let index = if rebuild { MemoryIndex::default() } else { index.clone() };
            let (store, _) = try_open(&disk, &index).unwrap();
            let mut end = SEGMENT_HEADER_BYTES as u64;
            for sample in &samples[..3] {
                end += data_extent_bytes(sample.bytes.len() as u64);
                let good = verify(&store, &sample.key).unwrap() == Verdict::Good;
                assert!(good || len < end, "cut at {len}");
                assert!(!good || len >= end - 64, "cut at {len}");
            }
        }
    }
}

/// Sealed bytes that look like records of this store, header, checksum and all, are never taken for
/// one, even when the scan has lost its place: the tag is not known to who chose them.
#[test]
fn records_inside_a_chunk_are_not_records() {
    let (disk, _, samples) = world();
    let inner = disk.bytes(FIRST);
    let (disk, index) = (FaultyDisk::new(64 << 20), MemoryIndex::default());
    let (store, _) = open(&disk, &index);
    let mut hasher = chunk_format::tree::GroupHasher::new();
    hasher.update(&inner);
    let (chunk, groups) = hasher.finish();
    let key = super::super::ChunkKey::new(super::super::suite::REALM, chunk);
    Sample { key, bytes: inner, groups }.put(&store, 5).unwrap();
    samples[2].put(&store, 6).unwrap();
    drop(store);
    disk.restart(Kept::Everything);
    // The outer record's header is gone, so the scan searches through the bytes.
    disk.flip(FIRST, SEGMENT_HEADER_BYTES as u64 + 20);
    let (store, report) = open(&disk, &MemoryIndex::default());
    assert_eq!(report.damaged, 1);
    let found: BTreeMap<_, _> = store.list(None, 10).unwrap().into_iter().collect();
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), [samples[2].key]);
    assert_eq!(scrub(&store, None, u64::MAX).unwrap().bad, []);
}

/// What a start finds gone or spoiled is named, so that the metadata service can ask: it was only logged.
#[test]
fn what_a_start_misses_is_named() {
    // The segment is gone: all it held.
    let (disk, index, samples) = world();
    disk.remove(FIRST).unwrap();
    let (_, report) = open(&disk, &index);
    assert_eq!((report.lost, report.rebuilt), (3, false));
    let mut named: Vec<_> = report.faults.iter().map(|fault| (fault.key, fault.corrupt)).collect();
    named.sort();
    let mut gone: Vec<_> = samples[..3].iter().map(|sample| (sample.key, false)).collect();
    gone.sort();
    assert_eq!(named, gone);

    // A header is spoiled while the segment is not sealed yet: the row stays, the record does not check.
    let (disk, index) = (FaultyDisk::new(64 << 20), MemoryIndex::default());
    let (store, _) = open(&disk, &index);
    for sample in &samples {
        sample.put(&store, 5).unwrap();
    }
    drop(store);
    disk.restart(Kept::Everything);
    disk.flip(FIRST, SEGMENT_HEADER_BYTES as u64 + data_extent_bytes(300) + 20);
    let (store, report) = open(&disk, &index);
    assert_eq!((report.lost, report.damaged), (0, 1));
    let named: Vec<_> = report.faults.iter().map(|fault| (fault.key, fault.corrupt)).collect();
    assert_eq!(named, [(samples[1].key, true)]);
    assert_ne!(verify(&store, &samples[1].key).unwrap(), Verdict::Good);

    // The index is gone too: what does not count may have been acknowledged.
    let (disk, _, samples) = world();
    disk.flip(FIRST, SEGMENT_HEADER_BYTES as u64 + trailer_offset(300));
    let (_, report) = open(&disk, &MemoryIndex::default());
    assert!(report.rebuilt);
    assert!(report.faults.iter().any(|fault| fault.key == samples[0].key && !fault.corrupt), "{report:?}");
}
