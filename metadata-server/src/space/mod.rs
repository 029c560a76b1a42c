//! Room on the disks of this server's log and state, so that openraft never meets a full one.
//!
//! Three marks, each far below the one before (`marks`): below the **reserve** the leader refuses what
//! grows the state, whosever voter's disk it is (`raft/rooms.rs`); below the **critical** mark the ballast
//! file goes, so that deletes, compaction and the log have room; below the **full** mark, without
//! ballast, this server takes no entry at all: as a follower it lets the others commit, as leader it
//! refuses every proposal. Nothing of that stops the member, and all of it ends when there is room.
//!
//! Owner: one [`Space`] per server; its watch looks every second, the log before each append. Memory only.

mod marks;
mod volume;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dfs_proto::v1;
use dfs_proto::v1::command::Kind;
use dfs_types::limits::DISK_LOOK_MS;
use dfs_types::{DfsError, ErrorCode};
use server_kit::Shutdown;

use crate::telemetry;
pub use marks::SpaceSettings;
use marks::{Ballast, ballast, is_full, worst};
use volume::DataDir;
pub use volume::{Disk, Volume};

/// ENOSPC as the system's library words it, in every locale that servers run in.
const NO_ROOM: &str = "No space left on device";

pub struct Space {
    volume: Option<Box<dyn Volume>>,
    settings: SpaceSettings,
    seen: Mutex<Option<v1::DiskRoom>>,
    full: AtomicBool,
    critical: AtomicBool,
    /// Looks take turns: each may make or drop the ballast.
    looking: Mutex<()>,
}

