//! The data plane: chunks in and out, under grants. `order`, `grants` and `range` decide; `put`,
//! `get`, `forward` and `ingest` move bytes.

pub mod forward;
pub mod get;
pub mod grants;
pub mod ingest;
pub mod order;
pub mod put;
pub mod reading;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use dfs_proto::status::to_status;
use dfs_proto::v1::chunk_data_server::ChunkData;
use dfs_proto::v1::{GetRequest, GetResponse, PutRequest, PutResponse};
use dfs_types::limits::{
    COPIES_BESIDE_USERS, INGEST_BATCH_BYTES, KIB, MAX_COPIES, MAX_GET_STREAMS, MAX_INGEST_BYTES_IN_FLIGHT,
    MAX_INGEST_BYTES_PER_STREAM, STREAM_IDLE_MS,
};
use dfs_types::{DfsError, ErrorCode};
use futures::Stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Request, Response, Status, Streaming};
use transport::{Role, require_peer};

use crate::blocking::BlockingPool;
use crate::node::Node;
use crate::peers::Peers;
use grants::Grants;

/// A stream on which nothing moved for this long is ended.
pub const IDLE: Duration = Duration::from_millis(STREAM_IDLE_MS);

/// Rows of up to four copies cannot wait in a circle; of longer ones the heads share a class.
const MEMORY_CLASSES: usize = 4;
const CLASS_KIB: usize = (MAX_INGEST_BYTES_IN_FLIGHT / KIB) as usize / MEMORY_CLASSES;
const _: () = assert!(CLASS_KIB as u64 >= 4 * MAX_INGEST_BYTES_PER_STREAM / KIB);

/// A cheap handle; clones share grants, memory and connections.
#[derive(Clone)]
pub struct DataPlane {
    pub(crate) node: Arc<Node>,
    pub(crate) pool: BlockingPool,
    pub(crate) peers: Peers,
    grants: Arc<Grants>,
    /// KiB of memory for bytes on their way in, by the count of nodes behind.
    memory: [Arc<Semaphore>; MEMORY_CLASSES],
    reads: Arc<Semaphore>,
    copies: Arc<Semaphore>,
}

impl DataPlane {
    pub fn new(node: Arc<Node>, pool: BlockingPool, peers: Peers) -> Self {
        Self {
            grants: Arc::new(Grants::new(node.clone())),
            node,
            pool,
            peers,
            memory: std::array::from_fn(|_| Arc::new(Semaphore::new(CLASS_KIB))),
            reads: Arc::new(Semaphore::new(MAX_GET_STREAMS)),
            copies: Arc::new(Semaphore::new(MAX_COPIES)),
        }
    }

    /// Memory for one incoming chunk with `behind` nodes to forward to, given back on drop. First
    /// come, first served.
    ///
    /// Rows that wait for each other's memory in a circle would stand still until they time out. So
    /// each distance to the end of the row has memory of its own: a put waits only for nodes nearer
    /// to the end, and the last waits for nobody.
    ///
    /// # Errors
    /// `overloaded` if there is none for as long as a stream may idle.
    pub(crate) async fn reserve_memory(
        &self,
        sealed_length: u64,
        behind: usize,
    ) -> Result<OwnedSemaphorePermit, DfsError> {
        let most = if behind == 0 { 2 * INGEST_BATCH_BYTES as u64 } else { MAX_INGEST_BYTES_PER_STREAM };
        let kib = sealed_length.min(most).div_ceil(KIB) as u32;
        let memory = &self.memory[behind.min(MEMORY_CLASSES - 1)];
        permit(memory.clone(), kib, "memory for incoming chunks").await
    }

    /// A place among the copies this node pulls at once; several places each while users are served,
    /// so that there are only COPIES_BESIDE_USERS of them.
    ///
    /// # Errors
    /// As for memory.
    pub(crate) async fn reserve_copy(&self) -> Result<OwnedSemaphorePermit, DfsError> {
        let places = if self.node.user_streams() > 0 { MAX_COPIES / COPIES_BESIDE_USERS } else { 1 };
        permit(self.copies.clone(), places as u32, "a place among the copies").await
    }

    async fn reserve_read(&self) -> Result<OwnedSemaphorePermit, DfsError> {
        permit(self.reads.clone(), 1, "a place among the reads").await
    }
}

async fn permit(semaphore: Arc<Semaphore>, count: u32, what: &str) -> Result<OwnedSemaphorePermit, DfsError> {
    match tokio::time::timeout(IDLE, semaphore.acquire_many_owned(count)).await {
        Ok(permit) => Ok(permit.expect("these semaphores are never closed")),
        Err(_) => Err(DfsError::new(ErrorCode::Overloaded, format!("no {what}: retry later"))),
    }
}

#[tonic::async_trait]
impl ChunkData for DataPlane {
    async fn put(&self, request: Request<Streaming<PutRequest>>) -> Result<Response<PutResponse>, Status> {
        let answer = self.serve_put(request.into_inner()).await;
        answer.map(Response::new).map_err(|error| to_status(&error))
    }

    type GetStream = Pin<Box<dyn Stream<Item = Result<GetResponse, Status>> + Send>>;

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Self::GetStream>, Status> {
        if request.get_ref().damaged {
            require_peer(request.extensions(), Role::ChunkServer).map_err(|error| to_status(&error))?;
        }
        let stream = self.serve_get(request.into_inner()).await;
        stream.map(|stream| Response::new(Box::pin(stream) as _)).map_err(|error| to_status(&error))
    }
}
