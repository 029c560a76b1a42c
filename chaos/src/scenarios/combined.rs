//! Everything at once: a seeded mixture of kills, pauses, partitions and bad links under load, then peace.
//!
//! At each moment at most one metadata server and one chunk server are in trouble, now and then all of them die:
//! that much the cluster promises to bear. `CHAOS_SECONDS` makes it longer.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::partitions::all_ready;
use super::wire::no_deficits;
use super::{Context, Scenario};
use crate::census;
use crate::cluster::{Cluster, ClusterOptions};
use crate::content;
use crate::load::Load;
use crate::net::{Fault, Net, OUTSIDE, Trouble, both_ways};

pub const COMBINED: Scenario = Scenario {
    name: "combined",
    about: "kills, pauses, partitions, bad links under load; in peace every acknowledged file reads, every copy is there",
    run: combined,
};

const SECONDS: u64 = 45;
/// From the last fault until all is well.
const PEACE: Duration = Duration::from_secs(60);
/// Bytes of the files put: empty, inline, at the border, one chunk, several.
const LENGTHS: [u64; 6] = [0, 1000, 16 * 1024, 100_000, 5 << 20, 20 << 20];

/// What a server suffers.
#[derive(Clone, Copy, Debug)]
enum Blow {
    Kill,
    Pause,
    Isolate,
    Deaf,
    Mute,
    Silence,
    Slow,
    Flips,
    Resets,
}

const BLOWS: [Blow; 9] = [
    Blow::Kill,
    Blow::Pause,
    Blow::Isolate,
    Blow::Deaf,
    Blow::Mute,
    Blow::Silence,
    Blow::Slow,
    Blow::Flips,
    Blow::Resets,
];

struct Suffering<'a> {
    id: &'a str,
    blow: Blow,
    _fault: Option<Fault>,
}

fn strike<'a>(
    cluster: &Cluster,
    net: &Net,
    id: &'a str,
    others: &[&str],
    blow: Blow,
) -> Result<Suffering<'a>> {
    let everybody: Vec<&str> = others.iter().copied().chain([OUTSIDE]).collect();
    let fault = match blow {
        Blow::Kill => {
            cluster.kill_and_wait(id)?;
            None
        }
        Blow::Pause => {
            cluster.pause(id)?;
            None
        }
        Blow::Isolate => Some(net.isolate(&[id])),
        Blow::Deaf => Some(net.cut_one_way(others, &[id])),
        Blow::Mute => Some(net.cut_one_way(&[id], others)),
        Blow::Silence => Some(net.silence(id)),
        Blow::Slow => Some(net.slow(id, Duration::from_millis(150))),
        Blow::Flips => {
            let trouble = Trouble { flip: Some(2 << 20), ..Trouble::default() };
            Some(net.trouble(both_ways(&[id], &everybody), trouble))
        }
        Blow::Resets => {
            net.reset(id);
            None
        }
    };
    Ok(Suffering { id, blow, _fault: fault })
}

fn heal(cluster: &Cluster, suffering: Suffering<'_>) -> Result<()> {
    match suffering.blow {
        Blow::Kill => cluster.start_process(suffering.id),
        Blow::Pause => cluster.resume(suffering.id),
        _ => Ok(()),
    }
}

/// Puts files until told to stop; those acknowledged, and how many puts failed. Reads some of them meanwhile: an error
/// is an answer, wrong bytes are not.
fn files(cluster: &Cluster, seed: u64, stop: &AtomicBool) -> Result<(Vec<(String, u64)>, usize)> {
    let (mut acknowledged, mut failed) = (Vec::<(String, u64)>::new(), 0);
    for round in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let label = format!("file-{round}");
        let length = LENGTHS[content::number(seed, &label, LENGTHS.len() as u64) as usize];
        let source = cluster.scratch().join(&label);
        content::write_file(&source, seed, &label, length)?;
        let target = format!("dfs://combined/{label}");
        let put = cluster.command([Path::new("put"), &source, Path::new(&target)]).output()?;
        std::fs::remove_file(source)?;
        if put.status.success() {
            acknowledged.push((label, length));
        } else {
            failed += 1;
        }
        if let Some((label, length)) = acknowledged.get((round / 2) as usize) {
            let back = cluster.command(["cat", &format!("dfs://combined/{label}")]).output()?;
            if back.status.success() {
                content::check_reader(&back.stdout[..], seed, label, *length).context(label.clone())?;
            }
        }
    }
    Ok((acknowledged, failed))
}

