//! What a scenario needs of the machine beyond an ordinary user's rights: root, tools, a kernel that mounts.
//!
//! A scenario whose needs are not met fails and says what is missing, so that a green run always means
//! that it ran; whoever cannot have it sets [`ALLOW_SKIP`].

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

/// Set to 1, scenarios that this machine cannot run are passed over, saying so.
pub const ALLOW_SKIP: &str = "CHAOS_ALLOW_SKIP";

/// This machine cannot run the scenario.
#[derive(Debug)]
pub struct Missing(pub String);

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "this machine cannot run it: {}; {ALLOW_SKIP}=1 passes over it", self.0)
    }
}

impl std::error::Error for Missing {}

pub fn missing<T>(what: impl Into<String>) -> Result<T> {
    bail!(Missing(what.into()))
}

pub fn root() -> Result<()> {
    match rustix::process::geteuid().is_root() {
        true => Ok(()),
        false => missing(
            "it mounts file systems or runs containers, which needs root (run it as root, or in a container with --privileged)",
        ),
    }
}

/// The first of these programs on the PATH or in the folders of administrators.
pub fn program(names: &[&str], package: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> =
        std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).collect();
    let found = names
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .find(|candidate| candidate.is_file());
    match found {
        Some(found) => Ok(found),
        None => missing(format!("{} is not installed (apt-get install {package})", names.join(" or "))),
    }
}

/// A file that a package brings; as root the package is installed if need be.
pub fn file(candidates: &[&str], package: &str) -> Result<PathBuf> {
    let found = || candidates.iter().map(Path::new).find(|path| path.is_file()).map(Path::to_owned);
    if let Some(found) = found() {
        return Ok(found);
    }
    if rustix::process::geteuid().is_root() {
        println!("  installing {package}");
        // Whether it worked shows below.
        let _ = Command::new("apt-get")
            .args(["install", "-y", "-q", "--no-install-recommends", package])
            .env("DEBIAN_FRONTEND", "noninteractive")
            .output();
    }
    match found() {
        Some(found) => Ok(found),
        None => missing(format!("{} is not there (apt-get install {package})", candidates[0])),
    }
}
