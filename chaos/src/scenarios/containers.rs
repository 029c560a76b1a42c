//! The ways of deployment that the project ships, walked as they are: the compose file with its images,
//! and the Kubernetes manifests, checked and their pods run under podman. What is walked stands in the
//! scripts, which people run by hand too; here they run in a folder of their own and must leave it empty.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Context, Scenario};
use crate::cluster::{binaries, checked};
use crate::ended::{processes_naming, remember_script};
use crate::faults::needs::missing;
use crate::wait::until;

pub const COMPOSE_WALK: Scenario = Scenario {
    name: "compose-walk",
    about: "images and three and three containers: a file in and out, two killed, read again, hardening, all deleted",
    run: |_: &Context| script("docker-test.sh", &[]),
};

pub const KUBERNETES_WALK: Scenario = Scenario {
    name: "kubernetes-walk",
    about: "manifests rendered, valid, within our rules; their pods under podman: a file in and out, two killed",
    run: |_: &Context| {
        script("k8s.sh", &["check"])?;
        script("k8s.sh", &["test"])
    },
};

/// What the scripts exit with where the machine lacks something (EX_UNAVAILABLE).
const LACKS: i32 = 69;

/// Runs a script of this project with the programs under test; fails with all it printed.
fn script(name: &str, arguments: &[&str]) -> Result<()> {
    // Short, because sockets below it have at most 107 bytes of path.
    let folder = tempfile::Builder::new().prefix("w-").tempdir()?;
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts").join(name));
    command.args(arguments).env("DFS_BIN_DIR", binaries()?).env("TMPDIR", folder.path());
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn()?;
    remember_script(folder.path(), &child);
    let output = child.wait_with_output()?;
    let what = format!("scripts/{name} {}", arguments.join(" "));
    if output.status.code() == Some(LACKS) {
        let said = String::from_utf8_lossy(&output.stderr);
        let why = said.lines().rev().find_map(|line| line.strip_prefix("error: "));
        return missing(format!("{what}: {}", why.unwrap_or("it does not say what it lacks")));
    }
    let printed = checked(&what, output)?;
    for line in String::from_utf8_lossy(&printed).lines() {
        println!("  {line}");
    }
    let left = std::fs::read_dir(folder.path())?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<std::io::Result<Vec<_>>>()?;
    ensure!(left.is_empty(), "{what} left files: {left:?}");
    until("every process of the script to be gone", Duration::from_secs(20), || {
        let left = processes_naming(folder.path());
        ensure!(left.is_empty(), "{what} left processes: {left:?}");
        Ok(())
    })
}
