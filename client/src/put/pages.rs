//! Manifest pages: finished chunks in order, appended as they become contiguous. The sealed bytes of
//! chunks not yet in a page are held as long as memory allows, because the leader may want some of
//! them again (their node was lost or removed meanwhile).

use std::collections::BTreeMap;
use std::sync::Arc;

use chunk_format::seal::{plain_hash, seal_in_place};
use dfs_proto::v1;
use dfs_types::error::Need;
use dfs_types::limits::GIB;
use dfs_types::{DfsError, ErrorCode};

use super::chunk::{DoneChunk, Upload, Wish, deliver};
use super::send::HOLD;
use super::source::{FileStamp, blocking, read_again};
use crate::{Client, Result};

/// Rounds of sending chunks again before a page is given up.
const MAX_ROUNDS: u32 = 5;
/// Sources that cannot be read again get shorter pages rather than chunks without bytes, as long as
/// the count of pages stays far from its limit.
const SHORT_PAGES_BELOW: u64 = 64 * GIB;

/// Chunks of the page that begins at `first`: few at first, so that an interrupted put has little to
/// repeat; more in files so large that pages would become too many.
pub(crate) fn page_chunks(first: u32) -> usize {
    if first < 4096 { 64 } else { 320 }
}

pub(crate) struct Pages {
    upload: Arc<Upload>,
    stamp: Option<FileStamp>,
    ready: BTreeMap<u32, DoneChunk>,
    /// First chunk that is in no page.
    next: u32,
    held_bytes: u64,
    may_hold: u64,
}

impl Pages {
    pub fn new(upload: Arc<Upload>, stamp: Option<FileStamp>, memory_bytes: u64) -> Self {
        let next = upload.appended;
        // The other half is for chunks on their way.
        Self { upload, stamp, ready: BTreeMap::new(), next, held_bytes: 0, may_hold: memory_bytes / 2 }
    }

    /// Takes a finished chunk and appends the pages it completes.
    pub async fn add(&mut self, chunk: DoneChunk) -> Result<()> {
        if chunk.index < self.upload.appended {
            return Ok(());
        }
        self.held_bytes += held_bytes(&chunk);
        let offset = chunk.offset;
        self.ready.insert(chunk.index, chunk);
        while self.contiguous() >= page_chunks(self.next) {
            self.append(page_chunks(self.next)).await?;
        }
        if self.held_bytes > self.may_hold && self.stamp.is_none() && offset < SHORT_PAGES_BELOW {
            let run = self.contiguous();
            if run > 0 {
                self.append(run).await?;
            }
        }
        self.let_go();
        Ok(())
    }

    /// Appends what is left. Call when every chunk was added.
    pub async fn finish(&mut self) -> Result<()> {
        while self.contiguous() > 0 {
            self.append(self.contiguous().min(page_chunks(self.next))).await?;
        }
        if self.ready.is_empty() { Ok(()) } else { Err(internal("chunks are missing between others")) }
    }

    fn contiguous(&self) -> usize {
        self.ready.keys().zip(self.next..).take_while(|(have, want)| *have == want).count()
    }

    /// Drops held bytes, oldest first, until they fit.
    fn let_go(&mut self) {
        for chunk in self.ready.values_mut() {
            if self.held_bytes <= self.may_hold {
                return;
            }
            self.held_bytes -= held_bytes(chunk);
            chunk.held = None;
        }
    }

    async fn append(&mut self, count: usize) -> Result<()> {
        let first = self.next;
        let mut page = Vec::with_capacity(count);
        for index in first..first + count as u32 {
            page.push(self.ready.remove(&index).ok_or_else(|| internal("a chunk of the page is missing"))?);
        }
        for round in 0.. {
            match append_page(&self.upload.client, &self.upload, first, &page).await {
                Ok(()) => break,
                Err(error) if error.code == ErrorCode::ChunksMissing && round < MAX_ROUNDS => {
                    self.send_again(&error, &mut page).await?;
                }
                Err(error) => return Err(error),
            }
        }
        self.held_bytes -= page.iter().map(held_bytes).sum::<u64>();
        self.next += count as u32;
        Ok(())
    }

