//! A snapshot on the wire: its head, then each file with length and BLAKE3, then its bytes.
//!
//! Crash promise: the receiver writes to a place of its own and syncs and verifies everything before
//! openraft hears of it; a transfer that breaks off leaves nothing that counts.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dfs_proto::v1::raft_client::RaftClient;
use dfs_proto::v1::snapshot_part::Part;
use dfs_proto::v1::{SnapshotFile, SnapshotHead, SnapshotPart};
use dfs_types::limits::DATA_MESSAGE_BYTES;
use openraft::Snapshot;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use super::files;
use super::network::Failed;
use super::snapshot::SnapshotHandle;
use super::state_store::StateStore;
use super::types::{SnapshotMeta, SnapshotResponse, TypeConfig, Vote, decode, encode};

/// Parts on their way between disk and network.
const PARTS_IN_FLIGHT: usize = 8;
/// A transfer must not stand still longer than this.
const STALL: Duration = Duration::from_secs(20);
/// Nor be slower than this, all in all.
const MIN_BYTES_PER_SECOND: u64 = 1 << 20;
const MAX_FILES: usize = 100_000;
const MAX_NAME_BYTES: usize = 64;

fn deadline(bytes: u64) -> Duration {
    STALL * 3 + Duration::from_secs(bytes / MIN_BYTES_PER_SECOND)
}

/// Sends `snapshot` to raft id `target` and waits until it is installed there.
pub async fn send(
    mut client: RaftClient<Channel>,
    target: u64,
    vote: Vote,
    snapshot: &Snapshot<TypeConfig>,
) -> Result<SnapshotResponse, Failed> {
    let handle = (*snapshot.snapshot).clone();
    let listed = handle.clone();
    let (names, total_bytes) = tokio::task::spawn_blocking(move || list(listed.path()))
        .await
        .map_err(Failed::new)?
        .map_err(Failed::new)?;
    let head = SnapshotHead {
        target_raft_id: target.to_be_bytes().to_vec().into(),
        vote: encode(&vote).into(),
        meta: encode(&snapshot.meta).into(),
        total_bytes,
    };
    let (parts, stream) = mpsc::channel(PARTS_IN_FLIGHT);
    let reader = tokio::task::spawn_blocking(move || read_files(&handle, head, names, &parts));
    let mut request = Request::new(ReceiverStream::new(stream));
    request.set_timeout(deadline(total_bytes));
    let answered = timeout(deadline(total_bytes), client.install_snapshot(request)).await;
    let answer = answered.map_err(|_| Failed::new("the snapshot took too long"))?.map_err(Failed::new)?;
    reader.await.map_err(Failed::new)?.map_err(Failed::new)?;
    decode(&answer.into_inner().payload).map_err(Failed::new)
}

/// Files of a checkpoint in order of name, and the sum of their lengths.
fn list(dir: &Path) -> io::Result<(Vec<(String, PathBuf)>, u64)> {
    let mut names = Vec::new();
    let mut total = 0;
    for file in fs::read_dir(dir)? {
        let file = file?;
        let name =
            file.file_name().into_string().map_err(|_| io::Error::other("a file name is not UTF-8"))?;
        total += file.metadata()?.len();
        names.push((name, file.path()));
    }
    names.sort();
    Ok((names, total))
}

