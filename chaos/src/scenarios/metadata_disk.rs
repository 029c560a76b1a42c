//! A metadata server whose disk others fill up.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::ledger::Ledger;
use super::{Context, Scenario};
use crate::cluster::{Cluster, ClusterOptions, Health};
use crate::wait::until;

pub const METADATA_DISK_FULL: Scenario = Scenario {
    name: "metadata-disk-full",
    about: "a follower's disk is filled to the last byte: new data is refused with its name, reads and deletes \
            go on, it takes part again when there is room (needs root, to mount a small disk)",
    run: metadata_disk_full,
};

const MIB: u64 = 1 << 20;
const DISK_BYTES: u64 = 256 * MIB;
const RESERVE_BYTES: u64 = 80 * MIB;
const BALLAST_BYTES: u64 = 48 * MIB;
const SOON: Duration = Duration::from_secs(20);

/// A file system of its own over a folder, whose content moves onto it.
struct Mount {
    at: PathBuf,
}

impl Mount {
    fn over(at: &Path) -> Result<Self> {
        let aside = at.with_extension("aside");
        std::fs::rename(at, &aside)?;
        std::fs::create_dir(at)?;
        let size = format!("size={DISK_BYTES},mode=0700");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at))
            .context("this scenario mounts a small disk: run it as root")?;
        let mount = Self { at: at.to_owned() };
        run(Command::new("cp").arg("-a").arg(aside.join(".")).arg(at))?;
        std::fs::remove_dir_all(aside)?;
        Ok(mount)
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }

    fn free(&self) -> Result<u64> {
        let stat = rustix::fs::statvfs(&self.at)?;
        Ok(stat.f_bavail * stat.f_frsize)
    }

    /// Takes all room but `left` bytes.
    fn fill(&self, left: u64) -> Result<()> {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(self.filler())?;
        let (at, more) = (file.metadata()?.len(), self.free()?.saturating_sub(left));
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), at, more)?;
        Ok(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: the server may still be in there.
        let _ = Command::new("umount").arg("-l").arg(&self.at).output();
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn metadata_disk_full(context: &Context) -> Result<()> {
    let options = ClusterOptions::default()
        .set("DFS_RESERVE_BYTES", RESERVE_BYTES)
        .set("DFS_BALLAST_BYTES", BALLAST_BYTES);
    let cluster = Cluster::start(&options)?;
    let leader = cluster.leader()?;
    let victim = cluster
        .role("metadata-server")?
        .into_iter()
        .find(|process| process.id != leader)
        .context("a follower")?;
    cluster.stop_process(&victim.id)?;
    let disk = Mount::over(&victim.data_dir)?;
    cluster.start_process(&victim.id)?;
    let outcome = story(context, &cluster, &victim.id, &disk).with_context(|| cluster.log_tails(12));
    // Before its disk goes.
    cluster.stop_process(&victim.id)?;
    outcome
}

fn story(context: &Context, cluster: &Cluster, victim: &str, disk: &Mount) -> Result<()> {
    let ballast = disk.at.join("ballast");
    let ballast_bytes = || std::fs::metadata(&ballast).map_or(0, |found| found.len());
    ensure!(ballast_bytes() == BALLAST_BYTES, "the ballast has {} bytes", ballast_bytes());
    let mut ledger = Ledger::new(cluster, context.seed)?;
    ledger.put_some("before")?;

    // Down to the reserve: refused at the leader, by name, though its own disk is roomy.
    disk.fill(RESERVE_BYTES / 2)?;
    refused(cluster, victim)?;
    ledger.check()?;
    ensure!(ballast_bytes() == BALLAST_BYTES, "below the reserve the ballast stays");

    // To the last byte: the ballast goes, the member goes on, and what takes data away does.
    disk.fill(0)?;
    until("the ballast to be given back", SOON, || {
        ensure!(ballast_bytes() == 0, "{} bytes", ballast_bytes());
        Ok(())
    })?;
    refused(cluster, victim)?;
    ledger.check()?;
    ledger.delete_some()?;
    ledger.check()?;

    // Even the ballast's room taken: entries are left out there, the others commit.
    disk.fill(0)?;
    refused(cluster, victim)?;
    ledger.delete_some()?;
    ledger.check()?;
    let health = cluster.health(victim)?;
    ensure!(health != Health::Gone, "{victim} stopped");
    let status = cluster.json(["cluster", "status"])?;
    let members = status["members"].as_array().context("members")?;
    let told = members.iter().find(|member| member["name"] == victim).context("the member")?;
    let (free, reserve) = (told["disk_free"].as_u64(), told["disk_reserve"].as_u64());
    ensure!(free < reserve && reserve == Some(RESERVE_BYTES), "status says {told}");

    // Room again: it heals by itself.
    std::fs::remove_file(disk.filler())?;
    until("new data to be taken again", SOON, || ledger.put_some("after"))?;
    until("the ballast to be back", SOON, || {
        ensure!(ballast_bytes() == BALLAST_BYTES, "{} bytes", ballast_bytes());
        Ok(())
    })?;
    until("the member to have caught up", SOON, || {
        let members = cluster.json(["cluster", "members", "ls"])?;
        let applied = |member: &serde_json::Value| member["applied_index"].as_u64().unwrap_or(0);
        let members = members["members"].as_array().context("members")?;
        let most = members.iter().map(applied).max().unwrap_or(0);
        let behind = members.iter().filter(|member| applied(member) + 16 < most).count();
        ensure!(behind == 0, "{members:?}");
        Ok(())
    })?;
    ledger.check()
}

/// New data is refused as long as it takes the leader to hear of the disk, with the member's name.
fn refused(cluster: &Cluster, victim: &str) -> Result<()> {
    until("new data to be refused", SOON, || {
        let output = cluster.command(["bucket", "create", &format!("b{}", uuid())]).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            bail!("a bucket was made");
        }
        ensure!(said.contains("reserve") && said.contains(victim), "refused with {said}");
        Ok(())
    })
}

fn uuid() -> String {
    let mut raw = [0u8; 8];
    getrandom::fill(&mut raw).expect("the kernel's random number generator failed");
    format!("{:016x}", u64::from_be_bytes(raw))
}
