//! An order to have a chunk: what copying and merging do alike. Either is done when a good copy is durable here
//! with the epoch of the order, and then gives a receipt.

use std::ops::Range;

use bytes::Bytes;
use chunk_format::tree::GroupHash;
use dfs_proto::status::from_status;
use dfs_proto::v1::{CopyChunkRequest, CopyChunkResponse, GetRequest, GetResponse, get_response::Part};
use dfs_types::limits::MAX_LOCATIONS_PER_CHUNK;
use dfs_types::{DfsError, ErrorCode, Position, TaskId};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tonic::Streaming;

use super::key_of;
use super::touch::touch_held;
use crate::data::ingest::Target;
use crate::data::order::check_sealed_length;
use crate::data::{DataPlane, IDLE};
use crate::peers::{PeerNode, within};
use crate::telemetry::{self, Call};

/// What an order to have a chunk says, its form and its term checked.
pub(super) struct CopyOrder {
    task: TaskId,
    pub(super) target: Target,
}

/// What a chunk that is not here yet takes while it comes.
pub(super) type Room = [OwnedSemaphorePermit; 2];

impl CopyOrder {
    pub(super) fn accept(data: &DataPlane, request: &CopyChunkRequest) -> Result<Self, DfsError> {
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
        data.node.enter_term(request.term)?;
        Ok(Self { task, target: Target { store: data.node.store()?, key, sealed_length, epoch } })
    }

    /// Room for the chunk; none if a good copy is here and has, durably, the epoch of the order now.
    pub(super) async fn room(&self, data: &DataPlane) -> Result<Option<Room>, DfsError> {
        let (store, key, epoch) = (self.target.store.clone(), self.target.key, self.target.epoch);
        let held = data.pool.run(move || touch_held(&*store, &key, epoch)).await?;
        if held == Some(self.target.sealed_length) {
            return Ok(None);
        }
        let place = data.reserve_copy().await?;
        Ok(Some([place, data.reserve_memory(self.target.sealed_length, 0).await?]))
    }

    /// The receipt, once the chunk is durable.
    pub(super) fn answer(&self, data: &DataPlane) -> Result<CopyChunkResponse, DfsError> {
        let Target { key, sealed_length, epoch, .. } = &self.target;
        let receipt = data.node.receipt(key.realm, self.task.0, *epoch, key.chunk, *sealed_length)?;
        Ok(CopyChunkResponse { receipt: receipt.into() })
    }
}

/// Counts how the order ended.
pub(super) async fn counted(
    call: Call,
    sealed_length: u64,
    run: impl Future<Output = Result<CopyChunkResponse, DfsError>>,
) -> Result<CopyChunkResponse, DfsError> {
    let started = Instant::now();
    let result = run.await;
    let code = result.as_ref().err().map(|error| error.code);
    telemetry::call_finished(call, started, sealed_length, code);
    result
}

/// A copy on its way from another node.
pub(super) struct Incoming {
    stream: Box<Streaming<GetResponse>>,
    /// The hashes that the other node has of the groups; only of a damaged copy.
    pub(super) stored: Vec<GroupHash>,
}

impl Incoming {
    /// Asks for the whole of a good copy, or, with `damaged`, for these groups of one that is marked as bad.
    pub(super) async fn open(
        data: &DataPlane,
        node: &PeerNode,
        grant: &Bytes,
        target: &Target,
        damaged: Option<Range<u32>>,
    ) -> Result<Self, DfsError> {
        let groups = damaged.clone().unwrap_or_default();
        let request = GetRequest {
            grant: grant.clone(),
            realm_id: target.key.realm.to_vec().into(),
            chunk_id: target.key.chunk.to_vec().into(),
            first_group: groups.start,
            group_count: groups.end - groups.start,
            request_id: server_kit::request_id::current().map(|id| id.to_string()).unwrap_or_default(),
            damaged: damaged.is_some(),
        };
        let mut client = data.peers.chunk_data(node)?;
        let call = async { client.get(request).await.map_err(|status| from_status(&status)) };
        let mut stream = within(IDLE, "the source's first answer", call).await?.into_inner();
        let Some(Part::Header(header)) = next_part(&mut stream).await? else {
            return Err(out_of_form());
        };
        if header.sealed_length != target.sealed_length {
            let text = format!("it says {} sealed bytes, not {}", header.sealed_length, target.sealed_length);
            return Err(DfsError::new(ErrorCode::Integrity, text));
        }
        let stored = header.groups.as_chunks::<32>().0.to_vec();
        Ok(Self { stream: Box::new(stream), stored })
    }

    /// None at the end of the copy.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, DfsError> {
        match next_part(&mut self.stream).await? {
            None => Ok(None),
            Some(Part::Data(slice)) if !slice.is_empty() => Ok(Some(slice)),
            Some(Part::Data(_) | Part::Header(_)) => Err(out_of_form()),
        }
    }
}

/// None at the end of the stream.
async fn next_part(stream: &mut Streaming<GetResponse>) -> Result<Option<Part>, DfsError> {
    let next = async { stream.message().await.map_err(|status| from_status(&status)) };
    match within(IDLE, "the source's next bytes", next).await? {
        None => Ok(None),
        Some(GetResponse { part: Some(part) }) => Ok(Some(part)),
        Some(GetResponse { part: None }) => Err(out_of_form()),
    }
}

fn out_of_form() -> DfsError {
    DfsError::new(ErrorCode::Integrity, "its stream is out of form")
}
