//! The metadata service of the tests: registers whoever comes, and remembers what it was told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use chunk_format::grant::NodeKeys;
use dfs_proto::status::to_status;
use dfs_proto::v1::cluster_server::{Cluster, ClusterServer};
use dfs_proto::v1::{
    ChunkFault, HeartbeatRequest, HeartbeatResponse, Redundancy, RegisterNodeRequest, RegisterNodeResponse,
};
use dfs_types::{ClusterId, DfsError, ErrorCode, Secret};
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use transport::{ListenLimits, Role, Tls, TlsListener, require_peer};

/// Cluster time stands still here: a node's own clock moves it on by the milliseconds a test takes.
pub const CLUSTER_MS: u64 = 5_000_000;

#[derive(Clone)]
pub struct FakeMetadata {
    cluster: ClusterId,
    told: Arc<Mutex<Told>>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
pub struct Told {
    pub registered: BTreeMap<String, RegisterNodeRequest>,
    pub registrations: usize,
    pub heartbeats: BTreeMap<String, HeartbeatRequest>,
    pub faults: Vec<ChunkFault>,
    /// Nodes to be told once that nobody knows them.
    pub forgotten: Vec<String>,
}

pub fn node_secret(node: &str) -> Secret<32> {
    Secret::new(*blake3::hash(node.as_bytes()).as_bytes())
}

pub fn node_keys(node: &str) -> NodeKeys {
    NodeKeys::derive(&node_secret(node))
}

impl FakeMetadata {
    pub fn new(cluster: ClusterId) -> Self {
        Self { cluster, told: Arc::default(), changed: watch::Sender::new(()) }
    }

    pub async fn serve(&self, address: &str, tls: Tls) -> SocketAddr {
        let listener = TlsListener::bind(address, tls, ListenLimits::default()).await.unwrap();
        let bound = listener.local_addr();
        let router = Routes::new(ClusterServer::new(self.clone())).into_axum_router();
        tokio::spawn(transport::serve(listener, router, std::future::pending(), Default::default()));
        bound
    }

    pub fn forget(&self, node: &str) {
        self.told.lock().unwrap().forgotten.push(node.to_owned());
    }

    /// Waits until what it was told is as wanted.
    pub async fn until<T>(&self, wanted: impl Fn(&Told) -> Option<T>) -> T {
        let mut changes = self.changed.subscribe();
        loop {
            if let Some(found) = wanted(&self.told.lock().unwrap()) {
                return found;
            }
            changes.changed().await.unwrap();
        }
    }

    fn tell(&self, tell: impl FnOnce(&mut Told)) {
        tell(&mut self.told.lock().unwrap());
        self.changed.send_replace(());
    }
}

fn check_caller<T>(request: &Request<T>, node: &str) -> Result<(), Status> {
    let peer = require_peer(request.extensions(), Role::ChunkServer).map_err(|e| to_status(&e))?;
    if peer.id.as_str() == node {
        return Ok(());
    }
    Err(to_status(&DfsError::new(ErrorCode::PermissionDenied, "a node speaks for itself only")))
}

#[tonic::async_trait]
impl Cluster for FakeMetadata {
    async fn register_node(
        &self,
        request: Request<RegisterNodeRequest>,
    ) -> Result<Response<RegisterNodeResponse>, Status> {
        check_caller(&request, &request.get_ref().node_id)?;
        let request = request.into_inner();
        let node_secret = node_secret(&request.node_id).expose().to_vec().into();
        self.tell(|told| {
            told.registered.insert(request.node_id.clone(), request);
            told.registrations += 1;
        });
        Ok(Response::new(RegisterNodeResponse {
            cluster_id: self.cluster.to_vec().into(),
            node_secret,
            cluster_time_ms: CLUSTER_MS,
            epoch_floor: 1,
            position: 1 << 16,
        }))
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        check_caller(&request, &request.get_ref().node_id)?;
        let request = request.into_inner();
        let mut register_again = false;
        self.tell(|told| {
            register_again = told.forgotten.contains(&request.node_id);
            told.forgotten.retain(|node| *node != request.node_id);
            told.faults.extend(request.faults.iter().cloned());
            told.heartbeats.insert(request.node_id.clone(), request);
        });
        Ok(Response::new(HeartbeatResponse {
            cluster_time_ms: CLUSTER_MS,
            epoch_floor: 1,
            register_again,
            position: 1 << 16,
            interval_ms: 20,
            redundancy: Some(Redundancy { chunks: 4, copies: 10, wanted_copies: 12 }),
        }))
    }
}
