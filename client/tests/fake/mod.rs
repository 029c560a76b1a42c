//! A cluster in this process: one metadata service and some nodes, over real TLS and gRPC, with
//! everything in maps and faults on demand. It checks what the real services would refuse.

// Each test program uses a part of it.
#![allow(dead_code)]

pub mod metadata;
pub mod node;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use dfs_client::{Client, Config};
use dfs_types::{ChunkId, ClusterId, NodeId, SystemClock};
use tokio::task::AbortHandle;
use transport::{Authority, Identity, ListenLimits, Role, ServeOptions, Tls, TlsListener};

pub const CLUSTER: ClusterId = ClusterId([7; 16]);

/// What a node does when it is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    Good,
    /// Answers every call with an error.
    Refuses,
    /// Takes calls and never answers.
    Hangs,
    /// Sends bytes with one of them changed.
    Corrupts,
}

pub struct NodeState {
    pub address: String,
    pub mode: Mode,
    pub chunks: BTreeMap<ChunkId, bytes::Bytes>,
    /// Chunk bytes that came over the network.
    pub received: u64,
}

/// Everything the cluster knows, in one place.
pub struct World {
    pub nodes: BTreeMap<String, NodeState>,
    pub metadata: metadata::State,
}

#[derive(Clone)]
pub struct Shared(Arc<Mutex<World>>);

impl Shared {
    pub fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }
}

pub struct Cluster {
    pub world: Shared,
    pub client: Client,
    /// The addresses and the authority, for programs that have a configuration file.
    pub metadata: Vec<String>,
    pub ca_pem: String,
    servers: Vec<AbortHandle>,
}

impl Cluster {
    /// A cluster of so many nodes, `n1` and on.
    pub async fn start(nodes: usize) -> Self {
        let authority = Authority::create(CLUSTER, &SystemClock::new()).unwrap();
        let world = World { nodes: BTreeMap::new(), metadata: metadata::State::default() };
        let world = Shared(Arc::new(Mutex::new(world)));
        let mut servers = Vec::new();
        let routes = tonic::service::Routes::new(metadata::service(world.clone()));
        let (metadata, handle) = serve(&authority, Role::MetadataServer, "m1", routes).await;
        servers.push(handle);
        for number in 1..=nodes {
            let name = format!("n{number}");
            let routes = tonic::service::Routes::new(node::service(world.clone(), &name));
            let (address, handle) = serve(&authority, Role::ChunkServer, &name, routes).await;
            servers.push(handle);
            let state = NodeState { address, mode: Mode::Good, chunks: BTreeMap::new(), received: 0 };
            world.lock().nodes.insert(name, state);
        }
        let ca = authority.cert_pem().as_bytes().to_vec();
        // The first address leads nowhere: every test rotates.
        let addresses = vec!["127.0.0.1:1".to_owned(), metadata];
        let config = Config::new(CLUSTER, addresses.clone(), ca, "dfs_test_key".to_owned());
        let client = Client::connect(config).await.unwrap();
        let ca_pem = authority.cert_pem().to_owned();
        Self { world, client, metadata: addresses, ca_pem, servers }
    }

    pub fn set_mode(&self, node: &str, mode: Mode) {
        self.world.lock().nodes.get_mut(node).unwrap().mode = mode;
    }

    /// Chunk bytes all nodes received from clients.
    pub fn received(&self) -> u64 {
        self.world.lock().nodes.values().map(|node| node.received).sum()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for server in &self.servers {
            server.abort();
        }
    }
}

async fn serve(
    authority: &Authority,
    role: Role,
    name: &str,
    routes: tonic::service::Routes,
) -> (String, AbortHandle) {
    let identity = Identity::new(CLUSTER, role, NodeId::new(name).unwrap());
    let issued = authority.issue(&identity, &[], &SystemClock::new()).unwrap();
    let tls =
        Tls::server(authority.cert_pem().as_bytes(), issued.cert_pem.as_bytes(), issued.key_pem.as_bytes())
            .unwrap();
    let listener = TlsListener::bind("127.0.0.1:0", tls, ListenLimits::default()).await.unwrap();
    let address = listener.local_addr().to_string();
    let router = routes.into_axum_router();
    let server = tokio::spawn(async move {
        let _ = transport::serve(listener, router, std::future::pending(), ServeOptions::default()).await;
    });
    (address, server.abort_handle())
}
