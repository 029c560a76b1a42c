//! The other servers of the cluster as this node calls them: over shared connections, each to the
//! one server meant, known by its certificate.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dfs_proto::v1::chunk_data_client::ChunkDataClient;
use dfs_proto::v1::cluster_client::ClusterClient;
use dfs_types::limits::{DATA_MESSAGE_BYTES, MAX_ADDRESS_BYTES};
use dfs_types::{DfsError, ErrorCode, NodeId};
use tonic::transport::Channel;
use transport::{ChannelPool, Dialer, Expect, Role};

/// A message of data with room for its envelope.
pub const MAX_DATA_MESSAGE: usize = DATA_MESSAGE_BYTES + 64 * 1024;

/// Connections to each chunk server. One carries MAX_STREAMS_PER_CONNECTION streams, and a stream that
/// stalls fills a part of its connection's window: a few side by side keep the others moving.
const CONNECTIONS_PER_NODE: usize = 4;

#[derive(Clone)]
pub struct Peers {
    to_nodes: Arc<[ChannelPool; CONNECTIONS_PER_NODE]>,
    to_metadata: ChannelPool,
    turn: Arc<AtomicUsize>,
}

/// A chunk server that somebody named: where it is said to be, and who must be there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerNode {
    pub id: NodeId,
    pub address: String,
}

impl PeerNode {
    pub fn parse(node: Option<&dfs_proto::v1::NodeAddress>) -> Result<Self, DfsError> {
        let node = node.ok_or_else(|| DfsError::new(ErrorCode::InvalidArgument, "a node is missing"))?;
        if node.address.len() > MAX_ADDRESS_BYTES {
            return Err(DfsError::new(
                ErrorCode::InvalidArgument,
                format!(
                    "an address has {} bytes, at most {MAX_ADDRESS_BYTES} are allowed",
                    node.address.len()
                ),
            ));
        }
        Ok(Self { id: NodeId::new(node.node_id.clone())?, address: node.address.clone() })
    }
}

impl Peers {
    pub fn new(dialer: Dialer) -> Self {
        Self {
            to_nodes: Arc::new(std::array::from_fn(|_| ChannelPool::new(dialer.clone()))),
            to_metadata: ChannelPool::new(dialer),
            turn: Arc::default(),
        }
    }

    pub fn chunk_data(&self, node: &PeerNode) -> Result<ChunkDataClient<Channel>, DfsError> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % CONNECTIONS_PER_NODE;
        let channel = self.to_nodes[turn].get(&node.address, &expect_node(node))?;
        Ok(ChunkDataClient::new(channel).max_decoding_message_size(MAX_DATA_MESSAGE))
    }

    /// Drops the shared connections to a node that took a call and never answered, so that the next
    /// call does not wait for the same silence.
    pub fn discard(&self, node: &PeerNode) {
        for channels in self.to_nodes.iter() {
            channels.discard(&node.address, &expect_node(node));
        }
    }

    /// Any metadata server: `address` is from this node's own settings.
    pub fn cluster(&self, address: &str) -> Result<ClusterClient<Channel>, DfsError> {
        Ok(ClusterClient::new(self.to_metadata.get(address, &Expect::any(Role::MetadataServer))?))
    }

    pub fn discard_cluster(&self, address: &str) {
        self.to_metadata.discard(address, &Expect::any(Role::MetadataServer));
    }
}

fn expect_node(node: &PeerNode) -> Expect {
    Expect::server(Role::ChunkServer, node.id.clone())
}

/// Awaits `call` for at most `limit`; `what` names it in the error.
///
/// # Errors
/// `timeout` when the time is over, else the call's.
pub async fn within<T>(
    limit: Duration,
    what: &str,
    call: impl Future<Output = Result<T, DfsError>>,
) -> Result<T, DfsError> {
    match tokio::time::timeout(limit, call).await {
        Ok(result) => result,
        Err(_) => Err(DfsError::new(
            ErrorCode::Timeout,
            format!("{what} did not finish within {} ms", limit.as_millis()),
        )),
    }
}
