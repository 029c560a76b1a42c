//! Bad networks between clients and chunk servers, and among these: bits turned, silence, resets,
//! slowness.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::ledger::Ledger;
use super::partitions::all_ready;
use super::{Context, Scenario};
use crate::census;
use crate::cluster::{Cluster, ClusterOptions, checked};
use crate::content;
use crate::disks;
use crate::net::{Net, OUTSIDE, Trouble, both_ways};
use crate::wait::until;

pub const BIT_FLIPS_ON_THE_WIRE: Scenario = Scenario {
    name: "bit-flips-on-the-wire",
    about: "bits turn between clients and chunk servers and among these: puts succeed, no bad byte is stored or read",
    run: bit_flips,
};

pub const SILENT_PEER: Scenario = Scenario {
    name: "silent-peer",
    about: "a server falls silent or resets connections in mid-upload: the put succeeds, no call waits beyond 10 s",
    run: silent_peer,
};

pub const SLOW_NODE: Scenario = Scenario {
    name: "slow-node",
    about: "a chunk server 200 ms away, or running 3 % of the time: put and get go on, nothing is repaired",
    run: slow_node,
};

/// What any single operation of a put may take.
const LONGEST_CALL_MS: u64 = 10_000;
const MIB: u64 = 1 << 20;

/// Files put under faults, each read back at once and at the end.
struct Files<'a> {
    cluster: &'a Cluster,
    seed: u64,
    put: Vec<(String, u64)>,
}

impl<'a> Files<'a> {
    fn new(cluster: &'a Cluster, seed: u64) -> Result<Self> {
        cluster.dfsctl(["bucket", "create", "wire"])?;
        Ok(Self { cluster, seed, put: Vec::new() })
    }

    /// Puts a file, `during` while it is under way; checks the longest call. How long it took.
    fn put(&mut self, label: &str, length: u64, during: impl FnOnce() -> Result<()>) -> Result<Duration> {
        let source = self.cluster.scratch().join(label);
        content::write_file(&source, self.seed, label, length)?;
        let target = format!("dfs://wire/{label}");
        let start = Instant::now();
        let put = self.cluster.spawn([
            Path::new("put"),
            Path::new("--output"),
            Path::new("json"),
            &source,
            Path::new(&target),
        ])?;
        during()?;
        let told = || format!("{label}\n{}", self.cluster.log_tails(12));
        let printed = checked("put", put.wait_with_output()?).with_context(told)?;
        let took = start.elapsed();
        std::fs::remove_file(source)?;
        let printed: Value = serde_json::from_slice(&printed)?;
        let longest = printed["longest_call_ms"].as_u64().context("put does not say longest_call_ms")?;
        println!(
            "put of {label}: {:.1} s, longest call {longest} ms, {} copies",
            took.as_secs_f64(),
            printed["copies"]
        );
        ensure!(longest <= LONGEST_CALL_MS, "one operation took {longest} ms; {}", told());
        self.put.push((label.to_owned(), length));
        Ok(took)
    }

    fn get(&self, label: &str, length: u64) -> Result<Duration> {
        let start = Instant::now();
        let back = self.cluster.dfsctl(["cat", &format!("dfs://wire/{label}")])?;
        let took = start.elapsed();
        content::check_reader(&back[..], self.seed, label, length).context(label.to_owned())?;
        Ok(took)
    }

    fn check(&self) -> Result<()> {
        self.put.iter().try_for_each(|(label, length)| self.get(label, *length).map(drop))
    }
}

fn nodes(cluster: &Cluster) -> Result<Vec<String>> {
    Ok(cluster.role("chunk-server")?.into_iter().map(|process| process.id).collect())
}

/// Until every chunk has its copies again.
pub(super) fn no_deficits(cluster: &Cluster, patience: Duration) -> Result<()> {
    until("every chunk to have its copies", patience, || {
        let status = cluster.json(["cluster", "status"])?;
        let deficits = status["deficits"].as_u64().context("deficits")?;
        ensure!(deficits == 0, "{deficits} deficits");
        Ok(())
    })
}

fn bit_flips(context: &Context) -> Result<()> {
    const WANTED: u64 = 12;
    let (cluster, net) = Net::start(&ClusterOptions::default(), context.seed)?;
    let mut files = Files::new(&cluster, context.seed)?;
    let nodes = nodes(&cluster)?;
    let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
    let with_clients = both_ways(&nodes, &[OUTSIDE]);
    let among_nodes = both_ways(&nodes, &nodes);
    for (what, links) in [("clients", with_clients), ("nodes", among_nodes)] {
        let before = net.flipped();
        let trouble = Trouble { flip: Some(16 * MIB), ..Trouble::default() };
        let fault = net.trouble(links, trouble);
        let mut round = 0;
        while net.flipped() - before < WANTED {
            ensure!(round < 12, "only {} bits turned", net.flipped() - before);
            let label = format!("{what}-{round}");
            files.put(&label, 24 * MIB, || Ok(()))?;
            files.get(&label, 24 * MIB)?;
            round += 1;
        }
        drop(fault);
    }
    println!("{} bits turned", net.flipped());
    no_deficits(&cluster, Duration::from_secs(60))?;
    files.check()?;
    // Every copy on every disk is read and hashed.
    println!("{:?}", census::take(&cluster)?);
    Ok(())
}

