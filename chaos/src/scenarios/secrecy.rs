//! Nothing that must be secret is on any server's disk or in any log.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use super::keys::stored_keys;
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
    let mut needles =
        vec![("the text".to_owned(), TEXT[..32].to_vec()), ("the marker".to_owned(), marker[..24].to_vec())];
    for key in master_keys(&cluster)? {
        needles.push(("a master key".to_owned(), key));
    }
    let api_key = cluster.admin_key()?;
    needles.push(("the admin's API key".to_owned(), api_key.as_bytes().to_vec()));

    let folders: Vec<PathBuf> =
        cluster.processes()?.iter().flat_map(|p| [p.data_dir.clone(), p.log.clone()]).collect();
    for process in cluster.processes()? {
        cluster.stop_process(&process.id)?;
    }
    let server = cluster.role("metadata-server")?.into_iter().next().context("a metadata server")?;
    let stored = stored_keys(&server.data_dir, &cluster.data_dir().join("master.key"))?;
    ensure!(stored.len() >= 8, "two realms, three nodes, a bucket, two versions at least");
    let mut controls = vec![("the file's name".to_owned(), NAME.as_bytes().to_vec())];
    for key in stored {
        needles.push((format!("{}, raw,", key.what), key.raw));
        controls.push((format!("{}, wrapped,", key.what), key.wrapped));
    }
    let (needles, controls) = (Needles::new(needles), Needles::new(controls));
    let mut seen = BTreeSet::new();
    for file in folders.iter().map(|f| files_below(f)).collect::<Result<Vec<_>>>()?.concat() {
        let bytes = std::fs::read(&file).with_context(|| file.display().to_string())?;
        if let Some(what) = needles.found_in(&bytes).first() {
            bail!("{what} is in the clear in {}", file.display());
        }
        seen.extend(controls.found_in(&bytes));
    }
    let unseen: Vec<_> = controls.names().filter(|what| !seen.contains(*what)).collect();
    ensure!(unseen.is_empty(), "the control failed, so this search finds nothing: {unseen:?} not found");
    Ok(())
}

/// Byte strings that are looked for together, in one pass.
struct Needles {
    all: Vec<(String, Vec<u8>)>,
    /// By their first two bytes.
    starts: BTreeMap<[u8; 2], Vec<usize>>,
    first: [bool; 256],
}

impl Needles {
    fn new(all: Vec<(String, Vec<u8>)>) -> Self {
        let (mut starts, mut first) = (BTreeMap::<_, Vec<usize>>::new(), [false; 256]);
        for (place, (_, needle)) in all.iter().enumerate() {
            starts.entry([needle[0], needle[1]]).or_default().push(place);
            first[usize::from(needle[0])] = true;
        }
        Self { all, starts, first }
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.all.iter().map(|(name, _)| name.as_str())
    }

    fn found_in(&self, bytes: &[u8]) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        for (at, pair) in bytes.windows(2).enumerate() {
            if !self.first[usize::from(pair[0])] {
                continue;
            }
            for place in self.starts.get(&[pair[0], pair[1]]).into_iter().flatten() {
                let (name, needle) = &self.all[*place];
                if bytes[at..].starts_with(needle) {
                    found.insert(name.as_str());
                }
            }
        }
        found
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needles_are_found_wherever_they_are() {
        let named = |text: &str| (text.to_owned(), text.as_bytes().to_vec());
        let needles = Needles::new(vec![named("abc"), named("abd"), named("zz")]);
        assert!(needles.found_in(b"ab ac zab").is_empty());
        assert_eq!(needles.found_in(b"ababd.abc"), BTreeSet::from(["abc", "abd"]));
        assert_eq!(needles.found_in(b"..zzz"), BTreeSet::from(["zz"]));
        assert!(needles.found_in(b"").is_empty());
    }
}
