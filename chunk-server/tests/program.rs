//! The program itself: what it prints, when it refuses to start, how it ends.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use chunk_server::node::identity::DataDir;
use dfs_types::{ClusterId, NodeId, OsEntropy, SystemClock};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use transport::{Authority, Dialer, Expect, Identity, Role, Tls};

struct Files {
    dir: TempDir,
    authority: Authority,
}

fn write(path: &Path, text: &str, mode: u32) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Certificates of node n1 in a directory.
fn files() -> Files {
    let (dir, cluster) = (tempfile::tempdir().unwrap(), ClusterId([5; 16]));
    let authority = Authority::create(cluster, &SystemClock::new()).unwrap();
    let identity = Identity::new(cluster, Role::ChunkServer, NodeId::new("n1").unwrap());
    let issued = authority.issue(&identity, &[], &SystemClock::new()).unwrap();
    write(&dir.path().join("ca.pem"), authority.cert_pem(), 0o644);
    write(&dir.path().join("cert.pem"), &issued.cert_pem, 0o644);
    write(&dir.path().join("key.pem"), &issued.key_pem, 0o600);
    Files { dir, authority }
}

fn command(files: &Files, id: &str, listen: &str) -> Command {
    let path = |name: &str| files.dir.path().join(name);
    let mut command = Command::new(env!("CARGO_BIN_EXE_chunk-server"));
    command
        .env_clear()
        .args(["--id", id, "--listen", listen, "--metadata", "127.0.0.1:1"])
        .env("DFS_SEGMENT_BYTES", "4194304")
        .arg("--data-dir")
        .arg(path("data"))
        .arg("--ca")
        .arg(path("ca.pem"))
        .arg("--cert")
        .arg(path("cert.pem"))
        .env("DFS_KEY", path("key.pem"));
    command
}

