//! What was said about a chunk before it was purged does not count afterwards: delete tickets that come
//! late, receipts that are shown again.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::rest::Curl;
use super::{Context, Scenario};
use crate::cluster::{Cluster, ClusterOptions, checked};
use crate::content;
use crate::disks;
use crate::wait::until;

pub const LATE_DELETE_TICKETS: Scenario = Scenario {
    name: "late-delete-tickets",
    about: "a chunk purged and put again while its delete tickets are late is kept; replayed receipts are refused",
    run: late_delete_tickets,
};

const LENGTH: u64 = 9 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

fn counter(cluster: &Cluster, name: &str) -> Result<u64> {
    let status = cluster.json(["cluster", "status"])?;
    status[name].as_u64().with_context(|| format!("no {name} in {status}"))
}

fn late_delete_tickets(context: &Context) -> Result<()> {
    let gates = tempfile::tempdir()?;
    let gate = gates.path().join("tickets");
    let options = ClusterOptions::default()
        .set("DFS_TICKET_GATE", gate.display())
        .set("DFS_TRASH_PERIOD_MS", 100)
        .set("DFS_BACKGROUND_MS", 50)
        .set("DFS_TICK_MS", 100)
        .set("DFS_REPAIR_DELAY_MS", 1000);
    let cluster = Cluster::start(&options)?;
    cluster.dfsctl(["bucket", "create", "late"])?;
    let one = format!("n{}", 1 + content::number(context.seed, "paused", 3));
    for (round, paused) in [vec![one.as_str()], vec!["n1", "n2", "n3"]].into_iter().enumerate() {
        put_again(&cluster, context.seed, &format!("late{round}"), &paused)
            .with_context(|| format!("paused: {paused:?}\n{}", cluster.log_tails(12)))?;
    }
    put_again_before_tickets(&cluster, context.seed, &gate).with_context(|| cluster.log_tails(12))?;
    replayed_receipts(&cluster, context.seed)
}

/// The same with tickets that are certainly drawn up before the content is put again, and delivered
/// after it was acknowledged: the leader holds them back.
fn put_again_before_tickets(cluster: &Cluster, seed: u64, gate: &Path) -> Result<()> {
    let source = cluster.scratch().join("gate");
    content::write_file(&source, seed, "gate", LENGTH)?;
    let before = disks::copies(cluster, &[])?;
    cluster.dfsctl([Path::new("put"), &source, Path::new("dfs://late/gate-first")])?;
    let chunks = new_chunks(cluster, &before)?;
    std::fs::write(gate, b"shut")?;
    cluster.dfsctl(["rm", "--purge", "dfs://late/gate-first"])?;
    let waiting = (3 * chunks.len()) as u64;
    let held = || -> Result<()> {
        let (pending, trash) = (counter(cluster, "pending_purges")?, counter(cluster, "trash_chunks")?);
        ensure!(pending == waiting && trash == 0, "{pending} tickets and {trash} trash, not {waiting} and 0");
        for node in ["n1", "n2", "n3"] {
            ensure!(gate.with_extension(node).exists(), "no ticket for {node} is held");
        }
        Ok(())
    };
    until("tickets for every node drawn up and held back", PATIENCE, held)?;
    cluster.dfsctl([Path::new("put"), &source, Path::new("dfs://late/gate-again")])?;
    held().context("after the content was put again")?;
    std::fs::remove_file(gate)?;
    until("late tickets delivered, and three copies of every chunk on the disks", PATIENCE, || {
        let (pending, deficits) = (counter(cluster, "pending_purges")?, counter(cluster, "deficits")?);
        let copies = disks::copies(cluster, &[])?;
        let low = chunks.keys().filter(|name| copies.get(name).copied().unwrap_or(0) < 3).count();
        ensure!(
            pending == 0 && deficits == 0 && low == 0,
            "{pending} tickets, {deficits} deficits, {low} of {} chunks with too few copies",
            chunks.len()
        );
        Ok(())
    })?;
    read_from_each_node(cluster, seed, "gate", "dfs://late/gate-again")
}

/// The chunks that came since `before`, once there are three copies of each.
fn new_chunks(
    cluster: &Cluster,
    before: &BTreeMap<disks::ChunkName, usize>,
) -> Result<BTreeMap<disks::ChunkName, usize>> {
    until("three copies of each chunk", PATIENCE, || {
        let mut chunks = disks::copies(cluster, &[])?;
        chunks.retain(|name, _| !before.contains_key(name));
        let whole = !chunks.is_empty() && chunks.values().all(|copies| *copies == 3);
        ensure!(whole && counter(cluster, "deficits")? == 0, "not three copies: {chunks:?}");
        Ok(chunks)
    })
}