fn read_files(
    _keep: &SnapshotHandle,
    head: SnapshotHead,
    names: Vec<(String, PathBuf)>,
    parts: &mpsc::Sender<SnapshotPart>,
) -> io::Result<()> {
    // A receiver that is gone has refused or broken off: its status tells why.
    let send = |part| parts.blocking_send(SnapshotPart { part: Some(part) }).is_ok();
    if !send(Part::Head(head)) {
        return Ok(());
    }
    for (name, path) in names {
        let mut hasher = blake3::Hasher::new();
        let length = io::copy(&mut File::open(&path)?, &mut hasher)?;
        let blake3 = hasher.finalize().as_bytes().to_vec().into();
        if !send(Part::File(SnapshotFile { name, length, blake3 })) {
            return Ok(());
        }
        let mut file = File::open(&path)?;
        let mut left = length;
        while left > 0 {
            let mut data = vec![0; left.min(DATA_MESSAGE_BYTES as u64) as usize];
            file.read_exact(&mut data)?;
            left -= data.len() as u64;
            if !send(Part::Data(data.into())) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// What arrived, whole and durable.
#[derive(Debug)]
pub struct Received {
    pub vote: Vote,
    pub meta: SnapshotMeta,
    pub handle: SnapshotHandle,
}

/// Takes a snapshot meant for `raft_id`.
pub async fn receive(
    store: Arc<StateStore>,
    raft_id: u64,
    mut stream: Streaming<SnapshotPart>,
) -> Result<Received, Status> {
    let Some(Part::Head(head)) = next(&mut stream).await? else {
        return Err(Status::invalid_argument("a snapshot begins with its head"));
    };
    if *head.target_raft_id != raft_id.to_be_bytes() {
        return Err(Status::failed_precondition("another raft id is meant"));
    }
    let wrong = |error| Status::invalid_argument(format!("head: {error}"));
    let vote: Vote = decode(&head.vote).map_err(wrong)?;
    let meta: SnapshotMeta = decode(&head.meta).map_err(wrong)?;
    let (parts, received) = mpsc::channel(PARTS_IN_FLIGHT);
    let total = head.total_bytes;
    let writer = tokio::task::spawn_blocking(move || {
        let handle = store.incoming()?;
        write_files(handle.path(), total, received)?;
        let (last_log_id, last_membership) = store.inspect(handle.path()).map_err(io::Error::other)?;
        Ok::<_, io::Error>((handle, last_log_id, last_membership))
    });
    let feed = async {
        while let Some(part) = next(&mut stream).await? {
            // A writer that is gone has failed: its error is the answer.
            if parts.send(part).await.is_err() {
                break;
            }
        }
        drop(parts);
        Ok::<_, Status>(())
    };
    let fed = timeout(deadline(total), feed).await;
    fed.map_err(|_| Status::deadline_exceeded("the snapshot took too long"))??;
    let (handle, last_log_id, last_membership) = writer
        .await
        .map_err(|error| Status::internal(error.to_string()))?
        .map_err(|error| Status::invalid_argument(format!("snapshot: {error}")))?;
    if last_log_id != meta.last_log_id || last_membership != meta.last_membership {
        return Err(Status::invalid_argument("the snapshot is not what its head says"));
    }
    Ok(Received { vote, meta, handle })
}

async fn next(stream: &mut Streaming<SnapshotPart>) -> Result<Option<Part>, Status> {
    let message = timeout(STALL, stream.message()).await;
    let message = message.map_err(|_| Status::deadline_exceeded("the snapshot stands still"))??;
    match message {
        None => Ok(None),
        Some(SnapshotPart { part: Some(part) }) => Ok(Some(part)),
        Some(SnapshotPart { part: None }) => Err(Status::invalid_argument("an empty part")),
    }
}

/// Writes files as their parts come; everything is checked and synced when it returns.
fn write_files(dir: &Path, total: u64, mut parts: mpsc::Receiver<Part>) -> io::Result<()> {
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let mut open: Option<Incoming> = None;
    let (mut bytes, mut count) = (0u64, 0);
    loop {
        let part = parts.blocking_recv();
        if let Some(Part::Data(data)) = &part {
            open.as_mut().ok_or_else(|| invalid("bytes without a file"))?.take(data)?;
            continue;
        }
        if let Some(file) = open.take() {
            file.finish()?;
        }
        match part {
            Some(Part::File(file)) => {
                bytes = bytes.saturating_add(file.length);
                count += 1;
                if bytes > total || count > MAX_FILES {
                    return Err(invalid("more than the head announced"));
                }
                open = Some(Incoming::start(dir, file)?);
            }
            None if bytes == total => return files::sync_dir(dir),
            None => return Err(invalid("it broke off")),
            Some(Part::Head(_) | Part::Data(_)) => return Err(invalid("a second head")),
        }
    }
}

struct Incoming {
    file: File,
    name: String,
    left: u64,
    expected: Bytes,
    hasher: blake3::Hasher,
}

impl Incoming {
    fn start(dir: &Path, head: SnapshotFile) -> io::Result<Self> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'-' || b == b'_';
        let name = head.name;
        if name.is_empty() || name.len() > MAX_NAME_BYTES || name.starts_with('.') || !name.bytes().all(plain)
        {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not the name of a snapshot's file"));
        }
        let file = File::create_new(dir.join(&name))?;
        Ok(Self { file, name, left: head.length, expected: head.blake3, hasher: blake3::Hasher::new() })
    }

    fn take(&mut self, data: &[u8]) -> io::Result<()> {
        self.left = self.left.checked_sub(data.len() as u64).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{} is too long", self.name))
        })?;
        self.hasher.update(data);
        self.file.write_all(data)
    }

    fn finish(self) -> io::Result<()> {
        if self.left > 0 || *self.hasher.finalize().as_bytes() != *self.expected {
            let why = format!("{} is short or damaged", self.name);
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        self.file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, content: &[u8]) -> Part {
        let blake3 = blake3::hash(content).as_bytes().to_vec().into();
        Part::File(SnapshotFile { name: name.into(), length: content.len() as u64, blake3 })
    }

    fn write(total: u64, parts: Vec<Part>) -> (tempfile::TempDir, io::Result<()>) {
        let dir = tempfile::tempdir().unwrap();
        let (sender, receiver) = mpsc::channel(parts.len().max(1));
        for part in parts {
            sender.try_send(part).unwrap();
        }
        drop(sender);
        let written = write_files(dir.path(), total, receiver);
        (dir, written)
    }

    #[test]
    fn files_arrive_whole() {
        let data = |bytes: &'static [u8]| Part::Data(Bytes::from_static(bytes));
        let parts = vec![file("a.sst", b"hello"), data(b"hel"), data(b"lo"), file("CURRENT", b"")];
        let (dir, written) = write(5, parts);
        written.unwrap();
        assert_eq!(fs::read(dir.path().join("a.sst")).unwrap(), b"hello");
        assert!(dir.path().join("CURRENT").exists());
    }

    #[test]
    fn damage_and_tricks_are_refused() {
        let data = |bytes: &'static [u8]| Part::Data(Bytes::from_static(bytes));
        for (total, parts) in [
            (5, vec![file("a", b"hello"), data(b"hellO")]),
            (5, vec![file("a", b"hello"), data(b"hell")]),
            (5, vec![file("a", b"hello"), data(b"hello!")]),
            (9, vec![file("a", b"hello"), data(b"hello")]),
            (4, vec![file("a", b"hello"), data(b"hello")]),
            (0, vec![file("../a", b"")]),
            (0, vec![file("", b"")]),
            (0, vec![file(".a", b"")]),
            (0, vec![file("a/b", b"")]),
            (0, vec![file("a", b""), file("a", b"")]),
            (5, vec![data(b"hello")]),
            (0, vec![Part::Head(SnapshotHead::default())]),
        ] {
            assert!(write(total, parts.clone()).1.is_err(), "{parts:?}");
        }
    }
}
