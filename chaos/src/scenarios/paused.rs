//! A leader that stands still while the others go on, and does not know of it when it wakes.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dfs_types::limits::ELECTION_MAX_MS;

use super::ledger::Ledger;
use super::rest::Curl;
use super::{Context, Scenario};
use crate::cluster::{Cluster, ClusterOptions, Health};
use crate::content;
use crate::wait::until;

pub const PAUSED_LEADER: Scenario = Scenario {
    name: "paused-leader",
    about: "the leader is paused for three election timeouts: writes go on, and awake it answers nothing stale",
    run: paused_leader,
};

const READERS: usize = 8;
const ROUNDS: usize = 3;

fn paused_leader(context: &Context) -> Result<()> {
    let cluster = Cluster::start(&ClusterOptions::default())?;
    let mut ledger = Ledger::new(&cluster, context.seed)?;
    ledger.put_some("before")?;
    for round in 0..ROUNDS {
        let leader = cluster.leader()?;
        let old = Curl::at(&cluster, &cluster.process(&leader)?)?;
        cluster.pause(&leader)?;
        let since = Instant::now();
        let label = format!("while {leader} is paused {round}");
        ledger.put_some(&label).with_context(|| cluster.log_tails(12))?;
        let pause = Duration::from_millis(3 * ELECTION_MAX_MS + content::number(context.seed, &label, 1000));
        std::thread::sleep(pause.saturating_sub(since.elapsed()));

        // What was acknowledged meanwhile is in every answer, or there is none.
        let prefix = format!("/files?prefix=/ledger/while%20{leader}%20is%20paused%20{round}");
        std::thread::scope(|scope| -> Result<()> {
            let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(|| old.get(&prefix))).collect();
            cluster.resume(&leader)?;
            for reader in readers {
                let (code, answer) = reader.join().expect("a reader does not panic")?;
                let fresh = code == 200 && answer.contains(&label);
                ensure!(fresh || code == 503, "{leader} woke and answered {code}: {answer}");
            }
            Ok(())
        })?;
        until(&format!("{leader} taking part again"), Duration::from_secs(30), || {
            let health = cluster.health(&leader)?;
            ensure!(health == Health::Ready, "{health:?}");
            Ok(())
        })?;
        ledger.put_some(&format!("after {round}"))?;
        ledger.check()?;
    }
    Ok(())
}
