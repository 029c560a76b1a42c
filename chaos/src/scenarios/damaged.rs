//! Every copy of a chunk rots, each in another place.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use chunk_format::record::RECORD_HEADER_BYTES;
use chunk_format::tree::{GROUP_BYTES, group_count};

use super::rot::good_copies;
use super::{Context, Scenario};
use crate::cluster::{Cluster, ClusterOptions};
use crate::content;
use crate::disks;
use crate::wait::until;

pub const ALL_COPIES_DAMAGED: Scenario = Scenario {
    name: "all-copies-damaged",
    about: "different groups of all three copies of every chunk flipped: they are merged, three good ones are on disk",
    run: all_copies_damaged,
};

const LENGTH: u64 = 9 << 20;

fn all_copies_damaged(context: &Context) -> Result<()> {
    let options = ClusterOptions::default()
        .set("DFS_SCRUB_IDLE_MS", 100)
        .set("DFS_SCRUB_BYTES_PER_SEC", 1 << 30)
        .set("DFS_BACKGROUND_MS", 50);
    let cluster = Cluster::start(&options)?;
    cluster.dfsctl(["bucket", "create", "damaged"])?;
    let source = cluster.scratch().join("source");
    content::write_file(&source, context.seed, "damaged", LENGTH)?;
    cluster.dfsctl([Path::new("put"), &source, Path::new("dfs://damaged/file")])?;
    let chunks = until("three copies of each chunk", Duration::from_secs(60), || {
        let copies = disks::copies(&cluster, &[])?;
        ensure!(!copies.is_empty() && copies.values().all(|copies| *copies == 3), "{copies:?}");
        Ok(copies)
    })?;

    // Each node's copy loses every third group, another third each.
    for (which, node) in cluster.role("chunk-server")?.iter().enumerate() {
        cluster.kill_and_wait(&node.id)?;
        for record in disks::data_records(&node.data_dir)? {
            let file = OpenOptions::new().read(true).write(true).open(&record.file)?;
            for group in
                (0..u64::from(group_count(record.header.sealed_len))).filter(|g| *g % 3 == which as u64)
            {
                let start = group * GROUP_BYTES;
                let most = GROUP_BYTES.min(record.header.sealed_len - start);
                let within = content::number(context.seed, &format!("{} {group}", node.id), most);
                let offset = record.offset + RECORD_HEADER_BYTES as u64 + start + within;
                let mut byte = [0u8];
                file.read_exact_at(&mut byte, offset)?;
                file.write_all_at(&[byte[0] ^ 0x40], offset)?;
            }
            file.sync_all()?;
        }
    }
    let mut bare = 0;
    for (_, chunk) in chunks.keys() {
        bare += usize::from(good_copies(&cluster, *chunk)? == 0);
    }
    ensure!(bare > 0, "no chunk lost all its copies");
    for node in cluster.role("chunk-server")? {
        cluster.start_process(&node.id)?;
    }

    until("three good copies of every chunk on the disks", Duration::from_secs(90), || {
        for (_, chunk) in chunks.keys() {
            let good = good_copies(&cluster, *chunk)?;
            ensure!(good == 3, "{good} good copies of {chunk}");
        }
        let status = cluster.json(["cluster", "status"])?;
        ensure!(status["deficits"] == 0, "{status}");
        Ok(())
    })
    .with_context(|| cluster.log_tails(15))?;
    let back = cluster.scratch().join("back");
    cluster.dfsctl([Path::new("get"), Path::new("dfs://damaged/file"), &back])?;
    content::check_file(&back, context.seed, "damaged", LENGTH)
}
