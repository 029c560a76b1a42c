//! Writing a file: small content in one call, the rest as chunks through a pipeline.
//!
//! ```text
//! source -> [read + hash] -> task per chunk: [secret] -> [seal] -> [place] -> [send] -> receipts
//!                                                                                  |
//!                        commit <- [append pages, in order] <----------------------+
//! ```
//!
//! Memory is bounded by permits that travel with the bytes. Crash promise: nothing is visible before
//! the commit is acknowledged; what a put that ended early sent is found again through its resume
//! file, or expires with its upload.

mod calls;
mod chunk;
mod multipart;
mod pages;
mod pipeline;
mod planner;
mod resume;
mod send;
mod single;
mod source;

use std::path::PathBuf;

use bytes::Bytes;
use dfs_proto::v1;
use dfs_types::limits::MAX_INLINE_BYTES;
use dfs_types::{DfsError, DfsPath, ErrorCode, FileId};
use tokio::io::AsyncRead;

pub use multipart::{Multipart, Part};
pub use single::PutChunk;
pub(crate) use source::{Memory, blocking};

use self::pipeline::Transfer;
use self::source::{Chunks, Piece};
use crate::options::PutOptions;
use crate::{Client, Result};

/// What a put made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PutResult {
    pub file_id: FileId,
    /// The commit position, which is also the version's number.
    pub version: u64,
    /// Plaintext bytes.
    pub size: u64,
    /// Durable copies of the chunk that has the fewest.
    pub copies: u32,
    /// Copies the policy wants; the cluster makes the missing ones by itself.
    pub target: u32,
}

/// Where the bytes of a put come from.
pub enum Source {
    Bytes(Bytes),
    File(PathBuf),
    Reader(Box<dyn AsyncRead + Send + Unpin>),
}

impl Source {
    /// A regular file. Only such a put can be resumed.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::File(path.into())
    }

    /// Anything that can be read once, such as a pipe.
    pub fn reader(reader: impl AsyncRead + Send + Unpin + 'static) -> Self {
        Self::Reader(Box::new(reader))
    }
}

impl From<Bytes> for Source {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<Vec<u8>> for Source {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl From<&'static str> for Source {
    fn from(text: &'static str) -> Self {
        Self::Bytes(Bytes::from_static(text.as_bytes()))
    }
}

impl Client {
    /// Writes a file: `path` is `/bucket/key` or `dfs://bucket/key`. Acknowledged means durable on
    /// `min_ack` nodes and committed by a majority of the metadata servers.
    ///
    /// ```no_run
    /// use dfs_client::{Client, PutOptions, Source};
    ///
    /// # async fn example(client: Client) -> dfs_client::Result<()> {
    /// let options = PutOptions { if_version: Some(0), ..Default::default() }; // only if it is new
    /// client.put("/photos/film.mkv", Source::file("film.mkv"), options).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `bucket_not_found`, `version_mismatch`, `not_enough_nodes`, `no_space`, `io` when the source
    /// cannot be read, `integrity` when it changed under our hands.
    pub async fn put(&self, path: &str, source: impl Into<Source>, options: PutOptions) -> Result<PutResult> {
        let path: DfsPath = path.parse()?;
        let source = source.into();
        let file = match &source {
            Source::File(path) => Some(path.clone()),
            _ => None,
        };
        let memory = Memory::new(self.memory_bytes);
        let mut chunks = Chunks::open(source).await?;
        let progress = options.progress.clone().unwrap_or_default();
        progress.add_total(chunks.expected.unwrap_or(0));
        let first = match chunks.next(&memory).await? {
            None => return self.put_inline(&path, Bytes::new(), &options).await,
            Some(piece) if is_small(&piece) => {
                let size = piece.plain.len() as u64;
                let done = self.put_inline(&path, piece.plain.freeze(), &options).await?;
                progress.add_done(size);
                return Ok(done);
            }
            Some(piece) => piece,
        };
        let transfer =
            Transfer { client: self, path: &path, options: &options, memory: &memory, progress: &progress };
        transfer.check_condition().await?;
        match transfer.run(chunks, first, true).await {
            // What an interrupted run sent is of another content: its upload is gone, begin anew.
            Err(pipeline::Ended::SourceChanged) => {
                let mut chunks = match file {
                    Some(file) => Chunks::open(Source::File(file)).await?,
                    None => return Err(DfsError::new(ErrorCode::Internal, "only files are resumed")),
                };
                match chunks.next(&memory).await? {
                    Some(first) => transfer.run(chunks, first, false).await.map_err(DfsError::from),
                    None => self.put_inline(&path, Bytes::new(), &options).await,
                }
            }
            other => other.map_err(DfsError::from),
        }
    }

    async fn put_inline(&self, path: &DfsPath, content: Bytes, options: &PutOptions) -> Result<PutResult> {
        let size = content.len() as u64;
        let build = |mutation| v1::PutInlineRequest {
            mutation: Some(mutation),
            path: path.to_string(),
            content: content.clone(),
            if_version: options.if_version,
            content_type: options.content_type.clone(),
            user_metadata: options.user_metadata.clone().into_iter().collect(),
        };
        let method =
            |mut metadata: crate::rpc::Metadata, request| async move { metadata.put_inline(request).await };
        let patience = self.patience();
        let answer = self.inner.rpc.mutate(&self.inner.dials, patience, build, method).await?;
        put_result(&answer, size)
    }
}

/// Small enough for one call: shorter than its chunk could be, so the source has ended.
fn is_small(piece: &Piece) -> bool {
    piece.index == 0 && piece.plain.len() <= MAX_INLINE_BYTES
}

fn put_result(answer: &v1::CommitUploadResponse, size: u64) -> Result<PutResult> {
    Ok(PutResult {
        file_id: FileId::from_slice(&answer.file_id)?,
        version: answer.version,
        size,
        copies: answer.copies,
        target: answer.target,
    })
}
