//! A cluster of the tests: an authority, the metadata service, nodes, and what a client and a leader
//! would do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chunk_format::grant::{Allows, Grant};
use chunk_format::receipt::{Receipt, UnverifiedReceipt};
use chunk_format::seal::{SealedChunk, seal};
use dfs_proto::status::from_status;
use dfs_proto::v1::chunk_control_client::ChunkControlClient;
use dfs_proto::v1::chunk_data_client::ChunkDataClient;
use dfs_proto::v1::{
    ForwardTo, GetHeader, GetRequest, NodeAddress, PutHeader, PutRequest, PutResponse, get_response,
    put_request,
};
use dfs_types::limits::{DATA_MESSAGE_BYTES, GIB, MIB};
use dfs_types::{
    ClusterId, DfsError, Incarnation, NodeId, OsEntropy, Position, PrincipalId, RealmId, Secret, SystemClock,
};
use futures::Stream;
use server_kit::Shutdown;
use tempfile::TempDir;
use tonic::transport::Channel;
use transport::{Authority, Dialer, Expect, Identity, Role, Tls};

use super::metadata::{CLUSTER_MS, FakeMetadata, node_keys};
use crate::server::{ChunkServer, OpenStore, Opened, Setup};
use crate::store::memory::MemoryStore;
use crate::store::segment::{OpenReport, SegmentStore, Settings};
use crate::store::{ChunkKey, ChunkMeta, ChunkStore};
use crate::upkeep::Pace;

pub const REALM: RealmId = RealmId([9; 16]);
pub const UPLOAD: [u8; 16] = [7; 16];

pub struct TestCluster {
    pub id: ClusterId,
    authority: Authority,
    pub metadata: FakeMetadata,
    pub metadata_address: String,
}

pub struct TestNode {
    pub id: NodeId,
    pub server: ChunkServer,
    pub shutdown: Shutdown,
    pub store: Arc<dyn ChunkStore>,
    /// The same store, where it is in memory.
    memory: Option<MemoryStore>,
    pub dir: TempDir,
    pub address: String,
    pub incarnation: Incarnation,
}

/// What opens as the store it is given.
pub fn opened_as(store: impl Fn() -> Arc<dyn ChunkStore> + Send + Sync + 'static) -> OpenStore {
    Arc::new(move |_, _| Ok(Opened { store: store(), report: OpenReport::default() }))
}

impl TestCluster {
    /// With its metadata service up.
    pub async fn start() -> Self {
        let mut cluster = Self::without_metadata("127.0.0.1:0".to_owned());
        cluster.metadata_address = cluster.start_metadata().await.to_string();
        cluster
    }

    pub fn without_metadata(metadata_address: String) -> Self {
        let id = ClusterId([5; 16]);
        let authority = Authority::create(id, &SystemClock::new()).unwrap();
        Self { id, authority, metadata: FakeMetadata::new(id), metadata_address }
    }

    pub async fn start_metadata(&self) -> SocketAddr {
        self.metadata.serve(&self.metadata_address, self.tls(Role::MetadataServer, "m1")).await
    }

    pub fn tls(&self, role: Role, id: &str) -> Tls {
        let identity = Identity::new(self.id, role, NodeId::new(id).unwrap());
        let issued = self.authority.issue(&identity, &[], &SystemClock::new()).unwrap();
        Tls::server(
            self.authority.cert_pem().as_bytes(),
            issued.cert_pem.as_bytes(),
            issued.key_pem.as_bytes(),
        )
        .unwrap()
    }

    /// A user's: no certificate.
    pub fn client_tls(&self) -> Tls {
        Tls::client(self.authority.cert_pem().as_bytes(), Some(self.id)).unwrap()
    }

    /// A node that may still be on its way to ready.
    pub async fn starting_node(&self, id: &str) -> TestNode {
        let memory = MemoryStore::new(GIB);
        let store: Arc<dyn ChunkStore> = Arc::new(memory.clone());
        let mut node = self.node_in(id, tempfile::tempdir().unwrap(), store).await;
        node.memory = Some(memory);
        node
    }

    /// A node on what an earlier one left.
    pub async fn node_in(&self, id: &str, dir: TempDir, store: Arc<dyn ChunkStore>) -> TestNode {
        let opened = store.clone();
        let (server, shutdown) =
            self.server(id, &dir, opened_as(move || opened.clone()), Pace::default()).await;
        TestNode::new(server, shutdown, dir, store)
    }

