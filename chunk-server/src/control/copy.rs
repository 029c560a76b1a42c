//! Copy: pulls one chunk from another node, checks the whole of it, keeps it. Sources are tried in
//! the order given; what one of them sends wrong is never kept and never trusted further.

use std::sync::Arc;

use dfs_proto::status::from_status;
use dfs_proto::v1::{CopyChunkRequest, CopyChunkResponse, ForwardTo, GetRequest, get_response::Part};
use dfs_types::limits::MAX_LOCATIONS_PER_CHUNK;
use dfs_types::{DfsError, ErrorCode, Position, TaskId};
use tokio::time::Instant;

use super::key_of;
use super::touch::touch_held;
use crate::data::ingest::{Ingest, Target};
use crate::data::order::{check_sealed_length, stream_deadline};
use crate::data::{DataPlane, IDLE};
use crate::peers::{PeerNode, within};
use crate::store::{ChunkKey, ChunkStore};
use crate::telemetry::{self, Call};

pub(super) async fn copy(data: &DataPlane, request: CopyChunkRequest) -> Result<CopyChunkResponse, DfsError> {
    let started = Instant::now();
    let sealed_length = request.sealed_length;
    let result = run(data, request).await;
    telemetry::call_finished(
        Call::Copy,
        started,
        sealed_length,
        result.as_ref().err().map(|error| error.code),
    );
    result
}

/// What an order to have a chunk says, its form checked. Merging takes the same.
pub(super) struct CopyOrder {
    key: ChunkKey,
    task: TaskId,
    sealed_length: u64,
    epoch: Position,
}

impl CopyOrder {
    pub(super) fn parse(request: &CopyChunkRequest) -> Result<Self, DfsError> {
        let key = key_of(&request.realm_id, &request.chunk_id)?;
        let task = TaskId::from_slice(&request.task_id)?;
        let (sealed_length, epoch) = (request.sealed_length, Position(request.epoch));
        check_sealed_length(sealed_length)?;
        if request.sources.len() > MAX_LOCATIONS_PER_CHUNK {
            return Err(DfsError::new(
                ErrorCode::LimitExceeded,
                format!("{} sources, at most {MAX_LOCATIONS_PER_CHUNK} are allowed", request.sources.len()),
            ));
        }
        Ok(Self { key, task, sealed_length, epoch })
    }

    pub(super) fn target(&self, store: Arc<dyn ChunkStore>) -> Target {
        Target { store, key: self.key, sealed_length: self.sealed_length, epoch: self.epoch }
    }
}

/// Whether a good copy is here and has, durably, the epoch of the order now.
pub(super) async fn held_already(data: &DataPlane, target: &Target) -> Result<bool, DfsError> {
    let (store, key, epoch) = (target.store.clone(), target.key, target.epoch);
    let held = data.pool.run(move || touch_held(&*store, &key, epoch)).await?;
    Ok(held == Some(target.sealed_length))
}

/// The receipt, once the chunk is durable.
pub(super) fn answer(data: &DataPlane, order: &CopyOrder) -> Result<CopyChunkResponse, DfsError> {
    let CopyOrder { key, task, sealed_length, epoch } = order;
    let receipt = data.node.receipt(key.realm, task.0, *epoch, key.chunk, *sealed_length)?;
    Ok(CopyChunkResponse { receipt: receipt.into() })
}

async fn run(data: &DataPlane, request: CopyChunkRequest) -> Result<CopyChunkResponse, DfsError> {
    let order = CopyOrder::parse(&request)?;
    data.node.enter_term(request.term)?;
    let target = order.target(data.node.store()?);
    if !held_already(data, &target).await? {
        let _place = data.reserve_copy().await?;
        let _memory = data.reserve_memory(target.sealed_length, 0).await?;
        pull(data, &request.sources, &target).await?;
    }
    answer(data, &order)
}

async fn pull(data: &DataPlane, sources: &[ForwardTo], target: &Target) -> Result<(), DfsError> {
    let mut last = DfsError::new(ErrorCode::InvalidArgument, "a copy needs a source");
    for source in sources {
        let node = PeerNode::parse(source.node.as_ref())?;
        let pulled = pull_from(data, &node, source, target);
        match within(stream_deadline(target.sealed_length), "the copy", pulled).await {
            Ok(()) => {
                tracing::info!(chunk = %target.key, from = %node.id, bytes = target.sealed_length, "copied");
                return Ok(());
            }
            // Ours, not the source's: another one would not mend it.
            Err(error) if error.code == ErrorCode::NoSpace => return Err(error),
            Err(error) => {
                tracing::warn!(chunk = %target.key, from = %node.id, code = %error.code, error = %error.message, "source failed");
                last = error.context(format!("from node {}", node.id));
            }
        }
    }
    Err(last)
}

async fn pull_from(
    data: &DataPlane,
    node: &PeerNode,
    source: &ForwardTo,
    target: &Target,
) -> Result<(), DfsError> {
    let ChunkKey { realm, chunk } = target.key;
    let request = GetRequest {
        grant: source.grant.clone(),
        realm_id: realm.to_vec().into(),
        chunk_id: chunk.to_vec().into(),
        first_group: 0,
        group_count: 0,
        request_id: server_kit::request_id::current().map(|id| id.to_string()).unwrap_or_default(),
        damaged: false,
    };
    let mut client = data.peers.chunk_data(node)?;
    let call = async { client.get(request).await.map_err(|status| from_status(&status)) };
    let mut stream = within(IDLE, "the source's first answer", call).await?.into_inner();
    let mut ingest = Ingest::new(data.pool.clone(), target.clone());
    let mut header_seen = false;
    loop {
        let next = async { stream.message().await.map_err(|status| from_status(&status)) };
        let Some(message) = within(IDLE, "the source's next bytes", next).await? else { break };
        match message.part {
            Some(Part::Header(header)) if !header_seen => {
                header_seen = true;
                if header.sealed_length != target.sealed_length {
                    return Err(DfsError::new(
                        ErrorCode::Integrity,
                        format!(
                            "it says {} sealed bytes, not {}",
                            header.sealed_length, target.sealed_length
                        ),
                    ));
                }
            }
            Some(Part::Data(slice)) if header_seen && !slice.is_empty() => ingest.push(slice).await?,
            Some(Part::Header(_)) | Some(Part::Data(_)) | None => {
                return Err(DfsError::new(ErrorCode::Integrity, "its stream is out of form"));
            }
        }
    }
    ingest.finish().await
}
