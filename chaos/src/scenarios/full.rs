//! Chunk servers whose disks are really full: of chunks, of inodes, of somebody else's files; and one whose
//! file system goes read-only.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::{Context, Scenario};
use crate::cluster::{Cluster, ClusterOptions, Health, checked};
use crate::content;
use crate::disks;
use crate::faults::images::{Disk, FileSystem, private_mounts};
use crate::wait::until;

pub const CHUNK_DISK_FULL: Scenario = Scenario {
    name: "chunk-disk-full",
    about: "one disk full, then all, one out of inodes, one full of other files, one limited: no false ack, reads and deletes go on",
    run: chunk_disk_full,
};

pub const READ_ONLY_DISK: Scenario = Scenario {
    name: "read-only-disk",
    about: "a node's file system goes read-only: it says so, reads go on, and after a repair it has everything",
    run: read_only_disk,
};

const LENGTH: u64 = 3 << 20;
const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(60);
/// What dfsctl exits with when there is no room: `no_space` and `not_enough_nodes` of docs/operations.md.
const NO_ROOM_EXIT: i32 = 6;

/// A tmpfs, gone when this is dropped, whoever still has files in it.
struct Mount(PathBuf);

impl Mount {
    /// Under what is in `path`, which moves there. Nobody may use it meanwhile.
    fn under(path: &Path, mib: u64) -> Result<Self> {
        let aside = path.with_extension("before");
        std::fs::rename(path, &aside)?;
        std::fs::create_dir(path)?;
        let options = format!("size={mib}m,mode=700");
        let mut command = Command::new("mount");
        checked("mount", command.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path).output()?)?;
        let mount = Self(path.to_owned());
        checked("cp", Command::new("cp").arg("-a").arg(aside.join(".")).arg(path).output()?)?;
        std::fs::remove_dir_all(aside)?;
        Ok(mount)
    }

    fn set_inodes(&self, count: u64) -> Result<()> {
        let options = format!("remount,nr_inodes={count}");
        checked("remount", Command::new("mount").args(["-o", &options]).arg(&self.0).output()?).map(drop)
    }

    fn inodes_used(&self) -> Result<u64> {
        let stat = rustix::fs::statvfs(&self.0)?;
        Ok(stat.f_files - stat.f_ffree)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

struct Files<'a> {
    cluster: &'a Cluster,
    seed: u64,
    kept: Vec<String>,
    next: usize,
}

impl Files<'_> {
    fn address(label: &str) -> String {
        format!("dfs://full/{label}")
    }

    /// Puts one more file; the exit code and what was printed if it is refused.
    fn put(&mut self) -> Result<Option<(Option<i32>, String)>> {
        let label = format!("file-{}", self.next);
        self.next += 1;
        let source = self.cluster.scratch().join("source");
        content::write_file(&source, self.seed, &label, LENGTH)?;
        let mut command =
            self.cluster.command([Path::new("put"), &source, Path::new(&Self::address(&label))]);
        let output = command.output()?;
        if output.status.success() {
            self.kept.push(label);
            return Ok(None);
        }
        // What was refused is not there.
        let stat = self.cluster.command(["stat", &Self::address(&label)]).output()?;
        ensure!(!stat.status.success(), "{label} was refused and is there");
        Ok(Some((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())))
    }

    fn check(&self) -> Result<()> {
        for label in &self.kept {
            let back = self.cluster.dfsctl(["cat", &Self::address(label)])?;
            content::check_reader(&back[..], self.seed, label, LENGTH)
                .with_context(|| format!("{label} was acknowledged"))?;
        }
        Ok(())
    }

    fn remove_all_but(&mut self, count: usize) -> Result<()> {
        for label in self.kept.split_off(count) {
            self.cluster.dfsctl(["rm", "--purge", &Self::address(&label)])?;
        }
        Ok(())
    }

    /// Three copies of everything on the disks, and nothing waits.
    fn settled(&self) -> Result<()> {
        until("three copies of every chunk on the disks", PATIENCE, || {
            let status = self.cluster.json(["cluster", "status"])?;
            ensure!(status["deficits"] == 0 && status["pending_purges"] == 0, "{status}");
            let copies = disks::copies(self.cluster, &[])?;
            let whole = copies.values().filter(|copies| **copies == 3).count();
            ensure!(whole >= self.kept.len(), "{whole} chunks of {} files on three disks", self.kept.len());
            Ok(())
        })
    }
}

fn options() -> ClusterOptions {
    ClusterOptions::default()
        .set("DFS_SEGMENT_BYTES", 4 * MIB)
        .set("DFS_COMPACT_IDLE_MS", 100)
        .set("DFS_TRASH_PERIOD_MS", 100)
        .set("DFS_BACKGROUND_MS", 50)
        .set("DFS_TICK_MS", 100)
}

fn chunk_disk_full(context: &Context) -> Result<()> {
    private_mounts()?;
    let cluster = Cluster::start(&options())?;
    let mut mounts = Vec::new();
    for (node, mib) in cluster.role("chunk-server")?.iter().zip([64, 96, 96]) {
        cluster.stop_process(&node.id)?;
        mounts.push(Mount::under(&node.data_dir, mib)?);
        cluster.start_process(&node.id)?;
    }
    full_and_free(context, &cluster, &mounts).with_context(|| cluster.log_tails(12))
}

