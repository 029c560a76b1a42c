//! Ctrl-C in the middle of a scenario, as somebody at a terminal presses it.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::{Context, Scenario};
use crate::cluster::binaries;
use crate::ended::processes_naming;
use crate::faults::needs::root;
use crate::wait::{ended, until};

pub const INTERRUPTED_SCENARIO: Scenario = Scenario {
    name: "interrupted-scenario",
    about: "a scenario that gets SIGINT while its cluster runs ends with 130 and leaves no process and no file",
    run: interrupted_scenario,
};

pub const INTERRUPTED_WALKS: Scenario = Scenario {
    name: "interrupted-walks",
    about: "the same of the container and Kubernetes walks: no engine, container, mount or file is left",
    run: interrupted_walks,
};

const PATIENCE: Duration = Duration::from_secs(120);

/// While servers are still being started, and while a put runs.
fn interrupted_scenario(context: &Context) -> Result<()> {
    for (words, least) in [("-server", 6), ("dfsctl put", 1)] {
        interrupt(context, "large-file", words, least)?;
    }
    Ok(())
}

/// While containers are being started.
fn interrupted_walks(context: &Context) -> Result<()> {
    root()?;
    interrupt(context, "compose-walk", "up -d --no-build", 1)?;
    interrupt(context, "kubernetes-walk", "conmon", 5)
}

/// Runs the scenario `victim` and interrupts it when so many of its processes have these words in their command line.
fn interrupt(context: &Context, victim: &str, words: &str, least: usize) -> Result<()> {
    interrupt_at(context, victim, words, least).with_context(|| format!("{victim} at {least} of {words:?}"))
}

fn interrupt_at(context: &Context, victim: &str, words: &str, least: usize) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("i-").tempdir()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["run", victim, "--seed", &context.seed.to_string()]);
    command.env("TMPDIR", folder.path()).env("DFS_BIN_DIR", binaries()?);
    let mut victim = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    until("the moment", PATIENCE, || {
        let running = processes_naming(folder.path());
        let there = running.iter().filter(|(_, line)| line.contains(words)).count();
        ensure!(there >= least, "{running:?}");
        Ok(())
    })?;
    kill_process(Pid::from_child(&victim), Signal::INT)?;
    let status = ended(&mut victim, PATIENCE)?.context("it does not end")?;
    ensure!(status.code() == Some(130), "{status}");
    let left = processes_naming(folder.path());
    ensure!(left.is_empty(), "left running: {left:?}");
    let files = std::fs::read_dir(folder.path())?.collect::<std::io::Result<Vec<_>>>()?;
    ensure!(files.is_empty(), "left there: {files:?}");
    Ok(())
}