    /// A node on disk, with what is there already, that scrubs all the time. Ready.
    pub async fn disk_node(&self, id: &str, dir: TempDir) -> TestNode {
        let open: OpenStore = Arc::new(|path, incarnation| {
            let settings = Settings::new(incarnation).with_segment_bytes(4 * MIB);
            let (store, report) = SegmentStore::open_directory(path, Arc::new(OsEntropy), settings)?;
            Ok(Opened { store: Arc::new(store), report })
        });
        let pace = Pace { scrub_idle: Duration::from_millis(20), ..Pace::default() };
        let (server, shutdown) = self.server(id, &dir, open, pace).await;
        server.health().until_ready().await;
        let store = server.node().store().unwrap();
        TestNode::new(server, shutdown, dir, store)
    }

    pub async fn server(
        &self,
        id: &str,
        dir: &TempDir,
        open: OpenStore,
        pace: Pace,
    ) -> (ChunkServer, Shutdown) {
        let setup = Setup {
            node: NodeId::new(id).unwrap(),
            data_dir: dir.path().to_owned(),
            listen: "127.0.0.1:0".to_owned(),
            advertise: None,
            domain: format!("rack-{id}"),
            metadata: self.metadata_address.split(',').map(str::to_owned).collect(),
            metrics_listen: None,
            pace,
        };
        let shutdown = Shutdown::manual();
        let tls = self.tls(Role::ChunkServer, id);
        (ChunkServer::start(setup, tls, open, shutdown.clone()).await.unwrap(), shutdown)
    }

    pub async fn node(&self, id: &str) -> TestNode {
        let node = self.starting_node(id).await;
        node.server.health().until_ready().await;
        node
    }

    pub fn channel(&self, tls: Tls, node: &TestNode) -> Channel {
        let expect = Expect::server(Role::ChunkServer, node.id.clone());
        Dialer::new(tls).channel(&node.address, expect).unwrap()
    }

    pub fn data(&self, node: &TestNode) -> ChunkDataClient<Channel> {
        ChunkDataClient::new(self.channel(self.client_tls(), node))
    }

    /// As the metadata leader.
    pub fn control(&self, node: &TestNode) -> ChunkControlClient<Channel> {
        self.control_as(self.tls(Role::MetadataServer, "m1"), node)
    }

    pub fn control_as(&self, tls: Tls, node: &TestNode) -> ChunkControlClient<Channel> {
        ChunkControlClient::new(self.channel(tls, node))
    }

    pub fn grant(&self, node: &TestNode, epoch: u64, allows: Allows) -> Grant {
        Grant {
            cluster: self.id,
            node: node.id.clone(),
            incarnation: node.incarnation,
            principal: PrincipalId([2; 16]),
            auth_epoch: Position(1),
            scope: UPLOAD,
            realm: REALM,
            epoch: Position(epoch),
            expires_ms: CLUSTER_MS + 60_000,
            allows,
        }
    }

    pub fn put_grant(&self, node: &TestNode, epoch: u64) -> Bytes {
        sign(&self.grant(node, epoch, Allows::Put { max_chunks: 8, max_bytes: GIB, serial: 1 }))
    }

    pub fn get_grant(&self, node: &TestNode, chunk: &SealedChunk) -> Bytes {
        sign(&self.grant(node, 1, Allows::Get(vec![chunk.id])))
    }

    /// A put to the first of `nodes`, forwarded to the others.
    pub fn put_header(&self, nodes: &[&TestNode], chunk: &SealedChunk, epoch: u64) -> PutHeader {
        let forward = nodes[1..].iter().map(|node| self.put_to(node, epoch)).collect();
        PutHeader {
            realm_id: REALM.to_vec().into(),
            chunk_id: chunk.id.to_vec().into(),
            sealed_length: chunk.bytes.len() as u64,
            grant: self.put_grant(nodes[0], epoch),
            forward,
            request_id: "test".to_owned(),
        }
    }

    pub fn put_to(&self, node: &TestNode, epoch: u64) -> ForwardTo {
        ForwardTo { node: Some(node.named()), grant: self.put_grant(node, epoch) }
    }

    pub fn get_from(&self, node: &TestNode, chunk: &SealedChunk) -> ForwardTo {
        ForwardTo { node: Some(node.named()), grant: self.get_grant(node, chunk) }
    }

    pub async fn put(&self, nodes: &[&TestNode], chunk: &SealedChunk, epoch: u64) -> PutResponse {
        let header = self.put_header(nodes, chunk, epoch);
        self.send(nodes[0], header, &chunk.bytes).await.unwrap()
    }

    pub async fn send(
        &self,
        node: &TestNode,
        header: PutHeader,
        bytes: &Bytes,
    ) -> Result<PutResponse, DfsError> {
        self.send_stream(node, futures::stream::iter(messages(header, bytes))).await
    }

