//! The note that lets an interrupted put go on: which upload, of which file, and which chunks were
//! sealed to which ids. Lines of JSON, mode 0600, no key and no hash of plaintext.
//!
//! A crash may leave the last line cut: it is ignored. The note is a hint and never trusted alone:
//! every chunk is read, hashed and sealed again, and must come out with the id noted here.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use dfs_types::{ChunkId, ClusterId, DfsError, ErrorCode, UploadId};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::source::FileStamp;
use crate::Result;

const FORMAT: u32 = 1;
/// Longer lines are not ours.
const MAX_LINE_BYTES: usize = 64 * 1024;

#[derive(Serialize, Deserialize, PartialEq, Eq, Clone, Debug)]
struct Head {
    format: u32,
    cluster_id: String,
    upload_id: String,
    /// Where it goes.
    path: String,
    source: PathBuf,
    size: u64,
    modified_ns: u64,
}

#[derive(Serialize, Deserialize)]
struct Line {
    index: u32,
    chunk_id: String,
}

/// What an earlier run noted.
#[derive(Debug)]
pub(crate) struct Noted {
    pub upload: UploadId,
    /// It is about this source in this state, and this destination.
    pub matches: bool,
    pub sent: BTreeMap<u32, ChunkId>,
}

/// The open note of a running put.
pub(crate) struct Note {
    path: PathBuf,
    file: File,
}

/// What is put where: what a note must be about to count.
pub(crate) struct About<'a> {
    pub cluster: ClusterId,
    pub path: &'a str,
    pub stamp: &'a FileStamp,
}

impl About<'_> {
    fn head(&self, upload: UploadId) -> Head {
        // The same file by another spelling is the same source.
        let source = self.stamp.path.canonicalize().unwrap_or_else(|_| self.stamp.path.clone());
        Head {
            format: FORMAT,
            cluster_id: self.cluster.to_string(),
            upload_id: upload.to_string(),
            path: self.path.to_owned(),
            source,
            size: self.stamp.size,
            modified_ns: self.stamp.modified_ns,
        }
    }
}

/// Opens the note at `path` and reads what an earlier run left. `None` when another put of the same
/// file is writing it at this moment: this one then runs without a note.
pub(crate) fn open(path: &Path, about: &About<'_>) -> Result<Option<(Note, Option<Noted>)>> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(|error| failed(path, &error))?;
    }
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .map_err(|error| failed(path, &error))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(None);
    }
    let noted = read(&file, about);
    Ok(Some((Note { path: path.to_owned(), file }, noted)))
}

fn read(file: &File, about: &About<'_>) -> Option<Noted> {
    let mut lines = BufReader::new(file).split(b'\n').map_while(|line| line.ok());
    let head: Head = serde_json::from_slice(&lines.next()?).ok()?;
    let upload: UploadId = head.upload_id.parse().ok()?;
    if head.cluster_id != about.cluster.to_string() || head.format != FORMAT {
        return None;
    }
    let matches = head == about.head(upload);
    let mut sent = BTreeMap::new();
    for line in lines {
        if line.len() > MAX_LINE_BYTES {
            break;
        }
        let Ok(line) = serde_json::from_slice::<Line>(&line) else { break };
        let Ok(id) = line.chunk_id.parse() else { break };
        sent.insert(line.index, id);
    }
    Some(Noted { upload, matches, sent })
}

impl Note {
    /// Begins anew: about this upload, nothing sent.
    pub fn begin(&mut self, about: &About<'_>, upload: UploadId) -> Result<()> {
        self.file.set_len(0).map_err(|error| failed(&self.path, &error))?;
        self.write(&about.head(upload))
    }

    /// Notes a chunk that nodes hold. A hundred bytes into the page cache: no reason for a thread.
    pub fn sent(&mut self, index: u32, id: ChunkId) -> Result<()> {
        self.write(&Line { index, chunk_id: id.to_string() })
    }

    fn write<T: Serialize>(&mut self, value: &T) -> Result<()> {
        let mut line = serde_json::to_vec(value).map_err(|error| failed(&self.path, &error.into()))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(|error| failed(&self.path, &error))
    }

    /// Removes the note: the put is done, or cannot be resumed.
    pub fn remove(self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "a resume file stayed behind");
        }
    }
}

fn failed(path: &Path, error: &std::io::Error) -> DfsError {
    DfsError::new(ErrorCode::Io, format!("resume file {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn stamp(size: u64) -> FileStamp {
        FileStamp { path: "/nowhere/source".into(), size, modified_ns: 5 }
    }

    #[test]
    fn a_note_reads_back_and_forgets_a_cut_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/put.json");
        let first = stamp(9);
        let about = About { cluster: ClusterId([1; 16]), path: "/b/k", stamp: &first };
        let upload = UploadId([2; 16]);
        let (mut note, noted) = open(&path, &about).unwrap().unwrap();
        assert!(noted.is_none());
        note.begin(&about, upload).unwrap();
        note.sent(0, ChunkId([3; 32])).unwrap();
        note.sent(2, ChunkId([4; 32])).unwrap();
        note.file.write_all(b"{\"index\":3,\"chu").unwrap();
        assert!(open(&path, &about).unwrap().is_none(), "another put holds the note");
        drop(note);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        let (note, noted) = open(&path, &about).unwrap().unwrap();
        let noted = noted.unwrap();
        assert!(noted.matches && noted.upload == upload);
        assert_eq!(noted.sent, BTreeMap::from([(0, ChunkId([3; 32])), (2, ChunkId([4; 32]))]));
        drop(note);

        let changed = stamp(10);
        let other = About { stamp: &changed, ..about };
        let (note, noted) = open(&path, &other).unwrap().unwrap();
        assert!(!noted.unwrap().matches);
        note.remove();
        assert!(!path.exists());
    }

    #[test]
    fn a_note_of_another_cluster_or_of_rubbish_is_no_note() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n");
        let stamp = stamp(9);
        let about = About { cluster: ClusterId([1; 16]), path: "/b/k", stamp: &stamp };
        let (mut note, _) = open(&path, &about).unwrap().unwrap();
        note.begin(&about, UploadId([2; 16])).unwrap();
        drop(note);
        let other = About { cluster: ClusterId([9; 16]), ..about };
        assert!(open(&path, &other).unwrap().unwrap().1.is_none());
        std::fs::write(&path, b"\xff\xfe rubbish\n").unwrap();
        assert!(open(&path, &other).unwrap().unwrap().1.is_none());
    }
}