    async fn send_again(&self, error: &DfsError, page: &mut [DoneChunk]) -> Result<()> {
        if error.chunks.is_empty() {
            return Err(error.clone());
        }
        for need in &error.chunks {
            let chunk = page.iter_mut().find(|chunk| chunk.index == need.index);
            let chunk = chunk.ok_or_else(|| internal("the leader misses a chunk of another page"))?;
            tracing::debug!(index = chunk.index, need = ?need.need, "sending a chunk again");
            let sealed = match &chunk.held {
                Some(held) => held.sealed.clone(),
                None => self.seal_again(chunk).await?,
            };
            let wish = Wish {
                index: chunk.index,
                id: chunk.id,
                bytes: &sealed,
                must_send: true,
                hold: (need.need == Need::Touch).then_some(HOLD),
            };
            chunk.receipts = deliver(&self.upload, wish).await?;
        }
        Ok(())
    }

    /// Reads and seals a chunk again, if it still is what it was: other bytes must never be sealed
    /// under its secret, and could not be, because the secret is asked for by their hash.
    async fn seal_again(&self, chunk: &DoneChunk) -> Result<bytes::Bytes> {
        let Some(stamp) = &self.stamp else {
            return Err(DfsError::new(
                ErrorCode::Unavailable,
                "nodes lost chunks during the put and the source cannot be read again; put it anew",
            ));
        };
        let plain = read_again(stamp, chunk.offset, chunk.size).await?;
        let (plain, hash) = blocking(move || {
            let hash = plain_hash(&plain);
            (plain, hash)
        })
        .await?;
        let secret = self.upload.planner.secret(chunk.index, &hash).await?;
        let sealed = blocking(move || seal_in_place(&secret, plain)).await??;
        if sealed.id != chunk.id {
            return Err(DfsError::new(
                ErrorCode::Integrity,
                "the source changed while it was put; put it anew",
            ));
        }
        Ok(sealed.bytes)
    }
}

fn held_bytes(chunk: &DoneChunk) -> u64 {
    chunk.held.as_ref().map_or(0, |held| held.sealed.len() as u64)
}

async fn append_page(client: &Client, upload: &Upload, first: u32, page: &[DoneChunk]) -> Result<()> {
    let chunks: Vec<v1::PageChunk> = page
        .iter()
        .map(|chunk| v1::PageChunk {
            chunk_id: chunk.id.to_vec().into(),
            size: chunk.size,
            secret: chunk.secret.expose().to_vec().into(),
            receipts: chunk.receipts.clone(),
        })
        .collect();
    let build = |mutation| v1::AppendPageRequest {
        upload_id: upload.id.to_vec().into(),
        first_index: first,
        chunks: chunks.clone(),
        mutation: Some(mutation),
    };
    let method =
        |mut metadata: crate::rpc::Metadata, request| async move { metadata.append_page(request).await };
    client.inner.rpc.mutate(&client.inner.dials, client.patience(), build, method).await.map(|_| ())
}

fn internal(message: &str) -> DfsError {
    DfsError::new(ErrorCode::Internal, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_types::limits::{MAX_PAGE_CHUNKS, MAX_PAGES_PER_VERSION, MAX_VERSION_BYTES, chunk_bytes_at};

    #[test]
    fn the_largest_version_has_few_enough_pages() {
        let (mut offset, mut chunks, mut pages) = (0, 0u32, 0u32);
        while offset < MAX_VERSION_BYTES {
            let count = page_chunks(chunks);
            assert!(count <= MAX_PAGE_CHUNKS);
            for _ in 0..count {
                offset += chunk_bytes_at(offset);
            }
            chunks += count as u32;
            pages += 1;
        }
        // Short pages hold a quarter of the memory bound at least, so at most eight times as many as
        // there would be below 64 GiB.
        let short = 8 * (SHORT_PAGES_BELOW / (16 << 20)) as u32 / 64;
        assert!(pages + short <= MAX_PAGES_PER_VERSION, "{pages} pages");
    }
}
