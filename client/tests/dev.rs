//! `dfsctl dev` with real processes, but servers that only say whether they are ready: this program
//! under the servers' names. So it needs neither server and shows what dev itself promises.
//!
//! A harness of its own, because the program must be able to be a server. Arguments that are no
//! options choose tests by a part of their name, as with any test program.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    match Path::new(&arguments[0]).file_name().and_then(|name| name.to_str()) {
        Some(role @ ("metadata-server" | "chunk-server")) => fake::serve(role, &arguments),
        _ => run_tests(&arguments[1..]),
    }
}

const TESTS: &[(&str, fn())] = &[
    ("up_makes_a_cluster_and_up_again_leaves_it_alone", up_makes_a_cluster_and_up_again_leaves_it_alone),
    ("servers_are_stopped_started_killed_and_added", servers_are_stopped_started_killed_and_added),
    ("up_after_everything_was_killed", up_after_everything_was_killed),
    ("ctrl_c_before_ready_leaves_nothing", ctrl_c_before_ready_leaves_nothing),
    ("ctrl_c_brings_a_foreground_cluster_down", ctrl_c_brings_a_foreground_cluster_down),
    ("only_one_up_a_folder", only_one_up_a_folder),
    ("a_server_that_fails_is_named_with_its_log", a_server_that_fails_is_named_with_its_log),
    ("a_cluster_dies_with_its_parent", a_cluster_dies_with_its_parent),
    ("clusters_side_by_side", clusters_side_by_side),
    ("a_folder_with_other_files_is_refused", a_folder_with_other_files_is_refused),
];

