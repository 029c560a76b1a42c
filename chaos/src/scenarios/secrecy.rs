//! Nothing that must be secret is on any server's disk or in any log.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::keys::{OWN_REALM, stored_keys};
use super::{Context, Scenario};
use crate::cluster::{Cluster, ClusterOptions, Health};
use crate::content;
use crate::disks;
use crate::wait::until;

pub const NOTHING_IN_THE_CLEAR: Scenario = Scenario {
    name: "nothing-in-the-clear",
    about: "content and raw keys are in no file, log, environment or core of any server; the file's name is",
    run: nothing_in_the_clear,
};

const NAME: &str = "a-name-that-is-found-on-disk";
const TEXT: &[u8] = b"It was a bright cold day in the cellar and the disks were striking thirteen.";

fn nothing_in_the_clear(context: &Context) -> Result<()> {
    // Snapshots often, so that there is one to look into.
    let options =
        ClusterOptions::default().set("DFS_STATE_COMPRESSION", "none").set("DFS_SNAPSHOT_ENTRIES", 8);
    let cluster = Cluster::start(&options)?;
    let scratch = cluster.scratch();
    cluster.dfsctl(["bucket", "create", "secrets"])?;
    cluster.dfsctl(["bucket", "create", "--realm", "none", "alone"])?;
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
        cluster.dfsctl([Path::new("put"), &source, Path::new(&format!("dfs://alone/{NAME}-{label}"))])?;
    }
    let open = open_upload(&cluster, &[TEXT, &marker].concat())?;
    let mut needles =
        vec![("the text".to_owned(), TEXT[..32].to_vec()), ("the marker".to_owned(), marker[..24].to_vec())];
    for key in master_keys(&cluster)? {
        needles.push(("a master key".to_owned(), key));
    }
    let api_key = cluster.admin_key()?;
    needles.push(("the admin's API key".to_owned(), api_key.as_bytes().to_vec()));

    let folders: Vec<PathBuf> =
        cluster.processes()?.iter().flat_map(|p| [p.data_dir.clone(), p.log.clone()]).collect();
    let public = public_words(&cluster)?;
    abort_all(&cluster)?;
    drop(open);
    ensure!(
        folders
            .iter()
            .any(|folder| files_below(&folder.join("snapshots")).is_ok_and(|files| !files.is_empty())),
        "no member has a snapshot"
    );
    let mut stored = Vec::new();
    for server in cluster.role("metadata-server")? {
        let of_one = stored_keys(&server.data_dir, &cluster.data_dir().join("master.key"))?;
        ensure!(
            of_one.len() >= 10,
            "three realms, three nodes, two buckets, versions: {} only",
            of_one.len()
        );
        stored.extend(of_one);
    }
    ensure!(
        stored.iter().any(|key| key.what.starts_with(OWN_REALM)),
        "no open upload without a shared realm"
    );
    let mut controls = vec![("the file's name".to_owned(), NAME.as_bytes().to_vec())];
    for key in stored {
        needles.push((format!("{}, raw,", key.what), key.raw));
        controls.push((format!("{}, wrapped,", key.what), key.wrapped));
    }
    // In logs, environments and command lines a key would be in hexadecimal.
    let in_hex =
        |(what, bytes): &(String, Vec<u8>)| (format!("{what} in hexadecimal"), hex(bytes).into_bytes());
    let spelled: Vec<_> = needles.iter().map(in_hex).collect();
    needles.extend(spelled);
    let (needles, controls) = (Needles::new(needles), Needles::new(controls));
    for (place, bytes) in public {
        if let Some(what) = needles.found_in(&bytes).first() {
            bail!("{what} is in the clear in {place}");
        }
    }
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

/// A put into the bucket without shared realm that was killed when some of it was stored: an upload that
/// stays open, with its keys and pages.
fn open_upload(cluster: &Cluster, text: &[u8]) -> Result<PathBuf> {
    let source = cluster.scratch().join("open");
    std::fs::write(&source, text.repeat((200 << 20) / text.len()))?;
    let before = disks::chunk_bytes(cluster)?;
    let target = format!("dfs://alone/{NAME}-open");
    let mut put = cluster.spawn([Path::new("put"), &source, Path::new(&target)])?;
    until("the put to be under way", Duration::from_secs(60), || {
        ensure!(put.try_wait()?.is_none(), "the put ended before it was killed");
        let written = disks::chunk_bytes(cluster)?.saturating_sub(before);
        ensure!(written >= 60 << 20, "{written} bytes written");
        Ok(())
    })?;
    put.kill()?;
    put.wait()?;
    Ok(source)
}

/// What everybody on the machine, or an administrator without keys, sees of the running servers.
fn public_words(cluster: &Cluster) -> Result<Vec<(String, Vec<u8>)>> {
    let mut words = Vec::new();
    for process in cluster.processes()? {
        for name in ["environ", "cmdline"] {
            let path = format!("/proc/{}/{name}", process.pid);
            // The environment of a process that forbids being looked into is root's alone.
            match std::fs::read(&path) {
                Ok(bytes) => words.push((format!("{name} of {}", process.id), bytes)),
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
                Err(error) => return Err(error).context(path),
            }
        }
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.pid))?;
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap_or("");
        let words: Vec<&str> = core.split_whitespace().collect();
        ensure!(words.get(4) == Some(&"0"), "{} may write a core: {core:?}", process.id);
    }
    ensure!(words.iter().any(|(place, _)| place.starts_with("cmdline")), "no command line was read");
    Ok(words)
}

/// Ends all servers in the way that writes a core where one may be written; none is.
fn abort_all(cluster: &Cluster) -> Result<()> {
    for process in cluster.processes()? {
        cluster.abort(&process.id)?;
    }
    for process in cluster.processes()? {
        until(&format!("{} to be gone", process.id), Duration::from_secs(20), || {
            ensure!(cluster.health(&process.id)? == Health::Gone, "it still runs");
            Ok(())
        })?;
    }
    let core = files_below(&cluster.data_dir())?.into_iter().find(|file| {
        file.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name == "core" || name.starts_with("core."))
    });
    ensure!(core.is_none(), "a core was written: {core:?}");
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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
