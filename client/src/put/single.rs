//! One chunk of an upload that somebody else steers: `dfsctl chunk put`, for people who drive the
//! REST interface by hand.

use bytes::{Bytes, BytesMut};
use chunk_format::seal::{plain_hash, seal_in_place, sealed_length};
use dfs_proto::v1;
use dfs_types::{ChunkId, Secret, UploadId};

use super::chunk::{Upload, Wish, deliver};
use super::planner::Planner;
use super::source::blocking;
use crate::options::Policy;
use crate::progress::Progress;
use crate::{Client, Result};

/// A chunk that was sealed and sent. No Debug: it holds the chunk's secret.
pub struct PutChunk {
    pub index: u32,
    pub chunk_id: ChunkId,
    /// Plaintext bytes.
    pub size: u64,
    /// What the commit keeps sealed in the manifest.
    pub secret: Secret<32>,
    /// Empty when the cluster had the chunk.
    pub receipts: Vec<Bytes>,
}

impl Client {
    /// Seals and sends chunk `index` of an open upload. `plain` has 1 byte to 64 MiB.
    pub async fn put_chunk(&self, upload: UploadId, index: u32, plain: Bytes) -> Result<PutChunk> {
        let request = v1::GetUploadRequest { upload_id: upload.to_vec().into() };
        let method =
            |mut metadata: crate::rpc::Metadata, request| async move { metadata.get_upload(request).await };
        let info = self.inner.rpc.read(&self.inner.dials, self.patience(), request, method).await?;
        let size = plain.len() as u64;
        let mut buffer = BytesMut::with_capacity(sealed_length(size) as usize);
        buffer.extend_from_slice(&plain);
        let hash = plain_hash(&buffer);
        let session = Upload {
            client: self.clone(),
            id: upload,
            realm: info.realm_id,
            policy: Policy::resolved(info.policy),
            planner: Planner::start(self.clone(), upload),
            progress: Progress::new(),
            appended: 0,
        };
        let secret = session.planner.secret(index, &hash).await?;
        let key = secret.clone();
        let sealed = blocking(move || seal_in_place(&key, buffer)).await??;
        let wish = Wish { index, id: sealed.id, bytes: &sealed.bytes, must_send: false, hold: None };
        let receipts = deliver(&session, wish).await?;
        Ok(PutChunk { index, chunk_id: sealed.id, size, secret, receipts })
    }
}