fn storm(context: &Context, cluster: &Cluster, net: &Net, seconds: u64) -> Result<()> {
    let ids = |role: &str| -> Result<Vec<String>> {
        Ok(cluster.role(role)?.into_iter().map(|process| process.id).collect())
    };
    let (members, nodes) = (ids("metadata-server")?, ids("chunk-server")?);
    let start = Instant::now();
    for round in 0u64.. {
        if start.elapsed() >= Duration::from_secs(seconds) {
            break;
        }
        let draw = |what: &str, bound: usize| {
            content::number(context.seed, &format!("{round} {what}"), bound as u64) as usize
        };
        let lasts = Duration::from_millis(1000 + draw("lasts", 5000) as u64);
        let at = start.elapsed().as_secs_f64();
        if draw("all", 12) == 0 {
            println!("{at:6.1} s: everything is killed and started again");
            cluster.kill_all()?;
            cluster.up_again()?;
            continue;
        }
        let mut suffering = Vec::new();
        for (what, of) in [("member", &members), ("node", &nodes)] {
            // Now and then only one side suffers.
            if draw(&format!("spare {what}"), 4) == 0 {
                continue;
            }
            let id = of[draw(what, of.len())].as_str();
            let others: Vec<&str> =
                members.iter().chain(&nodes).map(String::as_str).filter(|other| *other != id).collect();
            let blow = BLOWS[draw(&format!("blow {what}"), BLOWS.len())];
            println!("{at:6.1} s: {id} {blow:?} for {:.1} s", lasts.as_secs_f64());
            suffering.push(strike(cluster, net, id, &others, blow)?);
        }
        std::thread::sleep(lasts);
        // All links first: a server that is started again waits until it is ready.
        let (killed, others): (Vec<_>, Vec<_>) =
            suffering.into_iter().partition(|one| matches!(one.blow, Blow::Kill));
        for one in others.into_iter().chain(killed) {
            let id = one.id;
            heal(cluster, one).with_context(|| format!("healing {id}\n{}", cluster.log_tails(12)))?;
        }
        std::thread::sleep(Duration::from_millis(draw("rest", 2000) as u64));
    }
    Ok(())
}

fn combined(context: &Context) -> Result<()> {
    let seconds = std::env::var("CHAOS_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SECONDS);
    // Down and repaired within the run.
    let options = ClusterOptions::default()
        .chunk_servers(4)
        .set("DFS_NODE_SUSPECT_MS", 2000)
        .set("DFS_NODE_DOWN_MS", 4000)
        .set("DFS_REPAIR_DELAY_MS", 2000);
    let (cluster, net) = Net::start(&options, context.seed)?;
    cluster.dfsctl(["bucket", "create", "combined"])?;
    let load = Load::start(&cluster, context.seed, 4, &[])?;
    let stop = AtomicBool::new(false);
    let (stormed, put) = std::thread::scope(|scope| {
        let putter = scope.spawn(|| files(&cluster, context.seed, &stop));
        let stormed = storm(context, &cluster, &net, seconds);
        stop.store(true, Ordering::Relaxed);
        (stormed, putter.join().expect("the putter does not panic"))
    });
    stormed?;
    let peace = Instant::now();
    let (acknowledged, failed) = put?;
    all_ready(&cluster, PEACE)?;
    let history = load.stop().with_context(|| cluster.log_tails(8))?;
    no_deficits(&cluster, PEACE.saturating_sub(peace.elapsed()))
        .with_context(|| format!("{}\n{}", cluster_status(&cluster), cluster.log_tails(12)))?;
    let well = peace.elapsed();
    for (label, length) in &acknowledged {
        let back = cluster.dfsctl(["cat", &format!("dfs://combined/{label}")]);
        let back = back.with_context(|| format!("{label} was acknowledged"))?;
        content::check_reader(&back[..], context.seed, label, *length).context(label.clone())?;
    }
    ensure!(peace.elapsed() <= PEACE + Duration::from_secs(30), "peace took {:?}", peace.elapsed());
    let census = census::take(&cluster)?;
    println!(
        "{} files acknowledged, {failed} puts failed; all well {:.1} s after the last fault; {} operations in the history; \
         {census:?}",
        acknowledged.len(),
        well.as_secs_f64(),
        history.known
    );
    ensure!(acknowledged.len() > failed, "{failed} puts failed, {} succeeded", acknowledged.len());
    Ok(())
}

fn cluster_status(cluster: &Cluster) -> String {
    cluster.json(["cluster", "status"]).map_or_else(|error| format!("{error:#}"), |status| status.to_string())
}
