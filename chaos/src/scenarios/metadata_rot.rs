//! A byte that changes in a metadata member's files while it is down.
//!
//! What this found: a leader with a rotten block or blob of its state went on leading and answered `io` for
//! the keys in it, for ever, though the other members had them; a rotten table of the log ended each start
//! anew, with no command that helped; and a snapshot of a rotten state was handed on.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use super::members::{Outcome, PATIENCE, bring_back, ensure_out, other_member, raft_id, victim};
use super::rot::flip;
use super::{Context, Scenario, files_below};
use crate::book::Book;
use crate::cluster::{Cluster, ClusterOptions, Health, Starting};
use crate::content;
use crate::wait::until;

pub const FLIPPED_METADATA: Scenario = Scenario {
    name: "flipped-metadata",
    about: "a byte flipped in log, state or witness of a metadata member: found out, one command, nothing lost",
    run: flipped_metadata,
};

/// Where: folder or file of the data directory, how the file's name begins and ends.
const PLACES: [(&str, &str, &str); 9] = [
    ("log", "0", ".log"),
    ("log", "0", ".sst"),
    ("log", "MANIFEST", ""),
    ("state", "0", ".log"),
    ("state", "0", ".sst"),
    ("state", "MANIFEST", ""),
    ("state", "0", ".blob"),
    ("slots", "slots", ""),
    ("marks", "marks", ""),
];

fn flipped_metadata(context: &Context) -> Result<()> {
    // Small snapshots, so that the state reaches its tables.
    let cluster = Cluster::start(&ClusterOptions::default().set("DFS_SNAPSHOT_ENTRIES", 200))?;
    let book = Book::new(&cluster, context.seed)?;
    book.put(6)?;
    // A start writes what the log before it had into tables.
    for member in cluster.names("metadata-server")? {
        cluster.stop_process(&member)?;
        cluster.start_process(&member)?;
    }
    book.put(4)?;
    for (round, place) in PLACES.into_iter().enumerate() {
        let seed = context.seed.wrapping_add(round as u64);
        one_flip(&cluster, &book, place, seed).with_context(|| format!("a flip in {place:?}"))?;
    }
    book.check()
}

fn one_flip(cluster: &Cluster, book: &Book<'_>, place: (&str, &str, &str), seed: u64) -> Result<()> {
    let victim = victim(cluster, seed)?;
    let old = raft_id(cluster, &victim)?;
    cluster.stop_process(&victim)?;
    let data = cluster.process(&victim)?.data_dir;
    let Some(file) = largest(&data, place)? else {
        println!("  {victim} has no {place:?}");
        return cluster.start_process(&victim);
    };
    let length = std::fs::metadata(&file)?.len();
    let offset = content::number(seed, "offset", length);
    flip(&file, offset)?;
    let (mut outcome, starting) = start_damaged(cluster, &victim)?;
    drop(starting);
    let told = || cluster.log_tails(12);
    book.put(1).with_context(told)?;
    // What is read from: if its state is damaged, it hands over, and readers notice nothing.
    if outcome == Outcome::CaughtUp {
        make_lead(cluster, &victim)?;
    }
    book.check().with_context(told)?;
    let mut when = "at its start";
    if outcome == Outcome::CaughtUp && cluster.health(&victim)? != Health::Ready {
        (outcome, when) = (start_damaged(cluster, &victim)?.0, "when it was read from");
    }
    let name = file.strip_prefix(&data)?.display();
    println!("  {victim}: byte {offset} of {length} of {name}: {outcome:?} {when}");
    match outcome {
        Outcome::Blank => {
            ensure_out(cluster, &victim, &old)?;
            bring_back(cluster, &victim, &old)?;
        }
        Outcome::CaughtUp => {
            ensure!(raft_id(cluster, &victim)? == old, "{victim} has another raft id, and nobody added it");
        }
    }
    // Its vote and its log are needed.
    let other = other_member(cluster, &victim, seed)?;
    cluster.kill_and_wait(&other)?;
    book.put(1).with_context(told)?;
    book.check().with_context(told)?;
    cluster.start_process(&other)
}

/// Restarts whoever leads until this member does; not for ever, the others may be luckier.
fn make_lead(cluster: &Cluster, name: &str) -> Result<()> {
    for _ in 0..6 {
        let leader = cluster.leader()?;
        if leader == name || has_ended(cluster, name)? {
            return Ok(());
        }
        cluster.kill_and_wait(&leader)?;
        // It may have found its damage, and ended, at the very moment the leader was killed: then two of
        // three are gone, and there is no leader until this one is back.
        let elected = cluster.leader();
        let ended = has_ended(cluster, name)?;
        cluster.start_process(&leader)?;
        match elected {
            Ok(_) => {}
            Err(_) if ended => return cluster.leader().map(drop),
            Err(error) => return Err(error),
        }
    }
    println!("  {name} does not get to lead");
    Ok(())
}

/// Whether a member gave itself up.
fn has_ended(cluster: &Cluster, name: &str) -> Result<bool> {
    Ok(match cluster.health(name)? {
        Health::Gone => true,
        Health::NotReady(why) => why.contains("waiting for a cluster"),
        Health::Ready => false,
    })
}

/// The largest of the files that a place means: in the state, of the database that counts.
fn largest(data: &Path, (folder, begin, end): (&str, &str, &str)) -> Result<Option<PathBuf>> {
    let mut found = Vec::new();
    for file in files_below(&data.join(folder))? {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or("");
        let length = std::fs::metadata(&file)?.len();
        if name.starts_with(begin) && name.ends_with(end) && length > 0 {
            found.push((length, file));
        }
    }
    found.sort();
    Ok(found.pop().map(|(_, file)| file))
}

/// Starts it until it is ready or blank. It may find out while it runs, and then ends once.
pub(super) fn start_damaged(cluster: &Cluster, name: &str) -> Result<(Outcome, Starting)> {
    let mut starting = cluster.begin_start(name)?;
    let mut starts = 1;
    let outcome = until(&format!("{name} to be ready, or to find the damage"), PATIENCE, || {
        match cluster.health(name)? {
            Health::NotReady(why) if why.contains("waiting for a cluster") => Ok(Outcome::Blank),
            Health::Ready if starting.is_over()? => Ok(Outcome::CaughtUp),
            Health::Gone if starting.is_over()? && starts < 3 => {
                starting = cluster.begin_start(name)?;
                starts += 1;
                bail!("it ended, and is started again")
            }
            other => bail!("{other:?} after {starts} starts"),
        }
    })
    .with_context(|| cluster.log_tails(12))?;
    Ok((outcome, starting))
}
