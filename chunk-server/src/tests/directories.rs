//! Data directories that are not what they should be: each is refused with a word on what to do, or opened
//! with what is wrong reported. Nothing is removed, no link followed, no length believed.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chunk_format::record::{RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use chunk_format::tree::GroupHasher;
use dfs_types::{DfsError, NodeId, OsEntropy, Position, RealmId, SystemClock};
use tempfile::TempDir;

use crate::node::identity::DataDir;
use crate::store::check::{Verdict, verify};
use crate::store::segment::{OpenReport, SegmentStore, Settings};
use crate::store::{ChunkKey, ChunkStore};

/// Several segments, the last one unsealed.
const LENGTHS: [usize; 6] = [30, 5_000, 300_000, 900_000, 700_000, 2_000];

struct Opened {
    _dir: DataDir,
    store: SegmentStore,
    report: OpenReport,
}

/// What a server does with its directory at a start.
fn open(path: &Path, node: &str) -> Result<Opened, DfsError> {
    let dir = DataDir::open(path, &NodeId::new(node).unwrap(), &SystemClock::new(), &OsEntropy)?;
    let settings = Settings::new(dir.identity().incarnation).with_segment_bytes(1 << 20);
    let (store, report) = SegmentStore::open_directory(path, Arc::new(OsEntropy), settings)?;
    Ok(Opened { _dir: dir, store, report })
}

fn bytes(seed: u8, length: usize) -> (ChunkKey, Vec<u8>, Vec<[u8; 32]>) {
    let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8 ^ seed).collect();
    let mut hasher = GroupHasher::new();
    hasher.update(&bytes);
    let (chunk, groups) = hasher.finish();
    (ChunkKey::new(RealmId([7; 16]), chunk), bytes, groups)
}

/// A directory of node n1 with chunks; where each chunk's segment is, is known from its header.
fn filled(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    let opened = open(&path, "n1").unwrap();
    for (seed, length) in LENGTHS.into_iter().enumerate() {
        let (key, bytes, groups) = bytes(seed as u8, length);
        let mut writer = opened.store.begin(&key, length as u64, Position(3)).unwrap();
        writer.write(&bytes).unwrap();
        writer.finish(&groups).unwrap();
    }
    path
}

fn segments(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path.join("segments")).unwrap();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

/// Kind and content of everything but the lock and the index, which is made from the rest.
fn content(path: &Path) -> BTreeMap<PathBuf, (String, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let top = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let top = top.filter(|entry| {
        let name = entry.file_name().unwrap();
        name != "LOCK" && name != "index" && name != "segments"
    });
    for entry in top.chain(segments(path)) {
        let kind = fs::symlink_metadata(&entry).unwrap().file_type();
        let bytes = if kind.is_file() { fs::read(&entry).unwrap() } else { Vec::new() };
        found.insert(entry, (format!("{kind:?}"), bytes));
    }
    found
}

fn replace_with(path: &Path, what: &str, outside: &Path) {
    if path.exists() {
        fs::rename(path, outside).unwrap();
    } else {
        fs::write(outside, b"not ours").unwrap();
    }
    match what {
        "link" => symlink(outside, path).unwrap(),
        "pipe" => {
            let done = std::process::Command::new("mkfifo").arg(path).status().unwrap();
            assert!(done.success());
        }
        _ => fs::create_dir(path).unwrap(),
    }
}

fn edit(path: &Path, offset: u64, bytes: &[u8]) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, offset).unwrap();
}

/// Writes into a block whose last four bytes are its checksum, and makes that right again.
fn edit_sealed(path: &Path, block: (u64, usize), at: usize, bytes: &[u8]) {
    let mut content = fs::read(path).unwrap();
    let header = &mut content[block.0 as usize..block.0 as usize + block.1];
    header[at..at + bytes.len()].copy_from_slice(bytes);
    let body = block.1 - 4;
    let sum = crc32c(&header[..body]);
    header[body..].copy_from_slice(&sum.to_be_bytes());
    fs::write(path, content).unwrap();
}

/// CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ if sum & 1 == 1 { 0x82F6_3B78 } else { 0 })
    })
}

const SEGMENT: (u64, usize) = (0, SEGMENT_HEADER_BYTES);
const RECORD: (u64, usize) = (SEGMENT_HEADER_BYTES as u64, RECORD_HEADER_BYTES);
/// Of the sealed length in a record's header.
const LENGTH_AT: usize = 88;

type Mangle = fn(&Path, &Path);

fn identity(path: &Path, from: &str, to: &str) {
    let file = path.join("IDENTITY");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(&file, text.replace(from, to)).unwrap();
}

#[test]
fn a_directory_that_is_not_ours_is_refused_and_left_as_it_is() {
    let cases: [(&str, Mangle, &str); 16] = [
        ("another node's", |dir, _| identity(dir, "\"n1\"", "\"n2\""), "start it with --id n2"),
        ("newer identity", |dir, _| identity(dir, ":1,", ":2,"), "start the release that wrote it"),
        ("older identity", |dir, _| identity(dir, ":1,", ":0,"), "start the release that wrote it"),
        ("cut identity", |dir, _| identity(dir, "cluster_id", ""), "not an identity"),
        ("no identity", |dir, out| fs::rename(dir.join("IDENTITY"), out).unwrap(), "put the file back"),
        ("linked identity", |dir, out| replace_with(&dir.join("IDENTITY"), "link", out), "IDENTITY"),
        ("identity a pipe", |dir, out| replace_with(&dir.join("IDENTITY"), "pipe", out), "regular file"),
        ("identity a folder", |dir, out| replace_with(&dir.join("IDENTITY"), "folder", out), "regular file"),
        ("linked lock", |dir, out| replace_with(&dir.join("LOCK"), "link", out), "LOCK"),
        ("linked segment", |dir, out| replace_with(&segments(dir)[0], "link", out), "put back the file"),
        ("segment a pipe", |dir, out| replace_with(&segments(dir)[0], "pipe", out), "put back the file"),
        ("segment a folder", |dir, out| replace_with(&segments(dir)[0], "folder", out), "put back the file"),
        (
            "newer segment",
            |dir, _| edit_sealed(&segments(dir)[0], SEGMENT, 8, &[2]),
            "start the one that wrote it",
        ),
        (
            "older segment",
            |dir, _| edit_sealed(&segments(dir)[0], SEGMENT, 8, &[0]),
            "start the one that wrote it",
        ),
        (
            "another directory's segment",
            |dir, out| {
                let other = filled(out.parent().unwrap(), "other");
                fs::copy(&segments(&other)[0], &segments(dir)[0]).map(drop).unwrap();
            },
            "move it back",
        ),
        (
            "a segment under another number",
            |dir, _| {
                let found = segments(dir);
                let name = found[0].with_file_name("0000000099.segment");
                let kind = found[0].extension().unwrap();
                fs::copy(&found[0], name.with_extension(kind)).unwrap();
            },
            "move it back",
        ),
    ];
    for (name, mangle, words) in cases {
        let folder = TempDir::new().unwrap();
        let (path, outside) = (filled(folder.path(), "data"), folder.path().join("outside"));
        mangle(&path, &outside);
        let (before, aside) = (content(&path), fs::read(&outside).ok());
        let error = open(&path, "n1").err().unwrap_or_else(|| panic!("{name}: it was opened"));
        assert!(error.message.contains(words), "{name}: {error:?}");
        assert!(content(&path) == before, "{name}: the directory is another");
        assert!(fs::read(&outside).ok() == aside, "{name}: the file outside is another");
    }
}

