//! Which chunks come next: read plans are asked for a window at a time, pinned to the version the
//! first one answered, and asked for again when their grants grow old.

use std::collections::VecDeque;
use std::time::Duration;

use dfs_proto::v1;
use dfs_types::{DfsError, ErrorCode};
use tokio::time::Instant;

use crate::{Client, Result};

/// Chunks asked for at once: enough to stay ahead, few enough that their grants stay fresh.
const WINDOW_CHUNKS: u32 = 32;
/// Grants live 60 s of cluster time; older plans than this are asked for again.
const FRESH: Duration = Duration::from_secs(40);

/// A part of one chunk that a read needs.
pub(crate) struct Part {
    pub chunk: v1::ReadChunk,
    /// Inside the chunk's plaintext.
    pub offset: u64,
    /// At least 1.
    pub length: u64,
}

pub(crate) struct Windows {
    client: Client,
    /// The file by id in the version that is read.
    pinned: v1::FileSelector,
    /// Next plaintext byte to plan, and the end of the read.
    next: u64,
    end: u64,
    planned: VecDeque<v1::ReadChunk>,
    asked: Instant,
    pub realm: bytes::Bytes,
}

/// Opens a read; with the answer's inline content, if it has any, still in it.
pub(crate) async fn open(
    client: &Client,
    file: v1::FileSelector,
    offset: u64,
    length: u64,
) -> Result<v1::OpenReadResponse> {
    let request = v1::OpenReadRequest { file: Some(file), offset, length, max_chunks: WINDOW_CHUNKS };
    let method =
        |mut metadata: crate::rpc::Metadata, request| async move { metadata.open_read(request).await };
    client.inner.rpc.read(&client.inner.dials, client.patience(), request, method).await
}

/// The selector that keeps a read on the version it began with.
pub(crate) fn pin(info: &v1::FileInfo) -> v1::FileSelector {
    v1::FileSelector {
        by: Some(v1::file_selector::By::FileId(info.file_id.clone())),
        version: Some(info.version),
    }
}

impl Windows {
    /// Goes on from the first answer, for the bytes `[offset, end)`.
    pub fn new(client: Client, first: v1::OpenReadResponse, offset: u64, end: u64) -> Self {
        let pinned = pin(first.info.as_ref().unwrap_or(&v1::FileInfo::default()));
        let (planned, realm) = (first.chunks.into(), first.realm_id);
        Self { client, pinned, next: offset, end, planned, asked: Instant::now(), realm }
    }

    pub fn pinned(&self) -> &v1::FileSelector {
        &self.pinned
    }

    /// The next part, or `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Part>> {
        if self.next >= self.end {
            return Ok(None);
        }
        if self.planned.is_empty() || self.asked.elapsed() > FRESH {
            let answer = open(&self.client, self.pinned.clone(), self.next, self.end - self.next).await?;
            self.planned = answer.chunks.into();
            self.asked = Instant::now();
        }
        let chunk = self.planned.pop_front().ok_or_else(gap)?;
        let part = cut(chunk, self.next, self.end).ok_or_else(gap)?;
        self.next += part.length;
        Ok(Some(part))
    }
}

/// What a read of `[next, end)` takes from `chunk`, which must hold byte `next`.
fn cut(chunk: v1::ReadChunk, next: u64, end: u64) -> Option<Part> {
    let chunk_end = chunk.offset.checked_add(chunk.size)?;
    if !(chunk.offset..chunk_end).contains(&next) || next >= end {
        return None;
    }
    Some(Part { offset: next - chunk.offset, length: end.min(chunk_end) - next, chunk })
}

fn gap() -> DfsError {
    DfsError::new(ErrorCode::Integrity, "the read plan has a gap where a chunk should be")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(offset: u64, size: u64) -> v1::ReadChunk {
        v1::ReadChunk { offset, size, ..Default::default() }
    }

    #[test]
    fn parts_are_cut_to_the_range() {
        let part = cut(chunk(100, 50), 120, 1000).unwrap();
        assert_eq!((part.offset, part.length), (20, 30));
        let part = cut(chunk(100, 50), 120, 130).unwrap();
        assert_eq!((part.offset, part.length), (20, 10));
        for (offset, size, next) in [(100, 50, 99), (100, 50, 150), (100, 0, 100), (u64::MAX, 2, u64::MAX)] {
            assert!(cut(chunk(offset, size), next, u64::MAX).is_none(), "{offset} {size} {next}");
        }
    }
}
