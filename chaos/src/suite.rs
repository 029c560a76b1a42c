//! Scenarios as tests: filtered, listed and counted like the tests of any Rust project. They share a machine
//! and hold real time limits, so they run one at a time, each in a process of its own that is ended when it
//! takes too long, or with this one.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use chaos::{Context, SCENARIOS, Scenario};
use libtest_mimic::{Arguments, Failed, Trial};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// A scenario of this length hangs.
const TIME_LIMIT: Duration = Duration::from_secs(600);
const GRACE: Duration = Duration::from_secs(10);
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
/// Between two looks whether it has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Runs all scenarios whose name contains one of `filters`; all, if there is none.
pub fn run(filters: Vec<String>, seed: Option<u64>) -> ExitCode {
    let chosen = |scenario: &&Scenario| {
        filters.is_empty() || filters.iter().any(|filter| scenario.name.contains(filter.as_str()))
    };
    let trials = SCENARIOS
        .iter()
        .filter(chosen)
        .map(|scenario| {
            let seed = Context::new(seed).seed;
            Trial::test(scenario.name, move || {
                let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
                in_its_own_process(scenario.name, seed)
            })
        })
        .collect();
    // With one thread the runner would print a test's name before it runs, and what the scenario prints behind it.
    let arguments = Arguments { test_threads: Some(2), ..Arguments::default() };
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn in_its_own_process(name: &str, seed: u64) -> Result<(), Failed> {
    let ended = start(name, seed).and_then(|child| wait(name, child));
    ended.map_err(|error| Failed::from(format!("{error:#}")))
}

fn start(name: &str, seed: u64) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["run", name, "--seed", &seed.to_string(), "--end-with-parent"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0);
    command.spawn().with_context(|| format!("starting {name}"))
}

/// Passes on what the scenario prints to the error stream, as it comes, and waits for its end.
fn wait(name: &str, mut child: Child) -> Result<()> {
    let mut printed = child.stdout.take().context("its output is a pipe")?;
    let passing = thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(length @ 1..) = printed.read(&mut bytes) {
            eprint!("{}", String::from_utf8_lossy(&bytes[..length]));
        }
    });
    let deadline = Instant::now() + TIME_LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            // It ends its servers first.
            kill_process(Pid::from_child(&child), Signal::TERM)?;
            let grace = Instant::now() + GRACE;
            while child.try_wait()?.is_none() && Instant::now() < grace {
                thread::sleep(LOOK_AGAIN);
            }
            kill_process_group(Pid::from_child(&child), Signal::KILL).ok();
            child.wait()?;
            anyhow::bail!("{name} hangs: it was ended after {} s", TIME_LIMIT.as_secs());
        }
        thread::sleep(LOOK_AGAIN);
    };
    passing.join().ok();
    anyhow::ensure!(status.success(), "{name}: {status}, see above");
    Ok(())
}