fn start(files: &Files, id: &str) -> Child {
    command(files, id, "127.0.0.1:0").stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

/// What `--probe WHAT` says: exit code and output.
fn probe(files: &Files, id: &str, address: &str, what: &str) -> (Option<i32>, String) {
    let output = command(files, id, address).args(["--probe", what]).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

/// Exit status and what was logged of a program that ends by itself.
fn ended(mut child: Child) -> (Option<i32>, String) {
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    (child.wait().unwrap().code(), log)
}

async fn get(tls: &Tls, address: &str, path: &str) -> String {
    let expect = Expect::server(Role::ChunkServer, NodeId::new("n1").unwrap());
    let mut stream = Dialer::new(tls.clone()).open(address, &expect, &[b"http/1.1"]).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn it_serves_until_it_is_told_to_stop() {
    let files = files();
    let mut child = start(&files, "n1");
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    // Every line is a JSON object; the one that says "serving" has the address.
    let address = loop {
        let line = lines.next().expect("the program ended early").unwrap();
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        if line["message"] == "serving" {
            break line["address"].as_str().unwrap().to_owned();
        }
    };
    let tls = Tls::client(files.authority.cert_pem().as_bytes(), None).unwrap();
    assert!(get(&tls, &address, "/health").await.starts_with("HTTP/1.1 200"));
    // No metadata server is there: alive, not ready, and it says why.
    let ready = get(&tls, &address, "/ready").await;
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("registration"), "{ready}");
    // The program itself asks, for containers without curl; also while the server runs, and somebody else
    // at that address is no yes.
    assert_eq!(probe(&files, "n1", &address, "health").0, Some(0));
    let (code, said) = probe(&files, "n1", &address, "ready");
    assert!(code == Some(1) && said.contains("503") && said.contains("registration"), "{said}");
    assert_eq!(probe(&files, "n2", &address, "health").0, Some(1));
    // The same directory is not served twice.
    let (status, log) = ended(start(&files, "n1"));
    assert!(status == Some(1) && log.contains("in use by another process"), "{log}");

    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{rest:#?}");
    assert!(rest.iter().any(|line| line.contains("\"stopped\"")), "{rest:#?}");
    let (code, said) = probe(&files, "n1", &address, "health");
    assert!(code == Some(1) && said.contains("cannot reach"), "{said}");
}

/// `--print-metrics | head` was a panic.
#[test]
fn who_reads_only_the_beginning_of_what_it_prints_does_no_harm() {
    let files = files();
    for what in ["--print-metrics", "--print-config", "--check-config"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = command(&files, "n1", "127.0.0.1:0");
        let child = command.arg(what).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        // The command holds the other end of the pipe.
        drop(command);
        let (status, said) = ended(child);
        assert!(status == Some(0) && said.is_empty(), "{what}: {status:?} {said}");
    }
}

#[test]
fn it_refuses_what_an_operator_got_wrong() {
    let files = files();
    for bytes in ["0", "64", "4194303", "68719476737", "18446744073709551615"] {
        let mut command = command(&files, "n1", "127.0.0.1:0");
        let output = command.args(["--segment-bytes", bytes, "--check-config"]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && said.contains("segment_bytes: "), "{bytes}: {said}");
    }
    let (status, log) = ended(start(&files, "n2"));
    assert!(status == Some(1) && log.contains("not of chunk-server n2"), "{log}");
    let key = files.dir.path().join("key.pem");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (status, log) = ended(start(&files, "n1"));
    assert!(status == Some(1) && log.contains("chmod 600"), "{log}");
    assert!(!files.dir.path().join("data").exists(), "nothing was formatted");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    // Another cluster's directory.
    let data = files.dir.path().join("data");
    let node = NodeId::new("n1").unwrap();
    let mut other = DataDir::open(&data, &node, &SystemClock::new(), &OsEntropy).unwrap();
    other.join(ClusterId([6; 16])).unwrap();
    drop(other);
    let before = std::fs::read(data.join("IDENTITY")).unwrap();
    let (status, log) = ended(start(&files, "n1"));
    assert!(status == Some(1) && log.contains("use the right certificate"), "{log}");
    assert_eq!(std::fs::read(data.join("IDENTITY")).unwrap(), before);
    assert!(!data.join("segments").exists(), "nothing was made");
}

/// Starts the program under limits of `prlimit`.
fn start_limited(files: &Files, limit: &str) -> Child {
    let plain = command(files, "n1", "127.0.0.1:0");
    let mut limited = Command::new("prlimit");
    limited.env_clear().envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    limited.arg(limit).arg(plain.get_program()).args(plain.get_args());
    limited.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

/// A limit of a file's length is an error that is told, not a signal that ends the process mid-way.
#[test]
fn files_that_may_not_grow_are_an_error() {
    let files = files();
    let (status, log) = ended(start_limited(&files, "--fsize=512"));
    assert!(status == Some(1) && log.contains("File too large"), "{status:?}: {log}");
    // Nothing is left that a start without the limit stumbles over.
    let mut child = start(&files, "n1");
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("store open")), "it does not open its store");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A crowd of idle connections took every file that the process could open, those of the store too.
#[tokio::test]
async fn a_crowd_at_the_door_is_shed_and_leaves_files_for_the_rest() {
    const FILES: usize = 192;
    let files = files();
    let mut child = start_limited(&files, &format!("--nofile={FILES}:{FILES}"));
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = loop {
        let line: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        if line["message"] == "serving" {
            break line["address"].as_str().unwrap().to_owned();
        }
    };
    let opened = lines.by_ref().any(|line| line.unwrap().contains("store open"));
    assert!(opened, "the store does not open with {FILES} files");
    let tls = Tls::client(files.authority.cert_pem().as_bytes(), None).unwrap();
    let expect = Expect::server(Role::ChunkServer, NodeId::new("n1").unwrap());
    let dialer = Dialer::new(tls.clone());
    let mut crowd = Vec::new();
    for _ in 0..2 * FILES {
        // Those beyond the limit are closed in their handshake, or right after it.
        if let Ok(stream) = dialer.open(&address, &expect, &[b"http/1.1"]).await {
            crowd.push(stream);
        }
    }
    let open = std::fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap().count();
    assert!(open > FILES / 4 && open < FILES * 3 / 4, "{open} of {FILES} files are open");
    // A server of the cluster gets in all the same.
    let identity = Identity::new(ClusterId([5; 16]), Role::MetadataServer, NodeId::new("m1").unwrap());
    let issued = files.authority.issue(&identity, &[], &SystemClock::new()).unwrap();
    let ca = files.authority.cert_pem().as_bytes();
    let server = Tls::server(ca, issued.cert_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap();
    assert!(get(&server, &address, "/health").await.starts_with("HTTP/1.1 200"));

    drop(crowd);
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while dialer.open(&address, &expect, &[b"http/1.1"]).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "nobody gets in any more");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(child.try_wait().unwrap().is_none(), "it ended");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn every_metric_is_documented() {
    let output = Command::new(env!("CARGO_BIN_EXE_chunk-server")).arg("--print-metrics").output().unwrap();
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let page = std::fs::read_to_string(page).unwrap();
    for line in std::str::from_utf8(&output.stdout).unwrap().lines() {
        assert!(
            page.lines().any(|there| there == line),
            "docs/metrics.md lacks this, see `make docs`: {line}"
        );
    }
}
