//! What is really on the chunk servers' disks: segment files read from outside, while the servers run
//! or not. A good GET proves one copy; this counts all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use chunk_format::record::{
    RECORD_HEADER_BYTES, RecordHeader, RecordKind, SEGMENT_HEADER_BYTES, SegmentHeader, TRAILER_BYTES,
    Trailer, groups_offset, trailer_offset,
};
use dfs_types::{ChunkId, Position, RealmId};

use crate::cluster::Cluster;

/// (realm, chunk).
pub type ChunkName = (RealmId, ChunkId);

/// One complete data record.
#[derive(Clone, Debug)]
pub struct DataRecord {
    pub file: PathBuf,
    pub offset: u64,
    pub header: RecordHeader,
}

/// Every complete data record below a chunk server's data directory that no later delete record voids.
pub fn data_records(data_dir: &Path) -> Result<Vec<DataRecord>> {
    let (mut found, mut deleted) = (Vec::new(), BTreeMap::<ChunkName, Position>::new());
    for path in segment_files(data_dir)? {
        for (offset, header) in records(&path).with_context(|| path.display().to_string())? {
            match header.kind {
                RecordKind::Data => found.push(DataRecord { file: path.clone(), offset, header }),
                RecordKind::Delete => {
                    let below = deleted.entry((header.realm, header.chunk)).or_default();
                    *below = header.epoch.max(*below);
                }
                RecordKind::Touch | RecordKind::Quarantine | RecordKind::Seal => {}
            }
        }
    }
    found.retain(|record: &DataRecord| {
        deleted
            .get(&(record.header.realm, record.header.chunk))
            .is_none_or(|below| record.header.epoch >= *below)
    });
    Ok(found)
}

/// Files that begin with a segment header.
pub fn segment_files(data_dir: &Path) -> Result<Vec<PathBuf>> {
    let mut segments = Vec::new();
    for path in crate::scenarios::files_below(data_dir)? {
        let mut head = [0u8; SEGMENT_HEADER_BYTES];
        // Files come and go under a running server.
        let Ok(file) = File::open(&path) else { continue };
        if file.read_exact_at(&mut head, 0).is_ok() && SegmentHeader::decode(&head).is_ok() {
            segments.push(path);
        }
    }
    segments.sort();
    Ok(segments)
}

/// The records of a segment file as far as their headers are whole, each with its offset. Data records that
/// are not complete are passed over.
pub fn records(path: &Path) -> Result<Vec<(u64, RecordHeader)>> {
    let file = File::open(path)?;
    let mut head = [0u8; SEGMENT_HEADER_BYTES];
    file.read_exact_at(&mut head, 0)?;
    let segment = SegmentHeader::decode(&head)?;
    let mut found = Vec::new();
    let mut offset = SEGMENT_HEADER_BYTES as u64;
    let mut raw = [0u8; RECORD_HEADER_BYTES];
    while file.read_exact_at(&mut raw, offset).is_ok() {
        let Ok(header) = RecordHeader::decode(&raw, Some(&segment.tag)) else { break };
        let extent = header.extent_bytes();
        if header.kind != RecordKind::Data || complete(&file, offset, &raw, &header) {
            found.push((offset, header));
        }
        offset += extent;
    }
    Ok(found)
}

fn complete(file: &File, offset: u64, raw: &[u8; RECORD_HEADER_BYTES], header: &RecordHeader) -> bool {
    let groups_at = groups_offset(header.sealed_len);
    let trailer_at = trailer_offset(header.sealed_len);
    let mut groups = vec![0u8; (trailer_at - groups_at) as usize];
    let mut trailer = [0u8; TRAILER_BYTES];
    file.read_exact_at(&mut groups, offset + groups_at).is_ok()
        && file.read_exact_at(&mut trailer, offset + trailer_at).is_ok()
        && Trailer::decode(&trailer, raw, &groups).is_ok()
}

/// On how many nodes, the excepted ones left out, each chunk is.
pub fn copies(cluster: &Cluster, except: &[&str]) -> Result<BTreeMap<ChunkName, usize>> {
    let mut counts = BTreeMap::new();
    for node in cluster.role("chunk-server")? {
        if except.contains(&node.id.as_str()) {
            continue;
        }
        let names: BTreeSet<ChunkName> =
            data_records(&node.data_dir)?.iter().map(|r| (r.header.realm, r.header.chunk)).collect();
        for name in names {
            *counts.entry(name).or_insert(0) += 1;
        }
    }
    Ok(counts)
}

/// Sealed bytes of all complete data records on all nodes.
pub fn chunk_bytes(cluster: &Cluster) -> Result<u64> {
    let mut total = 0;
    for node in cluster.role("chunk-server")? {
        total += data_records(&node.data_dir)?.iter().map(|r| r.header.sealed_len).sum::<u64>();
    }
    Ok(total)
}
