//! A member that is far behind gets a snapshot, and is killed while it installs it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use super::ledger::Ledger;
use super::{Context, Scenario};
use crate::cluster::{Cluster, ClusterOptions, Health};
use crate::content;
use crate::wait::until;

pub const SNAPSHOT_INSTALL_KILLED: Scenario = Scenario {
    name: "snapshot-install-killed",
    about: "kill -9 of a member at ten moments of a snapshot install under load: no member has a hole",
    run: snapshot_install_killed,
};

const KILLS: u64 = 10;
/// More than the log keeps, so that a member this far behind needs a snapshot.
const BEHIND: u64 = 150;
const LOAD_FILES: usize = 200;
const PATIENCE: Duration = Duration::from_secs(60);

fn applied(cluster: &Cluster) -> Result<Vec<(String, u64)>> {
    let answer = cluster.json(["cluster", "members", "ls"])?;
    let rows = answer["members"].as_array().context("members")?;
    let row = |row: &serde_json::Value| {
        (row["name"].as_str().unwrap_or("").to_owned(), row["applied_index"].as_u64().unwrap_or(0))
    };
    Ok(rows.iter().map(row).collect())
}

fn highest(cluster: &Cluster) -> Result<u64> {
    Ok(applied(cluster)?.iter().map(|(_, index)| *index).max().unwrap_or(0))
}

/// Puts a folder of small files again and again until told to stop; answers how many rounds.
fn load(cluster: &Cluster, stop: &AtomicBool) -> Result<u64> {
    let tree = cluster.scratch().join("load");
    std::fs::create_dir_all(&tree)?;
    for i in 0..LOAD_FILES {
        std::fs::write(tree.join(format!("{i}")), format!("load {i}"))?;
    }
    let tree = tree.to_str().context("a UTF-8 folder")?.to_owned();
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        cluster.dfsctl(["put", "-r", "-T", &tree, &format!("dfs://ledger/load-{rounds}")])?;
        rounds += 1;
    }
    Ok(rounds)
}

fn snapshot_install_killed(context: &Context) -> Result<()> {
    let options = ClusterOptions::default().set("DFS_SNAPSHOT_ENTRIES", 100).set("DFS_KEEP_ENTRIES", 20);
    let cluster = Cluster::start(&options)?;
    let mut ledger = Ledger::new(&cluster, context.seed)?;
    ledger.put_some("before")?;
    let leader = cluster.leader()?;
    let victim = cluster
        .role("metadata-server")?
        .into_iter()
        .map(|process| process.id)
        .find(|id| *id != leader)
        .context("a follower")?;

    let database = || -> Result<String> {
        Ok(std::fs::read_to_string(cluster.process(&victim)?.data_dir.join("state/CURRENT"))?)
    };
    let first_database = database()?;
    let stop = AtomicBool::new(false);
    let rounds = std::thread::scope(|scope| {
        let loader = scope.spawn(|| load(&cluster, &stop));
        let killed = kill_while_it_installs(&cluster, &victim, context.seed);
        stop.store(true, Ordering::Relaxed);
        let rounds = loader.join().map_err(|_| anyhow!("the load panicked"))??;
        killed.map(|()| rounds)
    })
    .with_context(|| cluster.log_tails(12))?;

    cluster.start_process(&victim)?;
    ledger.put_some("after")?;
    until(&format!("{victim} to have applied everything"), PATIENCE, || {
        let all = applied(&cluster)?;
        let top = all.iter().map(|(_, index)| *index).max().unwrap_or(0);
        let own = all.iter().find(|(name, _)| *name == victim).map_or(0, |(_, index)| *index);
        ensure!(own > 0 && own + 5 >= top, "{victim} is at {own} of {top}");
        Ok(())
    })
    .with_context(|| cluster.log_tails(12))?;

    ensure!(database()? != first_database, "{victim} caught up without a snapshot: this tested nothing");
    // The cluster now lives from this member's vote, and may be led by it.
    cluster.kill_and_wait(&leader)?;
    ledger.put_some("without the old leader")?;
    ledger.check()?;
    let listed = cluster.json(["ls", "-r", "dfs://ledger/"])?;
    let files = listed["entries"].as_array().context("entries")?.len();
    let wanted = rounds as usize * LOAD_FILES + 9;
    ensure!(files == wanted, "{files} files are listed, {wanted} were acknowledged");
    Ok(())
}

fn kill_while_it_installs(cluster: &Cluster, victim: &str, seed: u64) -> Result<()> {
    for turn in 0..KILLS {
        if cluster.health(victim)? != Health::Gone {
            cluster.kill_and_wait(victim)?;
        }
        let from = highest(cluster)?;
        until("the log to move on", PATIENCE, || {
            let now = highest(cluster)?;
            ensure!(now >= from + BEHIND, "at {now}, was {from}");
            Ok(())
        })?;
        let starting = cluster.begin_start(victim)?;
        until("the member to run again", PATIENCE, || match cluster.health(victim)? {
            Health::Gone => bail!("{victim} does not run"),
            _ => Ok(()),
        })?;
        // The moment of the kill is the fault: anywhere in the first 600 ms of its life.
        let moment = Duration::from_millis(content::number(seed, &format!("moment {turn}"), 600));
        std::thread::sleep(moment);
        cluster.kill(victim)?;
        drop(starting);
        until("the member to be gone", PATIENCE, || match cluster.health(victim)? {
            Health::Gone => Ok(()),
            other => bail!("{victim} is {other:?}"),
        })?;
    }
    Ok(())
}
