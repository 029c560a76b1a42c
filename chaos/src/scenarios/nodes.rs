//! Nodes that leave, and bytes that nobody refers to.

use std::path::Path;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::rest::Curl;
use super::{Context, Scenario};
use crate::cluster::{Cluster, ClusterOptions, checked};
use crate::content;
use crate::disks;
use crate::wait::until;

pub const ORPHANS_COLLECTED: Scenario = Scenario {
    name: "orphans-collected",
    about: "a put killed in mid-upload leaves no bytes behind; one stopped until its bytes are gone sends them again",
    run: orphans_collected,
};

pub const DRAIN_AND_REMOVE: Scenario = Scenario {
    name: "drain-and-remove",
    about: "a node is drained while files are read, and removed: three copies of everything on the others' disks",
    run: drain_and_remove,
};

pub const REMOVE_DEAD_NODE: Scenario = Scenario {
    name: "remove-dead-node",
    about: "a node that is gone for good is drained and removed once its chunks are elsewhere",
    run: remove_dead_node,
};

const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than a transfer's patience (30 s), which once ran out while the put was stopped.
const STOPPED_FOR: Duration = Duration::from_secs(33);

fn put(cluster: &Cluster, seed: u64, label: &str, length: u64) -> Result<()> {
    let source = cluster.scratch().join(label);
    content::write_file(&source, seed, label, length)?;
    let target = format!("dfs://nodes/{label}");
    cluster.dfsctl([Path::new("put"), &source, Path::new(&target)]).map(drop)
}

fn check(cluster: &Cluster, seed: u64, label: &str, length: u64) -> Result<()> {
    let back = cluster.dfsctl(["cat", &format!("dfs://nodes/{label}")])?;
    content::check_reader(&back[..], seed, label, length).with_context(|| label.to_owned())
}

fn node(cluster: &Cluster, name: &str) -> Result<Value> {
    cluster.json(["node", "show", name])
}

/// A put of `length` bytes under way, `begun` of them on the disks. It has appended no page yet: those
/// are long.
fn put_under_way(cluster: &Cluster, seed: u64, label: &str, length: u64, begun: u64) -> Result<Child> {
    let source = cluster.scratch().join(label);
    content::write_file(&source, seed, label, length)?;
    let before = disks::chunk_bytes(cluster)?;
    let target = format!("dfs://nodes/{label}");
    let mut child = cluster.spawn([Path::new("put"), &source, Path::new(&target)])?;
    until("the put to be under way", PATIENCE, || {
        if let Some(status) = child.try_wait()? {
            bail!("the put of {label} ended too early: {status}");
        }
        let written = disks::chunk_bytes(cluster)?.saturating_sub(before);
        ensure!(written >= begun, "{written} bytes written");
        Ok(())
    })?;
    Ok(child)
}

fn signal(child: &Child, signal: Signal) -> Result<()> {
    Ok(kill_process(Pid::from_raw(child.id() as i32).context("pid")?, signal)?)
}

fn orphans_collected(context: &Context) -> Result<()> {
    const KEPT: u64 = 20 * MIB;
    const KILLED: u64 = 160 * MIB;
    const STOPPED: u64 = 40 * MIB;
    const SLEEPER: u64 = 2 * MIB;
    let options = ClusterOptions::default()
        // Longer than what the stopped put takes to send all again, on a busy machine too.
        .set("DFS_FLOOR_LAG_MS", 10_000)
        .set("DFS_INVENTORY_INTERVAL_MS", 500)
        .set("DFS_BACKGROUND_MS", 100)
        .set("DFS_TICK_MS", 200);
    let cluster = Cluster::start(&options)?;
    cluster.dfsctl(["bucket", "create", "nodes"])?;
    put(&cluster, context.seed, "kept", KEPT)?;
    let kept = disks::copies(&cluster, &[])?;
    ensure!(kept.values().all(|copies| *copies == 3), "not three copies: {kept:?}");

    // Three that stored bytes and did not come to an end: killed, stopped, and one with receipts to show.
    let curl = Curl::new(&cluster)?;
    let part = content::bytes(context.seed, "receipts", SLEEPER as usize);
    let asleep = curl.init("/nodes/receipts", SLEEPER)?;
    let receipts = curl.send_chunk(&asleep, 0, &part)?;
    let mut killed = put_under_way(&cluster, context.seed, "killed", KILLED, 20 * MIB)?;
    killed.kill()?;
    killed.wait()?;
    let stopped = put_under_way(&cluster, context.seed, "stopped", STOPPED, 10 * MIB)?;
    signal(&stopped, Signal::STOP)?;
    let stopped_at = Instant::now();
    let left = disks::copies(&cluster, &[])?.len() - kept.len();
    ensure!(left > 3, "only {left} chunks of unfinished uploads on the disks");

    until("nothing on the disks but what a file refers to", PATIENCE, || {
        let copies = disks::copies(&cluster, &[])?;
        let orphans = copies.keys().filter(|name| !kept.contains_key(*name)).count();
        ensure!(orphans == 0, "{orphans} chunks of nobody, of {left}");
        Ok(())
    })
    .with_context(|| cluster.log_tails(12))?;
    ensure!(disks::copies(&cluster, &[])? == kept, "what is referred to was touched");

    // Were these receipts taken, the file would have no bytes at all.
    let stale = json!({"upload_id": asleep["upload_id"], "chunks": [&receipts]});
    curl.commit_refused(&stale, 409, "chunks_missing")?;
    // The stopped put has such receipts too. It goes on, sends again what is gone, and loses nothing; also when it
    // was stopped for longer than it waits for an answer: no one failed to answer meanwhile.
    thread::sleep(STOPPED_FOR.saturating_sub(stopped_at.elapsed()));
    signal(&stopped, Signal::CONT)?;
    checked("the put that was stopped", stopped.wait_with_output()?)
        .with_context(|| cluster.log_tails(12))?;
    check(&cluster, context.seed, "stopped", STOPPED)?;
    let whole = until("three copies of all that is referred to", PATIENCE, || {
        let copies = disks::copies(&cluster, &[])?;
        let deficits = cluster.json(["cluster", "status"])?["deficits"].as_u64();
        ensure!(copies.values().all(|copies| *copies == 3) && deficits == Some(0), "{copies:?}");
        Ok(copies)
    })?;
    // The floor passes these as well; they are listed now, and stay.
    let status = || cluster.json(["cluster", "status"]);
    let now = status()?["position"].as_u64().context("position")?;
    until("the floor above all that was put", PATIENCE, || {
        let floor = status()?["epoch_floor"].as_u64().context("epoch_floor")?;
        ensure!(floor > now, "{floor} is not above {now}");
        Ok(())
    })?;
    // A node that registers again is looked at at once: its whole inventory.
    for name in ["n1", "n2", "n3"] {
        cluster.stop_process(name)?;
        cluster.start_process(name)?;
    }
    until("no ticket waits", PATIENCE, || {
        ensure!(status()?["pending_purges"] == 0, "tickets wait");
        Ok(())
    })?;
    ensure!(disks::copies(&cluster, &[])? == whole, "listed chunks went");
    check(&cluster, context.seed, "stopped", STOPPED)?;
    check(&cluster, context.seed, "kept", KEPT)
}

