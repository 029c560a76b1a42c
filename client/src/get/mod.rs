//! Reading a file.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use dfs_proto::v1;
use dfs_types::{DfsError, ErrorCode};
use futures::Stream;

use crate::options::FileRef;
use crate::{Client, Result};

/// Bytes of a file, from `offset`; `length` `None`: to the end. Clipped to the file's end.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ReadRange {
    pub offset: u64,
    pub length: Option<u64>,
}

/// The verified bytes of a file, in order.
pub struct ReadStream {
    /// What is being read; all bytes come from this version.
    pub info: v1::FileInfo,
}

impl Stream for ReadStream {
    type Item = Result<Bytes>;
    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(None)
    }
}

impl Client {
    /// Opens a file for reading; `ReadRange::default()` is all of it.
    pub async fn open_read(&self, file: impl Into<FileRef>, range: ReadRange) -> Result<ReadStream> {
        let _ = (file.into(), range);
        Err(DfsError::new(ErrorCode::Unimplemented, "not built yet"))
    }

    /// A whole file in memory.
    pub async fn read(&self, file: impl Into<FileRef>) -> Result<Bytes> {
        self.read_range(file, ReadRange::default()).await
    }

    /// A part of a file in memory.
    pub async fn read_range(&self, file: impl Into<FileRef>, range: ReadRange) -> Result<Bytes> {
        let _ = self.open_read(file, range).await?;
        Ok(Bytes::new())
    }
}
