//! Ctrl-C in the middle of a scenario: its servers are sessions of their own and would outlive it, so whoever
//! asks it to end has them ended first, and their folders removed.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, process, thread};

use anyhow::Result;
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

/// The folders of this process's clusters.
static ROOTS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
/// A process that was just being started shows up a moment later.
const SWEEP_FOR: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Everything with this folder in its command line or environment belongs to a cluster of this process.
pub(crate) fn remember(root: &Path) {
    ROOTS.lock().unwrap_or_else(PoisonError::into_inner).push(root.to_owned());
}

/// From now on, SIGINT and SIGTERM end the clusters as well. Exit code 128 and the signal's number.
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
        eprintln!("ending the cluster");
        sweep(&ROOTS.lock().unwrap_or_else(PoisonError::into_inner));
        process::exit(128 + number);
    });
    Ok(())
}

fn sweep(roots: &[PathBuf]) {
    let deadline = Instant::now() + SWEEP_FOR;
    loop {
        let found = processes_of(roots);
        for pid in &found {
            // One that is gone already is what is wanted.
            let _ = kill_process(*pid, Signal::KILL);
        }
        let gone = roots.iter().all(|root| fs::remove_dir_all(root).is_ok() || !root.exists());
        if (found.is_empty() && gone) || Instant::now() > deadline {
            return;
        }
        thread::sleep(LOOK_AGAIN);
    }
}

fn processes_of(roots: &[PathBuf]) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let own = process::id() as i32;
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers
        .filter(|number| *number != own)
        .filter(|number| {
            let holds = |file: &str| {
                let bytes = fs::read(format!("/proc/{number}/{file}")).unwrap_or_default();
                roots.iter().any(|root| {
                    let root = root.as_os_str().as_encoded_bytes();
                    bytes.windows(root.len()).any(|part| part == root)
                })
            };
            holds("cmdline") || holds("environ")
        })
        .filter_map(Pid::from_raw)
        .collect()
}