impl std::fmt::Debug for Space {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Space").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Whether the disk's last word was that it is down to its reserve.
pub fn is_short(room: &v1::DiskRoom) -> bool {
    room.free < room.reserve
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

/// The answer to a command that [`grows`] while the disk of the metadata server `name` is short.
pub fn refusal(name: &str, room: &v1::DiskRoom) -> DfsError {
    DfsError::new(
        ErrorCode::NoSpace,
        format!(
            "the disk of metadata server {name} is down to its reserve ({} of {} bytes free, reserve {}): \
             delete something, or give it more room",
            room.free, room.total, room.reserve
        ),
    )
}

impl Space {
    /// Watches the data directory.
    pub fn of(data_dir: impl Into<PathBuf>, settings: SpaceSettings) -> Self {
        Self::on(Box::new(DataDir::new(data_dir)), settings)
    }

    pub fn on(volume: Box<dyn Volume>, settings: SpaceSettings) -> Self {
        Self { volume: Some(volume), ..Self { settings, ..Self::unwatched() } }
    }

    /// Of which nobody takes notice: always roomy.
    pub fn unwatched() -> Self {
        Self {
            volume: None,
            settings: SpaceSettings::default(),
            seen: Mutex::default(),
            full: AtomicBool::new(false),
            critical: AtomicBool::new(false),
            looking: Mutex::new(()),
        }
    }

    /// What the last look saw of the disk that is worst off.
    pub fn room(&self) -> Option<v1::DiskRoom> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No entry may be taken.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Looks once, and drops or makes the ballast. Blocks.
    ///
    /// # Errors
    /// What the file system said; the last state stays.
    pub fn look(&self) -> io::Result<()> {
        let Some(volume) = &self.volume else { return Ok(()) };
        let _turn = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        let mut disks = volume.disks()?;
        let present = volume.ballast()?;
        match ballast(&self.settings, &disks, present) {
            Ballast::Keep => {}
            Ballast::Drop => {
                volume.drop_ballast()?;
                tracing::warn!(bytes = present, "the disk is nearly full: the ballast was given back");
                disks = volume.disks()?;
            }
            Ballast::Make(bytes) => {
                match volume.make_ballast(bytes) {
                    Ok(()) => tracing::info!(bytes, "ballast made"),
                    // Somebody was quicker; the next look tries again.
                    Err(error) => tracing::warn!(%error, bytes, "no ballast"),
                }
                disks = volume.disks()?;
            }
        }
        self.note(&disks, volume.ballast()?);
        Ok(())
    }

    fn note(&self, disks: &[Disk], ballast: u64) {
        let Some((disk, marks)) = worst(&self.settings, disks) else { return };
        let Disk { free, total } = disk;
        let now = v1::DiskRoom { free, total, reserve: marks.reserve };
        telemetry::disk(free, marks.reserve, ballast);
        let before = self.seen.lock().unwrap_or_else(PoisonError::into_inner).replace(now);
        let reserve = marks.reserve;
        match (before.is_some_and(|room| is_short(&room)), is_short(&now)) {
            (false, true) => tracing::error!(free, total, reserve, "the disk is down to its reserve"),
            (true, false) => tracing::info!(free, total, reserve, "the disk has room again"),
            _ => {}
        }
        self.critical.store(disks.iter().any(|disk| disk.free < 2 * marks.critical), Ordering::Relaxed);
        let full = is_full(&self.settings, disks);
        if self.full.swap(full, Ordering::Relaxed) != full && full {
            tracing::error!(free, total, "the disk is full: no entry is taken until there is room");
        }
    }

    /// Before something is written to log or state: while the disk is near the critical mark, each
    /// write looks itself, so that the ballast goes before the write needs it. Blocks.
    pub fn before_write(&self) {
        if self.critical.load(Ordering::Relaxed)
            && let Err(error) = self.look()
        {
            tracing::warn!(%error, "cannot tell the free space");
        }
    }

    /// A write failed. If for lack of room, the ballast goes at once, for the restart to find some. The
    /// member stops all the same; what a failed write left behind is not trusted.
    pub fn failed(&self, error: &dyn std::fmt::Display) {
        // RocksDB hands the system's error on as text alone.
        if error.to_string().contains(NO_ROOM) {
            self.ran_out();
        }
    }

    fn ran_out(&self) {
        self.full.store(true, Ordering::Relaxed);
        let Some(volume) = &self.volume else { return };
        let _turn = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        match volume.drop_ballast() {
            Ok(()) => tracing::error!("a write met a full disk: the ballast was given back"),
            Err(error) => {
                tracing::error!(%error, "a write met a full disk, and the ballast cannot be removed")
            }
        }
    }
}

/// Looks every second until the shutdown. A file system that does not tell keeps its last state.
pub async fn watch(space: Arc<Space>, shutdown: Shutdown) -> Result<(), DfsError> {
    loop {
        tokio::select! {
            () = shutdown.wait() => return Ok(()),
            () = tokio::time::sleep(Duration::from_millis(DISK_LOOK_MS)) => {}
        }
        let space = Arc::clone(&space);
        // A sick disk may let this wait.
        let looked = tokio::task::spawn_blocking(move || {
            // Not in `look`, which a write near the critical mark waits for.
            if let Some(volume) = &space.volume {
                telemetry::disk_used(volume.used());
            }
            space.look()
        })
        .await;
        if let Ok(Err(error)) = looked {
            tracing::warn!(%error, "cannot tell the free space");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dfs_types::limits::{GIB, MIB};

    use super::*;

    /// A disk of 1 GiB of which a test says how much others took.
    #[derive(Default)]
    struct Fake {
        taken: Mutex<u64>,
        ballast: Mutex<u64>,
    }

    struct FakeVolume(Arc<Fake>);

    impl Volume for FakeVolume {
        fn used(&self) -> u64 {
            0
        }

        fn disks(&self) -> io::Result<Vec<Disk>> {
            let taken = *self.0.taken.lock().unwrap() + *self.0.ballast.lock().unwrap();
            Ok(vec![Disk { free: GIB.saturating_sub(taken), total: GIB }])
        }
        fn ballast(&self) -> io::Result<u64> {
            Ok(*self.0.ballast.lock().unwrap())
        }
        fn make_ballast(&self, bytes: u64) -> io::Result<()> {
            *self.0.ballast.lock().unwrap() = bytes;
            Ok(())
        }
        fn drop_ballast(&self) -> io::Result<()> {
            *self.0.ballast.lock().unwrap() = 0;
            Ok(())
        }
    }

    #[test]
    fn a_disk_that_fills_up_and_is_emptied_again() {
        let fake = Arc::new(Fake::default());
        let settings = SpaceSettings { reserve_bytes: Some(200 * MIB), ballast_bytes: Some(64 * MIB) };
        let space = Space::on(Box::new(FakeVolume(Arc::clone(&fake))), settings);
        assert_eq!(space.room(), None);
        // Others leave so many MiB beside the ballast: short, ballast afterwards, full.
        for (left, short, ballast, full) in [
            (960, false, 64, false),
            (264, false, 64, false),
            (263, true, 64, false),
            (96, true, 64, false),
            (95, true, 0, false),
            (8, true, 0, false),
            (7, true, 0, true),
            (0, true, 0, true),
            (263, false, 0, false),
            (264, false, 64, false),
        ] {
            *fake.taken.lock().unwrap() = GIB - left * MIB;
            space.look().unwrap();
            let now =
                (is_short(&space.room().unwrap()), *fake.ballast.lock().unwrap() / MIB, space.is_full());
            assert_eq!(now, (short, ballast, full), "{left} MiB left");
        }
    }

    #[test]
    fn a_write_near_the_critical_mark_looks_itself() {
        let fake = Arc::new(Fake::default());
        let settings = SpaceSettings { reserve_bytes: Some(0), ballast_bytes: Some(64 * MIB) };
        let space = Space::on(Box::new(FakeVolume(Arc::clone(&fake))), settings);
        space.look().unwrap();
        let leave = |left: u64| *fake.taken.lock().unwrap() = GIB - (64 + left) * MIB;
        // Far away it does not.
        leave(1);
        space.before_write();
        assert_eq!(*fake.ballast.lock().unwrap(), 64 * MIB);
        leave(60);
        space.look().unwrap();
        leave(1);
        space.before_write();
        assert_eq!(*fake.ballast.lock().unwrap(), 0);
        assert!(!space.is_full());
        fake.taken.lock().map(|mut taken| *taken = 0).unwrap();
        space.look().unwrap();
        space.failed(&"IO error: something else");
        assert!(!space.is_full());
        space.failed(&io::Error::from_raw_os_error(28));
        assert_eq!((*fake.ballast.lock().unwrap(), space.is_full()), (0, true));
        space.look().unwrap();
        assert!(!space.is_full());
    }

    #[test]
    fn unwatched_it_is_always_roomy() {
        let space = Space::unwatched();
        space.look().unwrap();
        space.before_write();
        assert!(space.room().is_none() && !space.is_full());
    }
}
