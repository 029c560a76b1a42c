//! Partitions among the metadata servers, with a history of concurrent clients checked at the end.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::ledger::Ledger;
use super::{Context, Scenario};
use crate::cluster::{Cluster, ClusterOptions, Health};
use crate::content;
use crate::load::Load;
use crate::net::Net;
use crate::wait::until;

pub const LEADER_CUT_OFF: Scenario = Scenario {
    name: "leader-cut-off",
    about: "the leader is cut off with its clients: they are told nothing stale, writes go on at the majority's side",
    run: leader_cut_off,
};

pub const ONE_WAY_PARTITION: Scenario = Scenario {
    name: "one-way-partition",
    about: "leader to follower, then follower to leader is cut one way: writes go on, terms do not climb",
    run: one_way_partition,
};

pub const ISOLATED_MEMBER_RETURNS: Scenario = Scenario {
    name: "isolated-member-returns",
    about: "a member isolated for a while returns: the leader stays, writes pause for no election",
    run: isolated_member_returns,
};

pub const FIVE_VOTERS: Scenario = Scenario {
    name: "five-voters",
    about: "of five metadata servers two die, the leader one of them: writes go on, history possible",
    run: five_voters,
};

/// An election, and clients that find the new leader: what a fault may cost.
const ELECTED: Duration = Duration::from_secs(15);
/// What a fault that concerns no majority may cost.
const UNDISTURBED: Duration = Duration::from_secs(5);

pub(super) fn members(cluster: &Cluster) -> Result<Vec<String>> {
    Ok(cluster.role("metadata-server")?.into_iter().map(|process| process.id).collect())
}

pub(super) fn term(cluster: &Cluster) -> Result<u64> {
    let status = cluster.json(["cluster", "status"])?;
    status["term"].as_u64().with_context(|| format!("no term in {status}"))
}

pub(super) fn all_ready(cluster: &Cluster, patience: Duration) -> Result<()> {
    until("every server ready", patience, || {
        for process in cluster.processes()? {
            let health = cluster.health(&process.id)?;
            ensure!(health == Health::Ready, "{}: {health:?}", process.id);
        }
        Ok(())
    })
}

/// The control: a member that hears no leader says so, or the cut was none.
fn not_ready(cluster: &Cluster, member: &str) -> Result<()> {
    until("the member to notice", Duration::from_secs(10), || {
        let health = cluster.health(member)?;
        ensure!(matches!(health, Health::NotReady(_)), "{member}: {health:?}");
        Ok(())
    })
}

/// Waits until so many more changes are acknowledged to the clients wanted.
pub(super) fn more_changes(
    load: &Load,
    count: usize,
    patience: Duration,
    wanted: impl Fn(u32) -> bool,
) -> Result<()> {
    let before = load.acknowledged(&wanted);
    until("changes to be acknowledged", patience, || {
        let now = load.acknowledged(&wanted) - before;
        ensure!(now >= count, "{now} of {count}");
        Ok(())
    })
}

/// Waits until a drawn number of changes more, `least` or up to twice as many, is acknowledged to the clients
/// wanted, a few at a time: work goes on steadily. The clients pause between calls, so this is many election
/// timeouts on a fast machine too.
fn work_goes_on(
    load: &Load,
    context: &Context,
    label: &str,
    least: u64,
    wanted: impl Fn(u32) -> bool,
) -> Result<()> {
    const FEW: usize = 20;
    let count = least + content::number(context.seed, label, least);
    for _ in 0..count / FEW as u64 {
        more_changes(load, FEW, ELECTED, &wanted)?;
    }
    Ok(())
}

fn leader_cut_off(context: &Context) -> Result<()> {
    let (cluster, net) = Net::start(&ClusterOptions::default(), context.seed)?;
    let mut ledger = Ledger::new(&cluster, context.seed)?;
    ledger.put_some("before")?;
    let leader = cluster.leader()?;
    let others: Vec<String> = members(&cluster)?.into_iter().filter(|id| *id != leader).collect();
    let others: Vec<&str> = others.iter().map(String::as_str).collect();
    let minority: &[&str] = &[&leader];
    // Even clients know only the leader of before, odd ones only the others.
    let load = Load::start(&cluster, context.seed, 6, &[minority, &others])?;
    let (with_leader, with_others) = (|client| client % 2 == 0, |client| client % 2 == 1);
    more_changes(&load, 20, ELECTED, |_| true)?;

    // The second time it probably follows: its clients lose their only way in all the same.
    for round in 0..2 {
        let cut = net.isolate(&[&leader]);
        let start = load.now();
        more_changes(&load, 40, ELECTED, with_others)
            .with_context(|| format!("{leader} is cut off\n{}", cluster.log_tails(12)))?;
        not_ready(&cluster, &leader)?;
        // What the old leader's side was told before it noticed, it may keep; from then on, nothing.
        let before = load.acknowledged(with_leader);
        work_goes_on(&load, context, &format!("rest {round}"), 100, with_others)?;
        let after = load.acknowledged(with_leader);
        ensure!(after == before, "a leader without a majority acknowledged {} changes", after - before);
        println!("{leader} cut off for {:.1} s", (load.now() - start) as f64 / 1e6);
        drop(cut);
        more_changes(&load, 10, ELECTED, with_leader)
            .with_context(|| format!("{leader} is back\n{}", cluster.log_tails(12)))?;
    }
    all_ready(&cluster, Duration::from_secs(20))?;
    load.stop()?;
    ledger.put_some("after")?;
    ledger.check()
}

