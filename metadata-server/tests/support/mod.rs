//! One metadata server over TLS with real databases in a temporary directory, callers with and
//! without keys, and chunk servers that exist only as certificates and receipts.
#![allow(dead_code)] // each test program uses a part

pub mod uploads;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chunk_format::keys::Masters;
use chunk_format::receipt::{NodeKeys, Receipt};
use dfs_proto::v1;
use dfs_proto::v1::cluster_client::ClusterClient;
use dfs_proto::v1::metadata_client::MetadataClient;
use dfs_types::{
    ChunkId, ClusterId, DfsError, ErrorCode, Incarnation, NodeId, OsEntropy, Position, PrincipalId, RealmId,
    Secret, SystemClock,
};
use metadata_server::config::Settings;
use metadata_server::keyring::Keyring;
use metadata_server::server::{Doors, Server};
use metadata_server::service::node_control::{NodeControl, NodeTarget};
use server_kit::credentials::ApiKey;
use server_kit::{Health, Shutdown};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tonic::metadata::MetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tower::{Service as _, ServiceExt as _};
use transport::{Authority, Dialer, Expect, Identity, Role, Tls};

pub const CLUSTER: ClusterId = ClusterId([0xc1; 16]);
const READY_LIMIT: Duration = Duration::from_secs(20);

/// What the fake nodes hold, and what they do when the leader calls.
#[derive(Default)]
pub struct Fleet {
    pub nodes: Mutex<BTreeMap<NodeId, FakeNode>>,
    pub copies: Mutex<Vec<(NodeId, ChunkId)>>,
    pub deletes: Mutex<Vec<(NodeId, ChunkId)>>,
    /// How often an inventory was asked for.
    pub inventories: Mutex<usize>,
    /// Nodes that refuse every copy, and how often they did.
    pub refusing: Mutex<BTreeMap<NodeId, usize>>,
    /// Nodes that answer neither probes nor touches.
    pub unreachable: Mutex<BTreeSet<NodeId>>,
}

pub struct FakeNode {
    pub incarnation: Incarnation,
    pub secret: Secret<32>,
    pub chunks: BTreeMap<(RealmId, ChunkId), Stored>,
}

#[derive(Clone, Copy)]
pub struct Stored {
    pub sealed: u64,
    pub epoch: u64,
}

impl FakeNode {
    /// As a node does: what is there keeps the highest epoch.
    fn store(&mut self, key: (RealmId, ChunkId), sealed: u64, epoch: u64) {
        let stored = self.chunks.entry(key).or_insert(Stored { sealed, epoch });
        stored.epoch = stored.epoch.max(epoch);
    }
}

impl Fleet {
    /// A node's receipt for one chunk, which it holds from now on.
    pub fn receipt(
        &self,
        node: &str,
        realm: RealmId,
        scope: [u8; 16],
        epoch: u64,
        chunk: ChunkId,
        sealed: u64,
    ) -> Vec<u8> {
        let mut nodes = self.nodes.lock().unwrap();
        let node = NodeId::new(node).unwrap();
        let at = nodes.get_mut(&node).unwrap();
        at.store((realm, chunk), sealed, epoch);
        receipt(&node, at, realm, scope, epoch, chunk, sealed)
    }
}

fn receipt(
    node: &NodeId,
    at: &FakeNode,
    realm: RealmId,
    scope: [u8; 16],
    epoch: u64,
    chunk: ChunkId,
    sealed: u64,
) -> Vec<u8> {
    let receipt = Receipt {
        cluster: CLUSTER,
        realm,
        node: node.clone(),
        incarnation: at.incarnation,
        scope,
        epoch: Position(epoch),
        chunks: vec![(chunk, sealed)],
    };
    receipt.encode(&NodeKeys::derive(&at.secret).receipt).unwrap()
}

fn ids(realm: &[u8], chunk: &[u8]) -> (RealmId, ChunkId) {
    (RealmId::from_slice(realm).unwrap(), ChunkId::from_slice(chunk).unwrap())
}

#[async_trait]
impl NodeControl for Fleet {
    async fn copy(
        &self,
        node: &NodeTarget,
        request: v1::CopyChunkRequest,
        _: Duration,
    ) -> Result<v1::CopyChunkResponse, DfsError> {
        let (realm, chunk) = ids(&request.realm_id, &request.chunk_id);
        assert!(!request.sources.is_empty(), "a copy needs a source");
        if let Some(count) = self.refusing.lock().unwrap().get_mut(&node.node) {
            *count += 1;
            return Err(DfsError::new(ErrorCode::NoSpace, "no room for copies"));
        }
        let mut nodes = self.nodes.lock().unwrap();
        let at = nodes.get_mut(&node.node).unwrap();
        at.store((realm, chunk), request.sealed_length, request.epoch);
        self.copies.lock().unwrap().push((node.node.clone(), chunk));
        let scope = request.task_id.as_ref().try_into().unwrap();
        let receipt = receipt(&node.node, at, realm, scope, request.epoch, chunk, request.sealed_length);
        Ok(v1::CopyChunkResponse { receipt: receipt.into() })
    }

