//! A metadata member whose whole directory, witness included, is put back in time while nobody leads: it
//! looks healthy by itself, and no running leader remembers what it acknowledged.

use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail, ensure};

use super::ledger::Ledger;
use super::members::{Outcome, PATIENCE, bring_back, copy_tree, ensure_votes, other_member, raft_id};
use super::metadata_rot::start_damaged;
use super::{Context, Scenario};
use crate::cluster::{Cluster, ClusterOptions, timed};
use crate::content;
use crate::wait::until;

pub const ROLLED_BACK_MEMBER: Scenario = Scenario {
    name: "rolled-back-member",
    about: "all metadata servers die, one's directory is an old copy: its vote loses nothing acknowledged",
    run: rolled_back_member,
};

fn rolled_back_member(context: &Context) -> Result<()> {
    let cluster = Cluster::start(&ClusterOptions::default())?;
    let mut ledger = Ledger::new(&cluster, context.seed)?;
    let all = cluster.names("metadata-server")?;
    for round in 0..2 {
        let victim = &all[content::number(context.seed, &format!("victim {round}"), 3) as usize];
        let other = other_member(&cluster, victim, context.seed.wrapping_add(round))?;
        let third = all.iter().find(|id| *id != victim && **id != other).context("a third member")?;
        one_round(&cluster, &mut ledger, round, victim, &other, third, &all).with_context(|| {
            format!("round {round}: {victim} went back, {other} started with it, then {third}")
        })?;
        ensure_votes(&cluster, victim, &mut ledger, context.seed)?;
    }
    ledger.check()
}

/// In the first round all three have what the victim lost. In the second, of the last of it only the
/// victim and the third ever heard, so that the victim and the other together know nothing of it: they
/// must not make a majority. The other knows of what the victim had before, and tells it.
fn one_round(
    cluster: &Cluster,
    ledger: &mut Ledger<'_>,
    round: u64,
    victim: &str,
    other: &str,
    third: &str,
    all: &[String],
) -> Result<()> {
    ledger.put_some(&format!("{round} before"))?;
    let old = raft_id(cluster, victim)?;
    let data = cluster.process(victim)?.data_dir;
    let kept = cluster.scratch().join(format!("kept{round}"));
    cluster.stop_process(victim)?;
    copy_tree(&data, &kept)?;
    cluster.start_process(victim)?;
    ledger.put_some(&format!("{round} lost"))?;
    if round == 1 {
        until_remembered(&cluster.process(other)?.data_dir)?;
        cluster.kill_and_wait(other)?;
        ledger.put_some(&format!("{round} known to two"))?;
    }
    cluster.kill_these(all)?;
    std::fs::remove_dir_all(&data)?;
    copy_tree(&kept, &data)?;

    let other_starting = cluster.begin_start(other)?;
    let outcome = if round == 1 {
        let (outcome, _starting) = start_damaged(cluster, victim)?;
        ensure!(outcome == Outcome::Blank, "{victim} went back, and {other} did not tell it");
        let output = timed(&mut cluster.command(["bucket", "create", "must-not-be"]))?;
        ensure!(!output.status.success(), "{other} and the blank {victim} made a majority");
        cluster.start_process(third)?;
        outcome
    } else {
        let _second = cluster.begin_start(victim)?;
        cluster.start_process(third)?;
        let (outcome, _starting) = start_damaged(cluster, victim)?;
        outcome
    };
    drop(other_starting);
    println!("  round {round}: {victim} went back, {other} and {third} have it: {outcome:?}");
    ledger.put_some(&format!("{round} after")).with_context(|| cluster.log_tails(12))?;
    ledger.check().with_context(|| cluster.log_tails(12))?;
    if outcome == Outcome::Blank {
        bring_back(cluster, victim, &old)?;
    }
    Ok(())
}

/// Until what a member remembers of the others was written twice: the second is from after this call.
fn until_remembered(data: &Path) -> Result<()> {
    let marks = data.join("marks");
    let changed = || -> Result<SystemTime> { Ok(std::fs::metadata(&marks)?.modified()?) };
    let mut last = changed().unwrap_or(SystemTime::UNIX_EPOCH);
    for _ in 0..2 {
        last = until("the marks of the other members to be written", PATIENCE, || {
            let now = changed()?;
            if now == last {
                bail!("not since {now:?}")
            }
            Ok(now)
        })?;
    }
    Ok(())
}
