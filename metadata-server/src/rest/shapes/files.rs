//! Files, versions and their chunks.

use std::collections::BTreeMap;

use dfs_proto::v1;
use dfs_types::ids::hex;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{file_id, principal_id};
use crate::rest::time::rfc3339;

/// One version of a file.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "file_id": "0190c5a0-0000-7000-8000-000000000001", "path": "/photos/2026/cat.jpg", "version": 4128768, "size": 9000,
    "created_at": "2026-01-31T23:59:59.123Z", "updated_at": "2026-01-31T23:59:59.123Z", "owner": "0190c5a0-0000-7000-8000-000000000002",
    "content_type": "image/jpeg", "user_metadata": {}, "deleted": false, "chunk_count": 1,
    "chunks": [{"index": 0, "chunk_id": "8d3f..", "size": 9000, "sealed_size": 9080, "checksum": "blake3:8d3f..", "version": 4128768,
        "locations": ["n1", "n2", "n3"]}]
}))]
pub struct File {
    pub file_id: String,
    /// `/BUCKET/KEY`.
    pub path: String,
    /// The position of its commit: grows with every version. Also the etag.
    pub version: u64,
    /// Bytes of content.
    pub size: u64,
    /// Of the file.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// Of this version.
    #[schema(format = DateTime)]
    pub updated_at: String,
    /// Id of the user who wrote it.
    pub owner: String,
    /// As given at the commit. In lists always empty: it is kept sealed.
    pub content_type: String,
    /// As given at the commit. In lists always empty: it is kept sealed.
    pub user_metadata: BTreeMap<String, String>,
    /// A delete marker: the file is gone, its older versions are kept for a while.
    pub deleted: bool,
    /// Small files live in the metadata service and have none.
    pub chunk_count: u32,
    /// BLAKE3 of the content, if the writer gave it. Not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_hash: Option<String>,
    /// Up to 1,024 chunks. Not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunks: Option<Vec<Chunk>>,
    /// Set when the file has more chunks than one answer: ask again with `first_chunk`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_chunk: Option<u32>,
}

/// A part of a file's content, sealed, on several nodes.
#[derive(Serialize, ToSchema)]
pub struct Chunk {
    pub index: u32,
    /// BLAKE3 of the sealed bytes, hexadecimal.
    pub chunk_id: String,
    /// Bytes of content.
    pub size: u64,
    /// Bytes on a node's disk.
    pub sealed_size: u64,
    /// Of the sealed bytes, with the name of the hash: `blake3:..`.
    pub checksum: String,
    /// The version of the file that it was listed for.
    pub version: u64,
    /// Nodes that have it, best first.
    pub locations: Vec<String>,
}

/// A page of files.
#[derive(Serialize, ToSchema)]
pub struct FileList {
    /// In byte order of their paths.
    pub files: Vec<File>,
    /// With `delimiter`: what stands for all paths that begin with it.
    pub common_prefixes: Vec<String>,
    /// Give it as `cursor` to get the next page; null: this was the last.
    pub next_cursor: Option<String>,
    /// The commit position that the page shows.
    pub position: u64,
}

/// A page of a file's versions.
#[derive(Serialize, ToSchema)]
pub struct VersionList {
    /// Newest first.
    pub versions: Vec<File>,
    /// Give it as `cursor` to get the next page; null: this was the last.
    pub next_cursor: Option<String>,
    pub position: u64,
}

/// What a deletion did.
#[derive(Serialize, ToSchema)]
pub struct Deleted {
    pub file_id: String,
    /// Of the delete marker, or of the version that was dropped.
    pub version: u64,
    pub position: u64,
}

/// A file to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"path": "/photos/2026/empty"}))]
pub struct CreateFile {
    /// `/BUCKET/KEY`.
    #[schema(max_length = 1100)]
    pub path: String,
    /// Copy this file's content, by reference; absent: an empty file.
    pub source: Option<Source>,
    /// The version that is to be replaced; 0: the name must be free. Absent: whatever is there.
    pub if_version: Option<u64>,
}

/// What to copy.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    pub file_id: String,
    /// Absent: the current one.
    pub version: Option<u64>,
}

/// A new name.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"path": "/photos/2026/tiger.jpg"}))]
pub struct RenameFile {
    /// `/BUCKET/KEY`, in the bucket that the file is in.
    #[schema(max_length = 1100)]
    pub path: String,
    /// The version that the file must have.
    pub if_version: Option<u64>,
    /// The version under the new name that is replaced; 0: that name must be free. Absent: whatever is there.
    pub if_target_version: Option<u64>,
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
            content_hash: (!info.content_hash.is_empty())
                .then(|| format!("blake3:{}", hex(&info.content_hash))),
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