    async fn merge(
        &self,
        node: &NodeTarget,
        _: v1::CopyChunkRequest,
        _: Duration,
    ) -> Result<v1::CopyChunkResponse, DfsError> {
        Err(DfsError::new(ErrorCode::Integrity, format!("node {} has no marked copies here", node.node)))
    }

    async fn delete(
        &self,
        node: &NodeTarget,
        request: v1::DeleteChunksRequest,
        _: Duration,
    ) -> Result<v1::DeleteChunksResponse, DfsError> {
        let mut nodes = self.nodes.lock().unwrap();
        let at = nodes.get_mut(&node.node).unwrap();
        let outcomes = request.tickets.iter().map(|ticket| {
            let key = ids(&ticket.realm_id, &ticket.chunk_id);
            self.deletes.lock().unwrap().push((node.node.clone(), key.1));
            let outcome = match at.chunks.get(&key) {
                Some(stored) if stored.epoch >= ticket.position => v1::DeleteOutcome::KeptNewer,
                Some(_) => v1::DeleteOutcome::Deleted,
                None => v1::DeleteOutcome::Absent,
            };
            if outcome == v1::DeleteOutcome::Deleted {
                at.chunks.remove(&key);
            }
            outcome.into()
        });
        Ok(v1::DeleteChunksResponse { outcomes: outcomes.collect() })
    }

    async fn probe(
        &self,
        node: &NodeTarget,
        request: v1::ProbeRequest,
        _: Duration,
    ) -> Result<v1::ProbeResponse, DfsError> {
        if self.unreachable.lock().unwrap().contains(&node.node) {
            return Err(DfsError::new(ErrorCode::Unavailable, "connection refused"));
        }
        let nodes = self.nodes.lock().unwrap();
        let at = nodes.get(&node.node).ok_or_else(|| DfsError::new(ErrorCode::Unavailable, "gone"))?;
        let results = request.chunks.iter().map(|chunk| {
            let there = at.chunks.contains_key(&ids(&chunk.realm_id, &chunk.chunk_id));
            let state = if there { v1::ProbeState::Present } else { v1::ProbeState::Absent };
            v1::ProbeResult { state: state.into(), epoch: 0 }
        });
        Ok(v1::ProbeResponse { results: results.collect() })
    }

    async fn touch(
        &self,
        node: &NodeTarget,
        request: v1::TouchRequest,
        _: Duration,
    ) -> Result<v1::TouchResponse, DfsError> {
        if self.unreachable.lock().unwrap().contains(&node.node) {
            return Err(DfsError::new(ErrorCode::Unavailable, "connection refused"));
        }
        let mut nodes = self.nodes.lock().unwrap();
        let at = nodes.get_mut(&node.node).unwrap();
        let receipts = request.chunks.iter().map(|chunk| {
            let key = ids(&chunk.realm_id, &chunk.chunk_id);
            match at.chunks.get_mut(&key) {
                Some(stored) => {
                    stored.epoch = stored.epoch.max(request.epoch);
                    let sealed = stored.sealed;
                    let scope = request.task_id.as_ref().try_into().unwrap();
                    receipt(&node.node, at, key.0, scope, request.epoch, key.1, sealed).into()
                }
                None => bytes::Bytes::new(),
            }
        });
        Ok(v1::TouchResponse { receipts: receipts.collect() })
    }

    async fn inventory(
        &self,
        node: &NodeTarget,
        request: v1::InventoryRequest,
        _: Duration,
    ) -> Result<v1::InventoryResponse, DfsError> {
        if self.unreachable.lock().unwrap().contains(&node.node) {
            return Err(DfsError::new(ErrorCode::Unavailable, "connection refused"));
        }
        *self.inventories.lock().unwrap() += 1;
        let nodes = self.nodes.lock().unwrap();
        // The leader may know of it before this test does.
        let at = nodes.get(&node.node).ok_or_else(|| DfsError::new(ErrorCode::Unavailable, "gone"))?;
        let after = request.after.map(|key| ids(&key.realm_id, &key.chunk_id));
        let (chunks, limit) = (&at.chunks, request.limit as usize);
        let entries: Vec<_> = chunks
            .iter()
            .filter(|(key, _)| after.is_none_or(|after| **key > after))
            .take(limit)
            .map(|((realm, chunk), stored)| v1::InventoryEntry {
                realm_id: realm.to_vec().into(),
                chunk_id: chunk.to_vec().into(),
                sealed_length: stored.sealed,
                epoch: stored.epoch,
                quarantined: false,
            })
            .collect();
        Ok(v1::InventoryResponse { end: entries.len() < limit, entries })
    }
}

