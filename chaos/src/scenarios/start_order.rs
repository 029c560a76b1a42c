//! Servers start in any order, minutes or moments apart, and nobody has to tell them anything: a new
//! cluster whose chunk servers are there long before any metadata server, then the same cluster again in
//! another order, then a server whose certificate comes late.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::{Context, Scenario};
use crate::cluster::{Cluster, ClusterOptions, Health, Starting};
use crate::content;
use crate::wait::{throughout, until};

pub const START_ORDER: Scenario = Scenario {
    name: "start-order",
    about: "chunk servers 10 s and more before metadata servers, one member last, a certificate that comes late: all \
            become ready by themselves",
    run: start_order,
};

const LENGTH: u64 = 5_000_000;
const PATIENCE: Duration = Duration::from_secs(60);

fn start_order(context: &Context) -> Result<()> {
    let cluster = Cluster::start(&ClusterOptions::default())?;
    let seed = context.seed;
    let members = cluster.names("metadata-server")?;
    let nodes = cluster.names("chunk-server")?;
    let all = [members.clone(), nodes.clone()].concat();

    // A cluster that never ran, with certificates and addresses at hand.
    cluster.stop_all(&all)?;
    for id in &all {
        let data = cluster.process(id)?.data_dir;
        std::fs::remove_dir_all(&data)?;
        std::fs::create_dir(&data)?;
    }
    let mut starting = begin(&cluster, &shuffled(seed, "nodes", &nodes), 0)?;
    unready_for(&cluster, &nodes, between(seed, "nodes alone", 10_000, 15_000))?;
    let order = shuffled(seed, "members", &members);
    println!("  new: {nodes:?}, then {order:?}");
    starting.extend(begin(&cluster, &order[..2], between(seed, "members apart", 0, 2_000))?);
    // It is formed when all initial members are there, and not before.
    unready_for(&cluster, &all_but(&all, &order[2]), between(seed, "members alone", 1_000, 4_000))?;
    starting.extend(begin(&cluster, &order[2..], 0)?);
    all_ready(&cluster, &all).with_context(|| cluster.log_tails(12))?;
    cluster.dfsctl(["bucket", "create", "order"])?;
    round_trip(&cluster, seed, "new")?;
    drop(starting);

    // A cluster that has run: any order, and a majority is enough.
    cluster.stop_all(&all)?;
    let last = shuffled(seed, "last", &members).swap_remove(0);
    let order = shuffled(seed, "again", &all_but(&all, &last));
    println!("  again: {order:?}, then {last}");
    let starting = begin(&cluster, &order, between(seed, "again apart", 0, 2_000))?;
    all_ready(&cluster, &order).with_context(|| cluster.log_tails(12))?;
    round_trip(&cluster, seed, "without the last")?;
    let last = begin(&cluster, &[last], 0)?;
    all_ready(&cluster, &all).with_context(|| cluster.log_tails(12))?;
    for label in ["new", "without the last"] {
        get(&cluster, seed, label)?;
    }
    drop((starting, last));

    let late = shuffled(seed, "late", &nodes).swap_remove(0);
    late_certificate(&cluster, &late)?;
    all_ready(&cluster, &all)?;
    round_trip(&cluster, seed, "certified")
}

/// A server without its certificate ends at once and says which file it wants; who started it, a
/// supervisor elsewhere, starts it again, and when the file is there all is well.
fn late_certificate(cluster: &Cluster, id: &str) -> Result<()> {
    cluster.stop_process(id)?;
    let certificate = cluster.data_dir().join(id).join("cert.pem");
    let away: PathBuf = cluster.scratch().join("cert.pem");
    std::fs::rename(&certificate, &away)?;
    let error = match cluster.start_process(id) {
        Err(error) => format!("{error:#}"),
        Ok(()) => bail!("{id} started without a certificate"),
    };
    let path = certificate.display().to_string();
    ensure!(error.contains(&path), "the error of {id} does not name {path}: {error}");
    ensure!(cluster.health(id)? == Health::Gone, "{id} stays without a certificate");
    println!("  {}", error.lines().find(|line| line.contains(&path)).unwrap_or_default().trim());
    std::fs::rename(&away, &certificate)?;
    cluster.start_process(id)
}

/// Starts servers one after the other, so many milliseconds apart, and waits for none to be ready.
fn begin(cluster: &Cluster, ids: &[String], apart_ms: u64) -> Result<Vec<Starting>> {
    let mut starting = Vec::new();
    for (n, id) in ids.iter().enumerate() {
        if n > 0 {
            std::thread::sleep(Duration::from_millis(apart_ms));
        }
        starting.push(cluster.begin_start(id)?);
        until(&format!("a process of {id}"), PATIENCE, || {
            ensure!(cluster.health(id)? != Health::Gone, "it does not run");
            Ok(())
        })?;
    }
    Ok(starting)
}

/// For so long they all run, and none is ready, and each says why.
fn unready_for(cluster: &Cluster, ids: &[String], milliseconds: u64) -> Result<()> {
    throughout("they run and are not ready", Duration::from_millis(milliseconds), || {
        for id in ids {
            let health = cluster.health(id)?;
            let said = matches!(&health, Health::NotReady(why) if !why.is_empty());
            ensure!(said, "{id}: {health:?}\n{}", cluster.log_tails(12));
        }
        Ok(())
    })
}

fn all_ready(cluster: &Cluster, ids: &[String]) -> Result<()> {
    for id in ids {
        until(&format!("{id} to be ready"), PATIENCE, || {
            let health = cluster.health(id)?;
            ensure!(health == Health::Ready, "{health:?}");
            Ok(())
        })?;
    }
    Ok(())
}

fn all_but(ids: &[String], one: &String) -> Vec<String> {
    ids.iter().filter(|id| *id != one).cloned().collect()
}

fn round_trip(cluster: &Cluster, seed: u64, label: &str) -> Result<()> {
    let source = cluster.scratch().join("source");
    content::write_file(&source, seed, label, LENGTH)?;
    cluster.dfsctl([Path::new("put"), &source, Path::new(&address(label))])?;
    get(cluster, seed, label)
}

fn get(cluster: &Cluster, seed: u64, label: &str) -> Result<()> {
    let back = cluster.dfsctl(["cat", &address(label)])?;
    content::check_reader(&back[..], seed, label, LENGTH)
}

fn address(label: &str) -> String {
    format!("dfs://order/{label}")
}

/// From `low`, below `high`.
fn between(seed: u64, label: &str, low: u64, high: u64) -> u64 {
    low + content::number(seed, label, high - low)
}

fn shuffled(seed: u64, label: &str, ids: &[String]) -> Vec<String> {
    let mut order = ids.to_vec();
    order.sort_by_key(|id| content::number(seed, &format!("{label} {id}"), u64::MAX));
    order
}
