//! The reserve: room on the disk of the data directory that new data may not use, so that what frees
//! space, and consensus itself, never meets a full disk.
//!
//! Owner: one watch per server, looked at by the leader's sessions. Memory only: a server that starts
//! takes the disk as roomy until it has looked, which it does before it serves. Every server watches
//! its own disk; followers do not report theirs, so a follower whose disk is the smallest is not seen.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dfs_proto::v1::command::Kind;
use dfs_types::limits::{DEFAULT_RESERVE_BYTES, DEFAULT_RESERVE_PERCENT};
use dfs_types::{DfsError, ErrorCode};
use server_kit::Shutdown;

use crate::service::Operations;

/// How often the disk is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// Whether the disk is down to its reserve.
#[derive(Default)]
pub struct Space {
    short: AtomicBool,
}

impl Space {
    pub fn is_short(&self) -> bool {
        self.short.load(Ordering::Relaxed)
    }

    fn set(&self, short: bool, disk: Disk, reserve: u64) {
        if self.short.swap(short, Ordering::Relaxed) == short {
            return;
        }
        let Disk { free, total } = disk;
        if short {
            tracing::error!(free, total, reserve, "the disk is down to its reserve: new data is refused");
        } else {
            tracing::info!(free, total, reserve, "the disk has room again");
        }
    }
}

/// Whether a command is for new data. What takes data away, what keeps chunks alive, nodes, members,
/// and the commit of an upload whose pages are stored go on below the reserve.
pub fn grows(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::PutBucket(_)
            | Kind::PutPrincipal(_)
            | Kind::BeginUpload(_)
            | Kind::AppendPage(_)
            | Kind::PutInline(_)
            | Kind::CopyFile(_)
    )
}

pub fn refusal() -> DfsError {
    DfsError::new(
        ErrorCode::NoSpace,
        "the metadata service's disk is down to its reserve: delete something, or give it more room",
    )
}

/// Bytes of a file system: those an ordinary user may still take, and all.
#[derive(Clone, Copy)]
struct Disk {
    free: u64,
    total: u64,
}

fn disk(directory: &Path) -> std::io::Result<Disk> {
    let stat = rustix::fs::statvfs(directory)?;
    Ok(Disk {
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
        total: stat.f_blocks.saturating_mul(stat.f_frsize),
    })
}

/// The reserve in bytes: as set (0: none), or a gibibyte, of a small disk a fiftieth.
fn reserve_of(set: Option<u64>, total: u64) -> u64 {
    set.unwrap_or_else(|| DEFAULT_RESERVE_BYTES.min(total / 100 * DEFAULT_RESERVE_PERCENT))
}

/// Looks once.
///
/// # Errors
/// `io` if the file system does not tell.
pub fn look(space: &Space, directory: &Path, set: Option<u64>) -> Result<(), DfsError> {
    let disk = disk(directory)
        .map_err(|error| DfsError::new(ErrorCode::Io, format!("{}: {error}", directory.display())))?;
    metrics::gauge!("dfs_disk_free_bytes").set(disk.free as f64);
    let reserve = reserve_of(set, disk.total);
    space.set(disk.free < reserve, disk, reserve);
    Ok(())
}

/// Looks every second until the shutdown. A file system that does not tell keeps its last state.
pub async fn watch(
    operations: Operations,
    directory: std::path::PathBuf,
    set: Option<u64>,
    shutdown: Shutdown,
) -> Result<(), DfsError> {
    loop {
        tokio::select! {
            () = shutdown.wait() => return Ok(()),
            () = tokio::time::sleep(INTERVAL) => {}
        }
        let (parts, directory) = (operations.parts.clone(), directory.clone());
        // A sick disk may let this wait.
        let looked = tokio::task::spawn_blocking(move || look(&parts.space, &directory, set)).await;
        if let Ok(Err(error)) = looked {
            tracing::warn!(%error, "cannot tell the free space");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_what_is_set_or_the_smaller_default() {
        const GIB: u64 = 1 << 30;
        assert_eq!(reserve_of(None, 1000 * GIB), GIB);
        assert_eq!(reserve_of(None, 10 * GIB), 10 * GIB / 100 * 2);
        assert_eq!(reserve_of(Some(0), GIB), 0);
        assert_eq!(reserve_of(Some(5), GIB), 5);
    }

    #[test]
    fn a_disk_below_its_reserve_is_short_until_it_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (space, here) = (Space::default(), dir.path());
        look(&space, here, Some(0)).unwrap();
        assert!(!space.is_short());
        look(&space, here, Some(u64::MAX)).unwrap();
        assert!(space.is_short());
        look(&space, here, Some(0)).unwrap();
        assert!(!space.is_short());
        assert!(look(&space, &here.join("not/there"), None).is_err());
    }
}
