//! Orders of the metadata leader. Only a metadata server of this cluster may give them, known by its
//! certificate; each answer is given after what it says is durable.

mod copy;
mod delete;
mod inventory;
mod merge;
mod probe;
mod touch;
mod wanted;

use dfs_proto::status::to_status;
use dfs_proto::v1::chunk_control_server::ChunkControl;
use dfs_proto::v1::{
    ChunkKey as WireKey, CopyChunkRequest, CopyChunkResponse, DeleteChunksRequest, DeleteChunksResponse,
    InventoryRequest, InventoryResponse, ProbeRequest, ProbeResponse, TouchRequest, TouchResponse,
};
use dfs_types::limits::MAX_CHUNKS_PER_BACKGROUND_COMMAND;
use dfs_types::{ChunkId, DfsError, ErrorCode, RealmId};
use futures::{StreamExt, stream};
use tonic::{Request, Response, Status};
use tracing::Instrument;
use transport::{Role, require_peer};

use crate::data::DataPlane;
use crate::store::ChunkKey;

/// Store calls one order runs at once: enough that their fsyncs share group commits.
const ORDER_CONCURRENCY: usize = 16;

/// A cheap handle.
#[derive(Clone)]
pub struct ControlPlane {
    data: DataPlane,
}

impl ControlPlane {
    pub fn new(data: DataPlane) -> Self {
        Self { data }
    }

    /// Admits the caller, runs one order, and logs how it ended.
    async fn order<Q, A, F>(
        &self,
        name: &'static str,
        request: Request<Q>,
        run: impl FnOnce(Q) -> F,
    ) -> Answer<A>
    where
        F: Future<Output = Result<A, DfsError>>,
    {
        let span = tracing::info_span!("order", name);
        let result = async {
            let leader = require_peer(request.extensions(), Role::MetadataServer)?;
            tracing::debug!(from = %leader.id, "order taken");
            run(request.into_inner()).await
        };
        let result = result.instrument(span.clone()).await;
        if let Err(error) = &result {
            span.in_scope(|| tracing::info!(code = %error.code, error = %error.message, "order refused"));
        }
        result.map(Response::new).map_err(|error| to_status(&error))
    }
}

type Answer<A> = Result<Response<A>, Status>;

#[tonic::async_trait]
impl ChunkControl for ControlPlane {
    async fn copy(&self, request: Request<CopyChunkRequest>) -> Answer<CopyChunkResponse> {
        self.order("copy", request, |request| copy::copy(&self.data, request)).await
    }

    async fn merge(&self, request: Request<CopyChunkRequest>) -> Answer<CopyChunkResponse> {
        self.order("merge", request, |request| merge::merge(&self.data, request)).await
    }

    async fn delete(&self, request: Request<DeleteChunksRequest>) -> Answer<DeleteChunksResponse> {
        self.order("delete", request, |request| delete::delete(&self.data, request)).await
    }

    async fn probe(&self, request: Request<ProbeRequest>) -> Answer<ProbeResponse> {
        self.order("probe", request, |request| probe::probe(&self.data, request)).await
    }

    async fn touch(&self, request: Request<TouchRequest>) -> Answer<TouchResponse> {
        self.order("touch", request, |request| touch::touch(&self.data, request)).await
    }

    async fn inventory(&self, request: Request<InventoryRequest>) -> Answer<InventoryResponse> {
        self.order("inventory", request, |request| inventory::inventory(&self.data, request)).await
    }
}

fn key_of(realm: &[u8], chunk: &[u8]) -> Result<ChunkKey, DfsError> {
    Ok(ChunkKey::new(RealmId::from_slice(realm)?, ChunkId::from_slice(chunk)?))
}

fn keys_of(keys: &[WireKey]) -> Result<Vec<ChunkKey>, DfsError> {
    check_count(keys.len())?;
    keys.iter().map(|key| key_of(&key.realm_id, &key.chunk_id)).collect()
}

fn check_count(count: usize) -> Result<(), DfsError> {
    if count <= MAX_CHUNKS_PER_BACKGROUND_COMMAND {
        return Ok(());
    }
    Err(DfsError::new(
        ErrorCode::LimitExceeded,
        format!("{count} chunks in one order, at most {MAX_CHUNKS_PER_BACKGROUND_COMMAND} are allowed"),
    ))
}

/// Runs `work` for every item, some at once, and answers in their order.
async fn each<T, R, F>(
    items: impl IntoIterator<Item = T>,
    concurrency: usize,
    work: impl Fn(T) -> F,
) -> Result<Vec<R>, DfsError>
where
    F: Future<Output = Result<R, DfsError>>,
{
    let results: Vec<Result<R, DfsError>> =
        stream::iter(items.into_iter().map(work)).buffered(concurrency).collect().await;
    results.into_iter().collect()
}
