//! dfsctl as people use it, against a cluster in this process.

mod fake;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use fake::Cluster;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

const MIB: usize = 1 << 20;

struct Shell {
    dir: tempfile::TempDir,
    cluster: Cluster,
}

impl Shell {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cluster = Cluster::start(3).await;
        std::fs::write(dir.path().join("ca.pem"), &cluster.ca_pem).unwrap();
        std::fs::write(dir.path().join("key"), "dfs_test_key\n").unwrap();
        let config = format!(
            "cluster_id = \"{}\"\nmetadata = {:?}\nca = \"ca.pem\"\napi_key_file = \"key\"\n",
            fake::CLUSTER,
            cluster.metadata
        );
        std::fs::write(dir.path().join("dfsctl.toml"), config).unwrap();
        std::fs::create_dir(dir.path().join("work")).unwrap();
        Self { dir, cluster }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("work").join(name)
    }

    fn write(&self, name: &str, content: &[u8]) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dfsctl"));
        command
            .args(args)
            .current_dir(self.dir.path().join("work"))
            .env_clear()
            .env("DFSCTL_CONFIG", self.dir.path().join("dfsctl.toml"))
            .env("XDG_STATE_HOME", self.dir.path().join("state"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().await.unwrap()
    }

    /// Runs it and demands success; answers what it printed.
    async fn ok(&self, args: &[&str]) -> Vec<u8> {
        let output = self.run(args).await;
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    async fn json(&self, args: &[&str]) -> Value {
        let args = [args, &["--output", "json"]].concat();
        serde_json::from_slice(&self.ok(&args).await).unwrap()
    }

    /// Runs it and demands this exit code; answers what it said.
    async fn fails(&self, code: i32, args: &[&str]) -> String {
        let output = self.run(args).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        said
    }
}

fn tree(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut files, mut waiting) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                files.insert(path.strip_prefix(root).unwrap().to_owned(), std::fs::read(path).unwrap());
            }
        }
    }
    files
}