fn run_tests(arguments: &[String]) -> ExitCode {
    let given = |option: &str| arguments.iter().any(|argument| argument == option);
    // Runners ask for the ignored tests apart from the others, and skip what they are told. None is.
    if given("--ignored") {
        return ExitCode::SUCCESS;
    }
    if given("--list") {
        TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let chosen = |name: &str| filters.is_empty() || filters.iter().any(|part| name.contains(part.as_str()));
    let mut failed = 0;
    for (name, test) in TESTS.iter().filter(|(name, _)| chosen(name)) {
        let ok = std::panic::catch_unwind(test).is_ok();
        println!("test {name} ... {}", if ok { "ok" } else { "FAILED" });
        failed += usize::from(!ok);
    }
    println!("test result: {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A folder with dfsctl and the fake servers in it, and one cluster's folder. Whatever still runs of
/// that cluster is killed at the end.
struct Sandbox {
    dir: tempfile::TempDir,
}

impl Sandbox {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let own = std::env::current_exe().unwrap();
        for (from, name) in [
            (PathBuf::from(env!("CARGO_BIN_EXE_dfsctl")), "dfsctl"),
            (own.clone(), "metadata-server"),
            (own, "chunk-server"),
        ] {
            let to = dir.path().join(name);
            std::fs::hard_link(&from, &to).or_else(|_| std::fs::copy(&from, &to).map(drop)).unwrap();
        }
        Self { dir }
    }

    fn cluster(&self) -> PathBuf {
        self.dir.path().join("c")
    }

    fn dev(&self, words: &str) -> Command {
        let mut command = Command::new(self.dir.path().join("dfsctl"));
        command.arg("dev").args(words.split_whitespace()).args(["--output", "json", "--data-dir"]);
        command.arg(self.cluster()).env_remove("DFSCTL_CONFIG").stdin(Stdio::null());
        command
    }

    /// Runs a command that must exit with `code`, and reads what it printed.
    fn ask(&self, words: &str, code: i32) -> Value {
        let output = self.dev(words).output().unwrap();
        expect(words, &output, code);
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    fn start(&self, words: &str) -> Child {
        self.dev(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn processes(&self) -> Vec<Value> {
        let text = std::fs::read(self.cluster().join("cluster.json")).unwrap_or_default();
        let file: Value = serde_json::from_slice(&text).unwrap_or_default();
        file["processes"].as_array().cloned().unwrap_or_default()
    }

    fn pids(&self) -> Vec<i32> {
        self.processes().iter().map(|process| process["pid"].as_i64().unwrap() as i32).collect()
    }

    fn alive(&self) -> usize {
        self.pids().into_iter().filter(|pid| is_alive(*pid)).count()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        for pid in self.pids() {
            if is_alive(pid) {
                let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
            }
        }
    }
}

fn expect(what: &str, output: &Output, code: i32) {
    let (printed, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{what}: {printed}{errors}");
}

fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, fields)| !fields.starts_with('Z'))
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(30), "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

fn by_id<'a>(report: &'a Value, id: &str) -> &'a Value {
    report["servers"].as_array().unwrap().iter().find(|server| server["id"] == id).unwrap()
}

fn up_makes_a_cluster_and_up_again_leaves_it_alone() {
    let sandbox = Sandbox::new();
    let report = sandbox.ask("up --detach --metadata 1 --chunk-servers 2", 0);
    assert_eq!((&report["ready"], report["servers"].as_array().unwrap().len()), (&Value::Bool(true), 3));
    let processes = sandbox.processes();
    let ids: Vec<&str> = processes.iter().map(|process| process["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["m1", "n1", "n2"]);
    assert_eq!(processes[1]["addresses"]["api"], by_id(&report, "n1")["address"]);
    for name in
        ["cluster.json", "dfsctl.toml", "master.key", "admin.key", "ca.key", "m1/key.pem", "m1/server.log"]
    {
        let mode = std::fs::metadata(sandbox.cluster().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{name}");
    }
    for name in ["", "n1", "n1/data"] {
        let mode = std::fs::metadata(sandbox.cluster().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700, "{name}");
    }
    let pids = sandbox.pids();
    sandbox.ask("up --detach", 0);
    assert_eq!(sandbox.pids(), pids);
    sandbox.ask("status", 0);
    sandbox.ask("up --detach --metadata 3", 4);

    sandbox.ask("down", 0);
    assert_eq!(sandbox.alive(), 0);
    sandbox.ask("status", 6);
    sandbox.ask("down", 0);
}

fn servers_are_stopped_started_killed_and_added() {
    let sandbox = Sandbox::new();
    sandbox.ask("up --detach --metadata 1 --chunk-servers 2", 0);
    let before = sandbox.ask("status", 0);
    let killed = sandbox.ask("kill n1", 0);
    assert_eq!(by_id(&killed, "n1")["state"], "stopped");
    sandbox.ask("stop n2 n1", 0);
    assert_eq!(sandbox.alive(), 1);
    sandbox.ask("stop nobody", 3);
    let started = sandbox.ask("start n1", 0);
    assert_eq!(by_id(&started, "n1")["address"], by_id(&before, "n1")["address"]);
    assert_ne!(by_id(&started, "n1")["pid"], by_id(&before, "n1")["pid"]);
    let added = sandbox.ask("add --domain rack", 0);
    assert_eq!(by_id(&added, "n3")["ready"], true);
    sandbox.ask("up --detach --chunk-servers 4", 0);
    assert_eq!((sandbox.processes().len(), sandbox.alive()), (5, 5));
    sandbox.ask("down", 0);
    sandbox.ask("add", 4);
}

fn up_after_everything_was_killed() {
    let sandbox = Sandbox::new();
    let before = sandbox.ask("up --detach --metadata 3 --chunk-servers 3", 0);
    for pid in sandbox.pids() {
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }
    until("their end", || sandbox.alive() == 0);
    // One was started, and dfsctl killed before it could note that.
    let plan_file = sandbox.cluster().join("plan.json");
    let mut plan: Value = serde_json::from_slice(&std::fs::read(&plan_file).unwrap()).unwrap();
    let orphan = sandbox.ask("start n2", 0);
    plan["servers"][4]["process"] = Value::Null;
    std::fs::write(&plan_file, plan.to_string()).unwrap();
    // A half-written file of the same crash.
    std::fs::write(sandbox.cluster().join("plan.json.new"), "{").unwrap();

    let after = sandbox.ask("up --detach", 0);
    assert_eq!(by_id(&after, "n2")["pid"], by_id(&orphan, "n2")["pid"]);
    for id in ["m1", "m2", "m3", "n1", "n2", "n3"] {
        assert_eq!(by_id(&after, id)["address"], by_id(&before, id)["address"], "{id}");
    }
    sandbox.ask("down", 0);
    assert_eq!(sandbox.alive(), 0);
}

fn ctrl_c_before_ready_leaves_nothing() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.dev("up --metadata 1 --chunk-servers 1");
    let mut up = command.env("FAKE_NEVER_READY", "1").stderr(Stdio::null()).spawn().unwrap();
    until("two servers", || sandbox.alive() == 2);
    signal(&up, Signal::INT);
    assert_eq!(up.wait().unwrap().code(), Some(130));
    assert_eq!(sandbox.alive(), 0);
    // The same when it gives up by itself.
    let output = sandbox.dev("up --detach --wait 1").env("FAKE_NEVER_READY", "1").output().unwrap();
    expect("up", &output, 6);
    assert!(String::from_utf8_lossy(&output.stderr).contains("fake: never"));
    assert_eq!(sandbox.alive(), 0);
    sandbox.ask("up --detach", 0);
}

fn ctrl_c_brings_a_foreground_cluster_down() {
    let sandbox = Sandbox::new();
    let mut up = sandbox.start("up --metadata 1 --chunk-servers 1");
    until("readiness", || sandbox.dev("status").output().unwrap().status.success());
    // Added by another dfsctl: it goes down with the others.
    sandbox.ask("add", 0);
    assert_eq!(sandbox.alive(), 3);
    signal(&up, Signal::INT);
    assert_eq!(up.wait().unwrap().code(), Some(0));
    assert_eq!(sandbox.alive(), 0);
}

fn only_one_up_a_folder() {
    let sandbox = Sandbox::new();
    let mut up = sandbox.start("up --metadata 1 --chunk-servers 1");
    until("readiness", || sandbox.dev("status").output().unwrap().status.success());
    sandbox.ask("up --detach", 4);
    assert_eq!(sandbox.alive(), 2);
    // Brought down by another dfsctl, it ends by itself.
    sandbox.ask("down", 0);
    assert_eq!(up.wait().unwrap().code(), Some(0));
    sandbox.ask("up --detach", 0);
}

fn a_server_that_fails_is_named_with_its_log() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.dev("up --detach --metadata 1 --chunk-servers 2");
    let output = command.env("FAKE_FAIL", "n2").output().unwrap();
    expect("up", &output, 1);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("n2 ended (exit status: 3)") && errors.contains("fake failure"), "{errors}");
    assert_eq!(sandbox.alive(), 0);
}

fn a_cluster_dies_with_its_parent() {
    let sandbox = Sandbox::new();
    let up = sandbox.dev("up --metadata 1 --chunk-servers 1 --die-with-parent");
    let mut shell = Command::new("/bin/sh");
    // The trailing command keeps the shell from becoming dfsctl itself.
    shell.args(["-c", "\"$@\" >/dev/null 2>&1; true", "sh"]).arg(up.get_program()).args(up.get_args());
    let mut shell = shell.env_remove("DFSCTL_CONFIG").spawn().unwrap();
    until("readiness", || sandbox.dev("status").output().unwrap().status.success());
    shell.kill().unwrap();
    assert_eq!(shell.wait().unwrap().signal(), Some(9));
    until("the servers' end", || sandbox.alive() == 0);
}

fn clusters_side_by_side() {
    let (a, b) = (Sandbox::new(), Sandbox::new());
    let first = a.ask("up --detach --metadata 1 --chunk-servers 1", 0);
    let second = b.ask("up --detach --metadata 1 --chunk-servers 1", 0);
    assert_ne!(first["cluster_id"], second["cluster_id"]);
    a.ask("down", 0);
    assert_eq!((a.alive(), b.alive()), (0, 2));
    b.ask("status", 0);
    // Named by its configuration alone.
    let status = Command::new(b.dir.path().join("dfsctl"))
        .args(["dev", "status"])
        .env("DFSCTL_CONFIG", b.cluster().join("dfsctl.toml"))
        .output()
        .unwrap();
    expect("status", &status, 0);
    b.ask("down", 0);
}

fn a_folder_with_other_files_is_refused() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.cluster()).unwrap();
    std::fs::File::create(sandbox.cluster().join("thesis.tex")).unwrap().write_all(b"x").unwrap();
    sandbox.ask("up --detach", 4);
    sandbox.ask("status", 3);
    sandbox.ask("down", 3);
    assert_eq!(std::fs::read_dir(sandbox.cluster()).unwrap().count(), 1);
}

