//! fsync that fails, reads that fail, and processes that end at an fsync.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::members::{PATIENCE, members, other_member, victim};
use super::{Context, Scenario, rounds};
use crate::book::Book;
use crate::cluster::{Cluster, ClusterOptions, Health};
use crate::content;
use crate::faults::shim::{Action, Op, Rule, Shim};
use crate::wait::until;

pub const FSYNC_FAILS: Scenario = Scenario {
    name: "fsync-fails",
    about: "EIO on fsync of the Raft log, its witness and a segment, on reads of a segment: nobody says yes to it",
    run: fsync_fails,
};

pub const CRASH_AT_EACH_SYNC: Scenario = Scenario {
    name: "crash-at-each-sync",
    about: "SIGKILL at the n-th fsync of a server's life, for many n: old or new, nothing acknowledged lost",
    run: crash_at_each_sync,
};

const WRITERS: usize = 3;

/// A cluster whose servers all have the shim, with no rule yet. The folder is the shim's.
fn shimmed(chunk_servers: usize) -> Result<(tempfile::TempDir, Shim, Cluster)> {
    let folder = tempfile::Builder::new().prefix("dfs-shim-").tempdir()?;
    let shim = Shim::new(folder.path())?;
    shim.set(&[])?;
    let mut options = ClusterOptions::default().chunk_servers(chunk_servers);
    for (name, value) in shim.environment() {
        options = options.set(&name, value);
    }
    let cluster = Cluster::start(&options)?;
    Ok((folder, shim, cluster))
}

fn path_text(path: &Path) -> Result<String> {
    Ok(path.to_str().context("a UTF-8 folder")?.to_owned())
}

fn until_gone(cluster: &Cluster, id: &str) -> Result<()> {
    until(&format!("{id} to end"), PATIENCE, || match cluster.health(id)? {
        Health::Gone => Ok(()),
        other => bail!("{other:?}"),
    })
    .with_context(|| cluster.log_tails(8))
}

fn fsync_fails(context: &Context) -> Result<()> {
    let (_folder, shim, cluster) = shimmed(4)?;
    let book = Book::new(&cluster, context.seed)?;
    book.put(3)?;
    for (round, part) in ["log/", "slots"].into_iter().enumerate() {
        member_fails(&cluster, &shim, &book, part, context.seed.wrapping_add(round as u64))
            .with_context(|| format!("EIO on fsync of {part} of a metadata server"))?;
    }
    let node = format!("n{}", 1 + content::number(context.seed, "node", 4));
    segment_fails(&cluster, &shim, &book, &node)
        .with_context(|| format!("EIO on fsync of a segment of {node}"))?;
    reads_fail(&cluster, &shim, &book).context("EIO on reads of segments")
}

/// One fsync of `part` fails; the next would say yes. The member ends all the same; the others go on,
/// and started again it is right.
fn member_fails(cluster: &Cluster, shim: &Shim, book: &Book<'_>, part: &str, seed: u64) -> Result<()> {
    let victim = victim(cluster, seed)?;
    let before = members(cluster)?;
    let path = path_text(&cluster.process(&victim)?.data_dir.join(part))?;
    book.under_load(WRITERS, || {
        shim.set(&[Rule { op: Op::Sync, action: Action::Fail, from: 3, once: true, part: &path }])?;
        until_gone(cluster, &victim)
    })?;
    let hits = shim.hits()?;
    ensure!(hits.len() == 1, "{victim} ended, but the failed calls were {hits:?}");
    println!("  {victim} ended at {}", hits[0]);
    shim.set(&[])?;
    book.put(2).context("the others go on")?;
    cluster.start_process(&victim).with_context(|| cluster.log_tails(12))?;
    book.check()?;
    ensure!(members(cluster)? == before, "{victim} came back as somebody else: {:?}", members(cluster)?);
    // Now its log is needed.
    let other = other_member(cluster, &victim, seed)?;
    cluster.kill_and_wait(&other)?;
    book.put(1).with_context(|| cluster.log_tails(12))?;
    book.check()?;
    cluster.start_process(&other)
}

/// The fsync of a segment fails once during puts: what waited for it is not acknowledged from there, the
/// puts succeed with other nodes, and after restart the node claims nothing it has not.
fn segment_fails(cluster: &Cluster, shim: &Shim, book: &Book<'_>, node: &str) -> Result<()> {
    let segments = cluster.process(node)?.data_dir.join("segments");
    let path = path_text(&segments)?;
    let failures = book.failures().len();
    book.under_load(WRITERS, || {
        shim.set(&[Rule { op: Op::Sync, action: Action::Fail, from: 2, once: true, part: &path }])?;
        let hit = until("a segment's fsync to fail", PATIENCE, || {
            shim.hits()?.pop().with_context(|| format!("no fsync of a segment of {node}"))
        })?;
        println!("  {node}: {hit}");
        let segment = PathBuf::from(hit.splitn(3, ' ').nth(2).context("a path in the hit")?);
        // Durably so, or its good records have already been moved out.
        until("the segment to be poisoned", PATIENCE, || {
            ensure!(
                segment.with_extension("poison").exists() || !segment.exists(),
                "{} goes on as if nothing had been",
                segment.display()
            );
            Ok(())
        })?;
        // Long enough for the puts that it struck to end.
        let enough = book.acknowledged() + 15;
        until("more puts", PATIENCE, || {
            ensure!(book.acknowledged() >= enough, "{} acknowledged", book.acknowledged());
            Ok(())
        })
    })?;
    shim.set(&[])?;
    let failed = book.failures().split_off(failures);
    ensure!(failed.is_empty(), "puts failed that three other nodes could take: {failed:?}");
    cluster.kill_these(&[node.to_owned()])?;
    cluster.start_process(node)?;
    book.check()?;
    truthful(cluster, book, node)
}

