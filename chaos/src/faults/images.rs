//! Disks whose power can go: data directories on loop-mounted images, copied as the block device has
//! them while the page cache above is lost.
//!
//! Mounts live in a mount namespace of the scenario's own thread and what it starts, so nothing stays
//! mounted when the last of its processes is gone, however it went.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::needs;

/// No journal commit by the clock: only what is asked for is on the device.
const COMMIT_SECONDS: u32 = 300;

/// Gives the calling thread, and all it starts from now on, mounts of their own.
pub fn private_mounts() -> Result<()> {
    needs::root()?;
    // SAFETY: a system call without pointers; file descriptors stay shared, only the table of mounts and
    // this thread's working directory become its own.
    #[allow(unsafe_code)]
    let refused = unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0;
    if refused {
        let error = std::io::Error::last_os_error();
        return needs::missing(format!("the kernel gives no mount namespace: {error}"));
    }
    run(Command::new("mount").args(["--make-rprivate", "/"]))
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileSystem {
    Ext4,
    Xfs,
}

impl FileSystem {
    /// Smallest size it takes, and room enough for a server of a scenario.
    fn image_bytes(self) -> u64 {
        match self {
            FileSystem::Ext4 => 768 << 20,
            FileSystem::Xfs => 768 << 20,
        }
    }

    fn format(self, image: &Path) -> Result<()> {
        match self {
            FileSystem::Ext4 => {
                let program = needs::program(&["mkfs.ext4"], "e2fsprogs")?;
                run(Command::new(program).args(["-q", "-F", "-m0", "-E", "lazy_itable_init=1"]).arg(image))
            }
            FileSystem::Xfs => {
                let program = needs::program(&["mkfs.xfs"], "xfsprogs")?;
                run(Command::new(program).args(["-q", "-f"]).arg(image))
            }
        }
    }

    fn options(self) -> String {
        match self {
            FileSystem::Ext4 => format!("loop,commit={COMMIT_SECONDS},errors=remount-ro"),
            FileSystem::Xfs => "loop".to_owned(),
        }
    }
}

/// One data directory on an image.
pub struct Disk {
    image: PathBuf,
    target: PathBuf,
    system: FileSystem,
}

impl Disk {
    /// Moves what is in `target` onto a new image, which is mounted there. Nobody may use it meanwhile.
    pub fn under(target: &Path, folder: &Path, name: &str, system: FileSystem) -> Result<Self> {
        let image = folder.join(format!("{name}.img"));
        std::fs::File::create(&image)?.set_len(system.image_bytes())?;
        system.format(&image)?;
        let aside = folder.join(format!("{name}.before"));
        let mode = std::fs::metadata(target)?.permissions().mode();
        std::fs::rename(target, &aside)?;
        std::fs::create_dir(target)?;
        let disk = Self { image, target: target.to_owned(), system };
        disk.mount()?;
        let _ = std::fs::remove_dir(target.join("lost+found"));
        run(Command::new("cp").arg("-a").arg(aside.join(".")).arg(target))?;
        std::fs::set_permissions(target, std::fs::Permissions::from_mode(mode))?;
        run(Command::new("sync").arg("-f").arg(target))?;
        std::fs::remove_dir_all(aside)?;
        Ok(disk)
    }

    fn mount(&self) -> Result<()> {
        let mut command = Command::new("mount");
        command.args(["-o", &self.system.options()]).arg(&self.image).arg(&self.target);
        match run(&mut command) {
            Ok(()) => Ok(()),
            Err(error) => {
                needs::missing(format!("the kernel does not mount {:?} images: {error:#}", self.system))
            }
        }
    }

    /// The kernel finds the file system damaged, it believes, and takes no write from now on. Ext4 only.
    pub fn go_read_only(&self) -> Result<()> {
        let output =
            Command::new("findmnt").args(["-n", "-o", "SOURCE", "--target"]).arg(&self.target).output()?;
        let device = String::from_utf8(output.stdout)?;
        let name = Path::new(device.trim()).file_name().context("a device under the mount")?;
        let trigger = Path::new("/sys/fs/ext4").join(name).join("trigger_fs_error");
        match std::fs::write(&trigger, "1") {
            Ok(()) => Ok(()),
            Err(error) => needs::missing(format!("{}: {error}", trigger.display())),
        }
    }

    /// Checks the file system and mounts it again. Nobody may use it meanwhile.
    pub fn repair(&self) -> Result<()> {
        run(Command::new("umount").arg(&self.target)).context("somebody still uses the disk")?;
        let check = needs::program(&["e2fsck"], "e2fsprogs")?;
        let output = Command::new(check).arg("-p").arg(&self.image).output()?;
        // 1: errors were corrected.
        ensure!(matches!(output.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&output.stdout));
        self.mount()
    }

    /// The power goes: what the block device has is kept, the rest is gone. Nobody may use it meanwhile.
    pub fn lose_power(&self) -> Result<()> {
        let crashed = self.image.with_extension("crashed");
        run(Command::new("cp").args(["--sparse=always", "--reflink=auto"]).args([&self.image, &crashed]))?;
        // Unmounting writes what must be lost, but to the image that nobody looks at again.
        run(Command::new("umount").arg(&self.target)).context("somebody still uses the disk")?;
        std::fs::rename(&crashed, &self.image)?;
        self.mount()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What runs on it ends with the cluster; lazily, so that the order does not matter.
        let _ = run(Command::new("umount").arg("-l").arg(&self.target));
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    ensure!(output.status.success());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    /// What was synced is there after the power loss, what was not is gone.
    fn only_what_was_synced_survives(system: FileSystem) {
        let done = std::thread::spawn(move || -> Result<()> {
            private_mounts()?;
            let folder = tempfile::tempdir()?;
            let target = folder.path().join("target");
            std::fs::create_dir(&target)?;
            std::fs::write(target.join("before"), b"there before")?;
            let disk = Disk::under(&target, folder.path(), "d", system)?;
            let mut synced = std::fs::File::create(target.join("synced"))?;
            synced.write_all(b"synced")?;
            synced.sync_all()?;
            std::fs::File::open(&target)?.sync_all()?;
            std::fs::File::create(target.join("unsynced"))?.write_all(b"unsynced")?;
            synced.write_all(b" and not")?;
            drop(synced);
            disk.lose_power()?;
            ensure!(std::fs::read(target.join("before"))? == b"there before");
            ensure!(std::fs::read(target.join("synced"))? == b"synced");
            ensure!(
                std::fs::read(target.join("unsynced")).is_ok_and(|bytes| bytes.is_empty())
                    || !target.join("unsynced").exists()
            );
            Ok(())
        })
        .join()
        .expect("the thread does not panic");
        match done {
            // The unit tests need no root; where there is one, it is tried.
            Err(error) if error.downcast_ref::<needs::Missing>().is_some() => eprintln!("{error:#}"),
            done => done.unwrap(),
        }
    }

    #[test]
    fn ext4_keeps_only_what_was_synced() {
        only_what_was_synced_survives(FileSystem::Ext4);
    }

    #[test]
    fn xfs_keeps_only_what_was_synced() {
        only_what_was_synced_survives(FileSystem::Xfs);
    }
}