fn drain_and_remove(context: &Context) -> Result<()> {
    const LENGTH: u64 = 60 * MIB;
    let options = ClusterOptions::default().chunk_servers(4).set("DFS_BACKGROUND_MS", 100);
    let cluster = Cluster::start(&options)?;
    cluster.dfsctl(["bucket", "create", "nodes"])?;
    put(&cluster, context.seed, "file", LENGTH)?;
    let chunks = disks::copies(&cluster, &[])?;
    let name = format!("n{}", 1 + content::number(context.seed, "victim", 4));
    let refused = cluster.command(["node", "remove", &name]).output()?;
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(
        refused.status.code() == Some(4) && told.contains(&format!("dfsctl node drain {name}")),
        "{refused:?}"
    );

    // Whoever waits may stop waiting: the drain goes on.
    let mut waiting = cluster.spawn(["node", "drain", &name, "--wait"])?;
    until("the drain to begin", PATIENCE, || {
        ensure!(node(&cluster, &name)?["state"] == "draining", "not draining");
        Ok(())
    })?;
    check(&cluster, context.seed, "file", LENGTH).context("while the drain goes on")?;
    if waiting.try_wait()?.is_none() {
        signal(&waiting, Signal::INT)?;
    }
    let output = waiting.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success() || said.contains("goes on"), "{output:?}");
    put(&cluster, context.seed, "meanwhile", 5 * MIB)?;
    cluster.dfsctl(["node", "drain", &name, "--wait"])?;

    until("three copies of every chunk on the other disks, none on the drained one", PATIENCE, || {
        let (all, others) = (disks::copies(&cluster, &[])?, disks::copies(&cluster, &[&name])?);
        let low = chunks.keys().filter(|chunk| others.get(*chunk) != Some(&3)).count();
        ensure!(low == 0, "{low} of {} chunks have not three copies elsewhere", chunks.len());
        ensure!(all == others, "{name} still has bytes");
        Ok(())
    })
    .with_context(|| cluster.log_tails(12))?;
    cluster.dfsctl(["node", "remove", &name])?;
    cluster.kill_and_wait(&name)?;
    ensure!(node(&cluster, &name)?["state"] == "removed", "{}", node(&cluster, &name)?);
    check(&cluster, context.seed, "meanwhile", 5 * MIB)?;
    check(&cluster, context.seed, "file", LENGTH)
}

fn remove_dead_node(context: &Context) -> Result<()> {
    const LENGTH: u64 = 30 * MIB;
    let options = ClusterOptions::default()
        .chunk_servers(4)
        .set("DFS_BACKGROUND_MS", 100)
        .set("DFS_NODE_SUSPECT_MS", 2000)
        .set("DFS_NODE_DOWN_MS", 4000)
        .set("DFS_REPAIR_DELAY_MS", 500);
    let cluster = Cluster::start(&options)?;
    cluster.dfsctl(["bucket", "create", "nodes"])?;
    put(&cluster, context.seed, "file", LENGTH)?;
    let chunks = disks::copies(&cluster, &[])?;
    let name = format!("n{}", 1 + content::number(context.seed, "victim", 4));
    cluster.kill_and_wait(&name)?;
    until("the node called down", PATIENCE, || {
        ensure!(node(&cluster, &name)?["state"] == "down", "not down");
        Ok(())
    })?;
    let held = node(&cluster, &name)?["chunks"].as_u64().context("chunks")?;
    let refused = cluster.command(["node", "remove", &name]).output()?;
    ensure!(held > 0 && refused.status.code() == Some(4), "{held} chunks, {refused:?}");
    cluster.dfsctl(["node", "drain", &name, "--wait"]).with_context(|| cluster.log_tails(12))?;
    cluster.dfsctl(["node", "remove", &name])?;
    let others = disks::copies(&cluster, &[&name])?;
    let low = chunks.keys().filter(|chunk| others.get(*chunk) != Some(&3)).count();
    ensure!(low == 0, "{low} of {} chunks have not three copies elsewhere", chunks.len());
    let deficits = cluster.json(["cluster", "status"])?["deficits"].as_u64();
    ensure!(deficits == Some(0), "{deficits:?} chunks under target");
    check(&cluster, context.seed, "file", LENGTH)
}
