//! Connections: channels to metadata servers and chunk servers, each checked to be the server meant.
//! Also remembers for a while which chunk servers failed us, so that the next chunk asks others first.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use dfs_proto::v1;
use dfs_proto::v1::chunk_data_client::ChunkDataClient;
use dfs_types::limits::DATA_MESSAGE_BYTES;
use dfs_types::{DfsError, ErrorCode, NodeId};
use tonic::transport::Channel;
use transport::{ChannelPool, Dialer, Expect, Role, Tls};

use crate::{Config, Result};

/// How long a node that failed is asked last.
const SHUN: Duration = Duration::from_secs(10);
/// A data message with its framing, and room for a server that sends larger ones.
const MAX_DATA_MESSAGE: usize = 4 * DATA_MESSAGE_BYTES;

pub(crate) struct Dials {
    dialer: Dialer,
    pool: ChannelPool,
    /// Node id -> when it failed last, and when we told the leader so last.
    failed: Mutex<BTreeMap<String, Failed>>,
}

struct Failed {
    at: Instant,
    told: bool,
}

impl Dials {
    pub fn new(config: &Config) -> Result<Self> {
        let tls = Tls::client(&config.ca_pem, Some(config.cluster_id))?;
        let dialer = Dialer::new(tls);
        Ok(Self { pool: ChannelPool::new(dialer.clone()), dialer, failed: Mutex::default() })
    }

    pub fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    pub fn metadata(&self, address: &str) -> Result<Channel> {
        Ok(self.pool.get(address, &metadata_server())?)
    }

    /// Makes the next call to `address` connect anew: the old connection did not answer.
    pub fn suspect_metadata(&self, address: &str) {
        self.pool.discard(address, &metadata_server());
    }

    pub fn node(&self, node: &v1::NodeAddress) -> Result<ChunkDataClient<Channel>> {
        let channel = self.pool.get(&node.address, &chunk_server(node)?)?;
        Ok(ChunkDataClient::new(channel)
            .max_decoding_message_size(MAX_DATA_MESSAGE)
            .max_encoding_message_size(MAX_DATA_MESSAGE))
    }

    /// Notes that a node failed; true when the leader should be told, once per spell of failure.
    pub fn node_failed(&self, node: &v1::NodeAddress, connection_suspect: bool) -> bool {
        if connection_suspect && let Ok(expect) = chunk_server(node) {
            self.pool.discard(&node.address, &expect);
        }
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        failed.retain(|_, entry| now.duration_since(entry.at) < SHUN);
        let entry = failed.entry(node.node_id.clone()).or_insert(Failed { at: now, told: false });
        entry.at = now;
        !std::mem::replace(&mut entry.told, true)
    }

    pub fn node_works(&self, node_id: &str) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).remove(node_id);
    }

    /// Nodes that failed in the last seconds.
    pub fn shunned(&self) -> Vec<String> {
        let now = Instant::now();
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed
            .iter()
            .filter(|(_, entry)| now.duration_since(entry.at) < SHUN)
            .map(|(node, _)| node.clone())
            .collect()
    }
}

pub(crate) fn metadata_server() -> Expect {
    Expect::any(Role::MetadataServer)
}

fn chunk_server(node: &v1::NodeAddress) -> Result<Expect> {
    let id = NodeId::new(node.node_id.clone())
        .map_err(|_| DfsError::new(ErrorCode::Internal, "the plan names a node that cannot exist"))?;
    Ok(Expect::server(Role::ChunkServer, id))
}
