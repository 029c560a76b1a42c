//! Processes killed with SIGKILL while a file goes in.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::{Context, Scenario};
use crate::cluster::{Cluster, ClusterOptions, checked};
use crate::content;
use crate::disks;
use crate::wait::until;

const GIB: u64 = 1 << 30;
/// What any single operation of a put may take while a process is dead.
const LONGEST_CALL_MS: u64 = 10_000;

pub const CHUNK_SERVER_MID_PUT: Scenario = Scenario {
    name: "kill-chunk-server-mid-put",
    about: "kill -9 of a chunk server during a put of 1 GiB: the put succeeds, the file is identical",
    run: chunk_server_mid_put,
};

pub const LEADER_MID_PUT: Scenario = Scenario {
    name: "kill-leader-mid-put",
    about: "kill -9 of the Raft leader during a put of 1 GiB: the put succeeds, the file is identical",
    run: leader_mid_put,
};

pub const EVERYTHING_MID_PUT: Scenario = Scenario {
    name: "kill-everything-mid-put",
    about: "kill -9 of all processes in mid-upload, dev up: nothing acknowledged is lost, no half file, resume",
    run: everything_mid_put,
};

pub const READS_WITH_ONE_DEAD: Scenario = Scenario {
    name: "reads-with-one-dead",
    about: "with any one chunk server dead, every file reads",
    run: reads_with_one_dead,
};

pub const SPARE_TAKES_OVER: Scenario = Scenario {
    name: "spare-takes-over",
    about: "a chunk server dies for good: a spare gets its copies within a minute, counted on the disks",
    run: spare_takes_over,
};

/// A source file, its put under way, and a wait until `bytes` of it are on the nodes' disks.
fn put_under_way(
    cluster: &Cluster,
    seed: u64,
    label: &str,
    length: u64,
    bytes: u64,
) -> Result<(PathBuf, Child)> {
    let source = cluster.scratch().join(label);
    content::write_file(&source, seed, label, length)?;
    let before = disks::chunk_bytes(cluster)?;
    let target = format!("dfs://kills/{label}");
    let words = [Path::new("put"), Path::new("--output"), Path::new("json"), &source, Path::new(&target)];
    let mut child = cluster.spawn(words)?;
    until("the put to be under way", Duration::from_secs(60), || {
        if let Some(status) = child.try_wait()? {
            bail!("the put ended before anything was killed: {status}");
        }
        let written = disks::chunk_bytes(cluster)?.saturating_sub(before);
        ensure!(written >= bytes, "{written} bytes written");
        Ok(())
    })?;
    Ok((source, child))
}

fn check_back(cluster: &Cluster, seed: u64, label: &str, length: u64) -> Result<()> {
    let back = cluster.scratch().join(format!("{label}.back"));
    cluster.dfsctl([Path::new("get"), Path::new(&format!("dfs://kills/{label}")), &back])?;
    content::check_file(&back, seed, label, length)?;
    Ok(std::fs::remove_file(back)?)
}

fn kill_during_put(context: &Context, victim: impl Fn(&Cluster) -> Result<String>) -> Result<()> {
    let cluster = Cluster::start(&ClusterOptions::default())?;
    cluster.dfsctl(["bucket", "create", "kills"])?;
    let victim = victim(&cluster)?;
    let share = 1 + content::number(context.seed, "when", 6);
    let (_, put) = put_under_way(&cluster, context.seed, "file", GIB, share * 256 * (1 << 20))?;
    cluster.kill(&victim)?;
    let told = || format!("{victim} was killed\n{}", cluster.log_tails(12));
    let printed = checked("put", put.wait_with_output()?).with_context(told)?;
    let printed: serde_json::Value = serde_json::from_slice(&printed)?;
    let longest = printed["longest_call_ms"].as_u64().context("put does not say longest_call_ms")?;
    ensure!(longest <= LONGEST_CALL_MS, "one operation took {longest} ms; {}", told());
    check_back(&cluster, context.seed, "file", GIB)
}

