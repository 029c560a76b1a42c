//! The program itself: what it says about its settings, and what it rereads while it runs. The same
//! code (`server_kit::program`) is every server's.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use dfs_types::{ClusterId, SystemClock};
use rustix::process::{Pid, Signal, kill_process};
use transport::{Authority, Identity, Role};

const LIMIT: Duration = Duration::from_secs(30);

/// A directory with everything a server m1 needs, and a settings file that names it.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = Self { folder };
        let cluster = ClusterId([7; 16]);
        let authority = Authority::create(cluster, &SystemClock::new()).unwrap();
        let identity = Identity { cluster, role: Role::MetadataServer, id: "m1".parse().unwrap() };
        let issued = authority.issue(&identity, &["127.0.0.1".to_owned()], &SystemClock::new()).unwrap();
        place.write("ca.pem", authority.cert_pem());
        place.write("m1.pem", &issued.cert_pem);
        place.write("m1.key", &issued.key_pem);
        place.write("master.key", &format!("1:{}\n", "ab".repeat(32)));
        place.settings("info");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn settings(&self, level: &str) {
        let text = format!(
            "id = \"m1\"\nlisten = \"127.0.0.1:0\"\ndata_dir = {:?}\nca = {:?}\ncert = {:?}\nkey = {:?}\n\
             master_key_file = {:?}\nlog_level = {level:?}\nlog_file = {:?}\n",
            self.path("data"),
            self.path("ca.pem"),
            self.path("m1.pem"),
            self.path("m1.key"),
            self.path("master.key"),
            self.path("log"),
        );
        self.write("settings.toml", &text);
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_metadata-server"));
        command.env_clear().arg("--config").arg(self.path("settings.toml")).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The line of the log with this message, once it is there.
fn wait_for_line(log: &Path, message: &str) -> String {
    let until = Instant::now() + LIMIT;
    loop {
        let lines = std::fs::read_to_string(log).unwrap_or_default();
        if let Some(line) = lines.lines().find(|line| line.contains(message)) {
            return line.to_owned();
        }
        assert!(Instant::now() < until, "no {message:?} in the log:\n{lines}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

struct Running(Child);

impl Running {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn settings_are_printed_with_their_sources() {
    let place = Place::new();
    let out = place.command().env("DFS_RESERVE_BYTES", "5").args(["--print-config"]).output().unwrap();
    assert!(out.status.success(), "{}", text(&out.stderr));
    let shown = text(&out.stdout);
    assert!(shown.contains("reserve_bytes = 5  # DFS_RESERVE_BYTES"), "{shown}");
    assert!(shown.contains("id = \"m1\"  # /"), "{shown}");
    assert!(shown.contains("log_format = \"json\"  # default"), "{shown}");
    assert!(!place.path("data").exists());
}

#[test]
fn a_check_touches_nothing_and_finds_what_would_keep_it_from_starting() {
    let place = Place::new();
    let out = place.run(&["--check-config"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert_eq!(text(&out.stdout), "the settings of metadata-server/m1 will do\n");
    let refused = |arguments: &[&str], word: &str| {
        let out = place.run(&[&["--check-config"], arguments].concat());
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.starts_with("error: ") && said.contains(word), "{arguments:?}: {said}");
    };
    refused(&["--id", "m2"], "m2");
    refused(&["--listen", "0.0.0.0:1"], "advertise");
    refused(&["--ca", "/nowhere"], "/nowhere");
    refused(&["--log-level", "=="], "log level");
    std::fs::set_permissions(place.path("m1.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    refused(&[], "chmod 600");
    place.write("m1.key", "nonsense");
    refused(&[], "key");
    place.write("settings.toml", "log_levle = \"info\"");
    refused(&[], "did you mean \"log_level\"");
    assert!(!place.path("data").exists());
}

#[test]
fn a_misspelt_variable_is_told() {
    let place = Place::new();
    let out = place.command().env("DFS_LOG_LEVLE", "debug").args(["--check-config"]).output().unwrap();
    assert!(text(&out.stderr).contains("did you mean DFS_LOG_LEVEL?"), "{}", text(&out.stderr));
}

#[test]
fn a_hangup_rereads_level_and_certificates_and_a_terminate_ends_in_order() {
    let place = Place::new();
    let log = place.path("log");
    let mut server = Running(place.command().stderr(Stdio::inherit()).spawn().unwrap());
    wait_for_line(&log, "\"serving\"");
    place.settings("warn,server_kit=info");
    server.signal(Signal::HUP);
    wait_for_line(&log, "certificates reread");
    let line = wait_for_line(&log, "log level in force");
    assert!(line.contains("warn,server_kit=info") && line.contains(r#""level":"INFO""#), "{line}");
    place.write("m1.key", "nonsense");
    place.write("settings.toml", "no_such = 1");
    server.signal(Signal::HUP);
    wait_for_line(&log, "the old certificates stay");
    wait_for_line(&log, "the old settings stay");
    server.signal(Signal::TERM);
    assert!(server.0.wait().unwrap().success());
}

#[test]
fn every_metric_is_documented() {
    let output = Command::new(env!("CARGO_BIN_EXE_metadata-server")).arg("--print-metrics").output().unwrap();
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let page = std::fs::read_to_string(page).unwrap();
    for line in std::str::from_utf8(&output.stdout).unwrap().lines() {
        assert!(
            page.lines().any(|there| there == line),
            "docs/metrics.md lacks this, see `make docs`: {line}"
        );
    }
}
