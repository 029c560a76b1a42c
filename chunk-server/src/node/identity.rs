//! Who this data directory is: node id, incarnation and, once registered, cluster, in the file
//! `IDENTITY`. Owner: the one process that holds the directory's lock.
//!
//! Crash promise: written beside, fsynced, renamed, directory fsynced; so it is there whole or not
//! at all. A directory that holds anything else but has no identity is refused, never formatted:
//! a lost marker must not turn a full disk into a new, empty node.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use dfs_types::{Clock, ClusterId, DfsError, Entropy, ErrorCode, Incarnation, NodeId};
use rustix::fs::{FlockOperation, OFlags};
use serde::{Deserialize, Serialize};

const FILE: &str = "IDENTITY";
const TEMPORARY: &str = "IDENTITY.new";
const LOCK: &str = "LOCK";
const FORMAT: u32 = 1;
/// Longer than any identity.
const MOST_BYTES: u64 = 4096;

/// An opened data directory. Its lock is held until this is dropped.
pub struct DataDir {
    path: PathBuf,
    identity: Identity,
    _lock: File,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    pub node: NodeId,
    pub incarnation: Incarnation,
    /// The cluster that registered this directory; nothing before that.
    pub cluster: Option<ClusterId>,
}

/// The file's content. `format` is looked at before anything else is believed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Disk {
    format: u32,
    node_id: String,
    incarnation: String,
    cluster_id: Option<String>,
}

impl DataDir {
    /// Opens `path`, and formats it if it is missing or empty.
    ///
    /// # Errors
    /// `failed_precondition` if another process holds it, it belongs to another node, or it is not
    /// empty and has no identity; `io` for the disk's errors.
    pub fn open(
        path: &Path,
        node: &NodeId,
        clock: &dyn Clock,
        entropy: &dyn Entropy,
    ) -> Result<Self, DfsError> {
        fs::create_dir_all(path).map_err(|e| io_error(path, e))?;
        let lock = lock(path)?;
        let identity = match read(&path.join(FILE)) {
            Ok(bytes) => decode(&bytes).map_err(|e| e.context(path.join(FILE).display()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => format(path, node, clock, entropy)?,
            Err(error) => return Err(io_error(&path.join(FILE), error)),
        };
        if identity.node != *node {
            return Err(refusal(format!(
                "{} belongs to node {}, not to {node}: start it with --id {1}, or give {node} its own directory",
                path.display(),
                identity.node
            )));
        }
        Ok(Self { path: path.to_owned(), identity, _lock: lock })
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Notes the cluster that took this node; durable when it returns. Blocks on the disk.
    ///
    /// # Errors
    /// `failed_precondition` if another cluster took it before.
    pub fn join(&mut self, cluster: ClusterId) -> Result<(), DfsError> {
        match self.identity.cluster {
            Some(known) if known == cluster => Ok(()),
            Some(known) => {
                Err(refusal(format!("{} belongs to cluster {known}, not to {cluster}", self.path.display())))
            }
            None => {
                let joined = Identity { cluster: Some(cluster), ..self.identity.clone() };
                write(&self.path, &joined)?;
                self.identity = joined;
                Ok(())
            }
        }
    }
}

/// At most [`MOST_BYTES`] of a regular file; a link is not followed, a pipe not waited for.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = regular(OpenOptions::new().read(true), path)?;
    let mut bytes = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn regular(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = options.custom_flags(flags.bits().cast_signed()).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a regular file")),
    }
}

fn lock(path: &Path) -> Result<File, DfsError> {
    let name = path.join(LOCK);
    let file = regular(OpenOptions::new().create(true).truncate(false).write(true), &name)
        .map_err(|e| io_error(&name, e))?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| refusal(format!("{} is in use by another process: stop that first", path.display())))?;
    Ok(file)
}

fn format(
    path: &Path,
    node: &NodeId,
    clock: &dyn Clock,
    entropy: &dyn Entropy,
) -> Result<Identity, DfsError> {
    for entry in fs::read_dir(path).map_err(|e| io_error(path, e))? {
        let name = entry.map_err(|e| io_error(path, e))?.file_name();
        if ![LOCK, TEMPORARY, "lost+found"].iter().any(|known| name == *known) {
            return Err(refusal(format!(
                "{} holds {name:?} but no {FILE}: it is not empty and not a chunk server's; \
                 put the file back, or start on an empty directory",
                path.display()
            )));
        }
    }
    let identity =
        Identity { node: node.clone(), incarnation: Incarnation::generate(clock, entropy), cluster: None };
    write(path, &identity)?;
    Ok(identity)
}

fn write(path: &Path, identity: &Identity) -> Result<(), DfsError> {
    let temporary = path.join(TEMPORARY);
    let result = (|| {
        let mut file = File::create(&temporary)?;
        file.write_all(&encode(identity))?;
        file.sync_all()?;
        fs::rename(&temporary, path.join(FILE))?;
        File::open(path)?.sync_all()
    })();
    result.map_err(|e| io_error(path, e))
}

fn encode(identity: &Identity) -> Vec<u8> {
    let disk = Disk {
        format: FORMAT,
        node_id: identity.node.to_string(),
        incarnation: identity.incarnation.to_string(),
        cluster_id: identity.cluster.map(|id| id.to_string()),
    };
    let mut text = serde_json::to_vec(&disk).expect("plain strings always encode");
    text.push(b'\n');
    text
}

fn decode(bytes: &[u8]) -> Result<Identity, DfsError> {
    let disk: Disk = serde_json::from_slice(bytes).map_err(|e| refusal(format!("not an identity: {e}")))?;
    if disk.format != FORMAT {
        return Err(refusal(format!(
            "identity format {} is not known here: start the release that wrote it",
            disk.format
        )));
    }
    Ok(Identity {
        node: disk.node_id.parse()?,
        incarnation: disk.incarnation.parse()?,
        cluster: disk.cluster_id.map(|id| id.parse()).transpose()?,
    })
}

fn refusal(message: String) -> DfsError {
    DfsError::new(ErrorCode::FailedPrecondition, message)
}

fn io_error(path: &Path, error: io::Error) -> DfsError {
    DfsError::new(ErrorCode::Io, format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use dfs_types::{OsEntropy, SystemClock};

    use super::*;

    fn open(path: &Path, node: &str) -> Result<DataDir, DfsError> {
        DataDir::open(path, &NodeId::new(node).unwrap(), &SystemClock::new(), &OsEntropy)
    }

    #[test]
    fn an_empty_directory_is_formatted_once() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path(), "n1").unwrap().identity().clone();
        assert_eq!(first.cluster, None);
        assert_eq!(*open(dir.path(), "n1").unwrap().identity(), first);
    }

