//! Reading a file: chunks are fetched ahead, in parallel, and handed over in order. Nothing is handed
//! over that was not checked against the chunk id in the committed manifest.

mod fetch;
mod window;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use chunk_format::seal::{open, plain_length, sealed_length};
use dfs_proto::v1;
use dfs_types::limits::MAX_INLINE_BYTES;
use dfs_types::{ChunkId, DfsError, ErrorCode, Secret};
use futures::{Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use self::fetch::{Reading, fetch};
use self::window::Windows;
use crate::options::FileRef;
use crate::put::Memory;
use crate::{Client, Result};

/// Bytes of a file, from `offset`; `length` `None`: to the end. Clipped to the file's end.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ReadRange {
    pub offset: u64,
    pub length: Option<u64>,
}

impl ReadRange {
    pub fn new(offset: u64, length: u64) -> Self {
        Self { offset, length: Some(length) }
    }

    /// `[start, end)` in a file of `size` bytes.
    fn clip(self, size: u64) -> (u64, u64) {
        let start = self.offset.min(size);
        let end = self.length.map_or(size, |length| start.saturating_add(length).min(size));
        (start, end)
    }
}

/// The verified bytes of a file, in order, as a stream of `Result<Bytes>`. Ends after the first error.
/// Dropping it stops the fetching.
pub struct ReadStream {
    /// What is being read; all bytes come from this version.
    pub info: v1::FileInfo,
    /// Bytes this stream has to give.
    pub length: u64,
    body: Body,
}

enum Body {
    Inline(Option<Bytes>),
    Chunks { parts: mpsc::Receiver<Result<Fetched>>, _fetcher: AbortOnDropHandle<()> },
}

/// A part's bytes and their share of the read's memory, given back when they are handed over.
struct Fetched {
    bytes: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl Stream for ReadStream {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut self.body {
            Body::Inline(bytes) => Poll::Ready(bytes.take().filter(|bytes| !bytes.is_empty()).map(Ok)),
            Body::Chunks { parts, .. } => {
                parts.poll_recv(context).map(|part| part.map(|part| part.map(|fetched| fetched.bytes)))
            }
        }
    }
}

impl Client {
    /// Opens a file for reading; `ReadRange::default()` is all of it.
    ///
    /// ```no_run
    /// use dfs_client::{Client, ReadRange};
    /// use futures::TryStreamExt;
    ///
    /// # async fn example(client: Client) -> dfs_client::Result<()> {
    /// let mut stream = client.open_read("/photos/film.mkv", ReadRange::default()).await?;
    /// while let Some(bytes) = stream.try_next().await? {
    ///     println!("{} bytes more", bytes.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `not_found`; in the stream `unavailable` when no replica of a chunk answers, `integrity` when
    /// every one answers wrong bytes.
    pub async fn open_read(&self, file: impl Into<FileRef>, range: ReadRange) -> Result<ReadStream> {
        let file = file.into().selector()?;
        let mut first = window::open(self, file, range.offset, range.length.unwrap_or(0)).await?;
        let info = first.info.take().ok_or_else(|| internal("the read plan says nothing of the file"))?;
        let (start, mut end) = range.clip(info.size);
        if range.length == Some(0) {
            end = start;
        }
        if info.inline || !first.inline_sealed.is_empty() {
            let content = open_inline(&info, &first)?;
            let bytes = content.slice(start as usize..end as usize);
            let length = bytes.len() as u64;
            return Ok(ReadStream { info, length, body: Body::Inline(Some(bytes)) });
        }
        first.info = Some(info.clone());
        let windows = Windows::new(self.clone(), first, start, end);
        let parallel = self.inner.config.parallel_chunks.max(1);
        let (send, parts) = mpsc::channel(1);
        let memory = Memory::new(self.memory_bytes);
        let reading =
            Reading { client: self.clone(), realm: windows.realm.clone(), pinned: windows.pinned().clone() };
        let fetching = fetch_all(Arc::new(reading), windows, memory, parallel, send);
        let fetcher = AbortOnDropHandle::new(tokio::spawn(fetching.in_current_span()));
        Ok(ReadStream { info, length: end - start, body: Body::Chunks { parts, _fetcher: fetcher } })
    }

    /// A whole file in memory.
    pub async fn read(&self, file: impl Into<FileRef>) -> Result<Bytes> {
        self.read_range(file, ReadRange::default()).await
    }

    /// A part of a file in memory. Only the 64 KiB groups that hold it travel.
    pub async fn read_range(&self, file: impl Into<FileRef>, range: ReadRange) -> Result<Bytes> {
        let mut stream = self.open_read(file, range).await?;
        let Some(first) = stream.next().await else { return Ok(Bytes::new()) };
        let first = first?;
        if first.len() as u64 == stream.length {
            return Ok(first);
        }
        let mut all = BytesMut::with_capacity(stream.length as usize);
        all.extend_from_slice(&first);
        while let Some(bytes) = stream.next().await {
            all.extend_from_slice(&bytes?);
        }
        Ok(all.freeze())
    }
}

