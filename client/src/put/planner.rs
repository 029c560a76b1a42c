//! Asking for secrets and places. Chunks ask one by one; what is waiting when a call returns travels
//! in the next one, so the hashes of some chunks ride with the sealed ids of others, and the number
//! of calls adapts to their latency. One call is under way at a time.

use dfs_proto::v1;
use dfs_types::limits::MAX_PLAN_CHUNKS;
use dfs_types::{ChunkId, DfsError, ErrorCode, Secret, UploadId};
use tokio::sync::{mpsc, oneshot};
use tracing::Instrument;

use crate::{Client, Result};

enum Ask {
    Secret { chunk: v1::PlainChunk, answer: oneshot::Sender<Result<Secret<32>>> },
    Place { chunk: v1::SealedChunk, answer: oneshot::Sender<Result<v1::ChunkPlan>> },
}

/// A cheap handle to the planner of one upload, which ends when the last handle is dropped.
#[derive(Clone)]
pub(crate) struct Planner {
    asks: mpsc::Sender<Ask>,
}

impl Planner {
    pub fn start(client: Client, upload: UploadId) -> Self {
        let (asks, waiting) = mpsc::channel(2 * MAX_PLAN_CHUNKS);
        tokio::spawn(serve(client, upload, waiting).in_current_span());
        Self { asks }
    }

    /// The content secret of a plaintext.
    pub async fn secret(&self, index: u32, plain_hash: &[u8; 32]) -> Result<Secret<32>> {
        let (answer, answered) = oneshot::channel();
        let chunk = v1::PlainChunk { index, plain_hash: plain_hash.to_vec().into() };
        self.ask(Ask::Secret { chunk, answer }).await?;
        answered.await.map_err(|_| gone())?
    }

    /// Where a sealed chunk goes, or that it is stored already.
    pub async fn place(
        &self,
        index: u32,
        id: ChunkId,
        sealed_length: u64,
        must_send: bool,
    ) -> Result<v1::ChunkPlan> {
        let (answer, answered) = oneshot::channel();
        let chunk = v1::SealedChunk { index, chunk_id: id.to_vec().into(), sealed_length, must_send };
        self.ask(Ask::Place { chunk, answer }).await?;
        answered.await.map_err(|_| gone())?
    }

    async fn ask(&self, ask: Ask) -> Result<()> {
        self.asks.send(ask).await.map_err(|_| gone())
    }
}

fn gone() -> DfsError {
    DfsError::new(ErrorCode::Internal, "the upload's planner ended")
}

async fn serve(client: Client, upload: UploadId, mut waiting: mpsc::Receiver<Ask>) {
    let mut batch = Vec::with_capacity(MAX_PLAN_CHUNKS);
    while waiting.recv_many(&mut batch, MAX_PLAN_CHUNKS).await > 0 {
        // An asker that was cancelled needs no answer.
        batch.retain(|ask| match ask {
            Ask::Secret { answer, .. } => !answer.is_closed(),
            Ask::Place { answer, .. } => !answer.is_closed(),
        });
        if !batch.is_empty() {
            let failed = answer(&client, upload, std::mem::take(&mut batch)).await;
            // Whoever waited meanwhile waited as long: another round of patience would help nobody.
            if let Some(error) = failed.filter(DfsError::is_retryable) {
                while let Ok(ask) = waiting.try_recv() {
                    let _ = match ask {
                        Ask::Secret { answer, .. } => answer.send(Err(error.clone())).map_err(|_| ()),
                        Ask::Place { answer, .. } => answer.send(Err(error.clone())).map_err(|_| ()),
                    };
                }
            }
        }
    }
}

/// Answers a batch; returns why the call failed, if it did.
async fn answer(client: &Client, upload: UploadId, batch: Vec<Ask>) -> Option<DfsError> {
    let mut request = v1::PlanChunksRequest {
        upload_id: upload.to_vec().into(),
        exclude_nodes: client.inner.dials.shunned(),
        ..Default::default()
    };
    for ask in &batch {
        match ask {
            Ask::Secret { chunk, .. } => request.hashes.push(chunk.clone()),
            Ask::Place { chunk, .. } => request.sealed.push(chunk.clone()),
        }
    }
    let mut response = plan(client, request.clone()).await;
    // Better a node that failed a moment ago than none.
    if !request.exclude_nodes.is_empty() && is_shortage(&response) {
        request.exclude_nodes.clear();
        response = plan(client, request.clone()).await;
    }
    // A shortage of nodes is for those who asked for nodes; secrets can be had all the same.
    let secrets = if is_shortage(&response) && !request.hashes.is_empty() {
        request.sealed.clear();
        plan(client, request).await.map(|response| response.secrets)
    } else {
        response.as_ref().map(|response| response.secrets.clone()).map_err(Clone::clone)
    };
    let plans = response.map(|response| response.plans);
    for ask in batch {
        // A closed channel is an asker that went away.
        let _ = match ask {
            Ask::Secret { chunk, answer } => answer.send(secret_of(&secrets, chunk.index)).map_err(|_| ()),
            Ask::Place { chunk, answer } => answer.send(plan_of(&plans, chunk.index)).map_err(|_| ()),
        };
    }
    plans.err()
}

fn is_shortage<T>(response: &Result<T>) -> bool {
    matches!(response, Err(error) if error.code == ErrorCode::NotEnoughNodes)
}

fn secret_of(secrets: &Result<Vec<v1::ChunkSecret>>, index: u32) -> Result<Secret<32>> {
    let secrets = secrets.as_ref().map_err(Clone::clone)?;
    let found = secrets.iter().find(|secret| secret.index == index);
    found.and_then(|found| Secret::from_slice(&found.secret)).ok_or_else(incomplete)
}

fn plan_of(plans: &Result<Vec<v1::ChunkPlan>>, index: u32) -> Result<v1::ChunkPlan> {
    let plans = plans.as_ref().map_err(Clone::clone)?;
    plans.iter().find(|plan| plan.index == index).cloned().ok_or_else(incomplete)
}

async fn plan(client: &Client, request: v1::PlanChunksRequest) -> Result<v1::PlanChunksResponse> {
    let method =
        |mut metadata: crate::rpc::Metadata, request| async move { metadata.plan_chunks(request).await };
    client.inner.rpc.read(&client.inner.dials, client.patience(), request, method).await
}

fn incomplete() -> DfsError {
    DfsError::new(ErrorCode::Internal, "the plan leaves out a chunk that was asked for")
}
