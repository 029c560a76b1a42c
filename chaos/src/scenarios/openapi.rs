//! Requests made from the OpenAPI document, right and wrong ones, by schemathesis against a real cluster: no
//! answer may be one that the document does not have.
//!
//! schemathesis is installed once, at pinned versions and hashes, into a virtual environment in the build
//! cache (see `chaos/openapi-walk/`). Python 3.11 or newer is needed, and PyPI for the first run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use super::rest::Curl;
use super::{Context, Scenario};
use crate::cluster::{Cluster, ClusterOptions, checked};
use crate::content;
use crate::wait::ended;

pub const WALK: Scenario = Scenario {
    name: "openapi-walk",
    about: "at least 2,000 requests generated from /openapi.json: nothing undocumented, no fault, no hang",
    run: walk,
};

const HOOKS: &str = include_str!("../../openapi-walk/hooks.py");
const SETTINGS: &str = include_str!("../../openapi-walk/schemathesis.toml");
const REQUIREMENTS: &str = include_str!("../../openapi-walk/requirements.txt");

const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
response_schema_conformance,negative_data_rejection,missing_required_header,unsupported_method,allow_header_conformance,\
ignored_auth";
/// For each operation; with what the document's own bounds add, some 3,000 requests.
const EXAMPLES: &str = "90";
const LEAST_REQUESTS: u64 = 2_000;
/// Of a hundred requests, this many must succeed: else only refusals were tested.
const LEAST_SUCCESSES: u64 = 20;
const SLOWEST_SECONDS: f64 = 10.0;
const LIMIT: Duration = Duration::from_secs(500);

#[derive(Deserialize)]
struct Counts {
    statuses: BTreeMap<String, BTreeMap<String, u64>>,
    faults: Vec<(String, u16, String)>,
    slowest_seconds: f64,
    slowest: String,
}

fn walk(context: &Context) -> Result<()> {
    let python = schemathesis()?;
    let cluster = Cluster::start(&ClusterOptions::default())?;
    let kept = content::bytes(context.seed, "openapi", 9_000_000);
    let values = values(&cluster, &kept)?;
    let scratch = cluster.scratch();
    for (name, text) in
        [("hooks.py", HOOKS), ("schemathesis.toml", SETTINGS), ("values.json", &values.to_string())]
    {
        std::fs::write(scratch.join(name), text)?;
    }
    // Any member answers: which one is asked goes by the seed.
    let members = cluster.role("metadata-server")?;
    let member = &members[context.seed as usize % members.len()];
    let log = scratch.join("walk.log");
    let printed = std::fs::File::create(&log)?;
    let mut command = Command::new(python);
    command
        .args(["-m", "schemathesis.cli", "run", &format!("https://{}/openapi.json", member.addresses["api"])])
        .arg("--tls-verify")
        .arg(cluster.ca()?)
        .args(["--checks", CHECKS, "--phases", "examples,coverage,fuzzing", "--max-examples", EXAMPLES])
        .args([
            "--seed",
            &context.seed.to_string(),
            "--no-shrink",
            "--continue-on-failure",
            "--request-timeout",
            "15",
        ])
        .current_dir(&scratch)
        .env("PYTHONPATH", &scratch)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("HOME", &scratch)
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("WALK_KEY", cluster.admin_key()?)
        .env("WALK_VALUES", scratch.join("values.json"))
        .env("WALK_COUNTS", scratch.join("counts.json"))
        .stdin(Stdio::null())
        .stdout(printed.try_clone()?)
        .stderr(printed);
    let passed = run(&mut command)?;
    let report = || std::fs::read_to_string(&log).unwrap_or_default();
    ensure!(passed, "schemathesis found something, at {}:\n{}", member.id, report());

    let counts: Counts =
        serde_json::from_slice(&std::fs::read(scratch.join("counts.json")).with_context(report)?)?;
    let mut by_status: BTreeMap<&str, u64> = BTreeMap::new();
    for (status, count) in counts.statuses.values().flatten() {
        *by_status.entry(status).or_default() += count;
    }
    let total: u64 = by_status.values().sum();
    let succeeded: u64 =
        by_status.iter().filter(|(status, _)| status.starts_with('2')).map(|(_, count)| count).sum();
    println!(
        "{total} requests at {}, {succeeded} succeeded, slowest {:.3} s ({}); by status: {by_status:?}",
        member.id, counts.slowest_seconds, counts.slowest
    );
    ensure!(total >= LEAST_REQUESTS, "only {total} requests");
    ensure!(succeeded * 100 >= total * LEAST_SUCCESSES, "only {succeeded} of {total} succeeded");
    ensure!(counts.slowest_seconds < SLOWEST_SECONDS, "{} took {} s", counts.slowest, counts.slowest_seconds);
    for (call, status, text) in &counts.faults {
        let problem: Value = serde_json::from_str(text).unwrap_or_default();
        let about_nodes = *status == 503 && problem["code"] == "not_enough_nodes";
        ensure!(about_nodes, "{call} answered {status}: {text}");
    }
    for process in cluster.processes()? {
        let log = std::fs::read_to_string(&process.log)?;
        ensure!(!log.contains("panicked"), "{} panicked: {}", process.id, process.log.display());
    }
    ensure!(
        cluster.dfsctl(["cat", "dfs://kept/file"])? == kept,
        "a file that nobody touched reads back changed"
    );
    Ok(())
}

