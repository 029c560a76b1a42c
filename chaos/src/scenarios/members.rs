//! Metadata members whose disk forgets: they must not vote from what they lost, and come back by one
//! command.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::ledger::Ledger;
use super::{Context, Scenario, files_below};
use crate::cluster::{Cluster, ClusterOptions, Health, Starting, timed};
use crate::content;
use crate::wait::{throughout, until};

pub const WIPED_MEMBER: Scenario = Scenario {
    name: "wiped-member",
    about: "a metadata member loses its disk: blank it does not vote, one command brings it back",
    run: wiped_member,
};

pub const CUT_LOG: Scenario = Scenario {
    name: "cut-log",
    about: "a metadata member's log, then its whole disk, go back in time: it does not vote from what it lost",
    run: cut_log,
};

pub const MEMBERS_CHANGE: Scenario = Scenario {
    name: "members-change",
    about: "the leader, then a follower, is taken out and added again; two are taken out for good; files stay",
    run: members_change,
};

pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// One row of `cluster members ls`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Member {
    pub name: String,
    pub raft_id: String,
    pub votes: bool,
    pub reachable: bool,
}

pub(super) fn members(cluster: &Cluster) -> Result<Vec<Member>> {
    let answer = cluster.json(["cluster", "members", "ls"])?;
    let rows = answer["members"].as_array().context("members")?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or("").to_owned();
    Ok(rows
        .iter()
        .map(|row| Member {
            name: text(&row["name"]),
            raft_id: text(&row["raft_id"]),
            votes: row["role"] != "learner",
            reachable: row["reachable"] == true,
        })
        .collect())
}

pub(super) fn raft_id(cluster: &Cluster, name: &str) -> Result<String> {
    let all = members(cluster)?;
    let member = all.iter().find(|m| m.name == name).with_context(|| format!("no {name} in {all:?}"))?;
    Ok(member.raft_id.clone())
}

/// The leader for an even seed, a follower for an odd one.
pub(super) fn victim(cluster: &Cluster, seed: u64) -> Result<String> {
    let leader = cluster.leader()?;
    if seed.is_multiple_of(2) { Ok(leader) } else { other_member(cluster, &leader, seed) }
}

/// One of the metadata servers besides `name`.
pub(super) fn other_member(cluster: &Cluster, name: &str, seed: u64) -> Result<String> {
    let others: Vec<String> =
        cluster.role("metadata-server")?.into_iter().map(|p| p.id).filter(|id| id != name).collect();
    let place = content::number(seed, "other member", others.len() as u64) as usize;
    others.get(place).cloned().context("another metadata server")
}

/// It runs, and waits to be added.
pub(super) fn until_blank(cluster: &Cluster, name: &str) -> Result<()> {
    until(&format!("{name} waiting to be added"), PATIENCE, || match cluster.health(name)? {
        Health::NotReady(why) if why.contains("waiting for a cluster") => Ok(()),
        other => bail!("{other:?}"),
    })
    .with_context(|| cluster.log_tails(12))
}

/// Nobody answers under the member's name and old raft id, and no other row of that name is there.
pub(super) fn ensure_out(cluster: &Cluster, name: &str, old: &str) -> Result<()> {
    let all = members(cluster)?;
    let rows: Vec<&Member> = all.iter().filter(|m| m.name == name).collect();
    ensure!(
        rows.len() == 1 && rows[0].raft_id == old && !rows[0].reachable,
        "{name} takes part although it lost its log (it was {old}): {all:?}"
    );
    Ok(())
}

/// With one more member gone there is no majority, unless the blank one votes.
fn ensure_no_vote(cluster: &Cluster, blank: &str, seed: u64) -> Result<()> {
    let other = other_member(cluster, blank, seed)?;
    cluster.kill_and_wait(&other)?;
    for words in [["cluster", "status"].as_slice(), &["bucket", "create", "must-not-be"]] {
        let output = timed(&mut cluster.command(words))?;
        ensure!(!output.status.success(), "{words:?} worked with one member of three and the blank {blank}");
    }
    ensure!(cluster.health(blank)? != Health::Ready, "{blank} takes part in a cluster it was not added to");
    cluster.start_process(&other)
}

/// The one command of the documentation; then the member has a new raft id.
pub(super) fn bring_back(cluster: &Cluster, name: &str, old: &str) -> Result<()> {
    cluster.dfsctl(["cluster", "members", "add", name]).with_context(|| cluster.log_tails(12))?;
    let all = members(cluster)?;
    ensure!(
        all.len() == 3
            && all.iter().all(|m| m.votes && m.reachable)
            && all.iter().any(|m| m.name == name && m.raft_id != old),
        "{name} (it was {old}) is not back: {all:?}"
    );
    Ok(())
}

