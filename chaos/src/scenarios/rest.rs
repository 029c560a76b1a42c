//! The REST walk of the README, with curl as a user would, and the answers to bad input.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{Context, Scenario};
use crate::cluster::{Cluster, ClusterOptions, Process, checked};
use crate::content;

pub const WALK: Scenario = Scenario {
    name: "rest-walk",
    about: "init_upload, chunk put, commit_upload, files, nodes, locations, delete with curl; errors are 4xx problems",
    run: walk,
};

pub(super) struct Curl<'a> {
    cluster: &'a Cluster,
    base: String,
    key: String,
}

impl<'a> Curl<'a> {
    /// Calls the first metadata server, as the cluster's admin.
    pub(super) fn new(cluster: &'a Cluster) -> Result<Self> {
        let server = cluster.role("metadata-server")?.into_iter().next().context("a metadata server")?;
        Self::at(cluster, &server)
    }

    /// Calls this metadata server.
    pub(super) fn at(cluster: &'a Cluster, server: &Process) -> Result<Self> {
        let base = format!("https://{}", server.addresses["api"]);
        Ok(Self { base, key: cluster.admin_key()?, cluster })
    }

    /// Status and body of one GET.
    pub(super) fn get(&self, path: &str) -> Result<(u16, String)> {
        let (code, _, answer) = self.call("GET", path, None, Some(&self.key))?;
        Ok((code, String::from_utf8_lossy(&answer).into_owned()))
    }

    /// Begins an upload over REST.
    pub(super) fn init(&self, path: &str, size: u64) -> Result<Value> {
        self.ok("POST", "/init_upload", Some(&json!({"path": path, "size": size})))
    }

    /// Seals and sends one chunk of an upload; what commit_upload wants to hear of it.
    pub(super) fn send_chunk(&self, plan: &Value, index: usize, part: &[u8]) -> Result<Value> {
        let scratch = self.cluster.scratch();
        let (plan_file, file) = (scratch.join("plan.json"), scratch.join("part"));
        std::fs::write(&plan_file, plan.to_string())?;
        std::fs::write(&file, part)?;
        let printed = self.cluster.dfsctl([
            Path::new("chunk"),
            Path::new("put"),
            Path::new("--plan"),
            &plan_file,
            Path::new("--index"),
            Path::new(&index.to_string()),
            &file,
        ])?;
        serde_json::from_slice(&printed).context("dfsctl chunk put prints JSON")
    }

    /// commit_upload must be refused with this status and code.
    pub(super) fn commit_refused(&self, commit: &Value, status: u16, code: &str) -> Result<()> {
        let body = commit.to_string();
        let problem = self.refused("POST", "/commit_upload", Some(&body), Some(&self.key), &[status])?;
        ensure!(problem["code"] == code, "not {code}: {problem}");
        Ok(())
    }

    /// Status and body of one call.
    fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&str>,
        key: Option<&str>,
    ) -> Result<(u16, String, Vec<u8>)> {
        let mut command = Command::new("curl");
        command
            .args(["-sS", "--path-as-is", "--max-time", "20", "-X", method, "--cacert"])
            .arg(self.cluster.ca()?);
        command.args(["-w", "\n%{http_code} %{content_type}"]);
        if let Some(key) = key {
            command.args(["-H", &format!("authorization: Bearer {key}")]);
        }
        if let Some(body) = body {
            command.args(["-H", "content-type: application/json", "--data-binary", body]);
        }
        command.arg(format!("{}{path}", self.base));
        let printed = checked(&format!("curl {method} {path}"), command.output()?)?;
        let cut = printed.iter().rposition(|b| *b == b'\n').context("curl's status line")?;
        let status = String::from_utf8_lossy(&printed[cut + 1..]).into_owned();
        let (code, kind) = status.split_once(' ').unwrap_or((&status, ""));
        Ok((code.parse()?, kind.to_owned(), printed[..cut].to_vec()))
    }

    pub(super) fn ok(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let text = body.map(Value::to_string);
        let (code, _, answer) = self.call(method, path, text.as_deref(), Some(&self.key))?;
        let text = String::from_utf8_lossy(&answer);
        ensure!((200..300).contains(&code), "{method} {path}: {code} {text}");
        if answer.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&answer).with_context(|| format!("{method} {path}: {text}"))
    }

    /// The call must be refused with a problem document and one of these codes.
    fn refused(
        &self,
        method: &str,
        path: &str,
        body: Option<&str>,
        key: Option<&str>,
        codes: &[u16],
    ) -> Result<Value> {
        let (code, kind, answer) = self.call(method, path, body, key)?;
        let text = String::from_utf8_lossy(&answer).into_owned();
        ensure!(codes.contains(&code), "{method} {path} {body:?}: {code}, not one of {codes:?}: {text}");
        ensure!(kind.starts_with("application/problem+json"), "{method} {path}: content type {kind:?}");
        let problem: Value = serde_json::from_slice(&answer).with_context(|| text.clone())?;
        ensure!(problem["status"] == json!(code), "{text}");
        for field in ["type", "title", "detail", "code"] {
            ensure!(problem[field].is_string(), "{method} {path}: no {field:?} in {text}");
        }
        Ok(problem)
    }
}

