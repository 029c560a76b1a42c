//! The door to the disk: the few calls the segment store makes, on one flat directory of files.
//! [`FsDisk`] is the real one; `faulty.rs` is the one that loses what was not synced.
//!
//! Crash promise asked of an implementation: what `sync` returned `Ok` for, and names after
//! `sync_dir`, survive a power loss; nothing else is assumed to, in any order.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, FallocateFlags, FileType, Mode, OFlags, StatVfsMountFlags};

/// A directory of files. Names are plain, without a slash.
pub trait Disk: Send + Sync {
    /// Names of all entries, in no order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// A new empty file; errs if the name is taken. The name is durable only after `sync_dir`.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// An existing regular file. Links, pipes and devices are refused, never followed.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations and removals durable.
    fn sync_dir(&self) -> io::Result<()>;
    fn space(&self) -> io::Result<DiskSpace>;
}

/// One open file. Calls may come from several threads.
pub trait DiskFile: Send + Sync {
    fn length(&self) -> io::Result<u64>;
    /// May return fewer bytes; 0 means the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// May take fewer bytes.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Takes disk space for a range and extends the file over it with zeros.
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes everything written before this call durable, the length included.
    fn sync(&self) -> io::Result<()>;
}

/// Bytes of the file system below.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskSpace {
    pub total: u64,
    pub available: u64,
    /// Another file can be made: there are inodes left.
    pub new_files: bool,
    /// The file system takes no writes at all, as after errors of its own.
    pub read_only: bool,
}

/// Fills `buffer` or errs with `UnexpectedEof`.
pub fn read_exact_at(file: &dyn DiskFile, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match file.read_at(buffer, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                buffer = &mut buffer[count..];
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes all of `bytes`, over short writes.
pub fn write_all_at(file: &dyn DiskFile, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                bytes = &bytes[count..];
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether the error only says that there is no room: on the disk, in a quota, or under the limit of a
/// file's length that the process was given.
pub fn is_no_space(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::StorageFull | K::QuotaExceeded | K::FileTooLarge)
}

/// Inodes below which no new chunk is taken.
pub const FEW_INODES: u64 = 16;

/// A directory of the machine's file system.
pub struct FsDisk {
    directory: OwnedFd,
}

impl FsDisk {
    /// Opens `path`, which must exist.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        Ok(Self { directory: rustix::fs::open(path, flags, Mode::empty())? })
    }

    fn open_file(&self, name: &str, extra: OFlags) -> io::Result<Arc<dyn DiskFile>> {
        // NONBLOCK: opening a pipe somebody put here must not hang; it is refused below.
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | extra;
        let file = rustix::fs::openat(&self.directory, name, flags, Mode::RUSR | Mode::WUSR)?;
        if !FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode).is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name} is not a regular file")));
        }
        Ok(Arc::new(FsFile(File::from(file))))
    }
}

impl Disk for FsDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.directory)? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().to_str()
                && name != "."
                && name != ".."
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.open_file(name, OFlags::CREATE | OFlags::EXCL)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.open_file(name, OFlags::empty())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.directory, name, AtFlags::empty())?)
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.directory)?)
    }

    fn space(&self) -> io::Result<DiskSpace> {
        let stat = rustix::fs::fstatvfs(&self.directory)?;
        let total = stat.f_blocks.saturating_mul(stat.f_frsize);
        // Some file systems count no inodes. The index needs a few beside the next segment.
        let new_files = stat.f_files == 0 || stat.f_favail >= FEW_INODES;
        let available = stat.f_bavail.saturating_mul(stat.f_frsize);
        let read_only = stat.f_flag.contains(StatVfsMountFlags::RDONLY);
        Ok(DiskSpace { total, available, new_files, read_only })
    }
}

struct FsFile(File);

impl DiskFile for FsFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(&self.0, buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(&self.0, bytes, offset)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), offset, len) {
            // Without it, full disks show at the write instead of here: later, but as safe.
            Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            result => Ok(result?),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_pipes_and_taken_names_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let disk = FsDisk::open(folder.path()).unwrap();
        let file = disk.create("a").unwrap();
        assert!(disk.create("a").is_err());
        write_all_at(file.as_ref(), b"hello", 3).unwrap();
        file.allocate(0, 100).unwrap();
        assert_eq!(file.length().unwrap(), 100);
        std::os::unix::fs::symlink("a", folder.path().join("link")).unwrap();
        assert!(disk.open("link").is_err());
        rustix::fs::mkfifoat(rustix::fs::CWD, folder.path().join("pipe"), Mode::RUSR).unwrap();
        assert!(disk.open("pipe").is_err());
        let mut names = disk.list().unwrap();
        names.sort();
        assert_eq!(names, ["a", "link", "pipe"]);
        disk.remove("a").unwrap();
        disk.sync_dir().unwrap();
        assert!(disk.open("a").is_err());
        assert!(disk.space().unwrap().total > 0);
    }
}
