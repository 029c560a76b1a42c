//! The preloaded library of `shim.c`: compiled when a scenario wants it, ruled by a file while servers run.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::needs;

const SOURCE: &str = include_str!("shim.c");

/// Which calls.
#[derive(Clone, Copy)]
pub enum Op {
    /// fsync and fdatasync.
    Sync,
    /// Positioned reads.
    Read,
}

#[derive(Clone, Copy)]
pub enum Action {
    /// Success, without doing anything.
    Lie,
    /// EIO, without doing anything.
    Fail,
    /// SIGKILL instead of the call.
    Kill,
    /// The call, then SIGKILL.
    KillAfter,
}

/// One rule, for files whose path contains `part`.
pub struct Rule<'a> {
    pub op: Op,
    pub action: Action,
    /// From this matching call on, counted from 1 in each process since the rule was set.
    pub from: u64,
    /// Only this one call, or all from it on.
    pub once: bool,
    pub part: &'a str,
}

pub struct Shim {
    library: PathBuf,
    control: PathBuf,
}

impl Shim {
    /// Compiles the library into `folder`; no rule holds yet.
    pub fn new(folder: &Path) -> Result<Self> {
        let compiler = needs::program(&["cc", "gcc", "clang"], "gcc")?;
        let (source, library) = (folder.join("shim.c"), folder.join("shim.so"));
        std::fs::write(&source, SOURCE)?;
        let output = Command::new(compiler)
            .args(["-O1", "-Wall", "-shared", "-fPIC", "-o"])
            .args([&library, &source])
            .args(["-ldl", "-lpthread"])
            .output()?;
        ensure!(output.status.success(), "compiling the shim: {}", String::from_utf8_lossy(&output.stderr));
        Ok(Self { library, control: folder.join("shim.rules") })
    }

    /// The environment of a server that is to have the shim.
    pub fn environment(&self) -> Vec<(String, String)> {
        vec![
            ("LD_PRELOAD".to_owned(), self.library.display().to_string()),
            ("CHAOS_SHIM".to_owned(), self.control.display().to_string()),
        ]
    }

    /// From now on (within 5 ms of the servers' next calls) these rules hold and no others; hits
    /// before are forgotten.
    pub fn set(&self, rules: &[Rule<'_>]) -> Result<()> {
        let lines: String = rules.iter().map(Rule::line).collect();
        let _ = std::fs::remove_file(self.hits_file());
        let new = self.control.with_extension("new");
        std::fs::write(&new, lines)?;
        Ok(std::fs::rename(new, &self.control)?)
    }

    fn hits_file(&self) -> PathBuf {
        self.control.with_extension("rules.hits")
    }

    /// Calls hit since the rules were set: "ACTION NUMBER PATH".
    pub fn hits(&self) -> Result<Vec<String>> {
        match std::fs::read_to_string(self.hits_file()) {
            Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error).context("the shim's hits"),
        }
    }
}

impl Rule<'_> {
    fn line(&self) -> String {
        let op = match self.op {
            Op::Sync => "sync",
            Op::Read => "read",
        };
        let action = match self.action {
            Action::Lie => "lie",
            Action::Fail => "eio",
            Action::Kill => "kill",
            Action::KillAfter => "killafter",
        };
        format!("{op} {action} {} {} {}\n", self.from, u8::from(self.once), self.part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program with the shim, on one file: the second sync fails, the third is the last.
    #[test]
    fn calls_are_hit_by_number() {
        let folder = tempfile::tempdir().unwrap();
        let shim = Shim::new(folder.path()).unwrap();
        let file = folder.path().join("file");
        let run = || {
            let mut command = Command::new("dd");
            command.args(["if=/dev/zero", "bs=1", "count=1", "conv=fsync", "status=none"]);
            command.arg(format!("of={}", file.display())).envs(shim.environment()).output().unwrap()
        };
        let rule = |action, from| Rule { op: Op::Sync, action, from, once: true, part: "/file" };
        shim.set(&[rule(Action::Fail, 2)]).unwrap();
        assert!(run().status.success() && shim.hits().unwrap().is_empty());
        shim.set(&[rule(Action::Fail, 1)]).unwrap();
        assert!(!run().status.success());
        assert_eq!(shim.hits().unwrap(), [format!("eio 1 {}", file.display())]);
        shim.set(&[rule(Action::Kill, 1)]).unwrap();
        assert_eq!(run().status.code(), None);
        shim.set(&[]).unwrap();
        assert!(run().status.success() && shim.hits().unwrap().is_empty());
    }
}