fn chunk_server_mid_put(context: &Context) -> Result<()> {
    kill_during_put(context, |_| Ok(format!("n{}", 1 + content::number(context.seed, "victim", 3))))
}

fn leader_mid_put(context: &Context) -> Result<()> {
    kill_during_put(context, Cluster::leader)
}

fn everything_mid_put(context: &Context) -> Result<()> {
    let cluster = Cluster::start(&ClusterOptions::default())?;
    cluster.dfsctl(["bucket", "create", "kills"])?;
    let scratch = cluster.scratch();
    for (label, length) in [("small", 1000), ("medium", 100_000), ("large", 50 << 20)] {
        let source = scratch.join(label);
        content::write_file(&source, context.seed, label, length)?;
        cluster.dfsctl([Path::new("put"), &source, Path::new(&format!("dfs://kills/{label}"))])?;
    }
    let (source, put) = put_under_way(&cluster, context.seed, "half", GIB, 600 << 20)?;
    cluster.kill_all()?;
    let output = put.wait_with_output()?;
    ensure!(!output.status.success(), "a put succeeded on a cluster that was killed under it");
    cluster.up_again()?;
    for (label, length) in [("small", 1000), ("medium", 100_000), ("large", 50 << 20)] {
        check_back(&cluster, context.seed, label, length)?;
    }
    let missing = cluster.command(["stat", "dfs://kills/half"]).output()?;
    ensure!(missing.status.code() == Some(3), "the half file is visible: {missing:?}");

    let before = disks::chunk_bytes(&cluster)?;
    cluster.dfsctl([Path::new("put"), &source, Path::new("dfs://kills/half")])?;
    let sent = disks::chunk_bytes(&cluster)?.saturating_sub(before);
    ensure!(
        sent < 3 * GIB - (300 << 20),
        "the resumed put sent {sent} bytes to the disks: nothing was reused"
    );
    check_back(&cluster, context.seed, "half", GIB)
}

fn reads_with_one_dead(context: &Context) -> Result<()> {
    const LENGTH: u64 = 70 << 20;
    let cluster = Cluster::start(&ClusterOptions::default())?;
    cluster.dfsctl(["bucket", "create", "kills"])?;
    let source = cluster.scratch().join("file");
    content::write_file(&source, context.seed, "file", LENGTH)?;
    cluster.dfsctl([Path::new("put"), &source, Path::new("dfs://kills/file")])?;
    for node in ["n1", "n2", "n3"] {
        cluster.kill(node)?;
        check_back(&cluster, context.seed, "file", LENGTH).with_context(|| format!("{node} is dead"))?;
        cluster.start_process(node)?;
    }
    Ok(())
}

fn spare_takes_over(context: &Context) -> Result<()> {
    const LENGTH: u64 = 200 << 20;
    let cluster = Cluster::start(&ClusterOptions::default().chunk_servers(4))?;
    cluster.dfsctl(["bucket", "create", "kills"])?;
    let source = cluster.scratch().join("file");
    content::write_file(&source, context.seed, "file", LENGTH)?;
    cluster.dfsctl([Path::new("put"), &source, Path::new("dfs://kills/file")])?;
    let before = disks::copies(&cluster, &[])?;
    ensure!(!before.is_empty() && before.values().all(|n| *n == 3), "not three copies of each: {before:?}");
    let victim = format!("n{}", 1 + content::number(context.seed, "victim", 4));
    cluster.kill(&victim)?;
    until("three copies of every chunk on the other disks", Duration::from_secs(60), || {
        let copies = disks::copies(&cluster, &[&victim])?;
        let low = before.keys().filter(|chunk| copies.get(*chunk).copied().unwrap_or(0) < 3).count();
        ensure!(low == 0, "{low} of {} chunks have fewer than three copies", before.len());
        Ok(())
    })
    .with_context(|| cluster.log_tails(12))?;
    check_back(&cluster, context.seed, "file", LENGTH)
}
