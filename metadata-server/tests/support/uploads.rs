//! Uploads of one chunk, step by step, as a client does them.

use chunk_format::seal::{plain_hash, seal};
use dfs_proto::v1;
use dfs_proto::v1::file_selector::By;
use dfs_types::{ChunkId, NodeId, RealmId, Secret};

use super::{Client, TestServer, mutation};

pub fn by_path(path: &str) -> Option<v1::FileSelector> {
    Some(v1::FileSelector { by: Some(By::Path(path.into())), version: None })
}

pub async fn bucket(client: &mut Client, name: &str) {
    let request = v1::CreateBucketRequest { mutation: mutation(), name: name.into(), ..Default::default() };
    client.create_bucket(request).await.unwrap();
}

/// A chunk of an upload, sealed with the secret that the service gave.
pub struct Sealed {
    pub id: ChunkId,
    pub secret: Secret<32>,
    pub bytes: bytes::Bytes,
    pub plain: Vec<u8>,
}

pub async fn seal_chunk(client: &mut Client, upload: &v1::InitUploadResponse, plain: &[u8]) -> Sealed {
    let hashes = vec![v1::PlainChunk { index: 0, plain_hash: plain_hash(plain).to_vec().into() }];
    let request = v1::PlanChunksRequest {
        upload_id: upload.upload_id.clone(),
        hashes,
        sealed: Vec::new(),
        exclude_nodes: Vec::new(),
    };
    let secrets = client.plan_chunks(request).await.unwrap().into_inner().secrets;
    let secret = Secret::from_slice(&secrets[0].secret).unwrap();
    let sealed = seal(&secret, plain).unwrap();
    Sealed { id: sealed.id, secret, bytes: sealed.bytes, plain: plain.to_vec() }
}

pub async fn plan(
    client: &mut Client,
    upload: &v1::InitUploadResponse,
    chunk: &Sealed,
) -> Result<v1::PlanChunksResponse, tonic::Status> {
    let sealed = vec![v1::SealedChunk {
        index: 0,
        chunk_id: chunk.id.to_vec().into(),
        sealed_length: chunk.bytes.len() as u64,
        must_send: false,
    }];
    let request = v1::PlanChunksRequest {
        upload_id: upload.upload_id.clone(),
        hashes: Vec::new(),
        sealed,
        exclude_nodes: Vec::new(),
    };
    client.plan_chunks(request).await.map(tonic::Response::into_inner)
}

pub async fn begin(client: &mut Client, path: &str) -> v1::InitUploadResponse {
    let request = v1::InitUploadRequest { mutation: mutation(), path: path.into(), size: None, policy: None };
    client.init_upload(request).await.unwrap().into_inner()
}

pub fn page(
    upload: &v1::InitUploadResponse,
    chunk: &Sealed,
    receipts: Vec<Vec<u8>>,
) -> v1::AppendPageRequest {
    v1::AppendPageRequest {
        upload_id: upload.upload_id.clone(),
        first_index: 0,
        chunks: vec![v1::PageChunk {
            chunk_id: chunk.id.to_vec().into(),
            size: chunk.plain.len() as u64,
            secret: chunk.secret.expose().to_vec().into(),
            receipts: receipts.into_iter().map(Into::into).collect(),
        }],
        mutation: mutation(),
    }
}

pub fn commit(upload: &v1::InitUploadResponse, size: u64) -> v1::CommitUploadRequest {
    v1::CommitUploadRequest {
        mutation: mutation(),
        upload_id: upload.upload_id.clone(),
        chunks: 1,
        size,
        ..Default::default()
    }
}

/// A committed file of one chunk, stored on these nodes.
pub struct Stored {
    pub path: String,
    pub chunk: Sealed,
    pub realm: RealmId,
    /// What the nodes gave for the chunk, in the order they were named.
    pub receipts: Vec<Vec<u8>>,
}

/// A bucket `data`, and these nodes, each in a domain of its own.
pub async fn data_on(server: &mut TestServer, nodes: &[&str]) -> Client {
    let mut admin = server.admin();
    bucket(&mut admin, "data").await;
    for name in nodes {
        server.add_node(name, name).await;
    }
    admin
}

pub async fn stored_file(server: &TestServer, path: &str, content: &[u8], nodes: &[&str]) -> Stored {
    let mut admin = server.admin();
    let upload = begin(&mut admin, path).await;
    let chunk = seal_chunk(&mut admin, &upload, content).await;
    let planned = plan(&mut admin, &upload, &chunk).await.unwrap();
    let realm = RealmId::from_slice(&upload.realm_id).unwrap();
    let scope: [u8; 16] = upload.upload_id.as_ref().try_into().unwrap();
    let sealed = chunk.bytes.len() as u64;
    let receipt = |node: &&str| server.fleet.receipt(node, realm, scope, planned.position, chunk.id, sealed);
    let receipts: Vec<_> = nodes.iter().map(receipt).collect();
    admin.append_page(page(&upload, &chunk, receipts.clone())).await.unwrap();
    admin.commit_upload(commit(&upload, content.len() as u64)).await.unwrap();
    Stored { path: path.into(), chunk, realm, receipts }
}

impl Stored {
    /// Its chunk's locations as the state lists them.
    pub async fn copies(&self, server: &TestServer) -> v1::ChunkLocations {
        let request = v1::StatRequest { file: by_path(&self.path), with_copies: true };
        server.admin().stat(request).await.unwrap().into_inner().worst_chunk.unwrap()
    }

    /// Whether the node has it.
    pub fn is_at(&self, server: &TestServer, node: &str) -> bool {
        let nodes = server.fleet.nodes.lock().unwrap();
        nodes[&NodeId::new(node).unwrap()].chunks.contains_key(&(self.realm, self.chunk.id))
    }
}