/// Purges a file while some nodes are paused, so that their tickets wait in their sockets or at the
/// leader, and puts the same content again.
fn put_again(cluster: &Cluster, seed: u64, label: &str, paused: &[&str]) -> Result<()> {
    let source = cluster.scratch().join(label);
    content::write_file(&source, seed, label, LENGTH)?;
    let (first, again) = (format!("dfs://late/{label}-first"), format!("dfs://late/{label}-again"));
    let before = disks::copies(cluster, &[])?;
    cluster.dfsctl([Path::new("put"), &source, Path::new(&first)])?;
    let chunks = new_chunks(cluster, &before)?;

    for node in paused {
        cluster.pause(node)?;
    }
    cluster.dfsctl(["rm", "--purge", &first])?;
    let waiting = (chunks.len() * paused.len()) as u64;
    until("the purge, and the other nodes' deletes", PATIENCE, || {
        let (pending, trash) = (counter(cluster, "pending_purges")?, counter(cluster, "trash_chunks")?);
        ensure!(pending == waiting && trash == 0, "{pending} tickets and {trash} trash, not {waiting} and 0");
        Ok(())
    })?;
    let put = cluster.spawn([Path::new("put"), &source, Path::new(&again)])?;
    if paused.len() > 1 {
        // Nothing can be put without them: late tickets and the new put come in together.
        for node in paused {
            cluster.resume(node)?;
        }
        checked("the put again", put.wait_with_output()?)?;
    } else {
        checked("the put again", put.wait_with_output()?)?;
        for node in paused {
            cluster.resume(node)?;
        }
    }

    until("tickets settled, and three copies of every chunk on the disks", PATIENCE, || {
        let pending = counter(cluster, "pending_purges")?;
        let deficits = counter(cluster, "deficits")?;
        let copies = disks::copies(cluster, &[])?;
        let low: Vec<_> = chunks.keys().filter(|name| copies.get(name).copied().unwrap_or(0) < 3).collect();
        ensure!(
            pending == 0 && deficits == 0 && low.is_empty(),
            "{pending} tickets, {deficits} deficits, {} of {} chunks with too few copies",
            low.len(),
            chunks.len()
        );
        Ok(())
    })?;
    read_from_each_node(cluster, seed, label, &again)
}

/// Each node alone has all of it.
fn read_from_each_node(cluster: &Cluster, seed: u64, label: &str, file: &str) -> Result<()> {
    for node in ["n1", "n2", "n3"] {
        let others: Vec<&str> = ["n1", "n2", "n3"].into_iter().filter(|other| *other != node).collect();
        for other in &others {
            cluster.kill_and_wait(other)?;
        }
        let back = cluster.dfsctl(["cat", file]).with_context(|| format!("only {node} is left"))?;
        content::check_reader(&back[..], seed, label, LENGTH).with_context(|| format!("from {node}"))?;
        for other in others {
            cluster.start_process(other)?;
        }
    }
    Ok(())
}

fn replayed_receipts(cluster: &Cluster, seed: u64) -> Result<()> {
    const SIZE: u64 = 1 << 20;
    let curl = Curl::new(cluster)?;
    let part = content::bytes(seed, "replayed", SIZE as usize);
    // Nodes that were started again have told their free space a moment later; the SDK waits for it.
    let first = until("nodes with room", PATIENCE, || curl.init("/late/replay-first", SIZE))?;
    let later = curl.init("/late/replay-later", SIZE)?;
    let sent = curl.send_chunk(&first, 0, &part)?;
    let kept = curl.send_chunk(&later, 0, &part)?;
    for chunk in [&sent, &kept] {
        ensure!(chunk["receipts"].as_array().is_some_and(|all| !all.is_empty()), "no receipts in {chunk}");
    }
    let done = curl.ok(
        "POST",
        "/commit_upload",
        Some(&json!({"upload_id": first["upload_id"], "chunks": [&sent]})),
    )?;
    ensure!(done["copies"].as_u64() >= Some(2), "{done}");

    let another = curl.init("/late/replay-other", SIZE)?;
    let foreign = json!({"upload_id": another["upload_id"], "chunks": [&sent]});
    curl.commit_refused(&foreign, 403, "receipt_refused").context("receipts of another upload")?;

    // The receipts of `later` are its own and were true; then the chunk is purged.
    let chunk = sent["chunk_id"].as_str().context("chunk_id")?;
    let on_disks = || -> Result<usize> {
        let copies = disks::copies(cluster, &[])?;
        Ok(copies.iter().filter(|((_, id), _)| id.to_string() == chunk).map(|(_, copies)| *copies).sum())
    };
    until("the chunk on three disks", PATIENCE, || {
        let copies = on_disks()?;
        ensure!(copies == 3 && counter(cluster, "deficits")? == 0, "{copies} copies");
        Ok(())
    })?;
    cluster.dfsctl(["rm", "--purge", "dfs://late/replay-first"])?;
    until("the chunk purged from every disk", PATIENCE, || {
        let copies = on_disks()?;
        ensure!(copies == 0, "{copies} copies left");
        Ok(())
    })?;
    let replayed = json!({"upload_id": later["upload_id"], "chunks": [&kept]});
    curl.commit_refused(&replayed, 409, "chunks_missing").context("receipts from before the purge")
}