    #[test]
    fn what_it_joined_is_remembered_and_final() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = ClusterId([3; 16]);
        open(dir.path(), "n1").unwrap().join(cluster).unwrap();
        let mut again = open(dir.path(), "n1").unwrap();
        assert_eq!(again.identity().cluster, Some(cluster));
        again.join(cluster).unwrap();
        assert_eq!(again.join(ClusterId([4; 16])).unwrap_err().code, ErrorCode::FailedPrecondition);
    }

    #[test]
    fn foreign_locked_and_unmarked_directories_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let held = open(dir.path(), "n1").unwrap();
        assert!(open(dir.path(), "n1").is_err(), "held by another");
        drop(held);
        assert!(open(dir.path(), "n2").is_err(), "another node's");
        fs::write(dir.path().join("segment"), b"x").unwrap();
        fs::remove_file(dir.path().join(FILE)).unwrap();
        assert!(open(dir.path(), "n1").is_err(), "its marker is lost");
    }

    /// The golden file of format 1: what an older server wrote must open for ever.
    #[test]
    fn format_1_reads_as_it_was_written() {
        let golden = br#"{"format":1,"node_id":"n1","incarnation":"01000000-0000-0000-0000-000000000002","cluster_id":null}
"#;
        let identity = decode(golden).unwrap();
        assert_eq!(identity.incarnation.0[15], 2);
        assert_eq!(encode(&identity), golden);
        assert!(decode(&encode(&identity)[..40]).is_err());
        assert!(decode(&String::from_utf8_lossy(golden).replace(":1,", ":2,").into_bytes()).is_err());
    }
}