pub type Client = MetadataClient<InterceptedService<Channel, Bearer>>;

/// Puts an API key on every call.
#[derive(Clone)]
pub struct Bearer(pub Option<String>);

impl tonic::service::Interceptor for Bearer {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
        if let Some(key) = &self.0 {
            let value = MetadataValue::try_from(format!("Bearer {key}")).unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

pub struct TestServer {
    pub address: String,
    pub admin_key: String,
    pub fleet: Arc<Fleet>,
    pub health: Health,
    authority: Arc<Authority>,
    shutdown: Shutdown,
    running: JoinHandle<Result<(), DfsError>>,
    beating: Vec<JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

impl TestServer {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Settings)) -> Self {
        let authority = Arc::new(Authority::create(CLUSTER, &SystemClock::new()).unwrap());
        let server = Self::begin(authority, "m1", "127.0.0.1:0", &["m1=127.0.0.1:0".into()], change).await;
        server.until_ready().await;
        server
    }

    async fn until_ready(&self) {
        tokio::time::timeout(READY_LIMIT, self.health.until_ready()).await.expect("ready in time");
    }

    async fn begin(
        authority: Arc<Authority>,
        name: &str,
        listen: &str,
        initial: &[String],
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let admin = ApiKey { principal: PrincipalId([0xad; 16]), secret: Secret::new([0x5e; 32]) };
        let admin_key = admin.to_text().to_string();
        let admin_file = dir.path().join("admin.key");
        std::fs::write(&admin_file, &admin_key).unwrap();
        std::fs::set_permissions(&admin_file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let mut settings = Settings {
            id: Some(name.into()),
            data_dir: Some(dir.path().join("data")),
            listen: Some(listen.into()),
            admin_key_file: Some(admin_file),
            initial_members: initial.to_vec(),
            heartbeat_ms: Some(50),
            election_min_ms: Some(200),
            election_max_ms: Some(400),
            background_ms: Some(20),
            tick_ms: Some(20),
            ..Default::default()
        };
        change(&mut settings);
        let fleet = Arc::new(Fleet::default());
        let tls = tls(&authority, Role::MetadataServer, name);
        let masters = Masters::parse(&format!("1:{}\n", "3c".repeat(32))).unwrap();
        let keyring = Keyring::new(masters, Arc::new(OsEntropy));
        let doors = Doors { nodes: Some(fleet.clone()), ..Doors::default() };
        let shutdown = Shutdown::manual();
        let server =
            Server::start(settings.setup().unwrap(), tls, keyring, doors, shutdown.clone()).await.unwrap();
        let address = server.address().to_string();
        let health = server.health().clone();
        let running = tokio::spawn(server.finished());
        Self {
            address,
            admin_key,
            fleet,
            health,
            authority,
            shutdown,
            running,
            beating: Vec::new(),
            _dir: dir,
        }
    }

    pub fn channel(&self, tls: Tls) -> Channel {
        Dialer::new(tls).channel(&self.address, Expect::any(Role::MetadataServer)).unwrap()
    }

    pub fn anonymous(&self) -> Tls {
        Tls::client(self.authority.cert_pem().as_bytes(), Some(CLUSTER)).unwrap()
    }

    /// Without a certificate, with this key or none.
    pub fn client_with(&self, key: Option<&str>) -> Client {
        MetadataClient::with_interceptor(self.channel(self.anonymous()), Bearer(key.map(str::to_owned)))
    }

    pub fn admin(&self) -> Client {
        self.client_with(Some(&self.admin_key))
    }

    /// A `Cluster` client with the certificate of this server.
    pub fn as_server(&self, role: Role, id: &str) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel(tls(&self.authority, role, id)))
    }