fn walk(context: &Context) -> Result<()> {
    const LENGTH: u64 = 9_000_000;
    let cluster = Cluster::start(&ClusterOptions::default())?;
    let curl = Curl::new(&cluster)?;
    cluster.dfsctl(["bucket", "create", "rest"])?;

    let plan = curl.init("/rest/file", LENGTH)?;
    let chunks = plan["chunks"].as_array().context("chunks of the plan")?.clone();
    let size = plan["chunk_size"].as_u64().context("chunk_size")?;
    ensure!(
        chunks.len() as u64 == LENGTH.div_ceil(size),
        "{} chunks of {size} for {LENGTH} bytes",
        chunks.len()
    );
    let whole = content::bytes(context.seed, "rest", LENGTH as usize);
    let mut committed = Vec::new();
    for (index, part) in whole.chunks(size as usize).enumerate() {
        committed.push(curl.send_chunk(&plan, index, part)?);
    }
    let commit = json!({"upload_id": plan["upload_id"], "chunks": committed});
    let done = curl.ok("POST", "/commit_upload", Some(&commit))?;
    ensure!(done["copies"] == 3 && done["target"] == 3, "{done}");
    let again = curl.ok("POST", "/commit_upload", Some(&commit))?;
    ensure!(again["version"] == done["version"], "a repeated commit made another version: {done} {again}");
    ensure!(cluster.dfsctl(["cat", "dfs://rest/file"])? == whole, "the file reads back changed");

    let listed = curl.ok("GET", "/files?prefix=/rest/&limit=10", None)?;
    ensure!(listed.to_string().contains("/rest/file"), "{listed}");
    let id = done["file_id"].as_str().context("file_id")?;
    let file = curl.ok("GET", &format!("/files/{id}"), None)?;
    ensure!(file["size"] == LENGTH && file["path"] == "/rest/file", "{file}");
    let chunk = file["chunks"][0]["chunk_id"].as_str().context("chunk_id")?;
    let nodes = curl.ok("GET", "/nodes", None)?;
    ensure!(nodes.to_string().contains("\"n1\""), "{nodes}");
    curl.ok("GET", "/nodes/n1", None)?;
    let locations = curl.ok("GET", &format!("/chunks/{chunk}/locations"), None)?;
    ensure!(locations.to_string().contains("n2"), "{locations}");

    refusals(&curl, &committed)?;

    curl.ok("DELETE", &format!("/files/{id}"), None)?;
    curl.refused("GET", &format!("/files/{id}"), None, Some(&curl.key), &[404])?;
    let listed = curl.ok("GET", "/files?prefix=/rest/&limit=10", None)?;
    ensure!(!listed.to_string().contains("/rest/file"), "{listed}");
    let cat = cluster.command(["cat", "dfs://rest/file"]).output()?;
    ensure!(cat.status.code() == Some(3), "a deleted file was read: {cat:?}");
    Ok(())
}

fn refusals(curl: &Curl<'_>, committed: &[Value]) -> Result<()> {
    let key = Some(curl.key.as_str());
    let long = format!(r#"{{"path":"/rest/{}","size":1}}"#, "k".repeat(5000));
    let nested = "[".repeat(100_000);
    // Genuine receipts, but of another upload, and about other chunks than it names.
    let fresh = curl.init("/rest/fresh", 5)?;
    let foreign = json!({"upload_id": fresh["upload_id"], "chunks": [{"index": 0, "chunk_id": "00".repeat(32),
        "size": 5, "secret": committed[0]["secret"], "receipts": committed[0]["receipts"]}]});
    curl.commit_refused(&foreign, 403, "receipt_refused")?;
    let bodies: &[(&str, &[u16])] = &[
        (r#"{"path":"/nobucket/file","size":1}"#, &[404]),
        (r#"{"path":"/rest/","size":1}"#, &[400]),
        (r#"{"path":"rest/file","size":1}"#, &[400]),
        (r#"{"path":"/rest/a\u0000b","size":1}"#, &[400]),
        (r#"{"path":"/rest/file","size":-1}"#, &[400, 422]),
        (r#"{"path":"/rest/file","size":18446744073709551616}"#, &[400, 422]),
        (r#"{"path":"/rest/file","size":9223372036854775808}"#, &[400, 413]),
        (r#"{"path":"/rest/file","size":1,"owner":"me"}"#, &[400]),
        (r#"{"path":"/rest/file""#, &[400]),
        ("", &[400, 415]),
        ("\u{1}", &[400]),
        (&long, &[400]),
        (&nested, &[400, 413]),
    ];
    for (body, codes) in bodies {
        curl.refused("POST", "/init_upload", Some(body), key, codes)?;
    }
    curl.refused("POST", "/commit_upload", Some(r#"{"upload_id":"x","chunks":[]}"#), key, &[400])?;
    let unknown = r#"{"upload_id":"00000000-0000-7000-8000-000000000000","chunks":[]}"#;
    curl.refused("POST", "/commit_upload", Some(unknown), key, &[404])?;
    for path in
        ["/files?prefix=%ff", "/files?limit=-1", "/files?limit=99999999999", "/files?cursor=zzz", "/files/zz"]
    {
        curl.refused("GET", path, None, key, &[400, 404])?;
    }
    for path in
        ["/files/00000000-0000-7000-8000-000000000000", "/nodes/n99", "/nothing", "/chunks/zz/locations"]
    {
        curl.refused("GET", path, None, key, &[400, 404])?;
    }
    curl.refused("PATCH", "/files", None, key, &[405])?;
    for wrong in [None, Some("nonsense"), Some("dfs_00000000000000000000000000000000_00")] {
        curl.refused("GET", "/files?prefix=/rest/", None, wrong, &[401])?;
    }
    Ok(())
}
