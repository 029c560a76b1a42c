//! The processes of servers: found again after anything, signalled only if they are what they were.
//!
//! A process is known by pid, start time and boot, or by its arguments: program and data directory.
//! It is held by a pidfd from before the check to the signal, so that a pid that is given to somebody
//! else meanwhile is never signalled.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::layout::Layout;
use super::plan::{ProcessRecord, Server};

/// The unit of times in /proc, the same on every Linux.
const TICKS_PER_SECOND: u64 = 100;

/// A live process of a server.
pub(super) struct Running {
    pub pid: i32,
    start_ticks: u64,
    fd: OwnedFd,
}

/// The live process of a server, whoever started it.
pub(super) fn find(layout: &Layout, server: &Server) -> Option<Running> {
    let data = layout.server(&server.id).data;
    let meant = |running: &Running| is_server(running.pid, server.role.word(), &data);
    if let Some(record) = &server.process
        && record.boot_id == boot_id()
        && let Some(running) = Running::open(record.pid)
        && running.start_ticks == record.start_ticks
        && meant(&running)
    {
        return Some(running);
    }
    // Not the one we know of: maybe one that was started while dfsctl was killed.
    processes().filter(|pid| is_server(*pid, server.role.word(), &data)).find_map(|pid| {
        let running = Running::open(pid)?;
        meant(&running).then_some(running)
    })
}

impl Running {
    /// Takes hold of a process that is alive.
    pub fn open(pid: i32) -> Option<Self> {
        let pid_or_none = if pid > 0 { Pid::from_raw(pid) } else { None };
        let fd = pidfd_open(pid_or_none?, PidfdFlags::empty()).ok()?;
        let start_ticks = live_start_ticks(pid)?;
        Some(Self { pid, start_ticks, fd })
    }

    pub fn record(&self) -> ProcessRecord {
        ProcessRecord {
            pid: self.pid,
            start_ticks: self.start_ticks,
            boot_id: boot_id(),
            started: crate::cli::format::time(started_unix_ms(self.start_ticks)),
        }
    }

    /// Sends a signal; a process that ended meanwhile is no error.
    pub fn signal(&self, signal: Signal) -> std::io::Result<()> {
        match pidfd_send_signal(&self.fd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub fn is_alive(&self) -> bool {
        live_start_ticks(self.pid) == Some(self.start_ticks)
    }

    /// Waits for its end.
    pub async fn ended(&self) -> std::io::Result<()> {
        let fd = self.fd.try_clone()?;
        // SAFETY: the descriptor is owned by the value that is registered, so it is open for as long as
        // it is registered.
        #[allow(unsafe_code)]
        let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
        registered?.readable().await.map(drop)
    }
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Whether a process runs `program` on this data directory.
fn is_server(pid: i32, program: &str, data_dir: &Path) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let args: Vec<&OsStr> = line.split(|byte| *byte == 0).map(OsStr::from_bytes).collect();
    let runs = args.first().is_some_and(|first| Path::new(first).file_name() == Some(OsStr::new(program)));
    runs && args.windows(2).any(|pair| pair[0] == "--data-dir" && pair[1] == data_dir)
}

/// When a process started, in clock ticks since boot; none if it has ended, reaped or not.
fn live_start_ticks(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces and parentheses itself.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ended = matches!(*fields.first()?, "Z" | "X" | "x");
    if ended { None } else { fields.get(19)?.parse().ok() }
}

/// Drawn by the kernel at each boot: start times of another boot mean nothing.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn started_unix_ms(start_ticks: u64) -> u64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot =
        stat.lines().find_map(|line| line.strip_prefix("btime ")).and_then(|boot| boot.parse::<u64>().ok());
    boot.unwrap_or(0) * 1000 + start_ticks * 1000 / TICKS_PER_SECOND
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::dev::plan::{Plan, Role};
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

    /// A process with a server's arguments that does nothing until its input ends.
    fn start(dir: &Path, program: &str, data: &Path) -> Child {
        let mut command = Command::new("/bin/sh");
        command.arg0(dir.join(program)).args(["-c", "read line", "sh", "--data-dir"]).arg(data);
        command.stdin(Stdio::piped()).spawn().unwrap()
    }

    fn cluster(dir: &Path) -> (Layout, Plan) {
        let layout = Layout::resolve(Some(dir.to_owned())).unwrap();
        let mut plan = Plan::new(String::new());
        plan.add(Role::ChunkServer, 1, None);
        (layout, plan)
    }

    async fn until_it_runs(layout: &Layout, server: &Server) -> Running {
        loop {
            match find(layout, server) {
                Some(running) => return running,
                None => tokio::task::yield_now().await,
            }
        }
    }

    #[tokio::test]
    async fn a_server_is_found_by_its_record_and_without() {
        let dir = tempfile::tempdir().unwrap();
        let (layout, mut plan) = cluster(dir.path());
        assert!(find(&layout, &plan.servers[0]).is_none());
        let data = layout.server("n1").data;
        let mut child = start(dir.path(), "chunk-server", &data);
        let running = until_it_runs(&layout, &plan.servers[0]).await;
        assert_eq!(running.pid, child.id() as i32);
        let record = running.record();
        assert!(record.started.starts_with("20") && record.start_ticks > 0);
        plan.servers[0].process = Some(record);
        assert_eq!(find(&layout, &plan.servers[0]).unwrap().pid, running.pid);

        running.signal(Signal::KILL).unwrap();
        running.ended().await.unwrap();
        // Dead but not reaped, then reaped: neither is running, and a late signal is no error.
        assert!(!running.is_alive() && find(&layout, &plan.servers[0]).is_none());
        child.wait().unwrap();
        assert!(!running.is_alive() && find(&layout, &plan.servers[0]).is_none());
        running.signal(Signal::KILL).unwrap();
    }

    #[tokio::test]
    async fn a_foreign_process_is_never_taken_for_a_server() {
        let dir = tempfile::tempdir().unwrap();
        let (layout, mut plan) = cluster(dir.path());
        let data = layout.server("n1").data;
        // Of another program, and of another cluster, each under the very pid of the record.
        for (program, data) in [("nano", data.clone()), ("chunk-server", dir.path().join("other/n1/data"))] {
            let mut child = start(dir.path(), program, &data);
            plan.servers[0].process = Running::open(child.id() as i32).map(|running| running.record());
            assert!(plan.servers[0].process.is_some());
            assert!(find(&layout, &plan.servers[0]).is_none(), "{program}");
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert!(Running::open(0).is_none() && Running::open(-1).is_none());
    }

    /// The same pid with another start time or from before a reboot is another process; one that has
    /// our arguments is ours all the same.
    #[tokio::test]
    async fn a_stale_record_is_seen_through() {
        let dir = tempfile::tempdir().unwrap();
        let (layout, mut plan) = cluster(dir.path());
        let mut child = start(dir.path(), "chunk-server", &layout.server("n1").data);
        let running = until_it_runs(&layout, &plan.servers[0]).await;
        let mut record = running.record();
        record.start_ticks += 1;
        record.boot_id = "another boot".into();
        plan.servers[0].process = Some(record);
        let found = find(&layout, &plan.servers[0]).unwrap();
        assert_eq!((found.pid, found.start_ticks), (running.pid, running.start_ticks));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
