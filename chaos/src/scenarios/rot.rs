//! Bytes that change on a disk by themselves.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use chunk_format::record::{RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, groups_offset, trailer_offset};
use dfs_types::ChunkId;

use super::{Context, Scenario};
use crate::cluster::{Cluster, ClusterOptions};
use crate::content;
use crate::disks::{self, DataRecord};
use crate::wait::until;

pub const FLIPPED_BYTES: Scenario = Scenario {
    name: "flipped-bytes",
    about: "one byte flipped in each region of a segment: no wrong byte is read, the copy is replaced",
    run: flipped_bytes,
};

const LENGTH: u64 = 9 << 20;

/// Name of a region of docs/formats.md, and the offset in the segment file of one byte of it.
fn regions(record: &DataRecord, seed: u64) -> Vec<(&'static str, u64)> {
    let sealed = record.header.sealed_len;
    let pick = |label: &str, from: u64, length: u64| from + content::number(seed, label, length);
    vec![
        ("sealed bytes", record.offset + pick("sealed", RECORD_HEADER_BYTES as u64, sealed)),
        ("record header", record.offset + pick("header", 0, RECORD_HEADER_BYTES as u64)),
        ("group hashes", record.offset + pick("groups", groups_offset(sealed), 32)),
        ("record trailer", record.offset + pick("trailer", trailer_offset(sealed), 64)),
        ("segment header", pick("segment", 0, SEGMENT_HEADER_BYTES as u64)),
    ]
}

/// Changes one bit of a file, durably.
pub(super) fn flip(path: &Path, offset: u64) -> Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut byte = [0u8];
    file.read_exact_at(&mut byte, offset)?;
    byte[0] ^= 0x40;
    file.write_all_at(&byte, offset)?;
    Ok(file.sync_all()?)
}

/// Nodes on whose disks the chunk's bytes really hash to its id.
pub(super) fn good_copies(cluster: &Cluster, chunk: ChunkId) -> Result<usize> {
    let mut good = 0;
    for node in cluster.role("chunk-server")? {
        let records = disks::data_records(&node.data_dir)?;
        good += usize::from(records.iter().filter(|r| r.header.chunk == chunk).any(|record| {
            let mut sealed = vec![0; record.header.sealed_len as usize];
            std::fs::File::open(&record.file)
                .and_then(|f| f.read_exact_at(&mut sealed, record.offset + RECORD_HEADER_BYTES as u64))
                .is_ok_and(|()| blake3::hash(&sealed).as_bytes() == chunk.as_bytes())
        }));
    }
    Ok(good)
}

fn flipped_bytes(context: &Context) -> Result<()> {
    let cluster = Cluster::start(&ClusterOptions::default())?;
    cluster.dfsctl(["bucket", "create", "rot"])?;
    let source = cluster.scratch().join("source");
    content::write_file(&source, context.seed, "rot", LENGTH)?;
    cluster.dfsctl([Path::new("put"), &source, Path::new("dfs://rot/file")])?;

    let node = cluster.process(&format!("n{}", 1 + content::number(context.seed, "node", 3)))?;
    let first = disks::data_records(&node.data_dir)?.first().cloned().context("no record on the node")?;
    for (region, _) in regions(&first, context.seed) {
        cluster.stop_process(&node.id)?;
        // Repairs move records: look where they are now.
        let record =
            disks::data_records(&node.data_dir)?.first().cloned().context("no record on the node")?;
        let (_, offset) = regions(&record, context.seed)
            .into_iter()
            .find(|(name, _)| *name == region)
            .context("a region by its name")?;
        flip(&record.file, offset)?;
        cluster.start_process(&node.id)?;

        let back = cluster.scratch().join("back");
        for _ in 0..3 {
            cluster.dfsctl([Path::new("get"), Path::new("dfs://rot/file"), &back])?;
            content::check_file(&back, context.seed, "rot", LENGTH)
                .with_context(|| format!("{region} of {}", node.id))?;
            std::fs::remove_file(&back)?;
        }
        until(&format!("three good copies after a flip in the {region}"), Duration::from_secs(90), || {
            let good = good_copies(&cluster, record.header.chunk)?;
            ensure!(good == 3, "{good} good copies of {}", record.header.chunk);
            Ok(())
        })
        .with_context(|| cluster.log_tails(15))?;
    }
    Ok(())
}
