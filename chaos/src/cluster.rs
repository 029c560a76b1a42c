//! One cluster of real processes, started and ended through `dfsctl dev`, in a folder of its own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use serde_json::Value;

use crate::wait::until;

pub struct ClusterOptions {
    pub metadata: usize,
    pub chunk_servers: usize,
    /// Settings of the servers, as `DFS_*` variables.
    pub settings: BTreeMap<String, String>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self { metadata: 3, chunk_servers: 3, settings: BTreeMap::new() }
    }
}

impl ClusterOptions {
    pub fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.settings.insert(name.to_owned(), value.to_string());
        self
    }

    pub fn chunk_servers(mut self, count: usize) -> Self {
        self.chunk_servers = count;
        self
    }

    pub fn metadata(mut self, count: usize) -> Self {
        self.metadata = count;
        self
    }
}

/// One row of cluster.json.
#[derive(Clone, Debug, Deserialize)]
pub struct Process {
    pub role: String,
    pub id: String,
    pub pid: i32,
    pub addresses: BTreeMap<String, String>,
    pub data_dir: PathBuf,
    pub log: PathBuf,
}

#[derive(Deserialize)]
struct ClusterFile {
    processes: Vec<Process>,
    ca: PathBuf,
    admin_key_file: PathBuf,
}

pub struct Cluster {
    root: tempfile::TempDir,
    bin: PathBuf,
    settings: BTreeMap<String, String>,
    keep: bool,
}

impl Cluster {
    /// Starts a new cluster and waits until it is ready.
    pub fn start(options: &ClusterOptions) -> Result<Self> {
        let cluster = Self::prepare(options)?;
        checked("dev up", cluster.up_command(options).output()?)?;
        Ok(cluster)
    }

    /// A cluster that is not started yet.
    pub(crate) fn prepare(options: &ClusterOptions) -> Result<Self> {
        let root = tempfile::Builder::new().prefix("dfs-chaos-").tempdir()?;
        crate::ended::remember(root.path());
        Ok(Self {
            root,
            bin: binaries()?,
            settings: options.settings.clone(),
            keep: std::env::var_os("CHAOS_KEEP").is_some(),
        })
    }

    /// What starts it.
    pub(crate) fn up_command(&self, options: &ClusterOptions) -> Command {
        let mut up = self.command(["dev", "up", "--detach", "--data-dir"]);
        up.arg(self.data_dir());
        up.args(["--metadata", &options.metadata.to_string()]);
        up.args(["--chunk-servers", &options.chunk_servers.to_string()]);
        up
    }

    /// `dev up` on the folder as it is: starts whatever of it does not run.
    pub fn up_again(&self) -> Result<()> {
        checked(
            "dev up",
            self.command(["dev", "up", "--detach", "--data-dir"]).arg(self.data_dir()).output()?,
        )
        .map(drop)
    }

    pub fn data_dir(&self) -> PathBuf {
        self.root.path().join("cluster")
    }

    /// A folder for a scenario's own files.
    pub fn scratch(&self) -> PathBuf {
        let path = self.root.path().join("scratch");
        std::fs::create_dir_all(&path).expect("the scenario's temporary folder is writable");
        path
    }

