//! The calls that begin and end an upload. Both wait out a shortage of nodes that passes: a node that
//! was started again is about to register.

use std::time::Duration;

use bytes::Bytes;
use dfs_proto::v1;
use dfs_types::{DfsError, DfsPath, ErrorCode, UploadId};
use tokio::time::{Instant, sleep};

use super::chunk::SHORTAGE;
use super::{PutResult, put_result};
use crate::options::{Policy, PutOptions};
use crate::retry::Backoff;
use crate::rpc::Metadata;
use crate::{Client, Result};

/// How long a put that failed tries to drop its upload; else it expires.
const ABORT_TIME: Duration = Duration::from_secs(2);

/// A new upload.
pub(crate) struct Begun {
    pub upload: UploadId,
    pub realm: Bytes,
    pub policy: Policy,
}

/// What all pages of an upload hold together.
pub(crate) struct Content {
    pub chunks: u32,
    pub size: u64,
    /// BLAKE3 of the whole plaintext, where somebody saw it in order.
    pub hash: Option<[u8; 32]>,
}

pub(crate) async fn begin(
    client: &Client,
    path: &DfsPath,
    size: Option<u64>,
    policy: Option<Policy>,
) -> Result<Begun> {
    let build = |mutation| v1::InitUploadRequest {
        mutation: Some(mutation),
        path: path.to_string(),
        size,
        policy: policy.map(Into::into),
    };
    let method = |mut metadata: Metadata, request| async move { metadata.init_upload(request).await };
    let inner = &client.inner;
    let _timing = inner.longest.time();
    let answer =
        through_a_shortage(|| inner.rpc.mutate(&inner.dials, client.patience(), build, method)).await?;
    Ok(Begun {
        upload: UploadId::from_slice(&answer.upload_id)?,
        realm: answer.realm_id,
        policy: Policy::resolved(answer.policy),
    })
}

/// Makes what was appended visible. Idempotent by the upload.
pub(crate) async fn commit(
    client: &Client,
    upload: UploadId,
    content: Content,
    options: &PutOptions,
) -> Result<PutResult> {
    let build = |mutation| v1::CommitUploadRequest {
        mutation: Some(mutation),
        upload_id: upload.to_vec().into(),
        chunks: content.chunks,
        size: content.size,
        content_hash: content.hash.map(|hash| hash.to_vec().into()).unwrap_or_default(),
        if_version: options.if_version,
        content_type: options.content_type.clone(),
        user_metadata: options.user_metadata.clone().into_iter().collect(),
    };
    let method = |mut metadata: Metadata, request| async move { metadata.commit_upload(request).await };
    let inner = &client.inner;
    let _timing = inner.longest.time();
    let answer =
        through_a_shortage(|| inner.rpc.mutate(&inner.dials, client.patience(), build, method)).await?;
    put_result(&answer, content.size)
}

/// Drops an upload, if that can be done at once; else it expires.
pub(crate) async fn abort(client: &Client, upload: UploadId) {
    let dropped = tokio::time::timeout(ABORT_TIME, client.abort_upload(upload)).await;
    if !matches!(dropped, Ok(Ok(_))) {
        tracing::debug!(%upload, "the upload was not dropped and will expire");
    }
}

async fn through_a_shortage<T, F>(call: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let start = Instant::now();
    let mut backoff = Backoff::new();
    loop {
        match call().await {
            Err(DfsError { code: ErrorCode::NotEnoughNodes, .. }) if start.elapsed() < SHORTAGE => {
                sleep(backoff.pause()).await;
            }
            answer => return answer,
        }
    }
}
