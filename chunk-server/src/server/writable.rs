//! Whether a data directory takes writes: asked by writing, for a disk may say that it has room and refuse.
//!
//! Crash promise: what it writes is removed, or written over by the next look.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use dfs_types::limits::MIB;
use rustix::fs::{Mode, OFlags};

use crate::store::disk::FEW_INODES;

const PROBE: &str = "PROBE";
const PROBE_BYTES: usize = 64 << 10;
/// Room that opening the store may take for its index, of a small disk a sixteenth.
const ROOM: u64 = 64 * MIB;

/// # Errors
/// What the disk says, or that there is too little room to open the store.
pub(super) fn writable(directory: &Path) -> io::Result<()> {
    let stat = rustix::fs::statvfs(directory)?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    let inodes = stat.f_files == 0 || stat.f_favail >= FEW_INODES;
    if bytes(stat.f_bavail) < ROOM.min(bytes(stat.f_blocks) / 16) || !inodes {
        return Err(io::ErrorKind::StorageFull.into());
    }
    let path = directory.join(PROBE);
    let written = (|| {
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode((Mode::RUSR | Mode::WUSR).bits())
            .custom_flags(OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits().cast_signed())
            .open(&path)?;
        // Not zeros: a file system may keep those without a block.
        file.write_all(&[0xA5; PROBE_BYTES])?;
        file.sync_all()
    })();
    match fs::remove_file(&path) {
        Err(error) if written.is_ok() => Err(error),
        _ => written,
    }
}