    pub fn as_nobody(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel(self.anonymous()))
    }

    /// A principal of this role: its key.
    pub async fn principal(&self, name: &str, role: v1::Role) -> String {
        let request =
            v1::CreatePrincipalRequest { mutation: mutation(), name: name.into(), role: role.into() };
        self.admin().create_principal(request).await.unwrap().into_inner().api_key
    }

    /// A chunk server that registers and sends heartbeats until the test ends or it is silenced.
    pub async fn add_node(&mut self, name: &str, domain: &str) {
        let mut client = self.as_server(Role::ChunkServer, name);
        let incarnation = Incarnation(*blake3::hash(name.as_bytes()).as_bytes().first_chunk().unwrap());
        let register = v1::RegisterNodeRequest {
            node_id: name.into(),
            incarnation: incarnation.to_vec().into(),
            address: format!("{name}.test:3001"),
            domain: domain.into(),
            capacity: 1 << 40,
            used: 0,
            version: "test".into(),
            cluster_id: bytes::Bytes::new(),
        };
        let registered = client.register_node(register).await.unwrap().into_inner();
        let secret = Secret::from_slice(&registered.node_secret).unwrap();
        // One that comes back has what it had.
        let fresh = FakeNode { incarnation, secret, chunks: BTreeMap::new() };
        self.fleet.nodes.lock().unwrap().entry(NodeId::new(name).unwrap()).or_insert(fresh);
        let beat = v1::HeartbeatRequest {
            node_id: name.into(),
            incarnation: incarnation.to_vec().into(),
            capacity: 1 << 40,
            free: 1 << 39,
            ..Default::default()
        };
        self.beating.push(tokio::spawn(async move {
            let mut every = tokio::time::interval(Duration::from_millis(50));
            while client.heartbeat(beat.clone()).await.is_ok() {
                every.tick().await;
            }
        }));
    }

    /// Ends the heartbeats of the `n`-th node that was added.
    pub fn silence(&self, n: usize) {
        self.beating[n].abort();
    }

    /// One REST call: status, headers, body.
    pub async fn rest(
        &self,
        method: &str,
        path: &str,
        key: Option<&str>,
        body: impl Into<Vec<u8>>,
    ) -> Answer {
        let mut request = http::Request::builder().method(method).uri(path).header("x-request-id", "test-1");
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        self.send(request.body(tonic::body::Body::new(axum::body::Body::from(body.into()))).unwrap()).await
    }

    pub async fn send(&self, request: http::Request<tonic::body::Body>) -> Answer {
        let mut channel = self.channel(self.anonymous());
        let response = channel.ready().await.unwrap().call(request).await.unwrap();
        let (head, body) = response.into_parts();
        let bytes = axum::body::to_bytes(axum::body::Body::new(body), 1 << 26).await.unwrap();
        Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            json: serde_json::from_slice(&bytes).unwrap_or(serde_json::Value::Null),
            text: String::from_utf8_lossy(&bytes).into_owned(),
        }
    }

    /// A TLS connection on which to say anything.
    pub async fn raw(&self) -> impl AsyncRead + AsyncWrite + Unpin + use<> {
        let expect = Expect::any(Role::MetadataServer);
        Dialer::new(self.anonymous()).open(&self.address, &expect, &[b"http/1.1"]).await.unwrap()
    }

    pub async fn stop(self) {
        for beat in &self.beating {
            beat.abort();
        }
        self.shutdown.trigger();
        self.running.await.unwrap().unwrap();
    }
}

/// Several members, m1 and so on.
pub struct TestCluster {
    pub servers: Vec<TestServer>,
}

impl TestCluster {
    pub async fn start(count: usize) -> Self {
        let authority = Arc::new(Authority::create(CLUSTER, &SystemClock::new()).unwrap());
        // Members must know each other's ports before they listen: picked by the system, all held
        // until the last is picked.
        let held: Vec<_> = (0..count).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses: Vec<String> =
            held.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect();
        drop(held);
        let initial: Vec<String> = addresses
            .iter()
            .enumerate()
            .map(|(place, address)| format!("m{}={address}", place + 1))
            .collect();
        let mut servers = Vec::new();
        for (place, address) in addresses.iter().enumerate() {
            let name = format!("m{}", place + 1);
            servers.push(TestServer::begin(authority.clone(), &name, address, &initial, |_| {}).await);
        }
        for server in &servers {
            server.until_ready().await;
        }
        Self { servers }
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub json: serde_json::Value,
    pub text: String,
}

fn tls(authority: &Authority, role: Role, id: &str) -> Tls {
    let identity = Identity::new(CLUSTER, role, NodeId::new(id).unwrap());
    let issued = authority.issue(&identity, &[], &SystemClock::new()).unwrap();
    Tls::server(authority.cert_pem().as_bytes(), issued.cert_pem.as_bytes(), issued.key_pem.as_bytes())
        .unwrap()
}

pub fn mutation() -> Option<v1::Mutation> {
    let mut id = [0u8; 16];
    getrandom::fill(&mut id).unwrap();
    Some(v1::Mutation { request_id: id.to_vec().into(), seen_position: 0 })
}

/// The error behind a refused call.
pub fn code<T>(answer: Result<T, tonic::Status>) -> ErrorCode {
    dfs_proto::status::from_status(&answer.err().expect("refused")).code
}

/// Looks again and again until `look` gives something.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let deadline = tokio::time::Instant::now() + READY_LIMIT;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
