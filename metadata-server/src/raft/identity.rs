//! Who a data directory belongs to: one file, written last when the directory is formatted.
//!
//! Crash promise: a directory without a valid identity has never acknowledged anything under any
//! raft id that could be used again, because ids are drawn at random with the file.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

use dfs_types::{ClusterId, Entropy, OsEntropy};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::files;
use super::types::{CodecError, decode, encode};

const FILE: &str = "identity";
const MAGIC: &[u8; 8] = b"dfs-meta";
const CHECK_BYTES: usize = 16;

/// The owner of a formatted directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Identity {
    pub name: String,
    pub cluster: [u8; 16],
    pub raft_id: u64,
}

impl Identity {
    /// A new owner with a raft id nobody ever had.
    pub fn draw(name: &str, cluster: ClusterId) -> Self {
        let mut raft_id = 0;
        // 0 means "nobody" on the wire.
        while raft_id == 0 {
            raft_id = u64::from_be_bytes(OsEntropy.array());
        }
        Self { name: name.to_owned(), cluster: *cluster.as_bytes(), raft_id }
    }

    pub fn write(&self, dir: &Path) -> io::Result<()> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(encode(self));
        let check = blake3::hash(&bytes);
        bytes.extend_from_slice(&check.as_bytes()[..CHECK_BYTES]);
        files::replace(dir, FILE, &bytes)
    }

    /// What the directory says: None if it has no such file.
    pub fn read(dir: &Path) -> Result<Option<Self>, IdentityError> {
        let bytes = match fs::read(dir.join(FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let content = bytes
            .len()
            .checked_sub(CHECK_BYTES)
            .map(|end| bytes.split_at(end))
            .filter(|(body, check)| blake3::hash(body).as_bytes()[..CHECK_BYTES] == **check)
            .and_then(|(body, _)| body.strip_prefix(MAGIC))
            .ok_or(IdentityError::Damaged)?;
        match decode(content) {
            Ok(identity) => Ok(Some(identity)),
            Err(CodecError::Format(format)) => Err(IdentityError::Format(format)),
            Err(_) => Err(IdentityError::Damaged),
        }
    }

    pub fn remove(dir: &Path) -> io::Result<()> {
        match fs::remove_file(dir.join(FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.and_then(|()| files::sync_dir(dir)),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("the identity file is damaged")]
    Damaged,
    #[error("the data directory has format {0}, this build knows 1: upgrade this server")]
    Format(u8),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Held while a process owns the directory.
pub struct DirectoryLock {
    _file: File,
    _open: mpsc::Sender<()>,
}

impl DirectoryLock {
    /// None: another process has it. The receiver yields None when the lock is given back.
    pub fn take(dir: &Path) -> io::Result<Option<(Self, mpsc::Receiver<()>)>> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(dir.join("LOCK"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                let (open, closed) = mpsc::channel(1);
                Ok(Some((Self { _file: file, _open: open }, closed)))
            }
            Err(error) if error == rustix::io::Errno::WOULDBLOCK => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_reads_back_and_damage_shows() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Identity::read(dir.path()).unwrap().is_none());
        let identity = Identity::draw("m1", ClusterId([5; 16]));
        identity.write(dir.path()).unwrap();
        assert_eq!(Identity::read(dir.path()).unwrap(), Some(identity));
        let path = dir.path().join(FILE);
        let good = fs::read(&path).unwrap();
        for place in 0..good.len() {
            let mut bad = good.clone();
            bad[place] ^= 1;
            fs::write(&path, bad).unwrap();
            assert!(matches!(Identity::read(dir.path()), Err(IdentityError::Damaged)), "byte {place}");
        }
        fs::write(&path, b"").unwrap();
        assert!(matches!(Identity::read(dir.path()), Err(IdentityError::Damaged)));
    }

    #[test]
    fn one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirectoryLock::take(dir.path()).unwrap();
        assert!(first.is_some());
        assert!(DirectoryLock::take(dir.path()).unwrap().is_none());
        drop(first);
        assert!(DirectoryLock::take(dir.path()).unwrap().is_some());
    }
}
