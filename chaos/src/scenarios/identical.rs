//! What goes in comes out: large, many small, empty, through pipes, by ranges.

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};

use super::{Context, Scenario};
use crate::cluster::{Cluster, ClusterOptions, checked};
use crate::content;

pub const LARGE_FILE: Scenario = Scenario {
    name: "large-file",
    about: "2 GiB and an empty file go in and come out identical",
    run: large_file,
};

pub const SMALL_FILES: Scenario = Scenario {
    name: "small-files",
    about: "a directory of 20,000 files of 0 to 64 KiB with awkward names, put -r and get -r",
    run: small_files,
};

pub const PIPES_AND_RANGES: Scenario =
    Scenario { name: "pipes", about: "put from standard input, get and cat to standard output", run: pipes };

fn large_file(context: &Context) -> Result<()> {
    const LENGTH: u64 = 2 << 30;
    let cluster = Cluster::start(&ClusterOptions::default())?;
    let scratch = cluster.scratch();
    cluster.dfsctl(["bucket", "create", "big"])?;
    let (source, back) = (scratch.join("source"), scratch.join("back"));
    content::write_file(&source, context.seed, "large", LENGTH)?;
    cluster.dfsctl([Path::new("put"), &source, Path::new("dfs://big/large")])?;
    std::fs::remove_file(&source)?;
    cluster.dfsctl([Path::new("get"), Path::new("dfs://big/large"), &back])?;
    content::check_file(&back, context.seed, "large", LENGTH)?;

    let empty = scratch.join("empty");
    std::fs::write(&empty, b"")?;
    cluster.dfsctl([Path::new("put"), &empty, Path::new("dfs://big/empty")])?;
    cluster.dfsctl([Path::new("get"), Path::new("dfs://big/empty"), &scratch.join("empty-back")])?;
    ensure!(std::fs::metadata(scratch.join("empty-back"))?.len() == 0, "the empty file came back with bytes");
    Ok(())
}

/// The relative path and length of file `i` of the small-files directory.
fn small_file(seed: u64, i: u64) -> (String, u64) {
    const ODD: [&str; 8] =
        ["plain", "with space", "-dash", "--double", "ümläut-ß", "日本語", "quote'\"", "tab\tand%25"];
    let folder = i % 97;
    let name = format!("dir {folder}/{}-{i}", ODD[(i % 8) as usize]);
    let length = match i % 50 {
        0 => 0,
        1 => 64 << 10,
        2 => 16 << 10,
        3 => (16 << 10) + 1,
        _ => content::number(seed, &format!("length {i}"), (64 << 10) + 1),
    };
    (name, length)
}

fn small_files(context: &Context) -> Result<()> {
    let count: u64 = std::env::var("CHAOS_SMALL_FILES").ok().and_then(|t| t.parse().ok()).unwrap_or(20_000);
    let cluster = Cluster::start(&ClusterOptions::default())?;
    let scratch = cluster.scratch();
    cluster.dfsctl(["bucket", "create", "small"])?;
    let tree = scratch.join("tree");
    for i in 0..count {
        let (name, length) = small_file(context.seed, i);
        let path = tree.join(&name);
        std::fs::create_dir_all(path.parent().context("a parent")?)?;
        std::fs::write(&path, content::bytes(context.seed, &name, length as usize))?;
    }
    cluster.dfsctl([Path::new("put"), Path::new("-r"), &tree, Path::new("dfs://small/")])?;
    let back = scratch.join("back");
    cluster.dfsctl([Path::new("get"), Path::new("-r"), Path::new("dfs://small/tree"), &back])?;
    for i in 0..count {
        let (name, length) = small_file(context.seed, i);
        content::check_file(&back.join(&name), context.seed, &name, length)?;
    }
    let found = walk(&back)?;
    ensure!(found == count, "{found} files came back, {count} went in");
    Ok(())
}

fn walk(folder: &Path) -> Result<u64> {
    let mut files = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        files += if entry.file_type()?.is_dir() { walk(&entry.path())? } else { 1 };
    }
    Ok(files)
}

fn pipes(context: &Context) -> Result<()> {
    const LENGTH: usize = 9_000_001;
    let cluster = Cluster::start(&ClusterOptions::default())?;
    cluster.dfsctl(["bucket", "create", "pipes"])?;
    for (label, length) in [("piped", LENGTH), ("tiny", 5), ("nothing", 0)] {
        let path = format!("dfs://pipes/{label}");
        let mut child = cluster
            .command(["put", "-", &path])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let content = content::bytes(context.seed, label, length);
        child.stdin.take().context("stdin")?.write_all(&content)?;
        checked("put -", child.wait_with_output()?)?;
        for words in [["get", &path, "-"].as_slice(), ["cat", &path].as_slice()] {
            let back = cluster.dfsctl(words)?;
            ensure!(back == content, "{words:?} gave {} bytes, {length} went in", back.len());
        }
    }
    Ok(())
}