fn content(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&length.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_goes_in_and_comes_out() {
    let shell = Shell::new().await;
    for number in 0..300usize {
        let name = format!("tree/{}/ü {number} -", number % 7);
        shell.write(&name, &content(number * 211));
    }
    for name in ["tree/-rf", "tree/--help", "tree/empty", "tree/a b/c\nd"] {
        shell.write(name, if name.ends_with("empty") { b"" } else { name.as_bytes() });
    }
    shell.write("tree/large", &content(9 * MIB));
    let before = tree(&shell.path("tree"));

    let report = shell.json(&["put", "-r", "tree", "dfs://bucket/copy"]).await;
    assert_eq!(report["files"].as_array().unwrap().len(), before.len());
    assert!(report["longest_call_ms"].is_u64(), "{report}");
    shell.ok(&["get", "-r", "dfs://bucket/copy", "out"]).await;
    assert!(tree(&shell.path("out")) == before);
    // As cp: into what is a directory already, and all of it with -T.
    shell.ok(&["get", "-r", "/bucket/copy/", "out"]).await;
    assert!(tree(&shell.path("out/copy")) == before);
    shell.ok(&["put", "-r", "-T", "tree", "dfs://bucket/copy"]).await;
    shell.ok(&["put", "-r", "tree", "dfs://bucket/copy"]).await;
    assert!(shell.cluster.world.lock().metadata.files.contains_key("/bucket/copy/tree/-rf"));

    let listed = shell.json(&["ls", "-r", "dfs://bucket/copy/a b"]).await;
    assert_eq!(listed["entries"][0]["path"], "dfs://bucket/copy/a b/c\nd");
    let text = String::from_utf8(shell.ok(&["ls", "dfs://bucket/copy/"]).await).unwrap();
    assert!(text.lines().any(|line| line == "a b/") && text.lines().any(|line| line == "-rf"), "{text}");
    shell.ok(&["rm", "-r", "dfs://bucket/"]).await;
    assert!(shell.cluster.world.lock().metadata.files.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn files_streams_and_exit_codes() {
    let shell = Shell::new().await;
    shell.write("-odd", b"odd");
    shell.ok(&["put", "--", "-odd", "dfs://bucket/"]).await;
    assert_eq!(shell.ok(&["cat", "dfs://bucket/-odd"]).await, b"odd");
    assert_eq!(shell.ok(&["cat", "--offset", "1", "--length", "1", "dfs://bucket/-odd"]).await, b"d");
    shell.ok(&["get", "dfs://bucket/-odd", "."]).await;
    shell.ok(&["get", "dfs://bucket/-odd", "/dev/null"]).await;
    assert!(!Path::new("/dev/null").is_file());

    let big = content(5 * MIB);
    let mut pipe = shell.command(&["put", "-", "dfs://bucket/piped"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = pipe.stdin.take().unwrap();
    stdin.write_all(&big).await.unwrap();
    drop(stdin);
    assert!(pipe.wait().await.unwrap().success());
    assert!(shell.ok(&["get", "dfs://bucket/piped", "-"]).await == big);

    let got = shell.json(&["get", "dfs://bucket/piped", "piped"]).await;
    assert!(got["longest_call_ms"].is_u64(), "{got}");
    let stat = shell.json(&["stat", "dfs://bucket/piped"]).await;
    assert_eq!(stat["size"], 5 * MIB);
    shell.fails(3, &["cat", "dfs://bucket/none"]).await;
    shell.fails(3, &["get", "-r", "dfs://bucket/none/", "out"]).await;
    shell.fails(3, &["put", "nowhere", "dfs://bucket/"]).await;
    shell.fails(2, &["put", "-odd"]).await;
    shell.fails(2, &["cat", "bucket/none"]).await;
    shell.fails(2, &["put", "-r", ".", "--config", "/nowhere", "dfs://bucket/"]).await;
    shell.write("big", &big);
    shell.fails(4, &["put", "--if-version", "7", "big", "dfs://bucket/piped"]).await;
    let said = shell.fails(3, &["put", "big", "dfs://missing/"]).await;
    assert!(said.contains("dfsctl bucket create missing"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_file_is_not_there_but_kept_until_purged() {
    let shell = Shell::new().await;
    let client = &shell.cluster.client;
    for number in 0..20 {
        client.put(&format!("/bucket/d/{number:02}"), "x", Default::default()).await.unwrap();
    }
    client.put("/bucket/d/0", "y", Default::default()).await.unwrap();
    shell.ok(&["rm", "dfs://bucket/d/0"]).await;
    for words in [&["stat"][..], &["cat"], &["rm"]] {
        let said = shell.fails(3, &[words, &["dfs://bucket/d/0"]].concat()).await;
        assert!(said.contains("--deleted"), "{words:?}: {said}");
    }
    let said = shell.fails(3, &["get", "dfs://bucket/d/0", "out"]).await;
    assert!(said.contains("--deleted") && !shell.path("out").exists(), "{said}");
    let said = shell.fails(3, &["stat", "dfs://bucket/d/0"]).await;
    let times = "at 2026-11-21T10:20:30Z; it is kept until about 2026-11-22T10:20:30Z";
    assert!(said.contains(times) && said.contains("ls --deleted dfs://bucket/d/0"), "{said}");
    let text = shell.ok(&["stat", "--deleted", "dfs://bucket/d/0"]).await;
    assert!(String::from_utf8(text).unwrap().contains(times));
    let stat = shell.json(&["stat", "--deleted", "dfs://bucket/d/0"]).await;
    assert_eq!((&stat["deleted"], &stat["kept_until"]), (&true.into(), &"2026-11-22T10:20:30Z".into()));
    assert_eq!(shell.json(&["stat", "--deleted", "dfs://bucket/d/00"]).await["size"], 1);

    // What is deleted still fills its bucket, and the hint says what empties it.
    shell.ok(&["rm", "-r", "dfs://bucket/"]).await;
    let said = shell.fails(4, &["bucket", "rm", "bucket"]).await;
    assert!(said.contains("`dfsctl rm -r --purge dfs://bucket/`"), "{said}");
    shell.fails(3, &["rm", "dfs://bucket/d/00"]).await;
    shell.ok(&["rm", "--purge", "dfs://bucket/d/00"]).await;
    let report = shell.json(&["rm", "-r", "--purge", "dfs://bucket/"]).await;
    assert_eq!(report["files"].as_array().unwrap().len(), 20);
    shell.ok(&["bucket", "rm", "bucket"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_leads_outside() {
    let shell = Shell::new().await;
    let client = &shell.cluster.client;
    for key in ["d/../../escaped", "d//x", "d/../escaped", "d/good", "d/link/planted"] {
        client.put(&format!("/bucket/{key}"), "x", Default::default()).await.unwrap();
    }
    std::fs::create_dir_all(shell.path("out")).unwrap();
    std::fs::create_dir_all(shell.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink(shell.path("elsewhere"), shell.path("out/link")).unwrap();
    let said = shell.fails(1, &["get", "-r", "-T", "dfs://bucket/d", "out"]).await;
    assert!(said.contains("4 of 5 files not fetched"), "{said}");
    assert_eq!(std::fs::read(shell.path("out/good")).unwrap(), b"x");
    assert_eq!(std::fs::read_dir(shell.path("elsewhere")).unwrap().count(), 0);
    assert!(!shell.path("escaped").exists() && !shell.dir.path().join("escaped").exists());
    assert_eq!(std::fs::read_dir(shell.path("out")).unwrap().count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_leaves_a_put_that_goes_on() {
    let shell = Shell::new().await;
    let big = content(40 * MIB);
    shell.write("big", &big);
    // Two silent nodes: the put gets as far as its first bytes and waits.
    for node in ["n2", "n3"] {
        shell.cluster.set_mode(node, fake::Mode::Hangs);
    }
    let child = shell.command(&["put", "big", "dfs://bucket/big"]).spawn().unwrap();
    while shell.cluster.received() < 4 * MIB as u64 {
        tokio::task::yield_now().await;
    }
    let pid = rustix::process::Pid::from_raw(child.id().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("run the same command again"), "{said}");
    assert!(
        output.stdout.is_empty() && !shell.cluster.world.lock().metadata.files.contains_key("/bucket/big")
    );
    let notes = shell.dir.path().join("state/distribute/puts");
    assert_eq!(std::fs::read_dir(&notes).unwrap().count(), 1);
    for node in ["n2", "n3"] {
        shell.cluster.set_mode(node, fake::Mode::Good);
    }
    shell.ok(&["put", "big", "dfs://bucket/big"]).await;
    assert_eq!(std::fs::read_dir(&notes).unwrap().count(), 0);
    assert!(shell.cluster.client.read("/bucket/big").await.unwrap() == big);
}

/// After Ctrl-C the message of `put -r` was about putting all anew, and the command that goes on was for the reader
/// to find out: the same one would put the directory into the copy begun.
#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_of_many_says_how_far_it_came_and_what_to_type() {
    let shell = Shell::new().await;
    let big = content(20 * MIB);
    shell.write("my tree/big", &big);
    shell.write("my tree/small", b"small");
    for node in ["n2", "n3"] {
        shell.cluster.set_mode(node, fake::Mode::Hangs);
    }
    let child = shell.command(&["put", "-r", "my tree", "dfs://bucket/tree"]).spawn().unwrap();
    let small = || shell.cluster.world.lock().metadata.files.contains_key("/bucket/tree/small");
    while shell.cluster.received() < 4 * MIB as u64 || !small() {
        tokio::task::yield_now().await;
    }
    let said = interrupt(child).await;
    // The small file's answer may be on its way still.
    assert!(said.contains(" of 2 files are put and stay"), "{said}");
    let again = "dfsctl put -T -r 'my tree' dfs://bucket/tree`";
    assert!(said.contains(again), "{said}");
    for node in ["n2", "n3"] {
        shell.cluster.set_mode(node, fake::Mode::Good);
    }
    let received = shell.cluster.received();
    shell.ok(&["put", "-T", "-r", "my tree", "dfs://bucket/tree"]).await;
    assert!(shell.cluster.client.read("/bucket/tree/big").await.unwrap() == big);
    assert!(shell.cluster.received() > received);
    let keys: Vec<String> = shell.cluster.world.lock().metadata.files.keys().cloned().collect();
    assert_eq!(keys, ["/bucket/tree/big", "/bucket/tree/small"]);

    for node in ["n1", "n2", "n3"] {
        shell.cluster.set_mode(node, fake::Mode::Hangs);
    }
    let child = shell.command(&["get", "-r", "dfs://bucket/tree", "out"]).spawn().unwrap();
    while !shell.path("out/small").exists() {
        tokio::task::yield_now().await;
    }
    let said = interrupt(child).await;
    assert!(said.contains("dfsctl get -T -r dfs://bucket/tree out`"), "{said}");
    assert_eq!(tree(&shell.path("out")).into_keys().collect::<Vec<_>>(), [PathBuf::from("small")]);
}

async fn interrupt(child: tokio::process::Child) -> String {
    let pid = rustix::process::Pid::from_raw(child.id().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(130), "{said}");
    said
}

/// What surprised in a walk over wrong inputs: a missing bucket was told for each file and ended with 1, a target that
/// is a file was "opening a: File exists", a directory was "no such file", nothing at all was copied or deleted with 0.
#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_told_once_and_in_words() {
    let shell = Shell::new().await;
    shell.write("tree/a", b"a");
    shell.write("tree/bad name\n", b"b");
    std::os::unix::fs::symlink("a", shell.path("tree/link")).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(shell.path("tree/socket")).unwrap();
    let fifo = shell.path("tree/pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    use std::os::unix::ffi::OsStrExt;
    std::fs::write(shell.path("tree").join(std::ffi::OsStr::from_bytes(b"\xff")), b"c").unwrap();

    let said = shell.fails(3, &["put", "-r", "tree", "dfs://missing/"]).await;
    assert!(said.contains("dfsctl bucket create missing") && !said.contains("tree/a"), "{said}");
    let said = shell.fails(1, &["put", "-r", "tree", "dfs://bucket/t"]).await;
    for why in
        ["it is a link", "it is a socket", "it is a named pipe", "not valid UTF-8", "4 of 6 files not put"]
    {
        assert!(said.contains(why), "{why}: {said}");
    }
    let said = shell.fails(2, &["put", "tree/socket", "dfs://bucket/"]).await;
    assert!(said.contains("is a socket"), "{said}");
    drop(socket);
    shell.fails(2, &["put", "tree", "dfs://bucket/"]).await;

    let said = shell.fails(2, &["get", "-r", "dfs://bucket/t", "tree/a"]).await;
    assert!(said.contains("is a file"), "{said}");
    assert_eq!(std::fs::read(shell.path("tree/a")).unwrap(), b"a");
    for words in
        [&["get", "dfs://bucket/t", "out"][..], &["cat", "dfs://bucket/t"], &["stat", "dfs://bucket/t"]]
    {
        let said = shell.fails(3, words).await;
        assert!(said.contains("dfs://bucket/t is a directory"), "{words:?}: {said}");
    }
    let said = shell.fails(3, &["rm", "dfs://bucket/t"]).await;
    assert!(said.contains("is a directory") && said.contains("use -r"), "{said}");
    let said = shell.fails(3, &["rm", "dfs://bucket/t/none"]).await;
    assert!(said.contains("t/none") && said.contains("dfsctl ls dfs://bucket/t/"), "{said}");
    shell.fails(3, &["rm", "-r", "dfs://bucket/none/"]).await;
    shell.ok(&["rm", "-r", "--force", "dfs://bucket/none/"]).await;
    let said = String::from_utf8(shell.ok(&["rm", "-r", "dfs://bucket/t"]).await).unwrap();
    assert_eq!(said, "2 files deleted\n");
}