fn silent_peer(context: &Context) -> Result<()> {
    const LENGTH: u64 = 48 * MIB;
    let (cluster, net) = Net::start(&ClusterOptions::default(), context.seed)?;
    let mut files = Files::new(&cluster, context.seed)?;
    let mut ledger = Ledger::new(&cluster, context.seed)?;
    let nodes = nodes(&cluster)?;
    let node =
        |label: &str| nodes[content::number(context.seed, label, nodes.len() as u64) as usize].as_str();
    let under_way = || {
        let before = disks::chunk_bytes(&cluster)?;
        until("the put to be under way", Duration::from_secs(20), || {
            let now = disks::chunk_bytes(&cluster)?;
            ensure!(now > before + MIB, "{now} bytes on the disks, {before} before");
            Ok(())
        })
    };
    files.put("warm", LENGTH, || Ok(()))?;

    let mut silence = None;
    let silent = node("silent");
    files.put("node-falls-silent", LENGTH, || {
        under_way()?;
        silence = Some(net.silence(silent));
        Ok(())
    })?;
    files.put("node-is-silent", LENGTH, || Ok(()))?;
    files.get("node-is-silent", LENGTH)?;
    files.check()?;
    drop(silence);
    all_ready(&cluster, Duration::from_secs(30))?;

    files.put("connections-reset", LENGTH, || {
        under_way()?;
        for label in ["one", "two", "three"] {
            net.reset(node(label));
        }
        Ok(())
    })?;

    let leader = cluster.leader()?;
    let mut silence = None;
    files.put("leader-falls-silent", LENGTH, || {
        under_way()?;
        silence = Some(net.silence(&leader));
        Ok(())
    })?;
    ledger.put_some("while the leader is silent")?;
    drop(silence);
    all_ready(&cluster, Duration::from_secs(30))?;
    no_deficits(&cluster, Duration::from_secs(60))?;
    files.check()?;
    ledger.check()?;
    println!("{:?}", census::take(&cluster)?);
    Ok(())
}

/// Stops a process most of the time, until dropped: a node starved of its CPU.
struct Starved<'a> {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
    cluster: &'a Cluster,
    id: &'a str,
}

impl<'a> Starved<'a> {
    fn begin(cluster: &'a Cluster, id: &'a str, stopped: Duration, runs: Duration) -> Result<Self> {
        use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
        let pid = Pid::from_raw(cluster.process(id)?.pid).context("a pid")?;
        let process = pidfd_open(pid, PidfdFlags::empty())?;
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let asked = std::sync::Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !asked.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = pidfd_send_signal(&process, Signal::STOP);
                std::thread::sleep(stopped);
                let _ = pidfd_send_signal(&process, Signal::CONT);
                std::thread::sleep(runs);
            }
        });
        Ok(Self { stop, thread: Some(thread), cluster, id })
    }
}

impl Drop for Starved<'_> {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = self.cluster.resume(self.id);
    }
}

fn slow_node(context: &Context) -> Result<()> {
    const LENGTH: u64 = 9 * MIB;
    /// Far from what any fault here should cost, and far below what waiting for the slow one would.
    const PUT: Duration = Duration::from_secs(6);
    const GET: Duration = Duration::from_secs(3);
    let (cluster, net) = Net::start(&ClusterOptions::default(), context.seed)?;
    let mut files = Files::new(&cluster, context.seed)?;
    let nodes = nodes(&cluster)?;
    let slow = nodes[content::number(context.seed, "slow", nodes.len() as u64) as usize].as_str();
    files.put("before", LENGTH, || Ok(()))?;
    let before = disks::copies(&cluster, &[])?;
    let rounds = |files: &mut Files<'_>, what: &str| -> Result<()> {
        let (mut puts, mut gets) = (Vec::new(), Vec::new());
        for round in 0..3 {
            let label = format!("{what}-{round}");
            puts.push(files.put(&label, LENGTH, || Ok(()))?);
            gets.push(files.get(&label, LENGTH)?);
            gets.push(files.get("before", LENGTH)?);
        }
        puts.sort_unstable();
        gets.sort_unstable();
        let (put, get) = (puts[puts.len() / 2], gets[gets.len() / 2]);
        println!("{slow} {what}: median put {:.1} s, get {:.1} s", put.as_secs_f64(), get.as_secs_f64());
        ensure!(put <= PUT && get <= GET, "with {slow} {what} a put takes {put:?}, a get {get:?}");
        Ok(())
    };
    let fault = net.slow(slow, Duration::from_millis(200));
    rounds(&mut files, "far")?;
    drop(fault);
    for (what, stopped, runs) in [("starved", 97, 3), ("flapping", 1500, 1500)] {
        let fault =
            Starved::begin(&cluster, slow, Duration::from_millis(stopped), Duration::from_millis(runs))?;
        rounds(&mut files, what)?;
        drop(fault);
    }
    no_deficits(&cluster, Duration::from_secs(60))?;
    // Slow is not dead: what was there has the copies it had, not more.
    let after = disks::copies(&cluster, &[])?;
    let moved = before.iter().filter(|(chunk, copies)| after.get(*chunk) != Some(copies)).count();
    ensure!(moved == 0, "{moved} of {} chunks got other copies", before.len());
    files.check()?;
    println!("{:?}", census::take(&cluster)?);
    Ok(())
}
