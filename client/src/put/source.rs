//! Cutting a source into chunks. Every chunk is read once into one buffer, and that buffer is what is
//! hashed and later sealed: reading a file twice could meet two contents.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use chunk_format::seal::{plain_hash, sealed_length};
use dfs_types::limits::{MAX_VERSION_BYTES, chunk_bytes_at};
use dfs_types::{DfsError, ErrorCode};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Source;
use crate::Result;

/// One chunk's plaintext, hashed. No Debug: it is content.
pub(crate) struct Piece {
    pub index: u32,
    pub offset: u64,
    pub plain: BytesMut,
    pub plain_hash: [u8; 32],
    /// Its share of the transfer's memory; lives as long as the bytes do.
    pub permit: OwnedSemaphorePermit,
}

/// What tells one state of a file from another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FileStamp {
    pub path: PathBuf,
    pub size: u64,
    pub modified_ns: u64,
}

/// Memory a transfer may use, counted in KiB.
#[derive(Clone)]
pub(crate) struct Memory {
    permits: Arc<Semaphore>,
    total: u32,
}

impl Memory {
    pub fn new(bytes: u64) -> Self {
        let total = u32::try_from(bytes / 1024).unwrap_or(u32::MAX >> 4).clamp(1, u32::MAX >> 4);
        Self { permits: Arc::new(Semaphore::new(total as usize)), total }
    }

    /// Room without waiting, or `None`.
    pub fn try_take(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).try_acquire_many_owned(self.share(bytes)).ok()
    }

    fn share(&self, bytes: u64) -> u32 {
        u32::try_from(bytes.div_ceil(1024)).unwrap_or(self.total).min(self.total)
    }

    /// Waits for room. A chunk larger than all of it gets all of it: slow, but it ends.
    pub async fn take(&self, bytes: u64) -> OwnedSemaphorePermit {
        Arc::clone(&self.permits)
            .acquire_many_owned(self.share(bytes))
            .await
            .expect("the semaphore is never closed")
    }
}

enum Input {
    Bytes(Bytes),
    File(File),
    Reader(Box<dyn AsyncRead + Send + Unpin>),
    /// Lent to a blocking task; seen only if that task died.
    Lent,
}

/// The chunks of a source, in order, with the hash of the whole.
pub(crate) struct Chunks {
    input: Input,
    pub stamp: Option<FileStamp>,
    /// Bytes the source is thought to have.
    pub expected: Option<u64>,
    offset: u64,
    index: u32,
    content: Box<blake3::Hasher>,
    ended: bool,
}

impl Chunks {
    pub async fn open(source: Source) -> Result<Self> {
        let (input, stamp, expected) = match source {
            Source::Bytes(bytes) => {
                let length = bytes.len() as u64;
                (Input::Bytes(bytes), None, Some(length))
            }
            Source::Reader(reader) => (Input::Reader(reader), None, None),
            Source::File(path) => {
                let (file, stamp) = blocking(move || open_file(path)).await??;
                let size = stamp.size;
                (Input::File(file), Some(stamp), Some(size))
            }
        };
        let content = Box::new(blake3::Hasher::new());
        Ok(Self { input, stamp, expected, offset: 0, index: 0, content, ended: false })
    }

    /// The next chunk, or `None` at the end. The last one is the first that is shorter than its place
    /// allows, so an end that falls on a boundary shows as one more, empty read.
    pub async fn next(&mut self, memory: &Memory) -> Result<Option<Piece>> {
        if self.ended {
            return Ok(None);
        }
        let want = chunk_bytes_at(self.offset);
        // Only as much as there probably is: a thousand small files need no thousand large buffers.
        let likely = self.expected.map_or(want, |all| all.saturating_sub(self.offset).min(want)).max(1);
        let permit = memory.take(sealed_length(likely)).await;
        let mut plain = BytesMut::with_capacity(sealed_length(likely) as usize);
        if let Input::Reader(reader) = &mut self.input {
            while (plain.len() as u64) < want {
                let room = want as usize - plain.len();
                let read = reader.read_buf(&mut (&mut plain).limit(room)).await;
                if read.map_err(|error| unreadable(&self.stamp, &error))? == 0 {
                    break;
                }
            }
        }
        let mut input = std::mem::replace(&mut self.input, Input::Lent);
        let mut content = std::mem::take(&mut self.content);
        let stamp = self.stamp.clone();
        let done = blocking(move || -> Result<_> {
            match &mut input {
                Input::File(file) => {
                    fill(file, &mut plain, want as usize).map_err(|error| unreadable(&stamp, &error))?;
                }
                Input::Bytes(bytes) => {
                    let take = bytes.len().min(want as usize);
                    plain.put_slice(&bytes[..take]);
                    bytes.advance(take);
                }
                Input::Reader(_) => {}
                Input::Lent => return Err(DfsError::new(ErrorCode::Internal, "a source was lost")),
            }
            content.update(&plain);
            let hash = if plain.is_empty() { [0; 32] } else { plain_hash(&plain) };
            Ok((input, content, plain, hash))
        });
        let (input, content, plain, plain_hash) = done.await??;
        self.input = input;
        self.content = content;
        self.ended = (plain.len() as u64) < want;
        if plain.is_empty() {
            return Ok(None);
        }
        let piece = Piece { index: self.index, offset: self.offset, plain, plain_hash, permit };
        self.offset += piece.plain.len() as u64;
        self.index += 1;
        if self.offset > MAX_VERSION_BYTES {
            return Err(DfsError::new(ErrorCode::LimitExceeded, "a file holds at most 64 TiB"));
        }
        Ok(Some(piece))
    }

