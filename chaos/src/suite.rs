//! Scenarios as tests: filtered, listed and counted like the tests of any Rust project. They share a machine
//! and hold real time limits, so they run one at a time, each in a process of its own that is ended when it
//! takes too long, or with this one.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use chaos::wait::ended;
use chaos::{Context, SCENARIOS, Scenario};
use libtest_mimic::{Arguments, Failed, Trial};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// A scenario of this length hangs.
const TIME_LIMIT: Duration = Duration::from_secs(600);
/// For what a scenario started to be ended: its servers, a container engine.
const GRACE: Duration = Duration::from_secs(40);
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

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
    let passing = thread::spawn(move || io::copy(&mut printed, &mut io::stderr()));
    let Some(status) = ended(&mut child, TIME_LIMIT)? else {
        // It ends what it started first.
        kill_process(Pid::from_child(&child), Signal::TERM)?;
        if ended(&mut child, GRACE)?.is_none() {
            kill_process_group(Pid::from_child(&child), Signal::KILL)?;
        }
        child.wait()?;
        bail!("{name} hangs: it was ended after {} s", TIME_LIMIT.as_secs());
    };
    passing.join().ok();
    ensure!(status.success(), "{name}: {status}, see above");
    Ok(())
}