fn one_way_partition(context: &Context) -> Result<()> {
    let (cluster, net) = Net::start(&ClusterOptions::default(), context.seed)?;
    let mut ledger = Ledger::new(&cluster, context.seed)?;
    let load = Load::start(&cluster, context.seed, 4, &[])?;
    more_changes(&load, 20, ELECTED, |_| true)?;
    for to_follower in [true, false] {
        let leader = cluster.leader()?;
        let followers: Vec<String> = members(&cluster)?.into_iter().filter(|id| *id != leader).collect();
        let label = format!("follower {to_follower}");
        let follower = &followers[content::number(context.seed, &label, followers.len() as u64) as usize];
        let (from, to) = if to_follower { (&leader, follower) } else { (follower, &leader) };
        let (before, began) = (term(&cluster)?, load.now());
        let cut = net.cut_one_way(&[from], &[to]);
        let told = || format!("{from} does not reach {to}, {leader} led\n{}", cluster.log_tails(12));
        if to_follower {
            not_ready(&cluster, to)?;
        }
        work_goes_on(&load, context, &format!("during {label}"), 200, |_| true).with_context(told)?;
        let during = term(&cluster)?;
        drop(cut);
        more_changes(&load, 20, ELECTED, |_| true).with_context(told)?;
        all_ready(&cluster, Duration::from_secs(20))?;
        let after = term(&cluster)?;
        println!(
            "{from} -/-> {to}: term {before}, {during}, {after}; {:.1} s",
            (load.now() - began) as f64 / 1e6
        );
        // The leader has a majority all the time, so none need stand; one change of leader is tolerated.
        ensure!(during <= before + 2 && after <= during + 2, "terms climb: {before}, {during}, {after}");
    }
    load.stop()?;
    ledger.put_some("after")?;
    ledger.check()
}

fn isolated_member_returns(context: &Context) -> Result<()> {
    let (cluster, net) = Net::start(&ClusterOptions::default(), context.seed)?;
    let mut ledger = Ledger::new(&cluster, context.seed)?;
    let load = Load::start(&cluster, context.seed, 4, &[])?;
    more_changes(&load, 20, ELECTED, |_| true)?;
    let leader = cluster.leader()?;
    let followers: Vec<String> = members(&cluster)?.into_iter().filter(|id| *id != leader).collect();
    let follower = &followers[content::number(context.seed, "follower", followers.len() as u64) as usize];
    let before = term(&cluster)?;
    let cut = net.isolate(&[follower]);
    let isolated = load.now();
    not_ready(&cluster, follower)?;
    work_goes_on(&load, context, "away", 200, |_| true)?;
    drop(cut);
    let returned = load.now();
    // Ready means that it heard the leader again: a higher term of its own would have been told by then.
    all_ready(&cluster, Duration::from_secs(20))?;
    work_goes_on(&load, context, "back", 100, |_| true)?;
    let settled = load.now();
    let (after, leads) = (term(&cluster)?, cluster.leader()?);
    let summary = load.stop()?;
    let (away, back) = (summary.pause(isolated, returned), summary.pause(returned, settled));
    println!(
        "{follower} away: writes paused {:.2} s; back: {:.2} s; term {before} -> {after}, {leader} -> {leads}",
        away.as_secs_f64(),
        back.as_secs_f64()
    );
    ensure!(leads == leader && after == before, "{follower} unseated {leader}: term {before} -> {after}");
    ensure!(away <= UNDISTURBED && back <= UNDISTURBED, "writes paused {away:?} and {back:?}");
    ledger.put_some("after")?;
    ledger.check()
}

fn five_voters(context: &Context) -> Result<()> {
    let cluster = Cluster::start(&ClusterOptions::default().metadata(5))?;
    let mut ledger = Ledger::new(&cluster, context.seed)?;
    ledger.put_some("before")?;
    let load = Load::start(&cluster, context.seed, 4, &[])?;
    more_changes(&load, 20, ELECTED, |_| true)?;
    for round in 0..2 {
        let leader = cluster.leader()?;
        let others: Vec<String> = members(&cluster)?.into_iter().filter(|id| *id != leader).collect();
        let drawn = content::number(context.seed, &format!("victim {round}"), others.len() as u64);
        let victims = [leader, others[drawn as usize].clone()];
        let start = load.now();
        for victim in &victims {
            cluster.kill_and_wait(victim)?;
        }
        more_changes(&load, 40, ELECTED, |_| true)
            .with_context(|| format!("{victims:?} are dead\n{}", cluster.log_tails(12)))?;
        println!("{victims:?} dead: 40 changes after {:.1} s", (load.now() - start) as f64 / 1e6);
        ledger.put_some(&format!("without two {round}"))?;
        for victim in &victims {
            cluster.start_process(victim)?;
        }
        more_changes(&load, 20, ELECTED, |_| true)?;
    }
    load.stop()?;
    ledger.put_some("after")?;
    ledger.check()
}