/// Runs it to its end or the limit; whether it succeeded.
fn run(command: &mut Command) -> Result<bool> {
    let mut child = command.spawn().context("starting schemathesis")?;
    if let Some(status) = ended(&mut child, LIMIT)? {
        return Ok(status.success());
    }
    child.kill()?;
    child.wait()?;
    bail!("schemathesis did not end within {} s", LIMIT.as_secs());
}

/// Fills the cluster, and says which parameters and fields shall get which of what is there.
fn values(cluster: &Cluster, kept: &[u8]) -> Result<Value> {
    let curl = Curl::new(cluster)?;
    let text = |value: &Value, field: &str| -> Result<String> {
        Ok(value[field].as_str().with_context(|| format!("{field} in {value}"))?.to_owned())
    };
    let bucket = |name: &str| curl.ok("POST", "/buckets", Some(&json!({"name": name})));
    for name in ["walk", "other", "kept"] {
        bucket(name)?;
    }
    let victims: Vec<String> = (0..6).map(|n| format!("victim-{n}")).collect();
    for name in &victims {
        bucket(name)?;
    }
    let source = cluster.scratch().join("content");
    std::fs::write(&source, kept)?;
    for place in ["dfs://kept/file", "dfs://walk/big"] {
        cluster.dfsctl([Path::new("put"), &source, Path::new(place)])?;
    }
    let make = |path: String| text(&curl.ok("POST", "/files", Some(&json!({"path": path})))?, "file_id");
    let files = |folder: &str, count: usize| -> Result<Vec<String>> {
        (0..count).map(|n| make(format!("/walk/{folder}/{n}"))).collect()
    };
    let uploads = |folder: &str, count: usize| -> Result<Vec<String>> {
        (0..count).map(|n| text(&curl.init(&format!("/walk/{folder}/{n}"), 5)?, "upload_id")).collect()
    };
    let big = curl.ok("GET", "/stat?path=/walk/big", None)?;
    let chunks = big["chunks"].as_array().context("chunks")?;
    let chunks: Vec<String> = chunks.iter().map(|chunk| text(chunk, "chunk_id")).collect::<Result<_>>()?;
    let mut there = files("there", 8)?;
    there.push(text(&big, "file_id")?);
    let paths = |folder: &str, count: usize| -> Vec<String> {
        (0..count).map(|n| format!("/walk/{folder}/{n}")).collect()
    };
    Ok(json!({
        "formats": {
            "walk-file": there,
            "walk-file-to-delete": files("to-delete", 30)?,
            "walk-file-to-rename": files("to-rename", 20)?,
            "walk-bucket": ["walk", "other"],
            "walk-bucket-to-delete": victims,
            "walk-bucket-to-make": (0..30).map(|n| format!("made-{n}")).collect::<Vec<_>>(),
            "walk-upload": uploads("upload", 4)?,
            "walk-upload-to-abort": uploads("to-abort", 12)?,
            "walk-node": ["n1", "n2", "n3"],
            "walk-chunk": chunks,
            "walk-path-to-make": paths("made", 40),
            "walk-path": paths("there", 8),
            "walk-prefix": ["/walk/", "/walk/there/", "/other/"],
            "walk-delimiter": ["/", "e", "//"],
            "walk-code": ["not_found", "internal"],
        },
        "parameters": {
            "* /files/{id} id": "walk-file",
            "delete /files/{id} id": "walk-file-to-delete",
            "* /files/{id}/versions id": "walk-file",
            "* /files/{id}/rename id": "walk-file-to-rename",
            "* /files prefix": "walk-prefix",
            "* /files delimiter": "walk-delimiter",
            "* /stat path": "walk-path",
            "* /buckets/{name} name": "walk-bucket",
            "delete /buckets/{name} name": "walk-bucket-to-delete",
            "* /uploads/{id} id": "walk-upload",
            "delete /uploads/{id} id": "walk-upload-to-abort",
            "* /nodes/{id} id": "walk-node",
            "* /chunks/{id}/locations id": "walk-chunk",
            "* /chunks/{id}/locations file_id": "walk-file",
            "* /chunks/{id}/locations path": "walk-path",
            "* /docs/errors/{code} code": "walk-code",
        },
        "fields": {
            "CreateFile.path": "walk-path-to-make",
            "Source.file_id": "walk-file",
            "RenameFile.path": "walk-path-to-make",
            "InitUpload.path": "walk-path-to-make",
            "InitUpload.upload_id": "walk-upload",
            "CommitUpload.upload_id": "walk-upload",
            "CreateBucket.name": "walk-bucket-to-make",
            "PutLocation.node_id": "walk-node",
            "PutLocation.file_id": "walk-file",
        },
    }))
}

