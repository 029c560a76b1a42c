//! A chunk server whose index rots: what it says of its chunks is made anew from the segments.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::ledger::Ledger;
use super::{Context, Scenario};
use crate::cluster::{Cluster, ClusterOptions};
use crate::content;
use crate::disks;
use crate::wait::until;

pub const FLIPPED_INDEX: Scenario = Scenario {
    name: "flipped-index",
    about: "one byte flipped in each kind of file of a node's index, stopped and live: it comes back by itself",
    run: flipped_index,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// The files of an index that hold anything, newest last.
fn index_files(data_dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(data_dir.join("index"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = ["CURRENT", "MANIFEST-"].iter().any(|prefix| name.starts_with(prefix))
            || [".sst", ".log"].iter().any(|suffix| name.ends_with(suffix));
        if kind && entry.metadata()?.len() > 0 {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

fn flip(path: &Path, seed: u64) -> Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let offset = content::number(seed, &path.display().to_string(), file.metadata()?.len());
    let mut byte = [0u8];
    file.read_exact_at(&mut byte, offset)?;
    file.write_all_at(&[byte[0] ^ 0x40], offset)?;
    Ok(file.sync_all()?)
}

/// Everything reads, and every chunk is on three disks.
fn whole(cluster: &Cluster, ledger: &Ledger<'_>, chunks: usize) -> Result<()> {
    ledger.check()?;
    until("three copies of every chunk on the disks", PATIENCE, || {
        let copies = disks::copies(cluster, &[])?;
        let low = copies.values().filter(|copies| **copies != 3).count();
        let status = cluster.json(["cluster", "status"])?;
        ensure!(
            low == 0 && copies.len() >= chunks,
            "{low} of {} chunks are not on three disks",
            copies.len()
        );
        ensure!(status["deficits"] == 0, "{status}");
        Ok(())
    })
}

fn flipped_index(context: &Context) -> Result<()> {
    let cluster = Cluster::start(&ClusterOptions::default())?;
    let id = format!("n{}", 1 + content::number(context.seed, "node", 3));
    let node = cluster.process(&id)?;
    let mut ledger = Ledger::new(&cluster, context.seed)?;
    ledger.put_some("first")?;
    ledger.put_some("second")?;
    let chunks = disks::copies(&cluster, &[])?.len();
    whole(&cluster, &ledger, chunks)?;

    for kind in ["CURRENT", "MANIFEST-", ".sst", ".log"] {
        // A start takes the log's rows into a table.
        cluster.stop_process(&id)?;
        cluster.start_process(&id)?;
        cluster.kill_and_wait(&id)?;
        let files = index_files(&node.data_dir)?;
        let file = files.iter().rfind(|file| file.to_string_lossy().contains(kind));
        flip(file.with_context(|| format!("no {kind} among {files:?}"))?, context.seed)?;
        cluster.start_process(&id)?;
        whole(&cluster, &ledger, chunks)
            .with_context(|| format!("{kind} of {id}\n{}", cluster.log_tails(15)))?;
    }

    // A flip in the last record of the log may look like a record that was cut off; the others must show.
    let log = fs::read_to_string(&node.log)?;
    let rebuilt = log.matches("set aside").count();
    ensure!(rebuilt >= 3, "the index was made anew {rebuilt} times of 4");

    for file in index_files(&node.data_dir)? {
        flip(&file, context.seed)?;
    }
    ledger.check().context("flipped while it runs")?;
    ledger.put_some("third")?;
    cluster.kill_and_wait(&id)?;
    cluster.start_process(&id)?;
    whole(&cluster, &ledger, chunks).with_context(|| cluster.log_tails(15))?;

    // The node alone has all of it.
    let others: Vec<_> = cluster.role("chunk-server")?.into_iter().filter(|other| other.id != id).collect();
    for other in &others {
        cluster.kill_and_wait(&other.id)?;
    }
    ledger.check().with_context(|| format!("only {id} is left\n{}", cluster.log_tails(15)))
}
