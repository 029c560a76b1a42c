//! A file put in parts: any number at once, in any order, of any length; their order is said at the
//! end. Owner: the handle; nothing is kept outside this process but the open upload.
//!
//! Crash promise: nothing is visible before `complete` answers. An upload that nobody completes or
//! aborts expires by itself (24 h).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::{Bytes, BytesMut};
use chunk_format::seal::{plain_hash, sealed_length};
use dfs_types::limits::CHUNK_BYTES_FIRST;
use dfs_types::{ChunkId, DfsError, DfsPath, ErrorCode, Secret, UploadId};

use super::PutResult;
use super::calls::{self, Content};
use super::chunk::{self, Before, DoneChunk, Upload};
use super::pages::Pages;
use super::planner::Planner;
use super::source::{Memory, Piece, blocking};
use crate::options::PutOptions;
use crate::{Client, Result};

/// An open upload that takes parts. Cheap to clone; clones are the same upload.
#[derive(Clone)]
pub struct Multipart {
    upload: Arc<Upload>,
    options: Arc<PutOptions>,
    memory: Memory,
    /// Tells chunks apart in plans; their place in the file is decided at the end.
    next: Arc<AtomicU32>,
}

/// A part that is durable. No Debug: it holds the secrets of its chunks.
#[derive(Clone)]
pub struct Part {
    upload: UploadId,
    size: u64,
    chunks: Vec<Sent>,
}

#[derive(Clone)]
struct Sent {
    id: ChunkId,
    size: u64,
    secret: Secret<32>,
    receipts: Vec<Bytes>,
}

impl Part {
    /// Plaintext bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Client {
    /// Begins a put whose content comes in parts. `options.resume_file` has no meaning here. A stream
    /// that comes in order is better put with [`Client::put`]: its chunks have their full length, and
    /// the hash of the whole is kept.
    ///
    /// ```no_run
    /// use dfs_client::{Client, PutOptions};
    ///
    /// # async fn example(client: Client) -> dfs_client::Result<()> {
    /// let upload = client.put_multipart("/logs/day", PutOptions::default()).await?;
    /// let (night, morning) = tokio::try_join!(upload.put_part("night".into()), upload.put_part("morning".into()))?;
    /// upload.complete(&[night, morning]).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Client::put`].
    pub async fn put_multipart(&self, path: &str, options: PutOptions) -> Result<Multipart> {
        let path: DfsPath = path.parse()?;
        let begun = calls::begin(self, &path, None, options.policy).await?;
        let upload = Upload {
            client: self.clone(),
            id: begun.upload,
            realm: begun.realm,
            policy: begun.policy,
            planner: Planner::start(self.clone(), begun.upload),
            progress: options.progress.clone().unwrap_or_default(),
            appended: 0,
        };
        Ok(Multipart {
            upload: Arc::new(upload),
            options: Arc::new(options),
            memory: Memory::new(self.memory_bytes),
            next: Arc::default(),
        })
    }
}

impl Multipart {
    pub fn upload_id(&self) -> UploadId {
        self.upload.id
    }

    /// Seals and sends a part; durable on `min_ack` nodes when this returns. A part that was not asked
    /// to be in the file by `complete` is dropped with the upload.
    ///
    /// # Errors
    /// `upload_not_found` when the upload was completed, aborted or has expired; else as
    /// [`Client::put`].
    pub async fn put_part(&self, content: Bytes) -> Result<Part> {
        let size = content.len() as u64;
        let pieces = (0..size).step_by(CHUNK_BYTES_FIRST as usize).map(|start| {
            let end = (start + CHUNK_BYTES_FIRST).min(size);
            self.send(start, content.slice(start as usize..end as usize))
        });
        let chunks = futures::future::try_join_all(pieces).await?;
        Ok(Part { upload: self.upload.id, size, chunks })
    }

    async fn send(&self, offset: u64, content: Bytes) -> Result<Sent> {
        let length = sealed_length(content.len() as u64);
        let permit = self.memory.take(length).await;
        let (plain, plain_hash) = blocking(move || {
            let mut plain = BytesMut::with_capacity(length as usize);
            plain.extend_from_slice(&content);
            let hash = plain_hash(&plain);
            (plain, hash)
        })
        .await?;
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        let piece = Piece { index, offset, plain, plain_hash, permit };
        let done = chunk::run(&self.upload, piece, Before::Nothing).await?;
        Ok(Sent { id: done.id, size: done.size, secret: done.secret, receipts: done.receipts })
    }

    /// Makes the parts, one behind the other, the file's new version. May be called again after an
    /// error, with the same parts; what was done by then is not done twice.
    ///
    /// # Errors
    /// `version_mismatch` when the options' condition does not hold; `invalid_argument` for a part of
    /// another upload; `unavailable` when nodes lost a part meanwhile: put the file anew.
    pub async fn complete(&self, parts: &[Part]) -> Result<PutResult> {
        if parts.iter().any(|part| part.upload != self.upload.id) {
            return Err(DfsError::new(ErrorCode::InvalidArgument, "a part is of another upload"));
        }
        let mut pages = Pages::new(Arc::clone(&self.upload), None, self.upload.client.memory_bytes);
        let (mut index, mut offset) = (0u32, 0u64);
        for sent in parts.iter().flat_map(|part| &part.chunks) {
            let chunk = DoneChunk {
                index,
                id: sent.id,
                offset,
                size: sent.size,
                secret: sent.secret.clone(),
                receipts: sent.receipts.clone(),
                held: None,
            };
            pages.add(chunk).await?;
            index += 1;
            offset += sent.size;
        }
        pages.finish().await?;
        let content = Content { chunks: index, size: offset, hash: None };
        calls::commit(&self.upload.client, self.upload.id, content, &self.options).await
    }

    /// Drops the upload and what it holds.
    pub async fn abort(&self) -> Result<()> {
        self.upload.client.abort_upload(self.upload.id).await.map(drop)
    }
}