    pub async fn send_stream(
        &self,
        node: &TestNode,
        messages: impl Stream<Item = PutRequest> + Send + 'static,
    ) -> Result<PutResponse, DfsError> {
        let answer = self.data(node).put(messages).await;
        answer.map(tonic::Response::into_inner).map_err(|status| from_status(&status))
    }

    pub async fn get(
        &self,
        node: &TestNode,
        grant: Bytes,
        chunk: &SealedChunk,
        first_group: u32,
        group_count: u32,
    ) -> Result<(GetHeader, Vec<u8>), DfsError> {
        let request = GetRequest {
            grant,
            realm_id: REALM.to_vec().into(),
            chunk_id: chunk.id.to_vec().into(),
            first_group,
            group_count,
            request_id: "test".to_owned(),
            damaged: false,
        };
        let error = |status: tonic::Status| from_status(&status);
        let mut stream = self.data(node).get(request).await.map_err(error)?.into_inner();
        let (mut header, mut bytes) = (None, Vec::new());
        while let Some(message) = stream.message().await.map_err(error)? {
            match message.part.unwrap() {
                get_response::Part::Header(first) => {
                    assert!(header.replace(first).is_none() && bytes.is_empty());
                }
                get_response::Part::Data(data) => {
                    assert!(data.len() <= DATA_MESSAGE_BYTES);
                    bytes.extend_from_slice(&data);
                }
            }
        }
        Ok((header.unwrap(), bytes))
    }
}

impl TestNode {
    pub fn new(server: ChunkServer, shutdown: Shutdown, dir: TempDir, store: Arc<dyn ChunkStore>) -> Self {
        let (address, node) = (server.address().to_string(), server.node().clone());
        let (id, incarnation) = (node.id.clone(), node.incarnation);
        Self { id, server, shutdown, store, memory: None, dir, address, incarnation }
    }

    /// Changes a stored byte, as rot would.
    pub fn rot(&self, chunk: &SealedChunk, offset: usize) {
        self.memory.as_ref().expect("only memory rots at will").rot(&key(chunk), offset);
    }

    /// Takes the node down; what it leaves.
    pub async fn stop(self) -> (TempDir, Arc<dyn ChunkStore>) {
        self.shutdown.trigger();
        self.server.finished().await.unwrap();
        (self.dir, self.store)
    }

    pub fn named(&self) -> NodeAddress {
        NodeAddress { node_id: self.id.to_string(), address: self.address.clone() }
    }

    pub fn held(&self, chunk: &SealedChunk) -> Option<ChunkMeta> {
        self.store.get(&key(chunk)).unwrap()
    }

    /// The receipt, if this node gave it for `chunk` under `scope`.
    pub fn check_receipt(&self, bytes: &[u8], chunk: &SealedChunk, scope: [u8; 16], epoch: u64) -> Receipt {
        let receipt = UnverifiedReceipt::parse(bytes).unwrap();
        assert_eq!(*receipt.node(), self.id);
        let receipt = receipt.verify(&node_keys(self.id.as_str()).receipt).unwrap();
        assert_eq!(
            (receipt.incarnation, receipt.scope, receipt.epoch),
            (self.incarnation, scope, Position(epoch))
        );
        receipt.covers(&chunk.id, chunk.bytes.len() as u64).unwrap();
        receipt
    }
}

pub fn sign(grant: &Grant) -> Bytes {
    grant.encode(&node_keys(grant.node.as_str()).grant).unwrap().into()
}

pub fn key(chunk: &SealedChunk) -> ChunkKey {
    ChunkKey::new(REALM, chunk.id)
}

pub fn secret() -> Secret<32> {
    Secret::new([3; 32])
}

/// A sealed chunk of `length` bytes that no other test value repeats.
pub fn chunk(length: usize, tag: u8) -> SealedChunk {
    seal(&secret(), &plain(length, tag)).unwrap()
}

pub fn plain(length: usize, tag: u8) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8 ^ tag).collect()
}

pub fn messages(header: PutHeader, bytes: &Bytes) -> Vec<PutRequest> {
    let data = (0..bytes.len())
        .step_by(DATA_MESSAGE_BYTES)
        .map(|at| bytes.slice(at..bytes.len().min(at + DATA_MESSAGE_BYTES)))
        .map(|slice| PutRequest { part: Some(put_request::Part::Data(slice)) });
    std::iter::once(PutRequest { part: Some(put_request::Part::Header(header)) }).chain(data).collect()
}

/// An address where nobody listens.
pub fn dead_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}
