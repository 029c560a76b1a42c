//! The same content is stored, and sent, once per realm.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::{Context, Scenario};
use crate::cluster::{Cluster, ClusterOptions, checked};
use crate::content;
use crate::disks;

pub const SAME_CONTENT_TWICE: Scenario = Scenario {
    name: "same-content-twice",
    about: "the same content put twice sends no chunk bytes the second time; another user's realm does",
    run: same_content_twice,
};

fn same_content_twice(context: &Context) -> Result<()> {
    const LENGTH: u64 = 40 << 20;
    let cluster = Cluster::start(&ClusterOptions::default())?;
    let scratch = cluster.scratch();
    let source = scratch.join("source");
    content::write_file(&source, context.seed, "twice", LENGTH)?;
    cluster.dfsctl(["bucket", "create", "mine"])?;
    cluster.dfsctl([Path::new("put"), &source, Path::new("dfs://mine/first")])?;
    let once = disks::copies(&cluster, &[])?;
    cluster.dfsctl([Path::new("put"), &source, Path::new("dfs://mine/second")])?;
    let twice = disks::copies(&cluster, &[])?;
    ensure!(once == twice, "the second put stored chunks: {} before, {} after", once.len(), twice.len());

    let key = scratch.join("other.key");
    cluster.dfsctl([
        Path::new("user"),
        Path::new("add"),
        Path::new("other"),
        Path::new("--key-file"),
        &key,
    ])?;
    let theirs_config = scratch.join("dfsctl.toml");
    std::fs::write(&theirs_config, as_user(&cluster, &key)?)?;
    let as_other = |words: &[&Path]| {
        let mut command = cluster.command(words);
        command.env("DFSCTL_CONFIG", &theirs_config);
        checked("dfsctl as another user", command.output()?)
    };
    as_other(&[Path::new("bucket"), Path::new("create"), Path::new("theirs")])?;
    as_other(&[Path::new("put"), &source, Path::new("dfs://theirs/first")])?;
    let theirs = disks::copies(&cluster, &[])?;
    ensure!(
        theirs.len() == 2 * once.len(),
        "another user's put of the same content left {} chunks, {} before",
        theirs.len(),
        once.len()
    );
    let peek = as_other(&[Path::new("cat"), Path::new("dfs://mine/first")]);
    ensure!(peek.is_err(), "another user read a file of mine");
    let back = scratch.join("back");
    as_other(&[Path::new("get"), Path::new("dfs://theirs/first"), &back])?;
    content::check_file(&back, context.seed, "twice", LENGTH).context("their file")
}

/// The cluster's dfsctl.toml, with another user's key.
fn as_user(cluster: &Cluster, key: &Path) -> Result<String> {
    let text = std::fs::read_to_string(cluster.data_dir().join("dfsctl.toml"))?;
    let lines = text.lines().map(|line| match line.split_once('=').map(|(name, _)| name.trim()) {
        Some("ca") => Ok(format!("ca = {:?}", cluster.ca()?)),
        Some("api_key_file") => Ok(format!("api_key_file = {key:?}")),
        _ => Ok(line.to_owned()),
    });
    Ok(lines.collect::<Result<Vec<_>>>()?.join("\n"))
}