    /// A `dfsctl` command line on this cluster, as its admin.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(self.bin.join("dfsctl"));
        command.args(args).envs(&self.settings).env("DFSCTL_CONFIG", self.data_dir().join("dfsctl.toml"));
        command.env("XDG_STATE_HOME", self.root.path().join("state"));
        command.stdin(Stdio::null());
        command
    }

    /// Runs `dfsctl`, and fails with what it printed unless it exits 0.
    pub fn dfsctl<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Vec<u8>> {
        let mut command = self.command(args);
        let what = format!("{command:?}");
        checked(&what, timed(&mut command)?)
    }

    /// Runs `dfsctl ... --output json` and reads what it printed.
    pub fn json<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Value> {
        let mut command = self.command(args);
        command.args(["--output", "json"]);
        let what = format!("{command:?}");
        let printed = checked(&what, timed(&mut command)?)?;
        serde_json::from_slice(&printed)
            .with_context(|| format!("{what} printed no JSON: {}", String::from_utf8_lossy(&printed)))
    }

    /// Starts `dfsctl` and gives the running process, its output kept.
    pub fn spawn<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Child> {
        Ok(self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
    }

    fn file(&self) -> Result<ClusterFile> {
        let path = self.data_dir().join("cluster.json");
        let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
        serde_json::from_slice(&text).with_context(|| path.display().to_string())
    }

    pub fn processes(&self) -> Result<Vec<Process>> {
        Ok(self.file()?.processes)
    }

    pub fn process(&self, id: &str) -> Result<Process> {
        self.processes()?.into_iter().find(|p| p.id == id).with_context(|| format!("no process {id}"))
    }

    pub fn role(&self, role: &str) -> Result<Vec<Process>> {
        Ok(self.processes()?.into_iter().filter(|p| p.role == role).collect())
    }

    pub fn ca(&self) -> Result<PathBuf> {
        Ok(self.file()?.ca)
    }

    pub fn admin_key(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.file()?.admin_key_file)?.trim().to_owned())
    }

    /// The name of the metadata server that leads.
    pub fn leader(&self) -> Result<String> {
        until("a leader", Duration::from_secs(20), || {
            let status = self.json(["cluster", "status"])?;
            match status["leader"].as_str() {
                Some(name) if !name.is_empty() => Ok(name.to_owned()),
                _ => bail!("no leader in {status}"),
            }
        })
    }

    /// `kill -9` of one process of this cluster.
    pub fn kill(&self, id: &str) -> Result<()> {
        signal(&self.process(id)?, Signal::KILL)
    }

    /// `kill -9` of one process, which is gone when this returns: its files may be changed.
    pub fn kill_and_wait(&self, id: &str) -> Result<()> {
        self.dev("kill", id)
    }

    /// `kill -9` of every process at once.
    pub fn kill_all(&self) -> Result<()> {
        for process in self.processes()? {
            signal(&process, Signal::KILL)?;
        }
        Ok(())
    }

    /// Ends a process as an assertion that fails in it would.
    pub fn abort(&self, id: &str) -> Result<()> {
        signal(&self.process(id)?, Signal::ABORT)
    }

    pub fn pause(&self, id: &str) -> Result<()> {
        signal(&self.process(id)?, Signal::STOP)
    }

    pub fn resume(&self, id: &str) -> Result<()> {
        signal(&self.process(id)?, Signal::CONT)
    }

    /// Starts a process that was killed or stopped, with the address it had.
    pub fn start_process(&self, id: &str) -> Result<()> {
        self.dev("start", id)
    }

    fn dev(&self, what: &str, id: &str) -> Result<()> {
        let mut command = self.command(["dev", what, id, "--data-dir"]);
        command.arg(self.data_dir());
        checked(&format!("dev {what} {id}"), timed(&mut command)?).map(drop)
    }

    /// Starts a process without waiting until it is ready: for one that may never be.
    pub fn begin_start(&self, id: &str) -> Result<Starting> {
        self.begin_start_all(&[id.to_owned()])
    }

    /// The same for several.
    pub fn begin_start_all(&self, ids: &[String]) -> Result<Starting> {
        let mut command = self.dev_command("start", ids);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Starting(command.spawn()?.into()))
    }

    fn dev_command(&self, what: &str, ids: &[String]) -> Command {
        let mut command = self.command(["dev", what, "--data-dir"]);
        command.arg(self.data_dir()).args(ids);
        command
    }

    /// Starts several at once.
    pub fn start_all(&self, ids: &[String]) -> Result<()> {
        self.start_with(ids, &[])
    }

    /// Starts several at once with more in their environment.
    pub fn start_with(&self, ids: &[String], environment: &[(String, String)]) -> Result<()> {
        let mut command = self.dev_command("start", ids);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        checked(&format!("dev start {ids:?}"), timed(&mut command)?).map(drop)
    }

    /// Ends several in good order.
    pub fn stop_all(&self, ids: &[String]) -> Result<()> {
        checked(&format!("dev stop {ids:?}"), timed(&mut self.dev_command("stop", ids))?).map(drop)
    }

    /// `kill -9` of several at once, which are gone when this returns.
    pub fn kill_these(&self, ids: &[String]) -> Result<()> {
        for id in ids {
            self.kill(id)?;
        }
        checked(&format!("dev kill {ids:?}"), timed(&mut self.dev_command("kill", ids))?).map(drop)
    }

    /// The names of all servers of a role.
    pub fn names(&self, role: &str) -> Result<Vec<String>> {
        Ok(self.role(role)?.into_iter().map(|process| process.id).collect())
    }

    /// What `dev status` says of a process now.
    pub fn health(&self, id: &str) -> Result<Health> {
        let mut command = self.command(["dev", "status", "--output", "json", "--data-dir"]);
        // It exits 6 when something is not ready, and prints the same.
        let output = command.arg(self.data_dir()).output()?;
        let status: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("dev status: {}", String::from_utf8_lossy(&output.stderr)))?;
        let servers = status["servers"].as_array().context("servers in dev status")?;
        let server =
            servers.iter().find(|s| s["id"] == id).with_context(|| format!("no {id} in {status}"))?;
        Ok(match (server["state"].as_str(), server["ready"].as_bool()) {
            (Some("running"), Some(true)) => Health::Ready,
            (Some("running"), _) => Health::NotReady(server["reason"].as_str().unwrap_or("").to_owned()),
            _ => Health::Gone,
        })
    }

    pub fn stop_process(&self, id: &str) -> Result<()> {
        self.dev("stop", id)
    }

    /// Resident memory of a process in bytes.
    pub fn resident_bytes(&self, process: &Process) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid))?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").trim().parse::<u64>()? * 1024)
    }

    /// The last lines of every server's log, for a failure's report.
    pub fn log_tails(&self, lines: usize) -> String {
        let mut report = String::new();
        for process in self.processes().unwrap_or_default() {
            let text = std::fs::read_to_string(&process.log).unwrap_or_default();
            let tail: Vec<&str> = text.lines().rev().take(lines).collect();
            report.push_str(&format!("--- {} ({})\n", process.id, process.log.display()));
            for line in tail.iter().rev() {
                report.push_str(line);
                report.push('\n');
            }
        }
        report
    }
}

