//! Ctrl-C in the middle of a scenario: its servers, and what its scripts start, are sessions of their own and would
//! outlive it, so whoever asks it to end has them ended first, and their folders removed.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, process, thread};

use anyhow::{Result, ensure};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::signal::unix::{SignalKind, signal};

use crate::wait::until;

/// What this process started. Locked for good once it was asked to end.
static ROOTS: Mutex<Vec<Root>> = Mutex::new(Vec::new());
/// For a script to delete what it started; then all of it is killed.
const SCRIPT_PATIENCE: Duration = Duration::from_secs(30);
const SWEEP_FOR: Duration = Duration::from_secs(35);

/// Everything with this folder in its command line or environment belongs to a cluster, or a script, of this process.
struct Root {
    folder: PathBuf,
    /// The process group of a script.
    script: Option<Pid>,
}

/// A cluster in this folder.
pub(crate) fn remember(folder: &Path) {
    push(Root { folder: folder.to_owned(), script: None });
}

/// A script, in a process group of its own, that gets SIGTERM and is given time.
pub(crate) fn remember_script(folder: &Path, child: &Child) {
    push(Root { folder: folder.to_owned(), script: Some(Pid::from_child(child)) });
}

fn push(root: Root) {
    ROOTS.lock().unwrap_or_else(PoisonError::into_inner).push(root);
}

/// To be called with the outcome of a scenario in hand: if this process was asked to end, that is no outcome, and
/// this does not return.
pub(crate) fn give_way() {
    drop(ROOTS.lock());
}

/// From now on, SIGINT and SIGTERM end clusters and scripts as well. Exit code 128 and the signal's number.
///
/// # Errors
/// When the signals cannot be caught.
pub fn watch() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    thread::spawn(move || {
        let number = runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
                _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
            }
        });
        eprintln!("ending what was started");
        // Held to the end: see `give_way`.
        let roots = ROOTS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = sweep(&roots) {
            eprintln!("{error:#}");
        }
        process::exit(128 + number);
    });
    Ok(())
}

fn sweep(roots: &[Root]) -> Result<()> {
    let start = Instant::now();
    for Root { folder, script } in roots {
        if let Some(group) = script
            && !processes_naming(folder).is_empty()
        {
            let _ = kill_process_group(*group, Signal::TERM);
        }
    }
    until("the end of what this process started", SWEEP_FOR, || {
        let mut left = Vec::new();
        for Root { folder, script } in roots {
            let found = processes_naming(folder);
            if script.is_none() || start.elapsed() > SCRIPT_PATIENCE {
                for (pid, _) in &found {
                    // One that is gone already is what is wanted.
                    let _ = kill_process(*pid, Signal::KILL);
                }
            }
            // Another may just have been started.
            if !found.is_empty() || (fs::remove_dir_all(folder).is_err() && folder.exists()) {
                left.push((folder, found));
            }
        }
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
}

/// Processes other than this one with a path in their command line or environment, each with its command line.
pub(crate) fn processes_naming(path: &Path) -> Vec<(Pid, String)> {
    let path = path.as_os_str().as_encoded_bytes();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers
        .filter(|number| *number != process::id() as i32)
        .filter_map(|number| {
            // A process may end while we look.
            let read = |file: &str| fs::read(format!("/proc/{number}/{file}")).unwrap_or_default();
            let names = |bytes: &[u8]| bytes.windows(path.len()).any(|part| part == path);
            let line = read("cmdline");
            let found = names(&line) || names(&read("environ"));
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            found.then_some((Pid::from_raw(number)?, line))
        })
        .collect()
}
