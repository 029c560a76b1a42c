//! The examples of the SDK, on a real cluster: those in Rust are this program's own modules, so what runs
//! here is what people read; the one in Python is generated from the .proto files as its README says.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context as _, Result, anyhow, ensure};
use dfs_client::{BucketOptions, Client};
use serde_json::Value;

use super::{Context, Scenario};
use crate::cluster::{Cluster, ClusterOptions, checked};
use crate::content;

#[allow(dead_code)] // their main functions
#[path = "../../../examples/list_prefix.rs"]
mod list_prefix;
#[allow(dead_code)]
#[path = "../../../examples/range_reader.rs"]
mod range_reader;
#[allow(dead_code)]
#[path = "../../../examples/upload_directory.rs"]
mod upload_directory;
#[allow(dead_code)]
#[path = "../../../examples/watch_progress.rs"]
mod watch_progress;

pub const EXAMPLES: Scenario = Scenario {
    name: "examples",
    about: "the SDK's examples: a folder put, listed, read by ranges, a put watched",
    run: examples,
};

pub const PYTHON_CLIENT: Scenario = Scenario {
    name: "python-client",
    about: "a client generated from the .proto files by grpcio-tools lists and stats files",
    run: python_client,
};

fn examples(context: &Context) -> Result<()> {
    let cluster = Cluster::start(&ClusterOptions::default())?;
    let config = cluster.data_dir().join("dfsctl.toml");
    let folder = cluster.scratch().join("pictures");
    std::fs::create_dir_all(folder.join("deep/er"))?;
    let lengths = [("a", 10), ("deep/b", 70_000), ("deep/er/c", 0), ("z", 5_000_000)];
    for (name, length) in lengths {
        content::write_file(&folder.join(name), context.seed, name, length)?;
    }
    let film = cluster.scratch().join("film");
    content::write_file(&film, context.seed, "film", 20_000_000)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let client = Client::from_config_file(config).await?;
        client.create_bucket("photos", BucketOptions::default()).await?;
        let put = upload_directory::upload_directory(&client, &folder, "dfs://photos/all/").await;
        let put = put.map_err(|error| anyhow!("{error}"))?;
        ensure!(put == (4, lengths.iter().map(|(_, length)| length).sum()), "{put:?}");

        let lines = list_prefix::list_prefix(&client, "photos", "all/").await?;
        let names: Vec<&str> = lines.iter().filter_map(|line| line.split(' ').next()).collect();
        ensure!(names == ["/photos/all/a", "/photos/all/deep/", "/photos/all/z"], "{names:?}");

        let reader = range_reader::RangeReader::open(client.clone(), "dfs://photos/all/z").await?;
        let whole = content::bytes(context.seed, "z", 5_000_000);
        client.put("/photos/all/z", "replaced", Default::default()).await?;
        ensure!(reader.tail(100).await? == whole[whole.len() - 100..], "the tail");
        ensure!(reader.read(4_194_300, 8).await? == whole[4_194_300..4_194_308], "across two chunks");

        let told = Mutex::new(Vec::new());
        let tell = |now: dfs_client::ProgressSnapshot| {
            told.lock().expect("nobody panics with it").push((now.done_bytes, now.total_bytes));
        };
        let done = watch_progress::put_and_watch(&client, &film, "dfs://photos/film", tell).await?;
        ensure!(done.size == 20_000_000, "{done:?}");
        let told = told.into_inner().unwrap_or_default();
        ensure!(told.last() == Some(&(20_000_000, 20_000_000)), "{told:?}");
        ensure!(told.is_sorted(), "progress that goes back: {told:?}");
        ensure!(!film.with_extension("resume").exists(), "the note of a put that is done stays");
        Ok(())
    })
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The Python with the packages that the example's README names.
fn python() -> Result<PathBuf> {
    let mut venv = Command::new(top().join("scripts/venv.sh"));
    venv.arg(top().join("examples/python/requirements.txt"));
    let printed = checked("scripts/venv.sh", venv.output()?)?;
    Ok(PathBuf::from(String::from_utf8(printed)?.trim()))
}

fn python_client(context: &Context) -> Result<()> {
    let python = python()?;
    let cluster = Cluster::start(&ClusterOptions::default())?;
    let generated = cluster.scratch().join("generated");
    std::fs::create_dir_all(&generated)?;
    let protos: Vec<PathBuf> = std::fs::read_dir(top().join("proto/dfs/v1"))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<_>>()?;
    let mut protoc = Command::new(&python);
    protoc.args(["-m", "grpc_tools.protoc", "-I"]).arg(top().join("proto"));
    protoc.arg("--python_out").arg(&generated).arg("--grpc_python_out").arg(&generated).args(&protos);
    checked("grpc_tools.protoc", protoc.output()?)?;
    let files = |args: &[&str]| -> Result<std::process::Output> {
        let mut command = Command::new(&python);
        command.env("PYTHONPATH", &generated).env("PYTHONDONTWRITEBYTECODE", "1");
        command.arg(top().join("examples/python/files.py"));
        command.arg("--config").arg(cluster.data_dir().join("dfsctl.toml")).args(args);
        Ok(command.output()?)
    };
    let rows = |args: &[&str]| -> Result<Vec<Value>> {
        let printed = checked("files.py", files(args)?)?;
        String::from_utf8(printed)?.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    };

    cluster.dfsctl(["bucket", "create", "photos"])?;
    let local = cluster.scratch().join("local");
    for (key, length) in [("2026/a", 5_000_000u64), ("2026/ü b", 20), ("x", 0)] {
        content::write_file(&local, context.seed, key, length)?;
        let target = format!("dfs://photos/{key}");
        cluster.dfsctl([std::ffi::OsStr::new("put"), local.as_os_str(), target.as_ref()])?;
    }
    let listed = rows(&["ls", "photos", "2026/"])?;
    let seen: Vec<_> = listed.iter().map(|row| (row["path"].as_str(), row["size"].as_u64())).collect();
    ensure!(
        seen == [(Some("/photos/2026/a"), Some(5_000_000)), (Some("/photos/2026/ü b"), Some(20))],
        "{seen:?}"
    );
    ensure!(rows(&["ls", "photos"])?.len() == 3);
    let stat = rows(&["stat", "/photos/2026/a"])?;
    let ours = cluster.json(["stat", "dfs://photos/2026/a"])?;
    ensure!(stat[0]["version"] == ours["version"] && stat[0]["chunks"] == 2, "{stat:?} {ours}");

    // Errors come with the cluster's own code.
    let refused = files(&["stat", "/photos/nothing"])?;
    let said: Value = serde_json::from_slice(&refused.stderr)
        .with_context(|| String::from_utf8_lossy(&refused.stderr).into_owned())?;
    let not_found = dfs_types::ErrorCode::NotFound as u16;
    ensure!(refused.status.code() == Some(1) && said["code"] == not_found, "{said}");
    // One server down: the next one answers.
    let first = cluster.role("metadata-server")?.into_iter().next().context("a metadata server")?;
    cluster.kill_and_wait(&first.id)?;
    cluster.leader()?;
    ensure!(rows(&["ls", "photos", "2026/"])?.len() == 2);
    Ok(())
}