/// Everything is at target, and no chunk is listed on a node that has not got its bytes: with all other
/// nodes but one dead, every file reads.
fn truthful(cluster: &Cluster, book: &Book<'_>, node: &str) -> Result<()> {
    full_copies(cluster, book)?;
    let others: Vec<String> = cluster.names("chunk-server")?.into_iter().filter(|id| id != node).collect();
    // Three copies on four nodes: any two nodes have everything.
    let dead = &others[..2];
    cluster.kill_these(dead)?;
    book.check().with_context(|| format!("only {node} and {} are left", others[2]))?;
    cluster.start_all(dead)
}

/// As the metadata service counts them; whether it counts right, [`truthful`] shows. A census of the
/// disks would count bytes of puts that were cut off, too.
fn full_copies(cluster: &Cluster, book: &Book<'_>) -> Result<()> {
    until("all copies of every file", Duration::from_secs(90), || book.at_target())
        .with_context(|| cluster.log_tails(12))
}

/// A disk that does not give its bytes: readers get them elsewhere, and when it answers again all is
/// at target. Readers choose whom they ask, so nodes take turns until one was asked.
fn reads_fail(cluster: &Cluster, shim: &Shim, book: &Book<'_>) -> Result<()> {
    for node in cluster.names("chunk-server")? {
        let path = path_text(&cluster.process(&node)?.data_dir.join("segments"))?;
        shim.set(&[Rule { op: Op::Read, action: Action::Fail, from: 1, once: false, part: &path }])?;
        for _ in 0..2 {
            book.check().with_context(|| format!("{node} cannot read its segments"))?;
        }
        let hits = shim.hits()?.len();
        shim.set(&[])?;
        if hits > 0 {
            println!("  {hits} reads of {node} failed, every file was read");
            return truthful(cluster, book, &node);
        }
    }
    bail!("no node was read from: this tested nothing")
}

/// n counts from the process's start, so its first syncs are those of a recovery.
fn crash_at_each_sync(context: &Context) -> Result<()> {
    let (_folder, shim, cluster) = shimmed(3)?;
    let book = Book::new(&cluster, context.seed)?;
    book.put(3)?;
    let before = members(&cluster)?;
    let steps = rounds("CHAOS_SYNC_STEPS", 12);
    let (mut n, mut struck) = (1, 0);
    for step in 0..steps {
        let role = ["metadata-server", "chunk-server"][(step % 2) as usize];
        let names = cluster.names(role)?;
        let victim =
            &names[content::number(context.seed, &format!("victim {step}"), names.len() as u64) as usize];
        let data = path_text(&cluster.process(victim)?.data_dir)?;
        let action = match content::number(context.seed, &format!("action {step}"), 2) {
            0 => Action::Kill,
            _ => Action::KillAfter,
        };
        cluster.kill_these(std::slice::from_ref(victim))?;
        let begun = Instant::now();
        let _starting = book.under_load(WRITERS, || {
            shim.set(&[Rule { op: Op::Sync, action, from: n, once: true, part: &data }])?;
            let starting = cluster.begin_start(victim)?;
            until(&format!("sync {n} of {victim}"), PATIENCE, || match shim.hits()?.is_empty() {
                true => bail!("not come to yet"),
                false => Ok(()),
            })
            .with_context(|| cluster.log_tails(8))?;
            until_gone(&cluster, victim)?;
            Ok(starting)
        })?;
        struck += 1;
        println!("  {victim} ended at {} after {:.1} s", shim.hits()?[0], begun.elapsed().as_secs_f64());
        shim.set(&[])?;
        cluster.start_process(victim).with_context(|| cluster.log_tails(12))?;
        book.check()
            .with_context(|| format!("{victim} was killed at its sync {n}\n{}", cluster.log_tails(12)))?;
        ensure!(
            members(&cluster)? == before,
            "{victim} came back as somebody else: {:?}",
            members(&cluster)?
        );
        // Both roles meet each n, then it grows, slowly at first: a start has few syncs.
        if step % 2 == 1 {
            n += 1 + content::number(context.seed, &format!("step {step}"), 1 + n / 2);
        }
    }
    ensure!(
        struck == steps && book.acknowledged() > 10,
        "{struck} crashes, {} acknowledged",
        book.acknowledged()
    );
    for member in cluster.names("metadata-server")? {
        cluster.kill_and_wait(&member)?;
        book.put(1).with_context(|| format!("without {member}"))?;
        cluster.start_process(&member)?;
    }
    full_copies(&cluster, &book)?;
    for node in cluster.names("chunk-server")? {
        let others: Vec<String> =
            cluster.names("chunk-server")?.into_iter().filter(|id| *id != node).collect();
        cluster.kill_these(&others)?;
        book.check().with_context(|| format!("only {node} is left, and has a copy of everything"))?;
        cluster.start_all(&others)?;
    }
    Ok(())
}
