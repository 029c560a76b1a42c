//! Writing a file.

use std::path::PathBuf;

use bytes::Bytes;
use dfs_types::{DfsError, ErrorCode, FileId};
use tokio::io::AsyncRead;

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
    pub async fn put(&self, path: &str, source: impl Into<Source>, options: PutOptions) -> Result<PutResult> {
        let _ = (path, source.into(), options);
        Err(DfsError::new(ErrorCode::Unimplemented, "not built yet"))
    }
}
