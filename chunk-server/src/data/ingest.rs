//! Bytes of one chunk on their way into the store: hashed and written in batches while the next
//! batch arrives. Puts and copies both end here.
//!
//! Crash promise: nothing of the chunk counts before [`Ingest::finish`] answered; dropped before
//! that, at any point, it leaves nothing.

use std::sync::Arc;

use bytes::Bytes;
use chunk_format::tree::GroupHasher;
use dfs_types::limits::INGEST_BATCH_BYTES;
use dfs_types::{DfsError, ErrorCode, Position};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::blocking::BlockingPool;
use crate::store::{ChunkKey, ChunkStore, ChunkWriter};
use crate::telemetry;

/// The writing end of one chunk. Holds at most two batches: one being written, one arriving.
pub struct Ingest {
    target: Target,
    pool: BlockingPool,
    received: u64,
    batch: Vec<Bytes>,
    batch_bytes: usize,
    /// The batch before, with the engine that will come back from it. None before the first.
    writing: Option<JoinHandle<Result<Engine, DfsError>>>,
}

#[derive(Clone)]
pub struct Target {
    pub store: Arc<dyn ChunkStore>,
    pub key: ChunkKey,
    pub sealed_length: u64,
    pub epoch: Position,
}

struct Engine {
    writer: Box<dyn ChunkWriter>,
    hasher: GroupHasher,
}

impl Engine {
    /// Begun with the first batch, so that a small chunk takes one trip to a blocking thread.
    fn begin(target: &Target) -> Result<Self, DfsError> {
        let writer = target.store.begin(&target.key, target.sealed_length, target.epoch)?;
        Ok(Self { writer, hasher: GroupHasher::with_length(target.sealed_length) })
    }

    fn take(&mut self, batch: &[Bytes]) -> Result<(), DfsError> {
        for slice in batch {
            self.hasher.update(slice);
            self.writer.write(slice)?;
        }
        Ok(())
    }

    /// The check that nothing unverified ever becomes a chunk.
    fn finish(self, target: &Target) -> Result<(), DfsError> {
        let (id, groups) = self.hasher.finish();
        if id != target.key.chunk {
            return Err(DfsError::new(
                ErrorCode::Integrity,
                format!("the bytes sent for chunk {} do not hash to it", target.key.chunk),
            ));
        }
        let started = Instant::now();
        self.writer.finish(&groups)?;
        telemetry::sync_finished(started.elapsed());
        Ok(())
    }
}

impl Ingest {
    pub fn new(pool: BlockingPool, target: Target) -> Self {
        Self { target, pool, received: 0, batch: Vec::new(), batch_bytes: 0, writing: None }
    }

    /// Takes the next bytes. Waits while the disk is behind by more than a batch.
    ///
    /// # Errors
    /// `invalid_argument` for more bytes than announced; the store's, for an earlier batch.
    pub async fn push(&mut self, slice: Bytes) -> Result<(), DfsError> {
        self.received += slice.len() as u64;
        if self.received > self.target.sealed_length {
            return Err(self.wrong_length("more"));
        }
        self.batch_bytes += slice.len();
        self.batch.push(slice);
        if self.batch_bytes < INGEST_BATCH_BYTES {
            return Ok(());
        }
        let engine = self.written().await?;
        self.batch_bytes = 0;
        let (batch, target, pool) = (std::mem::take(&mut self.batch), self.target.clone(), self.pool.clone());
        self.writing = Some(tokio::spawn(async move {
            pool.run(move || {
                let mut engine = engine.map_or_else(|| Engine::begin(&target), Ok)?;
                engine.take(&batch)?;
                Ok::<_, DfsError>(engine)
            })
            .await
        }));
        Ok(())
    }

    /// Checks length and hash, and makes the chunk durable.
    ///
    /// # Errors
    /// `invalid_argument` if bytes are missing, `integrity` if they do not hash to the chunk id, and
    /// the store's. After any error nothing is kept.
    pub async fn finish(mut self) -> Result<(), DfsError> {
        if self.received != self.target.sealed_length {
            return Err(self.wrong_length("fewer"));
        }
        let engine = self.written().await?;
        let Self { target, pool, batch, .. } = self;
        pool.run(move || {
            let mut engine = engine.map_or_else(|| Engine::begin(&target), Ok)?;
            engine.take(&batch)?;
            engine.finish(&target)
        })
        .await
    }

    async fn written(&mut self) -> Result<Option<Engine>, DfsError> {
        let Some(job) = self.writing.take() else { return Ok(None) };
        let engine =
            job.await.map_err(|_| DfsError::new(ErrorCode::Internal, "a disk task failed: see the log"))?;
        engine.map(Some)
    }

    fn wrong_length(&self, word: &str) -> DfsError {
        let Target { key, sealed_length, .. } = &self.target;
        DfsError::new(
            ErrorCode::InvalidArgument,
            format!("chunk {}: {word} bytes came than the {sealed_length} announced", key.chunk),
        )
    }
}