/// What a process says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Health {
    Ready,
    /// It runs, and says why it is not ready.
    NotReady(String),
    Gone,
}

/// A `dev start` under way. Dropping it ends the waiting, not the server.
pub struct Starting(RefCell<Child>);

impl Starting {
    /// Whether it gave up, or has nothing left to wait for.
    pub fn is_over(&self) -> Result<bool> {
        Ok(self.0.borrow_mut().try_wait()?.is_some())
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        let child = self.0.get_mut();
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let down = self.command(["dev", "down", "--data-dir"]).arg(self.data_dir()).output();
        if !matches!(&down, Ok(output) if output.status.success()) {
            let _ = self.kill_all();
        }
        if self.keep {
            self.root.disable_cleanup(true);
            eprintln!("kept: {}", self.root.path().display());
        }
    }
}

/// Sends a signal to a process of the cluster; one that is gone already is no error.
fn signal(process: &Process, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(process.pid).context("cluster.json has no pid")?;
    let command = std::fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
    let ours = command.windows(process.role.len()).any(|part| part == process.role.as_bytes());
    if !ours {
        return Ok(());
    }
    match kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => bail!("signal to {}: {error}", process.id),
    }
}

/// The folder of the three binaries: `DFS_BIN_DIR`, or `bin` at the top of the checkout.
pub fn binaries() -> Result<PathBuf> {
    let folder = match std::env::var_os("DFS_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../bin"),
    };
    for name in ["dfsctl", "metadata-server", "chunk-server"] {
        ensure!(
            folder.join(name).is_file(),
            "{} is missing: run `make build`, or set DFS_BIN_DIR",
            folder.join(name).display()
        );
    }
    Ok(folder.canonicalize()?)
}

/// Says so on standard error when a command takes longer than a user would call normal.
pub fn timed(command: &mut Command) -> Result<Output> {
    let start = Instant::now();
    let output = command.output()?;
    let seconds = start.elapsed().as_secs_f64();
    if seconds > 8.0 {
        let words: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
        eprintln!("slow: {seconds:.1} s: dfsctl {}", words.join(" "));
    }
    Ok(output)
}

/// The standard output of a finished command, or an error with all that it printed.
pub fn checked(what: &str, output: Output) -> Result<Vec<u8>> {
    if output.status.success() {
        return Ok(output.stdout);
    }
    bail!(
        "{what}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
