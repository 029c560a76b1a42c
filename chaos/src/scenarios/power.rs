//! The power of machines goes: what was written but not synced is lost on their disks.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::members::members;
use super::{Context, Scenario, rounds};
use crate::book::Book;
use crate::cluster::{Cluster, ClusterOptions};
use crate::content;
use crate::faults::images::{Disk, FileSystem, private_mounts};
use crate::faults::needs;
use crate::faults::shim::{Action, Op, Rule, Shim};

pub const POWER_LOSS: Scenario = Scenario {
    name: "power-loss",
    about: "kill -9 under load and all un-synced writes lost, of all servers or two: nothing acknowledged is lost",
    run: power_loss,
};

/// What a start after a power loss writes again is at most what an unsealed segment holds, out of a reserve
/// that is a quarter of a small disk.
const SEGMENT_BYTES: u64 = 32 << 20;
const WRITERS: usize = 3;
/// How long the cluster without durable disks may try to look right.
const CONTROL_PATIENCE: Duration = Duration::from_secs(20);

fn power_loss(context: &Context) -> Result<()> {
    private_mounts()?;
    let cluster = Cluster::start(&ClusterOptions::default().set("DFS_SEGMENT_BYTES", SEGMENT_BYTES))?;
    let shim = Shim::new(&cluster.scratch())?;
    let book = Book::new(&cluster, context.seed)?;
    book.put(2)?;
    let all: Vec<String> = cluster.processes()?.into_iter().map(|process| process.id).collect();
    let system = file_system(context.seed);
    println!("  on {system:?}");
    cluster.stop_all(&all)?;
    let mut disks = Vec::new();
    for process in cluster.processes()? {
        let disk = Disk::under(&process.data_dir, &cluster.scratch(), &process.id, system)?;
        disks.push((process.id, disk));
    }
    cluster.start_all(&all)?;
    let before = members(&cluster)?;

    for round in 0..rounds("CHAOS_POWER_ROUNDS", 4) {
        let victims = if round % 2 == 0 { all.clone() } else { two(context.seed, round) };
        let moment = 700 + content::number(context.seed, &format!("moment {round}"), 2000);
        let acknowledged = book.acknowledged();
        book.under_load(WRITERS, || {
            // The moment is the fault.
            std::thread::sleep(Duration::from_millis(moment));
            cluster.kill_these(&victims)
        })?;
        lose_power(&disks, &victims)?;
        println!(
            "  round {round}: the power of {victims:?} went after {moment} ms and {} acknowledged puts",
            book.acknowledged() - acknowledged
        );
        cluster.start_all(&victims).with_context(|| cluster.log_tails(12))?;
        let told = || format!("round {round}\n{}", cluster.log_tails(12));
        book.check().with_context(told)?;
        // fsync was honest, so nobody may have lost what he voted for.
        let after = members(&cluster)?;
        ensure!(after == before, "members were {before:?} and are {after:?}; {}", told());
        book.put(1).with_context(told)?;
    }
    ensure!(book.acknowledged() > 10, "only {} puts were acknowledged: no load", book.acknowledged());
    control(&cluster, &shim, &book, &disks, &all)
}

/// The same with an fsync that says yes and does nothing: if that is not found, this finds nothing.
fn control(
    cluster: &Cluster,
    shim: &Shim,
    book: &Book<'_>,
    disks: &[(String, Disk)],
    all: &[String],
) -> Result<()> {
    let folder = cluster.data_dir();
    let part = folder.to_str().context("a UTF-8 folder")?;
    shim.set(&[Rule { op: Op::Sync, action: Action::Lie, from: 1, once: false, part }])?;
    cluster.stop_all(all)?;
    cluster.start_with(all, &shim.environment())?;
    book.put(6).context("before the power goes, a lying fsync hurts nobody")?;
    cluster.kill_these(all)?;
    ensure!(!shim.hits()?.is_empty(), "no fsync went through the shim: are the servers linked statically?");
    lose_power(disks, all)?;
    let _starting = cluster.begin_start_all(all)?;
    let begun = Instant::now();
    loop {
        let error = match book.check() {
            Ok(()) => {
                bail!("the control failed: fsync lied, the power went, and nothing was found to be missing")
            }
            Err(error) => format!("{error:#}"),
        };
        if error.contains("acknowledged files are lost") || begun.elapsed() > CONTROL_PATIENCE {
            println!("  control, fsync lies: {}", error.lines().next().unwrap_or(""));
            return Ok(());
        }
    }
}

fn lose_power(disks: &[(String, Disk)], victims: &[String]) -> Result<()> {
    for (_, disk) in disks.iter().filter(|(id, _)| victims.contains(id)) {
        disk.lose_power()?;
    }
    Ok(())
}

/// One metadata and one chunk server.
fn two(seed: u64, round: u64) -> Vec<String> {
    let pick = |what: &str| 1 + content::number(seed, &format!("{what} {round}"), 3);
    vec![format!("m{}", pick("member")), format!("n{}", pick("node"))]
}

/// xfs for one seed in three, where it can be made.
fn file_system(seed: u64) -> FileSystem {
    let has_xfs = needs::program(&["mkfs.xfs"], "xfsprogs").is_ok();
    if seed % 3 == 2 && has_xfs { FileSystem::Xfs } else { FileSystem::Ext4 }
}