fn full_and_free(context: &Context, cluster: &Cluster, mounts: &[Mount]) -> Result<()> {
    cluster.dfsctl(["bucket", "create", "full"])?;
    let pids =
        || -> Result<Vec<i32>> { Ok(cluster.role("chunk-server")?.iter().map(|node| node.pid).collect()) };
    let before = pids()?;
    let mut files = Files { cluster, seed: context.seed, kept: Vec::new(), next: 0 };
    until("the first file", PATIENCE, || match files.put()? {
        None => Ok(()),
        Some((code, text)) => bail!("{code:?}: {text}"),
    })?;
    // The first node is full long before the others, which take min_ack copies meanwhile.
    let (code, text) = loop {
        ensure!(files.next < 60, "60 files of 3 MiB fit disks of 96 MiB");
        if let Some(refused) = files.put()? {
            break refused;
        }
    };
    ensure!(code == Some(NO_ROOM_EXIT), "a put without room exits with {code:?}: {text}");
    ensure!(text.contains("room") || text.contains("space"), "it does not say why: {text}");
    ensure!(files.kept.len() >= 8, "only {} files fit", files.kept.len());
    files.check().context("all disks are full")?;

    files.remove_all_but(3)?;
    files.settled().context("deleted from full disks")?;
    until("room again", PATIENCE, || match files.put()? {
        None => Ok(()),
        Some((code, text)) => bail!("{code:?}: {text}"),
    })?;
    files.settled()?;

    // Room for bytes, and for no file: the node offers nothing, and loses nothing.
    mounts[0].set_inodes(mounts[0].inodes_used()? + 2)?;
    others_take_it(&mut files).context("one disk without inodes")?;
    mounts[0].set_inodes(100_000)?;
    files.settled().context("inodes again")?;

    // Somebody else took all the room, also what the store keeps for deletes and its index.
    let foreign = mounts[0].0.join("foreign");
    let mut file = std::fs::File::create(&foreign)?;
    while file.write_all(&[7; 4096]).is_ok() {}
    drop(file);
    others_take_it(&mut files).context("one disk full of other files")?;
    let label = files.kept.pop().context("a file")?;
    cluster.dfsctl(["rm", "--purge", &Files::address(&label)])?;
    files.check()?;
    std::fs::remove_file(foreign)?;
    files.settled().context("the other files are gone")?;

    // Files of this node may not grow any more, as under a limit of an administrator.
    let limited = Pid::from_raw(before[0]);
    let unlimited = prlimit(limited, Resource::Fsize, Rlimit { current: Some(2 * MIB), maximum: None })?;
    others_take_it(&mut files).context("one node under a limit of a file's length")?;
    prlimit(limited, Resource::Fsize, unlimited)?;
    files.settled().context("the limit is gone")?;
    files.check()?;
    ensure!(before == pids()?, "a server ended meanwhile");
    for node in cluster.role("chunk-server")? {
        let health = cluster.health(&node.id)?;
        ensure!(matches!(health, Health::Ready), "{}: {health:?}", node.id);
    }
    Ok(())
}

fn others_take_it(files: &mut Files<'_>) -> Result<()> {
    for _ in 0..3 {
        if let Some((code, text)) = files.put()? {
            bail!("{code:?}: {text}");
        }
    }
    files.check()
}

fn read_only_disk(context: &Context) -> Result<()> {
    private_mounts()?;
    let cluster = Cluster::start(&options())?;
    let nodes = cluster.names("chunk-server")?;
    let id = &nodes[content::number(context.seed, "node", nodes.len() as u64) as usize];
    let process = cluster.process(id)?;
    cluster.stop_process(id)?;
    let folder = tempfile::Builder::new().prefix("dfs-read-only-").tempdir()?;
    let disk = Disk::under(&process.data_dir, folder.path(), id, FileSystem::Ext4)?;
    cluster.start_process(id)?;
    read_only(context, &cluster, id, &disk).with_context(|| cluster.log_tails(12))
}

fn read_only(context: &Context, cluster: &Cluster, id: &str, disk: &Disk) -> Result<()> {
    cluster.dfsctl(["bucket", "create", "full"])?;
    let mut files = Files { cluster, seed: context.seed, kept: Vec::new(), next: 0 };
    others_take_it(&mut files)?;
    files.settled()?;
    let pid = cluster.process(id)?.pid;
    disk.go_read_only()?;
    until("the node to say so", PATIENCE, || {
        // It notices when it is to write; the others have what is acknowledged.
        if let Some((code, text)) = files.put()? {
            bail!("refused: {code:?}: {text}");
        }
        match cluster.health(id)? {
            Health::NotReady(why) if why.contains("changes") => Ok(()),
            health => bail!("{health:?}"),
        }
    })?;
    others_take_it(&mut files)?;
    ensure!(cluster.process(id)?.pid == pid, "{id} ended");
    // It still serves what it has: of any two nodes one has a file acknowledged by two.
    let other =
        cluster.names("chunk-server")?.into_iter().find(|other| other != id).context("another node")?;
    cluster.kill_and_wait(&other)?;
    files.check().context("the read-only node and one more")?;
    cluster.start_process(&other)?;

    cluster.stop_process(id)?;
    let begun = cluster.begin_start(id)?;
    until("a start on a read-only disk to be given up", PATIENCE, || {
        ensure!(begun.is_over()?, "it is waited for");
        Ok(())
    })?;
    ensure!(!matches!(cluster.health(id)?, Health::Ready), "{id} is ready on a read-only disk");
    disk.repair()?;
    cluster.start_process(id)?;
    files.settled().context("repaired")?;
    files.check()
}