/// The Python of the virtual environment that has schemathesis, made if it is not there.
fn schemathesis() -> Result<PathBuf> {
    let cache = std::env::var_os("DFS_BUILD_CACHE").map(PathBuf::from).or_else(|| {
        let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
        Some(std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?.join("distribute"))
    });
    let digest = blake3::hash(REQUIREMENTS.as_bytes()).to_hex();
    let folder = cache.context("HOME is not set")?.join(format!("openapi-walk-{}", &digest[..12]));
    std::fs::create_dir_all(&folder)?;
    let lock = std::fs::File::create(folder.join("lock"))?;
    lock.lock()?;
    let environment = folder.join("venv");
    let python = environment.join("bin/python");
    let whole = folder.join("whole");
    if whole.exists() && python.exists() {
        return Ok(python);
    }
    let need = "openapi-walk needs python3 (3.11 or newer) with its venv module, and PyPI for its first run";
    let _ = std::fs::remove_dir_all(&environment);
    let made = Command::new("python3").args(["-m", "venv"]).arg(&environment).output().context(need)?;
    checked("python3 -m venv", made).context(need)?;
    let requirements = folder.join("requirements.txt");
    std::fs::write(&requirements, REQUIREMENTS)?;
    let installed = Command::new(&python)
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-input",
            "--disable-pip-version-check",
            "--require-hashes",
        ])
        .args(["--only-binary", ":all:", "-r"])
        .arg(&requirements)
        .output()?;
    checked("pip install", installed).context(need)?;
    std::fs::write(&whole, "")?;
    Ok(python)
}