/// A server that has a certificate, a port, and an opinion on whether it is ready.
mod fake {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::signal::unix::{SignalKind, signal};
    use transport::{ListenLimits, Role, Tls, TlsListener};

    pub fn serve(role: &str, arguments: &[String]) -> ExitCode {
        let value = |name: &str| {
            let place = arguments.iter().position(|argument| argument == name).expect(name);
            arguments[place + 1].as_str()
        };
        let id = value("--id");
        if std::env::var("FAKE_FAIL").is_ok_and(|failing| failing == id) {
            eprintln!("fake failure of {id}");
            return ExitCode::from(3);
        }
        assert!(Path::new(value("--data-dir")).is_dir());
        let file = |name: &str| std::fs::read(value(name)).unwrap();
        let tls = Tls::server(&file("--ca"), &file("--cert"), &file("--key")).unwrap();
        let identity = tls.identity().unwrap();
        let meant = if role == "chunk-server" { Role::ChunkServer } else { Role::MetadataServer };
        assert_eq!((identity.role, identity.id.as_str()), (meant, id));
        if role == "metadata-server" {
            assert!(value("--initial-members").contains(&format!("{id}={}", value("--advertise"))));
            assert!(file("--master-key-file").starts_with(b"1:"));
            assert!(file("--admin-key-file").starts_with(b"dfs_"));
        }
        let listen = value("--listen").to_owned();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut term = signal(SignalKind::terminate()).unwrap();
            let mut listener = TlsListener::bind(&listen, tls, ListenLimits::default()).await.unwrap();
            loop {
                tokio::select! {
                    _ = term.recv() => break,
                    Some(mut stream) = listener.accept() => {
                        tokio::spawn(async move {
                            let mut request = [0; 1024];
                            let _ = stream.read(&mut request).await;
                            let _ = stream.write_all(answer().as_bytes()).await;
                            let _ = stream.shutdown().await;
                        });
                    }
                }
            }
        });
        ExitCode::SUCCESS
    }

    fn answer() -> String {
        let (status, body) = if std::env::var_os("FAKE_NEVER_READY").is_some() {
            ("503 Service Unavailable", r#"{"status":"not_ready","reasons":{"fake":"never"}}"#)
        } else {
            ("200 OK", r#"{"status":"ready"}"#)
        };
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }
}
