//! Every server restarted in turn, as for an upgrade, while clients write.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dfs_types::limits::{ELECTION_MAX_MS, ELECTION_MIN_MS};

use super::{Context, Scenario};
use crate::cluster::{Cluster, ClusterOptions, Health, checked};
use crate::content;
use crate::wait::until;

pub const ROLLING_RESTART: Scenario = Scenario {
    name: "rolling-restart",
    about: "SIGTERM and restart of every metadata and chunk server in turn under load: no put fails, and a leader \
            that leaves costs less than an election",
    run: rolling_restart,
};

/// Inline, and one chunk.
const LENGTHS: [u64; 2] = [1000, 300_000];
/// What a leader that leaves without a word costs at least: its lease, then an election timeout.
const ELECTION_MS: u64 = ELECTION_MAX_MS + ELECTION_MIN_MS;
/// While chunk servers come and go, a put may plan again.
const LONGEST_CALL_MS: u64 = 10_000;

/// What a writer saw.
#[derive(Default)]
struct Seen {
    puts: u64,
    longest_call_ms: u64,
    longest_gap_ms: u64,
}

/// Puts file after file until told to stop; every one must succeed.
fn write(cluster: &Cluster, seed: u64, label: &str, stop: &AtomicBool) -> Result<Seen> {
    let mut seen = Seen::default();
    let source = cluster.scratch().join(label);
    let mut acknowledged = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        for length in LENGTHS {
            let name = format!("{label} {} {length}", seen.puts);
            content::write_file(&source, seed, &name, length)?;
            let target = format!("dfs://rolling/{name}");
            let words =
                [Path::new("put"), Path::new("--output"), Path::new("json"), &source, Path::new(&target)];
            let printed = checked(&name, cluster.command(words).output()?)?;
            let printed: serde_json::Value = serde_json::from_slice(&printed)?;
            let call = printed["longest_call_ms"].as_u64().context("put does not say longest_call_ms")?;
            seen.longest_call_ms = seen.longest_call_ms.max(call);
            seen.longest_gap_ms = seen.longest_gap_ms.max(acknowledged.elapsed().as_millis() as u64);
            acknowledged = Instant::now();
            seen.puts += 1;
        }
    }
    Ok(seen)
}

/// Runs `change` while a writer writes.
fn under_load(
    cluster: &Cluster,
    seed: u64,
    label: &str,
    change: impl FnOnce() -> Result<()>,
) -> Result<Seen> {
    let stop = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(cluster, seed, label, &stop));
        let changed = change();
        stop.store(true, Ordering::Relaxed);
        let seen = writer.join().expect("the writer does not panic");
        changed.and(seen)
    })
    .with_context(|| format!("{label}\n{}", cluster.log_tails(12)))?;
    println!(
        "  {label}: {} puts, longest call {} ms, longest time between two {} ms",
        seen.puts, seen.longest_call_ms, seen.longest_gap_ms
    );
    for put in 0..seen.puts {
        for length in LENGTHS {
            let name = format!("{label} {put} {length}");
            if put % LENGTHS.len() as u64 == u64::from(length != LENGTHS[0]) {
                let back = cluster.dfsctl(["cat", &format!("dfs://rolling/{name}")])?;
                content::check_reader(&back[..], seed, &name, length)?;
            }
        }
    }
    Ok(seen)
}

fn restart(cluster: &Cluster, id: &str) -> Result<()> {
    cluster.stop_process(id)?;
    cluster.start_process(id)?;
    until(&format!("{id} to be ready"), Duration::from_secs(30), || {
        let health = cluster.health(id)?;
        ensure!(health == Health::Ready, "{health:?}");
        Ok(())
    })
}

fn rolling_restart(context: &Context) -> Result<()> {
    let cluster = Cluster::start(&ClusterOptions::default())?;
    cluster.dfsctl(["bucket", "create", "rolling"])?;
    // The leader each time: the one whose leaving could cost an election.
    for round in 0..3 {
        let leader = cluster.leader()?;
        let label = format!("{round} leader {leader}");
        let seen = under_load(&cluster, context.seed, &label, || restart(&cluster, &leader))?;
        ensure!(
            seen.longest_call_ms < ELECTION_MS,
            "{label}: a call took {} ms, an election is awaited after {ELECTION_MS}",
            seen.longest_call_ms
        );
    }
    for role in ["metadata-server", "chunk-server"] {
        for process in cluster.role(role)? {
            let label = format!("all {}", process.id);
            let seen = under_load(&cluster, context.seed, &label, || restart(&cluster, &process.id))?;
            ensure!(
                seen.longest_call_ms < LONGEST_CALL_MS,
                "{label}: a call took {} ms",
                seen.longest_call_ms
            );
        }
    }
    Ok(())
}
