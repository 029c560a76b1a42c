//! The door to the file systems under the data directory: how much room they have, and the ballast
//! file. Tests put in one of their own.
//!
//! Owner: [`super::Space`]. Crash promise: none is needed; a ballast of another size than wanted is made
//! anew, and it holds nothing.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

/// Bytes of a file system: those an ordinary user may still take, and all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Disk {
    pub free: u64,
    pub total: u64,
}

pub trait Volume: Send + Sync {
    /// The file systems that log and state are on; the first is the one with the ballast.
    fn disks(&self) -> io::Result<Vec<Disk>>;
    /// Length of the ballast file; 0: there is none.
    fn ballast(&self) -> io::Result<u64>;
    /// Takes `bytes` of the first disk for good.
    fn make_ballast(&self, bytes: u64) -> io::Result<()>;
    fn drop_ballast(&self) -> io::Result<()>;
    /// Bytes that all files take on the disk, for people: what is deleted meanwhile is not counted.
    fn used(&self) -> u64;
}

/// The real one. Log and state may be mounts of their own.
pub struct DataDir {
    dir: PathBuf,
}

/// The unit of `st_blocks`.
const BLOCK_BYTES: u64 = 512;
const BALLAST: &str = "ballast";
const PARTS: [&str; 2] = ["log", "state"];
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

impl DataDir {
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    fn path(&self) -> PathBuf {
        self.dir.join(BALLAST)
    }
}

fn disk(directory: &Path) -> io::Result<Disk> {
    let stat = rustix::fs::statvfs(directory)?;
    Ok(Disk {
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
        total: stat.f_blocks.saturating_mul(stat.f_frsize),
    })
}

impl Volume for DataDir {
    fn disks(&self) -> io::Result<Vec<Disk>> {
        let mut disks = vec![disk(&self.dir)?];
        for part in PARTS {
            match disk(&self.dir.join(part)) {
                Ok(disk) => disks.push(disk),
                // Not formatted yet.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(disks)
    }

    fn ballast(&self) -> io::Result<u64> {
        match fs::metadata(self.path()) {
            Ok(found) => Ok(found.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    fn make_ballast(&self, bytes: u64) -> io::Result<()> {
        let file = fs::File::create(self.path())?;
        let made = match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => Ok(()),
            // A file system that cannot: real bytes, never a hole.
            Err(rustix::io::Errno::OPNOTSUPP) => write_zeros(file, bytes),
            Err(error) => Err(error.into()),
        };
        if made.is_err() {
            self.drop_ballast()?;
        }
        made
    }

    fn drop_ballast(&self) -> io::Result<()> {
        match fs::remove_file(self.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn used(&self) -> u64 {
        used(&self.dir)
    }
}

/// Some hundreds of files at most.
fn used(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let one = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => used(&entry.path()),
        Ok(found) => found.blocks() * BLOCK_BYTES,
        Err(_) => 0,
    };
    entries.filter_map(Result::ok).map(one).sum()
}

fn write_zeros(mut file: fs::File, bytes: u64) -> io::Result<()> {
    let mut left = bytes;
    while left > 0 {
        let piece = left.min(ZEROS.len() as u64);
        file.write_all(&ZEROS[..piece as usize])?;
        left -= piece;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ballast_takes_its_bytes_and_gives_them_back() {
        let dir = tempfile::tempdir().unwrap();
        let volume = DataDir::new(dir.path());
        assert_eq!(volume.disks().unwrap().len(), 1);
        fs::create_dir(dir.path().join("state")).unwrap();
        let disks = volume.disks().unwrap();
        assert_eq!((disks.len(), disks[0].total), (2, disks[1].total));
        assert_eq!(volume.ballast().unwrap(), 0);
        volume.make_ballast(3 << 20).unwrap();
        assert_eq!(volume.ballast().unwrap(), 3 << 20);
        let blocks = fs::metadata(dir.path().join(BALLAST)).unwrap().blocks();
        assert!(blocks * 512 >= 3 << 20, "sparse: {blocks} blocks");
        // Of another size than wanted it is made anew.
        volume.make_ballast(1 << 20).unwrap();
        assert_eq!(volume.ballast().unwrap(), 1 << 20);
        volume.drop_ballast().unwrap();
        volume.drop_ballast().unwrap();
        assert_eq!(volume.ballast().unwrap(), 0);
        assert!(DataDir::new(dir.path().join("not/there")).disks().is_err());
    }

    #[test]
    fn zeros_where_the_file_system_cannot_allocate() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("zeros");
        write_zeros(fs::File::create(&path).unwrap(), 100_000).unwrap();
        let found = fs::metadata(path).unwrap();
        assert!(found.len() == 100_000 && found.blocks() * 512 >= 100_000);
    }
}