/// Without one of the others, the cluster needs this member's vote, and its copy of the log.
pub(super) fn ensure_votes(cluster: &Cluster, name: &str, ledger: &mut Ledger<'_>, seed: u64) -> Result<()> {
    let other = other_member(cluster, name, seed.wrapping_add(1))?;
    cluster.kill_and_wait(&other)?;
    ledger.put_some(&format!("without {other}")).with_context(|| cluster.log_tails(12))?;
    ledger.check()?;
    cluster.start_process(&other)
}

fn wiped_member(context: &Context) -> Result<()> {
    let cluster = Cluster::start(&ClusterOptions::default())?;
    let mut ledger = Ledger::new(&cluster, context.seed)?;
    ledger.put_some("before")?;
    let victim = victim(&cluster, context.seed)?;
    let old = raft_id(&cluster, &victim)?;
    cluster.kill_and_wait(&victim)?;
    std::fs::remove_dir_all(cluster.process(&victim)?.data_dir)?;
    let _starting = cluster.begin_start(&victim)?;
    until_blank(&cluster, &victim)?;

    ledger.put_some("while it is blank")?;
    ledger.check()?;
    ensure_out(&cluster, &victim, &old)?;
    ensure_no_vote(&cluster, &victim, context.seed)?;
    ledger.put_some("with a majority again")?;
    bring_back(&cluster, &victim, &old)?;
    ensure_votes(&cluster, &victim, &mut ledger, context.seed)
}

/// The log alone goes back: the witness beside it tells, at the start, and the raft id is given up.
/// Everything goes back, witness included: a leader that had this member's word for the lost entries
/// tells, with the first entries it sends, and the raft id is given up too. A leader that began
/// later has no such word; from it the member takes the lost entries again, before it can vote for
/// anybody who lacks them: that leader's votes came from members who have them.
fn cut_log(context: &Context) -> Result<()> {
    let cluster = Cluster::start(&ClusterOptions::default())?;
    let mut ledger = Ledger::new(&cluster, context.seed)?;
    for (round, parts) in [["log"].as_slice(), &[]].into_iter().enumerate() {
        let seed = context.seed.wrapping_add(round as u64);
        ledger.put_some(&format!("{round} before"))?;
        let victim = victim(&cluster, seed)?;
        let old = raft_id(&cluster, &victim)?;
        let data = cluster.process(&victim)?.data_dir;
        let kept = cluster.scratch().join(format!("kept{round}"));
        cluster.stop_process(&victim)?;
        copy_tree(&data, &kept)?;
        cluster.start_process(&victim)?;
        ledger.put_some(&format!("{round} lost"))?;
        cluster.stop_process(&victim)?;
        if parts.is_empty() {
            std::fs::remove_dir_all(&data)?;
            copy_tree(&kept, &data)?;
        }
        for part in parts {
            std::fs::remove_dir_all(data.join(part))?;
            copy_tree(&kept.join(part), &data.join(part))?;
        }

        let (outcome, _starting) = start_forgetful(&cluster, &victim)
            .with_context(|| format!("{victim} lost {parts:?} (nothing named: everything)"))?;
        println!("  {victim} lost {parts:?}: {outcome:?}");
        ensure!(outcome == Outcome::Blank || parts.is_empty(), "{victim} did not see that its log is cut");
        ledger.put_some(&format!("{round} after the loss"))?;
        ledger.check()?;
        match outcome {
            Outcome::Blank => {
                ensure_out(&cluster, &victim, &old)?;
                ensure_no_vote(&cluster, &victim, seed)?;
                bring_back(&cluster, &victim, &old)?;
            }
            Outcome::CaughtUp => {}
        }
        ensure_votes(&cluster, &victim, &mut ledger, seed)?;
    }
    Ok(())
}

/// What becomes of a member whose log went back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// It gave up its raft id and waits to be added.
    Blank,
    /// It took what it had lost from the leader.
    CaughtUp,
}

