//! Uploads: what init_upload and commit_upload take and answer.

use std::collections::BTreeMap;

use dfs_proto::v1;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{file_id, realm_id, unique_texts, upload_id};
use crate::rest::time::rfc3339;

/// How the bytes are kept.
#[derive(Serialize, Deserialize, Clone, Copy, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Copies wanted, 1 to 16; 0: the bucket's, or for a bucket 3.
    #[schema(maximum = 16)]
    pub target: u32,
    /// Copies that must be durable before a commit succeeds, 1 to target; 0: one less than target, two at most below three.
    #[serde(default)]
    #[schema(maximum = 16)]
    pub min_ack: u32,
}

impl From<v1::Policy> for Policy {
    fn from(policy: v1::Policy) -> Self {
        Self { target: policy.target, min_ack: policy.min_ack }
    }
}

impl From<Policy> for v1::Policy {
    fn from(policy: Policy) -> Self {
        Self { target: policy.target, min_ack: policy.min_ack }
    }
}

/// An upload to begin (`path`), or the next part of its plan (`upload_id` and `first_chunk`).
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"path": "/photos/2026/cat.jpg", "size": 9_000_000}))]
pub struct InitUpload {
    /// `/BUCKET/KEY`.
    #[schema(max_length = 1100)]
    pub path: Option<String>,
    /// Bytes of content, up to 64 TiB. Always needed.
    #[schema(maximum = 70_368_744_177_664i64)]
    pub size: Option<u64>,
    /// Absent: the bucket's.
    pub policy: Option<Policy>,
    /// To plan more chunks of an upload that exists: this and `first_chunk`, with the same size.
    pub upload_id: Option<String>,
    pub first_chunk: Option<u32>,
}

/// An upload and the plan of its next chunks.
#[derive(Serialize, ToSchema)]
pub struct Upload {
    pub upload_id: String,
    /// Which the commit will make a version of.
    pub file_id: String,
    pub realm_id: String,
    /// Bytes of content in the first chunks; the plan has the length of each.
    pub chunk_size: u64,
    pub policy: Policy,
    pub position: u64,
    /// At most 64.
    pub chunks: Vec<PlannedChunk>,
    /// The first chunk this plan has no room for; ask again with `upload_id` and `first_chunk`.
    pub next_chunk: Option<u32>,
}

/// Where one chunk goes. `dfsctl chunk put --plan PLAN.json --index N FILE` seals and sends it.
#[derive(Serialize, ToSchema)]
pub struct PlannedChunk {
    pub index: u32,
    /// Of its first byte in the file.
    pub offset: u64,
    pub size: u64,
    /// The node to send it to; it passes it on to the others while it arrives.
    pub primary: String,
    pub replicas: Vec<String>,
    /// By node id.
    pub addresses: BTreeMap<String, String>,
    /// By node id, base64; each lives for 60 seconds.
    pub grants: BTreeMap<String, String>,
}

/// A commit.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"upload_id": "0190c5a0-0000-7000-8000-000000000003", "chunks": []}))]
pub struct CommitUpload {
    pub upload_id: String,
    /// All chunks of the file, as `dfsctl chunk put` printed them; at most 16,384.
    #[schema(max_items = 16384)]
    pub chunks: Vec<SentChunk>,
    /// The version that is to be replaced; 0: the name must be free. Absent: whatever is there.
    pub if_version: Option<u64>,
    /// At most 255 bytes.
    #[schema(max_length = 255)]
    pub content_type: Option<String>,
    /// Names and values, 8 KiB together; kept sealed.
    #[serde(default, deserialize_with = "unique_texts")]
    pub user_metadata: Option<BTreeMap<String, String>>,
}

/// A chunk that nodes have confirmed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SentChunk {
    pub index: u32,
    pub chunk_id: String,
    /// Bytes of content.
    pub size: u64,
    /// The content secret, base64.
    pub secret: String,
    /// The nodes' receipts, base64.
    #[serde(default)]
    pub receipts: Vec<String>,
}

/// What a commit made.
#[derive(Serialize, ToSchema)]
pub struct Committed {
    pub file_id: String,
    pub version: u64,
    /// Durable copies of the chunk that has the fewest.
    pub copies: u32,
    /// Copies that the policy wants; repair makes those that are missing.
    pub target: u32,
    pub position: u64,
}

/// An upload that has not ended.
#[derive(Serialize, ToSchema)]
pub struct UploadState {
    pub upload_id: String,
    pub file_id: String,
    pub realm_id: String,
    pub path: String,
    pub policy: Policy,
    /// Chunks that are in it so far, from index 0.
    pub chunk_count: u32,
    /// Bytes of content of those.
    pub bytes: u64,
    /// As said when it began.
    pub size: Option<u64>,
    #[schema(format = DateTime)]
    pub created_at: String,
    pub position: u64,
}

/// An upload that ended without a commit.
#[derive(Serialize, ToSchema)]
pub struct UploadAborted {
    pub upload_id: String,
    pub position: u64,
}

impl From<v1::UploadInfo> for UploadState {
    fn from(upload: v1::UploadInfo) -> Self {
        Self {
            upload_id: upload_id(&upload.upload_id),
            file_id: file_id(&upload.file_id),
            realm_id: realm_id(&upload.realm_id),
            path: upload.path,
            policy: upload.policy.unwrap_or_default().into(),
            chunk_count: upload.chunks,
            bytes: upload.bytes,
            size: upload.size,
            created_at: rfc3339(upload.created_unix_ms),
            position: upload.position,
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
