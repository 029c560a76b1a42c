//! The JSON shapes of the REST API, and how the messages of the service become them. Sizes in
//! bytes, times RFC 3339 UTC, ids opaque strings, secrets, grants and receipts base64.

use std::collections::BTreeMap;

use dfs_proto::v1;
use dfs_types::ids::hex;
use dfs_types::{ChunkId, DfsError, FileId, Incarnation, PrincipalId, RealmId, UploadId};
use serde::{Deserialize, Serialize};

use super::time::rfc3339;

#[derive(Serialize)]
pub struct File {
    pub file_id: String,
    pub path: String,
    pub version: u64,
    pub size: u64,
    pub created_at: String,
    pub updated_at: String,
    pub owner: String,
    pub content_type: String,
    pub user_metadata: BTreeMap<String, String>,
    pub deleted: bool,
    pub chunk_count: u32,
    /// Of one file alone, not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunks: Option<Vec<Chunk>>,
    /// Set when the file has more chunks than one answer: ask again with `first_chunk`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_chunk: Option<u32>,
}

#[derive(Serialize)]
pub struct Chunk {
    pub index: u32,
    pub chunk_id: String,
    pub size: u64,
    pub sealed_size: u64,
    /// Of the sealed bytes.
    pub checksum: String,
    pub version: u64,
    pub locations: Vec<String>,
}

#[derive(Serialize)]
pub struct FileList {
    pub files: Vec<File>,
    pub common_prefixes: Vec<String>,
    pub next_cursor: Option<String>,
    pub position: u64,
}

#[derive(Serialize)]
pub struct Deleted {
    pub file_id: String,
    pub version: u64,
    pub position: u64,
}

#[derive(Serialize)]
pub struct Node {
    pub node_id: String,
    pub address: String,
    pub incarnation: String,
    pub domain: String,
    pub state: &'static str,
    pub is_alive: bool,
    pub last_heartbeat: Option<String>,
    pub capacity: u64,
    pub used: u64,
    pub chunks: u64,
    pub version: String,
}

#[derive(Serialize)]
pub struct NodeList {
    pub nodes: Vec<Node>,
    pub position: u64,
}

#[derive(Serialize)]
pub struct Locations {
    pub chunk_id: String,
    pub realm_id: String,
    pub sealed_size: u64,
    pub present: u32,
    pub wanted: u32,
    pub locations: Vec<Location>,
    pub position: u64,
}

