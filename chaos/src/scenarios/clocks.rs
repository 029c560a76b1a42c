//! The wall clock of one metadata server jumps while it runs.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::members::victim;
use super::{Context, Scenario, rounds};
use crate::book::Book;
use crate::cluster::{Cluster, ClusterOptions};
use crate::faults::clock::WallClock;
use crate::wait::until;

pub const CLOCK_JUMPS: Scenario = Scenario {
    name: "clock-jumps",
    about: "the wall clock of a metadata server jumps by hours and days: no put fails, nothing expires early",
    run: clock_jumps,
};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
/// Puts during each jump.
const PUTS: usize = 12;
const PATIENCE: Duration = Duration::from_secs(40);

fn clock_jumps(context: &Context) -> Result<()> {
    let cluster = Cluster::start(&ClusterOptions::default())?;
    let clock = WallClock::new(&cluster.scratch())?;
    let book = Book::new(&cluster, context.seed)?;
    book.put(2)?;
    let kept = Kept::new(&cluster)?;
    // The leader for an even seed: after its restart another leads, so all members go by this clock's
    // environment in turn until one that does leads.
    let victim = match context.seed % 2 {
        0 => leader_with(&cluster, &clock)?,
        _ => {
            let follower = victim(&cluster, context.seed)?;
            cluster.stop_process(&follower)?;
            cluster.start_with(std::slice::from_ref(&follower), &clock.environment())?;
            follower
        }
    };
    let leads = cluster.leader()? == victim;
    println!("  the clock of {victim} jumps; it {}", if leads { "leads" } else { "follows" });
    let before = cluster.leader()?;
    for turn in 0..rounds("CHAOS_CLOCK_ROUNDS", 1) {
        for seconds in [HOUR, -HOUR, DAY, -DAY, 0] {
            let enough = book.acknowledged() + PUTS;
            book.under_load(3, || {
                clock.jump(seconds)?;
                until("puts to go on", PATIENCE, || {
                    ensure!(book.acknowledged() >= enough, "{} of {enough}", book.acknowledged());
                    Ok(())
                })
            })
            .and_then(|()| {
                let failures = book.failures();
                ensure!(failures.is_empty(), "puts failed: {failures:?}");
                book.check()?;
                kept.check(&cluster)
            })
            .with_context(|| format!("turn {turn}: {victim} {seconds:+} s\n{}", cluster.log_tails(8)))?;
        }
    }
    let after = cluster.leader()?;
    ensure!(after == before, "the lead went from {before} to {after}: a wall clock has no say in that");
    Ok(())
}

/// Restarts members with the clock until one of them leads.
fn leader_with(cluster: &Cluster, clock: &WallClock) -> Result<String> {
    let mut with = Vec::new();
    loop {
        let leader = cluster.leader()?;
        if with.contains(&leader) {
            return Ok(leader);
        }
        cluster.stop_process(&leader)?;
        cluster.start_with(std::slice::from_ref(&leader), &clock.environment())?;
        with.push(leader);
    }
}

/// What is kept for 24 hours by default: an older version and a deleted file.
struct Kept;

impl Kept {
    fn new(cluster: &Cluster) -> Result<Self> {
        cluster.dfsctl(["bucket", "create", "kept"])?;
        let source = cluster.scratch().join("kept");
        let source = source.to_str().context("a UTF-8 folder")?;
        for text in ["old", "new"] {
            std::fs::write(source, text.repeat(30_000))?;
            cluster.dfsctl(["put", source, "dfs://kept/versions"])?;
        }
        cluster.dfsctl(["put", source, "dfs://kept/deleted"])?;
        cluster.dfsctl(["rm", "dfs://kept/deleted"])?;
        let kept = Self;
        kept.check(cluster)?;
        Ok(kept)
    }

    fn check(&self, cluster: &Cluster) -> Result<()> {
        let answer = cluster.json(["stat", "--versions", "dfs://kept/versions"])?;
        let versions = answer["versions"].as_array().context("versions")?;
        ensure!(versions.len() == 2, "the older version went early: {answer}");
        for version in versions {
            let number = version["version"].to_string();
            let number = number.trim_matches('"');
            let bytes = cluster.dfsctl(["get", "--version", number, "dfs://kept/versions", "-"])?;
            ensure!(bytes.len() == 90_000, "version {number} has {} bytes", bytes.len());
        }
        cluster.dfsctl(["stat", "--deleted", "dfs://kept/deleted"]).context("the deleted file went early")?;
        Ok(())
    }
}
