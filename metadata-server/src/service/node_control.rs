//! The leader's orders to chunk servers, behind a door so that tests can stand in for the nodes.

use std::time::Duration;

use async_trait::async_trait;
use dfs_proto::status::from_status;
use dfs_proto::v1;
use dfs_proto::v1::chunk_control_client::ChunkControlClient;
use dfs_types::limits::MAX_GRPC_MESSAGE_BYTES;
use dfs_types::{DfsError, ErrorCode, NodeId};
use tonic::transport::Channel;
use transport::{ChannelPool, Expect, Role};

/// A node and where it is now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeTarget {
    pub node: NodeId,
    pub address: String,
}

/// `ChunkControl` of a node (proto/dfs/v1/chunk.proto). Every call ends within `limit`.
#[async_trait]
pub trait NodeControl: Send + Sync {
    async fn copy(
        &self,
        node: &NodeTarget,
        request: v1::CopyChunkRequest,
        limit: Duration,
    ) -> Result<v1::CopyChunkResponse, DfsError>;
    async fn merge(
        &self,
        node: &NodeTarget,
        request: v1::CopyChunkRequest,
        limit: Duration,
    ) -> Result<v1::CopyChunkResponse, DfsError>;
    async fn delete(
        &self,
        node: &NodeTarget,
        request: v1::DeleteChunksRequest,
        limit: Duration,
    ) -> Result<v1::DeleteChunksResponse, DfsError>;
    async fn probe(
        &self,
        node: &NodeTarget,
        request: v1::ProbeRequest,
        limit: Duration,
    ) -> Result<v1::ProbeResponse, DfsError>;
    async fn touch(
        &self,
        node: &NodeTarget,
        request: v1::TouchRequest,
        limit: Duration,
    ) -> Result<v1::TouchResponse, DfsError>;
    async fn inventory(
        &self,
        node: &NodeTarget,
        request: v1::InventoryRequest,
        limit: Duration,
    ) -> Result<v1::InventoryResponse, DfsError>;
}

/// The real nodes, over mutual TLS.
pub struct RemoteNodes {
    pool: ChannelPool,
}

impl RemoteNodes {
    pub fn new(pool: ChannelPool) -> Self {
        Self { pool }
    }

    fn client(&self, node: &NodeTarget) -> Result<ChunkControlClient<Channel>, DfsError> {
        let expect = Expect::server(Role::ChunkServer, node.node.clone());
        let channel = self.pool.get(&node.address, &expect).map_err(|error| {
            DfsError::new(ErrorCode::Unavailable, format!("node {} cannot be reached: {error}", node.node))
        })?;
        Ok(ChunkControlClient::new(channel).max_decoding_message_size(MAX_GRPC_MESSAGE_BYTES))
    }
}

/// An answer within `limit`, in our own words.
async fn within<T>(
    node: &NodeTarget,
    limit: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, DfsError> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(from_status(&status).context(format!("node {}", node.node))),
        Err(_) => {
            Err(DfsError::new(ErrorCode::Unavailable, format!("node {} did not answer in time", node.node)))
        }
    }
}

#[async_trait]
impl NodeControl for RemoteNodes {
    async fn copy(
        &self,
        node: &NodeTarget,
        request: v1::CopyChunkRequest,
        limit: Duration,
    ) -> Result<v1::CopyChunkResponse, DfsError> {
        within(node, limit, self.client(node)?.copy(request)).await
    }

    async fn merge(
        &self,
        node: &NodeTarget,
        request: v1::CopyChunkRequest,
        limit: Duration,
    ) -> Result<v1::CopyChunkResponse, DfsError> {
        within(node, limit, self.client(node)?.merge(request)).await
    }

    async fn delete(
        &self,
        node: &NodeTarget,
        request: v1::DeleteChunksRequest,
        limit: Duration,
    ) -> Result<v1::DeleteChunksResponse, DfsError> {
        within(node, limit, self.client(node)?.delete(request)).await
    }

    async fn probe(
        &self,
        node: &NodeTarget,
        request: v1::ProbeRequest,
        limit: Duration,
    ) -> Result<v1::ProbeResponse, DfsError> {
        within(node, limit, self.client(node)?.probe(request)).await
    }

    async fn touch(
        &self,
        node: &NodeTarget,
        request: v1::TouchRequest,
        limit: Duration,
    ) -> Result<v1::TouchResponse, DfsError> {
        within(node, limit, self.client(node)?.touch(request)).await
    }

    async fn inventory(
        &self,
        node: &NodeTarget,
        request: v1::InventoryRequest,
        limit: Duration,
    ) -> Result<v1::InventoryResponse, DfsError> {
        within(node, limit, self.client(node)?.inventory(request)).await
    }
}
