//! Nothing that must be secret is on any server's disk or in any log.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::{Context, Scenario};
use crate::cluster::{Cluster, ClusterOptions};
use crate::content;

pub const NOTHING_IN_THE_CLEAR: Scenario = Scenario {
    name: "nothing-in-the-clear",
    about: "markers of content and the raw bytes of keys are in no file of any server; the file's name is",
    run: nothing_in_the_clear,
};

const NAME: &str = "a-name-that-is-found-on-disk";
const TEXT: &[u8] = b"It was a bright cold day in the cellar and the disks were striking thirteen.";

fn nothing_in_the_clear(context: &Context) -> Result<()> {
    let options = ClusterOptions::default().set("DFS_STATE_COMPRESSION", "none");
    let cluster = Cluster::start(&options)?;
    let scratch = cluster.scratch();
    cluster.dfsctl(["bucket", "create", "secrets"])?;
    let marker = content::bytes(context.seed, "marker", 48);
    // One file inline, one of several chunks, each full of the text and the random marker.
    for (label, repeats) in [("inline", 50), ("chunks", 90_000)] {
        let source = scratch.join(label);
        let mut body = Vec::new();
        for _ in 0..repeats {
            body.extend_from_slice(TEXT);
            body.extend_from_slice(&marker);
        }
        std::fs::write(&source, &body)?;
        cluster.dfsctl([Path::new("put"), &source, Path::new(&format!("dfs://secrets/{NAME}-{label}"))])?;
        let back = cluster.dfsctl(["cat", &format!("dfs://secrets/{NAME}-{label}")])?;
        ensure!(back == body, "{label} came back changed");
    }
    let mut needles = vec![("the text", TEXT[..32].to_vec()), ("the marker", marker[..24].to_vec())];
    for key in master_keys(&cluster)? {
        needles.push(("a master key", key));
    }
    let api_key = cluster.admin_key()?;
    needles.push(("the admin's API key", api_key.as_bytes().to_vec()));

    let folders: Vec<PathBuf> =
        cluster.processes()?.iter().flat_map(|p| [p.data_dir.clone(), p.log.clone()]).collect();
    for process in cluster.processes()? {
        cluster.stop_process(&process.id)?;
    }
    let mut name_seen = false;
    for file in folders.iter().map(|f| files_below(f)).collect::<Result<Vec<_>>>()?.concat() {
        let bytes = std::fs::read(&file).with_context(|| file.display().to_string())?;
        for (what, needle) in &needles {
            ensure!(find(&bytes, needle).is_none(), "{what} is in the clear in {}", file.display());
        }
        name_seen |= find(&bytes, NAME.as_bytes()).is_some();
    }
    ensure!(name_seen, "the control failed: the file's name was found nowhere, so this search finds nothing");
    Ok(())
}

/// The raw bytes of every master key of the cluster: lines `generation:hex`.
fn master_keys(cluster: &Cluster) -> Result<Vec<Vec<u8>>> {
    let text = std::fs::read_to_string(cluster.data_dir().join("master.key"))?;
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(_, key)| {
            dfs_types::ids::from_hex::<32>(key.trim())
                .map(|key| key.to_vec())
                .context("a master key is 64 hex digits")
        })
        .collect()
}

/// Every regular file below a folder, or the file itself.
pub fn files_below(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).with_context(|| path.display().to_string())? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files_below(&entry.path())?);
        } else if entry.file_type()?.is_file() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Where `needle` begins in `bytes`.
pub fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    while let Some(step) = bytes[from..].iter().position(|b| *b == first) {
        let at = from + step;
        if bytes[at..].starts_with(needle) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}