    /// Bytes read so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// BLAKE3 of all bytes read so far.
    pub fn content_hash(&self) -> [u8; 32] {
        *self.content.finalize().as_bytes()
    }
}

/// Opens a regular file (or a device or pipe, which then has no stamp worth anything) for one reading.
fn open_file(path: PathBuf) -> Result<(File, FileStamp)> {
    let failed = |error: std::io::Error| {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorCode::NotFound,
            std::io::ErrorKind::PermissionDenied => ErrorCode::PermissionDenied,
            _ => ErrorCode::Io,
        };
        DfsError::new(code, format!("cannot read {}: {error}", path.display()))
    };
    let file = File::open(&path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if meta.is_dir() {
        return Err(DfsError::new(ErrorCode::InvalidArgument, format!("{} is a directory", path.display())));
    }
    let modified = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let modified_ns = modified.map_or(0, |since| since.as_nanos() as u64);
    let stamp = FileStamp { size: meta.len(), modified_ns, path };
    Ok((file, stamp))
}

/// Reads until `plain` holds `want` bytes or the file ends.
fn fill(file: &mut File, plain: &mut BytesMut, want: usize) -> std::io::Result<()> {
    // `read_to_end` on a limited reader would need a Vec; this writes into the buffer that is sealed.
    // Steps that fit the cache make the zeroes before each read cost next to nothing.
    const STEP: usize = 256 << 10;
    while plain.len() < want {
        let start = plain.len();
        let step = STEP.min(want - start);
        plain.resize(start + step, 0);
        let read = loop {
            match file.read(&mut plain[start..]) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        match read {
            Ok(count) => plain.truncate(start + count),
            Err(error) => return Err(error),
        }
        if plain.len() == start {
            return Ok(());
        }
    }
    Ok(())
}

/// Reads one range of a file again, for a chunk that must be sent once more after its bytes were let
/// go. The caller seals it only if it still is what it was.
pub(crate) async fn read_again(stamp: &FileStamp, offset: u64, size: u64) -> Result<BytesMut> {
    let stamp = stamp.clone();
    blocking(move || {
        use std::os::unix::fs::FileExt;
        let (file, _) = open_file(stamp.path.clone())?;
        let mut plain = BytesMut::with_capacity(sealed_length(size) as usize);
        plain.resize(size as usize, 0);
        file.read_exact_at(&mut plain, offset).map_err(|error| unreadable(&Some(stamp), &error))?;
        Ok(plain)
    })
    .await?
}

fn unreadable(stamp: &Option<FileStamp>, error: &std::io::Error) -> DfsError {
    let what = stamp.as_ref().map_or("the source".to_owned(), |stamp| stamp.path.display().to_string());
    DfsError::new(ErrorCode::Io, format!("reading {what}: {error}"))
}

/// Runs hashing, sealing and file I/O off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| DfsError::new(ErrorCode::Internal, "a worker thread of the client died"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_types::limits::CHUNK_BYTES_FIRST;

    async fn lengths(source: Source) -> (Vec<usize>, [u8; 32]) {
        let memory = Memory::new(64 << 20);
        let mut chunks = Chunks::open(source).await.unwrap();
        let mut lengths = Vec::new();
        while let Some(piece) = chunks.next(&memory).await.unwrap() {
            assert_eq!(piece.index as usize, lengths.len());
            assert_eq!(piece.plain_hash, *blake3::hash(&piece.plain).as_bytes());
            lengths.push(piece.plain.len());
        }
        (lengths, chunks.content_hash())
    }

    #[tokio::test]
    async fn all_kinds_of_sources_are_cut_alike() {
        let first = CHUNK_BYTES_FIRST as usize;
        let dir = tempfile::tempdir().unwrap();
        for length in [0, 1, 16 * 1024, first - 1, first, first + 1, 2 * first + 7] {
            let data: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let mut want = vec![first; length / first];
            if !length.is_multiple_of(first) {
                want.push(length % first);
            }
            let want = (want, *blake3::hash(&data).as_bytes());
            let path = dir.path().join("f");
            std::fs::write(&path, &data).unwrap();
            assert_eq!(lengths(Source::file(&path)).await, want, "file of {length}");
            assert_eq!(lengths(Source::reader(std::io::Cursor::new(data.clone()))).await, want);
            assert_eq!(lengths(data.into()).await, want);
        }
    }

    #[tokio::test]
    async fn a_chunk_larger_than_memory_gets_all_of_it() {
        let memory = Memory::new(1024);
        let permit = memory.take(10 << 20).await;
        assert_eq!(permit.num_permits(), 1);
    }
}