#[test]
fn damage_is_reported_and_takes_nothing_else_with_it() {
    let cases: [(&str, Mangle); 9] = [
        ("cut to nothing", |segment, _| fs::write(segment, b"").unwrap()),
        ("cut in its header", |segment, _| fs::write(segment, &fs::read(segment).unwrap()[..40]).unwrap()),
        ("cut in half", |segment, _| {
            let bytes = fs::read(segment).unwrap();
            fs::write(segment, &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("longer by zeros", |segment, _| {
            let file = OpenOptions::new().write(true).open(segment).unwrap();
            file.set_len(file.metadata().unwrap().len() + (3 << 20)).unwrap();
        }),
        ("longer by anything", |segment, _| {
            let end = fs::metadata(segment).unwrap().len();
            edit(segment, end, &[0xA7; 10_000]);
        }),
        ("zeros", |segment, _| {
            let length = fs::metadata(segment).unwrap().len() as usize;
            fs::write(segment, vec![0; length]).unwrap();
        }),
        ("a record of 2^32 bytes", |segment, _| {
            edit_sealed(segment, RECORD, LENGTH_AT, &(1u64 << 32).to_be_bytes());
        }),
        ("a record of 2^64 - 1 bytes", |segment, _| {
            edit_sealed(segment, RECORD, LENGTH_AT, &u64::MAX.to_be_bytes());
        }),
        ("the longest record there may be", |segment, _| {
            let length = dfs_types::limits::MAX_SEALED_BYTES;
            edit_sealed(segment, RECORD, LENGTH_AT, &length.to_be_bytes());
        }),
    ];
    let most = address_space() + (2 << 30);
    for (name, mangle) in cases {
        for which in ["first", "last"] {
            for rebuild in [false, true] {
                damaged(&format!("{which} segment {name}, rebuild {rebuild}"), mangle, which, rebuild);
            }
        }
        assert!(address_space() < most, "{name}: a length was believed");
    }
}

fn damaged(name: &str, mangle: Mangle, which: &str, rebuild: bool) {
    let folder = TempDir::new().unwrap();
    let path = filled(folder.path(), "data");
    let before = segments(&path);
    let hit = if which == "first" { before.first() } else { before.last() }.unwrap();
    let elsewhere: Vec<usize> = (0..LENGTHS.len()).filter(|seed| !holds(hit, *seed)).collect();
    assert!(!elsewhere.is_empty() && elsewhere.len() < LENGTHS.len(), "{elsewhere:?}");
    mangle(hit, folder.path());
    if rebuild {
        fs::remove_dir_all(path.join("index")).unwrap();
    }
    let opened = open(&path, "n1").unwrap_or_else(|error| panic!("{name}: {error:?}"));
    for (seed, length) in LENGTHS.into_iter().enumerate() {
        let (key, bytes, _) = bytes(seed as u8, length);
        let good = opened.store.get(&key).unwrap().is_some_and(|meta| !meta.quarantined)
            && verify(&opened.store, &key).is_ok_and(|verdict| verdict == Verdict::Good);
        if good {
            assert!(opened.store.read(&key, 0, length).unwrap()[..] == bytes[..], "{name}: chunk {seed}");
        }
        assert!(good || !elsewhere.contains(&seed), "{name}: chunk {seed} was in another segment");
        // What the index knew of is told to the metadata service now, or by the first look at it.
        if !good && !rebuild {
            let told = opened.report.faults.iter().any(|fault| fault.key == key);
            assert!(
                told || opened.store.get(&key).unwrap().is_some(),
                "{name}: chunk {seed} went in silence"
            );
        }
    }
    // The others are as they were, and new chunks are taken.
    for file in before.iter().filter(|file| *file != hit) {
        assert!(file.exists(), "{name}: {} is gone", file.display());
    }
    let (key, bytes, groups) = bytes(99, 4_000);
    let mut writer = opened.store.begin(&key, 4_000, Position(9)).unwrap();
    writer.write(&bytes).unwrap();
    writer.finish(&groups).unwrap();
    drop(opened);
    assert!(open(&path, "n1").unwrap().store.get(&key).unwrap().is_some(), "{name}: after a second start");
}

/// Whether a segment has the header of this chunk.
fn holds(segment: &Path, seed: usize) -> bool {
    let id = bytes(seed as u8, LENGTHS[seed]).0.chunk;
    let content = fs::read(segment).unwrap();
    content.windows(32).any(|window| window == id.as_bytes())
}

/// Bytes of this process's address space at most so far.
fn address_space() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmPeak:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}