/// Keeps up to `parallel` fetches going within the memory bound, and hands over in order.
async fn fetch_all(
    reading: Arc<Reading>,
    mut windows: Windows,
    memory: Memory,
    parallel: usize,
    send: mpsc::Sender<Result<Fetched>>,
) {
    type Fetch = AbortOnDropHandle<Result<Fetched>>;
    let mut ahead: VecDeque<Fetch> = VecDeque::new();
    let mut failed = None;
    let mut planning = true;
    while planning || !ahead.is_empty() {
        while planning && ahead.len() < parallel {
            let part = match windows.next().await {
                Ok(Some(part)) => part,
                Ok(None) => {
                    planning = false;
                    break;
                }
                Err(error) => {
                    failed = Some(error);
                    planning = false;
                    break;
                }
            };
            let (reading, memory) = (Arc::clone(&reading), memory.clone());
            let wait = memory_of(&part);
            let permit = loop {
                match memory.try_take(wait) {
                    Some(permit) => break permit,
                    // What is held is on its way to the reader, who will take it.
                    None if ahead.is_empty() => break memory.take(wait).await,
                    // No room to go further ahead: hand over the oldest first.
                    None if !hand_over(&mut ahead, &send).await => return,
                    None => {}
                }
            };
            let fetching =
                async move { fetch(&reading, part).await.map(|bytes| Fetched { bytes, _permit: permit }) };
            ahead.push_back(AbortOnDropHandle::new(tokio::spawn(fetching.in_current_span())));
        }
        if !ahead.is_empty() && !hand_over(&mut ahead, &send).await {
            return;
        }
    }
    if let Some(error) = failed {
        // The reader may be gone; then nobody needs to know.
        let _ = send.send(Err(error)).await;
    }
}

/// Waits for the oldest fetch and passes it on; false when the read is over.
async fn hand_over(
    ahead: &mut VecDeque<AbortOnDropHandle<Result<Fetched>>>,
    send: &mpsc::Sender<Result<Fetched>>,
) -> bool {
    let Some(oldest) = ahead.pop_front() else { return true };
    let fetched = oldest.await.unwrap_or_else(|_| Err(internal("a chunk's task died")));
    let good = fetched.is_ok();
    send.send(fetched).await.is_ok() && good
}

fn memory_of(part: &window::Part) -> u64 {
    if part.length == part.chunk.size {
        sealed_length(part.length)
    } else {
        // The groups at both ends, and those of the tags.
        part.length + 4 * 64 * 1024
    }
}

/// Opens inline content with every check that does not need a manifest: the lengths, header,
/// commitment and tags of the sealed bytes, and the content hash if the version has one.
fn open_inline(info: &v1::FileInfo, answer: &v1::OpenReadResponse) -> Result<Bytes> {
    if info.size == 0 {
        return Ok(Bytes::new());
    }
    let sealed = &answer.inline_sealed;
    let fits = info.size <= MAX_INLINE_BYTES as u64 && plain_length(sealed.len() as u64)? == info.size;
    if !fits {
        return Err(DfsError::new(
            ErrorCode::Integrity,
            "the inline content has another length than the file",
        ));
    }
    let secret = Secret::from_slice(&answer.inline_secret)
        .ok_or_else(|| internal("the inline content's secret has a wrong length"))?;
    let id = ChunkId(*blake3::hash(sealed).as_bytes());
    let content = open(&secret, info.size, &id, sealed)?;
    let hash_fits =
        info.content_hash.is_empty() || info.content_hash == blake3::hash(&content).as_bytes()[..];
    if hash_fits {
        Ok(content)
    } else {
        Err(DfsError::new(ErrorCode::Integrity, "the inline content is not the one committed"))
    }
}

fn internal(message: &str) -> DfsError {
    DfsError::new(ErrorCode::Internal, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chunk_format::seal::seal;

    #[test]
    fn ranges_are_clipped_to_the_file() {
        let all = ReadRange::default();
        assert_eq!(all.clip(10), (0, 10));
        assert_eq!(ReadRange::new(3, 4).clip(10), (3, 7));
        assert_eq!(ReadRange::new(3, u64::MAX).clip(10), (3, 10));
        assert_eq!(ReadRange { offset: 30, length: None }.clip(10), (10, 10));
    }

    #[test]
    fn inline_content_is_checked() {
        let secret = Secret::new([7; 32]);
        let sealed = seal(&secret, b"hello").unwrap();
        let info = v1::FileInfo {
            size: 5,
            inline: true,
            content_hash: blake3::hash(b"hello").as_bytes().to_vec().into(),
            ..Default::default()
        };
        let answer = v1::OpenReadResponse {
            inline_sealed: sealed.bytes.clone(),
            inline_secret: secret.expose().to_vec().into(),
            ..Default::default()
        };
        assert_eq!(open_inline(&info, &answer).unwrap(), "hello");
        let other_size = v1::FileInfo { size: 4, ..info.clone() };
        assert_eq!(open_inline(&other_size, &answer).unwrap_err().code, ErrorCode::Integrity);
        let other_hash = v1::FileInfo { content_hash: vec![1; 32].into(), ..info.clone() };
        assert_eq!(open_inline(&other_hash, &answer).unwrap_err().code, ErrorCode::Integrity);
        let mut bytes = sealed.bytes.to_vec();
        bytes[0] ^= 1;
        let broken = v1::OpenReadResponse { inline_sealed: bytes.into(), ..answer };
        assert_eq!(open_inline(&info, &broken).unwrap_err().code, ErrorCode::Integrity);
    }
}