#[derive(Serialize)]
pub struct Location {
    pub node_id: String,
    pub domain: String,
    pub node_state: &'static str,
    pub doubted: bool,
    pub epoch: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateFile {
    pub path: String,
    pub source: Option<Source>,
    pub if_version: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    pub file_id: String,
    pub version: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitUpload {
    pub path: Option<String>,
    pub size: Option<u64>,
    pub policy: Option<Policy>,
    /// To plan more chunks of an upload that exists: this and `first_chunk`, with the same size.
    pub upload_id: Option<String>,
    pub first_chunk: Option<u32>,
}

#[derive(Serialize, Deserialize, Clone, Copy)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    pub target: u32,
    #[serde(default)]
    pub min_ack: u32,
}

#[derive(Serialize)]
pub struct Upload {
    pub upload_id: String,
    pub file_id: String,
    pub realm_id: String,
    pub chunk_size: u64,
    pub policy: Policy,
    pub position: u64,
    pub chunks: Vec<PlannedChunk>,
    /// The first chunk this plan has no room for; ask again with `upload_id` and `first_chunk`.
    pub next_chunk: Option<u32>,
}

#[derive(Serialize)]
pub struct PlannedChunk {
    pub index: u32,
    pub offset: u64,
    pub size: u64,
    pub primary: String,
    pub replicas: Vec<String>,
    /// By node id.
    pub addresses: BTreeMap<String, String>,
    pub grants: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitUpload {
    pub upload_id: String,
    pub chunks: Vec<SentChunk>,
    pub if_version: Option<u64>,
    pub content_type: Option<String>,
    pub user_metadata: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SentChunk {
    pub index: u32,
    pub chunk_id: String,
    pub size: u64,
    pub secret: String,
    #[serde(default)]
    pub receipts: Vec<String>,
}

#[derive(Serialize)]
pub struct Committed {
    pub file_id: String,
    pub version: u64,
    pub copies: u32,
    pub target: u32,
    pub position: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PutLocation {
    pub node_id: String,
    pub file_id: Option<String>,
    pub version: Option<u64>,
}

macro_rules! id_text {
    ($($function:ident, $id:ident;)*) => {
        $(
            /// The id as REST prints it; empty where the message has none.
            pub fn $function(bytes: &[u8]) -> String {
                $id::from_slice(bytes).map_or_else(|_: DfsError| String::new(), |id| id.to_string())
            }
        )*
    };
}
id_text! {
    file_id, FileId;
    upload_id, UploadId;
    realm_id, RealmId;
    principal_id, PrincipalId;
    incarnation, Incarnation;
    chunk_id, ChunkId;
}

pub fn state_word(state: i32) -> &'static str {
    match v1::NodeState::try_from(state).unwrap_or(v1::NodeState::Unspecified) {
        v1::NodeState::Unspecified => "unknown",
        v1::NodeState::Up => "up",
        v1::NodeState::Suspect => "suspect",
        v1::NodeState::Down => "down",
        v1::NodeState::Draining => "draining",
        v1::NodeState::Removed => "removed",
    }
}

impl From<v1::FileInfo> for File {
    fn from(info: v1::FileInfo) -> Self {
        Self {
            file_id: file_id(&info.file_id),
            path: info.path,
            version: info.version,
            size: info.size,
            created_at: rfc3339(info.created_unix_ms),
            updated_at: rfc3339(info.updated_unix_ms),
            owner: principal_id(&info.owner),
            content_type: info.content_type,
            user_metadata: info.user_metadata.into_iter().collect(),
            deleted: info.deleted,
            chunk_count: info.chunks,
            chunks: None,
            next_chunk: None,
        }
    }
}

impl Chunk {
    pub fn of(chunk: &v1::ReadChunk, version: u64) -> Self {
        let id = hex(&chunk.chunk_id);
        Self {
            index: chunk.index,
            checksum: format!("blake3:{id}"),
            chunk_id: id,
            size: chunk.size,
            sealed_size: chunk_format::seal::sealed_length(chunk.size),
            version,
            locations: chunk
                .nodes
                .iter()
                .filter_map(|node| Some(node.node.as_ref()?.node_id.clone()))
                .collect(),
        }
    }
}

impl From<v1::NodeInfo> for Node {
    fn from(node: v1::NodeInfo) -> Self {
        Self {
            node_id: node.node_id,
            address: node.address,
            incarnation: incarnation(&node.incarnation),
            domain: node.domain,
            state: state_word(node.state),
            is_alive: node.is_alive,
            last_heartbeat: (node.last_heartbeat_unix_ms > 0).then(|| rfc3339(node.last_heartbeat_unix_ms)),
            capacity: node.capacity,
            used: node.used,
            chunks: node.chunks,
            version: node.version,
        }
    }
}

impl From<v1::ChunkLocations> for Locations {
    fn from(chunk: v1::ChunkLocations) -> Self {
        let location = |at: v1::Location| Location {
            node_state: state_word(at.node_state),
            node_id: at.node_id,
            domain: at.domain,
            doubted: at.doubted,
            epoch: at.epoch,
        };
        Self {
            chunk_id: chunk_id(&chunk.chunk_id),
            realm_id: realm_id(&chunk.realm_id),
            sealed_size: chunk.sealed_length,
            present: chunk.present,
            wanted: chunk.wanted,
            locations: chunk.locations.into_iter().map(location).collect(),
            position: chunk.position,
        }
    }
}

impl From<v1::CommitUploadResponse> for Committed {
    fn from(done: v1::CommitUploadResponse) -> Self {
        Self {
            file_id: file_id(&done.file_id),
            version: done.version,
            copies: done.copies,
            target: done.target,
            position: done.position,
        }
    }
}