/// Starts a member whose log went back. It may find out only from the leader; then it ends, and is
/// blank when it starts again.
fn start_forgetful(cluster: &Cluster, name: &str) -> Result<(Outcome, Starting)> {
    let first = cluster.begin_start(name)?;
    let found = until(&format!("{name} finding out that it lost entries"), PATIENCE, || {
        match cluster.health(name)? {
            Health::NotReady(why) if why.contains("waiting for a cluster") => Ok(Some(Outcome::Blank)),
            Health::Ready if first.is_over()? => Ok(Some(Outcome::CaughtUp)),
            Health::Gone if first.is_over()? => Ok(None),
            other => bail!("{other:?}"),
        }
    })
    .with_context(|| cluster.log_tails(12))?;
    if let Some(outcome) = found {
        return Ok((outcome, first));
    }
    let second = cluster.begin_start(name)?;
    until_blank(cluster, name)?;
    Ok((Outcome::Blank, second))
}

pub(super) fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    for file in files_below(from)? {
        let target = to.join(file.strip_prefix(from)?);
        std::fs::create_dir_all(target.parent().context("a file has a folder")?)?;
        std::fs::copy(&file, &target).with_context(|| format!("copying {}", file.display()))?;
    }
    Ok(())
}

/// Puts a file of that name, and reads all that were put before.
fn put_and_read(cluster: &Cluster, seed: u64, labels: &mut Vec<String>, label: &str) -> Result<()> {
    const LENGTH: u64 = 5 << 20;
    let source = cluster.scratch().join("source");
    content::write_file(&source, seed, label, LENGTH)?;
    cluster.dfsctl([Path::new("put"), &source, Path::new(&format!("dfs://members/{label}"))])?;
    labels.push(label.to_owned());
    for label in labels {
        let back = cluster.dfsctl(["cat", &format!("dfs://members/{label}")])?;
        content::check_reader(&back[..], seed, label, LENGTH)?;
    }
    Ok(())
}

fn take_out(cluster: &Cluster, name: &str) -> Result<()> {
    let before = members(cluster)?.len();
    cluster.dfsctl(["cluster", "members", "remove", name]).with_context(|| cluster.log_tails(12))?;
    until(&format!("the others without {name}"), PATIENCE, || {
        let all = members(cluster)?;
        let well = all.iter().all(|member| member.name != name && member.reachable);
        ensure!(all.len() == before - 1 && well && cluster.leader()? != name, "{all:?}");
        Ok(())
    })?;
    until(&format!("{name} to say that it is out"), PATIENCE, || match cluster.health(name)? {
        Health::NotReady(why) => {
            println!("  {name}: {why}");
            Ok(())
        }
        other => bail!("{other:?}"),
    })
}

fn members_change(context: &Context) -> Result<()> {
    let cluster = Cluster::start(&ClusterOptions::default())?;
    cluster.dfsctl(["bucket", "create", "members"])?;
    let (seed, mut labels) = (context.seed, Vec::new());
    put_and_read(&cluster, seed, &mut labels, "before")?;
    let leader = cluster.leader()?;
    for name in [leader.clone(), other_member(&cluster, &leader, seed)?] {
        take_out(&cluster, &name)?;
        put_and_read(&cluster, seed, &mut labels, &format!("without {name}"))?;
        // It runs on, and must not unseat who leads.
        let term = |status: serde_json::Value| (status["term"].clone(), status["leader"].clone());
        let before = term(cluster.json(["cluster", "status"])?);
        throughout("the lead stays", Duration::from_secs(5), || {
            let now = term(cluster.json(["cluster", "status"])?);
            ensure!(now == before, "{before:?} became {now:?}");
            Ok(())
        })?;
        let address = cluster.process(&name)?.addresses["api"].clone();
        cluster
            .dfsctl(["cluster", "members", "add", &name, &address])
            .with_context(|| cluster.log_tails(12))?;
        until(&format!("{name} to be ready again"), PATIENCE, || {
            let all = members(&cluster)?;
            ensure!(all.len() == 3 && all.iter().all(|member| member.votes && member.reachable), "{all:?}");
            ensure!(cluster.health(&name)? == Health::Ready, "{:?}", cluster.health(&name)?);
            Ok(())
        })?;
        put_and_read(&cluster, seed, &mut labels, &format!("with {name}"))?;
    }
    let stays = victim(&cluster, seed)?;
    for name in cluster.names("metadata-server")? {
        if name != stays {
            take_out(&cluster, &name)?;
            cluster.stop_process(&name)?;
        }
    }
    put_and_read(&cluster, seed, &mut labels, "alone")?;
    let refused = cluster.command(["cluster", "members", "remove", &stays]).output()?;
    ensure!(refused.status.code() == Some(4), "the last member: {refused:?}");
    put_and_read(&cluster, seed, &mut labels, "still alone")
}
