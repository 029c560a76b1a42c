//! OpenRead and Stat: secrets opened for the caller, where the chunks are, grants to read them.

use std::collections::BTreeMap;

use chunk_format::page::open_page;
use chunk_format::root::open_root;
use dfs_proto::v1;
use dfs_types::limits::MAX_PLAN_CHUNKS;
use dfs_types::{ChunkId, DfsError, ErrorCode, NodeId, RealmId, Secret, UploadId};
use metadata_core::kv::KvRead;
use metadata_core::query::{self, FileView, Window};

use super::chunks::locations_message;
use super::grants::{GrantFor, NodeTable};
use super::inline::open_inline;
use super::session::{Session, path_of};

/// Pages looked at for the worst chunk of a Stat; a larger file is answered for its first pages.
const MAX_STAT_PAGES: usize = 64;

/// The facts of a version that are kept in the clear.
pub(super) fn clear_info(found: &FileView, position: u64) -> v1::FileInfo {
    let (row, marker) = (found.row.as_ref(), found.marker.as_ref());
    let owner = row.map(|row| &row.owner).or(marker.map(|marker| &marker.owner));
    v1::FileInfo {
        file_id: found.file_id.to_vec().into(),
        path: path_of(found),
        version: found.version,
        size: row.map_or(0, |row| row.size),
        created_unix_ms: found.file.created_unix_ms,
        updated_unix_ms: row.map(|row| row.unix_ms).or(marker.map(|marker| marker.unix_ms)).unwrap_or(0),
        owner: owner.unwrap_or(&found.bucket.owner).clone(),
        chunks: row.map_or(0, |row| row.chunks),
        policy: row.and_then(|row| row.policy),
        inline: row.is_some_and(|row| row.inline || row.manifest_id.is_empty()),
        deleted: row.is_none(),
        position,
        ..Default::default()
    }
}

impl Session {
    /// All facts of a version: the sealed ones opened for this caller, who may read the content.
    pub(super) fn full_info(
        &self,
        kv: &dyn KvRead,
        found: &FileView,
        position: u64,
    ) -> Result<v1::FileInfo, DfsError> {
        let mut info = clear_info(found, position);
        if let Some(row) = &found.row {
            let (key, bound) = self.version_key(kv, row)?;
            let root = open_root(&key, &bound, &row.sealed_root)?;
            if root.size != row.size || root.chunks != row.chunks {
                return Err(DfsError::new(
                    ErrorCode::Integrity,
                    "the version's row does not match its sealed root",
                ));
            }
            info.content_type = root.content_type;
            info.user_metadata = root.user_metadata.into_iter().collect();
            info.content_hash =
                root.content_hash.map(|hash| bytes::Bytes::copy_from_slice(&hash)).unwrap_or_default();
        }
        Ok(info)
    }

    pub(super) async fn stat(&self, request: v1::StatRequest) -> Result<v1::FileInfo, DfsError> {
        let view = self.view().await?;
        let found = self.find(&view, &request.file)?;
        let mut info = self.full_info(&view, &found, view.position().0)?;
        if let (true, Some(row)) = (request.with_copies, &found.row) {
            let mut next = Some(0);
            let mut worst: Option<(u32, query::ChunkView)> = None;
            for _ in 0..MAX_STAT_PAGES {
                let Some(first) = next else { break };
                let page = query::worst_chunk(&view, row, first)?;
                if let Some((index, chunk)) = page.worst
                    && worst.as_ref().is_none_or(|(_, least)| chunk.present < least.present)
                {
                    worst = Some((index, chunk));
                }
                next = page.next_index;
                // Many pages are many rows: let others run in between.
                tokio::task::yield_now().await;
            }
            info.worst_chunk =
                worst.map(|(index, chunk)| locations_message(index, &chunk, view.position().0));
        }
        Ok(info)
    }

    pub(super) async fn open_read(
        &self,
        request: v1::OpenReadRequest,
    ) -> Result<v1::OpenReadResponse, DfsError> {
        let view = self.view().await?;
        let (found, row) = self.find_content(&view, &request.file)?;
        let position = view.position().0;
        let info = self.full_info(&view, &found, position)?;
        let mut response = v1::OpenReadResponse {
            info: Some(info),
            realm_id: row.realm_id.clone(),
            inline_sealed: bytes::Bytes::new(),
            inline_secret: bytes::Bytes::new(),
            chunks: Vec::new(),
            position,
        };
        if row.manifest_id.is_empty() {
            return Ok(response);
        }
        let manifest = UploadId::from_slice(&row.manifest_id)?;
        // Pages and inline content belong to the upload that wrote them, and so does their key's
        // binding; a copy has a key record of its own for the same key.
        let (key, _) = self.version_key(&view, &row)?;
        if row.inline {
            let inline = query::inline(&view, &row)?;
            let secret = open_inline(&key, &manifest, row.size, &inline)?;
            response.inline_sealed = inline.sealed;
            response.inline_secret = bytes::Bytes::copy_from_slice(secret.expose());
            return Ok(response);
        }
        let max = match request.max_chunks {
            0 => MAX_PLAN_CHUNKS,
            max => (max as usize).min(MAX_PLAN_CHUNKS),
        };
        let window = query::window(&view, &row, request.offset, request.length, max)?;
        let secrets = open_pages(&key, &manifest, &window)?;
        let realm = RealmId::from_slice(&row.realm_id)?;
        let table = NodeTable::load(&self.operations, &view)?;
        let grant_for = GrantFor::caller(self.principal()?, found.file_id.0, realm, &view)?;
        let nodes = self.read_grants(&table, &grant_for, &window)?;
        for (chunk, nodes) in window.chunks.iter().zip(nodes) {
            let secret: &Secret<32> = &secrets[chunk.page][chunk.place];
            response.chunks.push(v1::ReadChunk {
                index: chunk.index,
                offset: chunk.offset,
                size: chunk.size,
                chunk_id: chunk.chunk.key.chunk.to_vec().into(),
                secret: bytes::Bytes::copy_from_slice(secret.expose()),
                nodes,
            });
        }
        Ok(response)
    }

    /// For each chunk of the window the nodes to read it from, best first. A node gets one grant for
    /// all its chunks of the window.
    fn read_grants(
        &self,
        table: &NodeTable,
        grant_for: &GrantFor,
        window: &Window,
    ) -> Result<Vec<Vec<v1::PlannedNode>>, DfsError> {
        let placed: Vec<_> = window.chunks.iter().map(|chunk| table.readable(&chunk.chunk)).collect();
        let mut by_node: BTreeMap<&NodeId, Vec<ChunkId>> = BTreeMap::new();
        for (chunk, nodes) in window.chunks.iter().zip(&placed) {
            for at in nodes {
                by_node.entry(&at.node).or_default().push(chunk.chunk.key.chunk);
            }
        }
        let mut grants = BTreeMap::new();
        for (node, mut chunks) in by_node {
            chunks.sort_unstable();
            chunks.dedup();
            let at = table.get(node).expect("it came from the table");
            let grant = self.operations.get_grant(at, grant_for, chunks)?;
            let address = v1::NodeAddress { node_id: node.to_string(), address: at.row.address.clone() };
            grants.insert(node.clone(), v1::PlannedNode { node: Some(address), grant: grant.into() });
        }
        Ok(placed
            .iter()
            .map(|nodes| nodes.iter().filter_map(|at| grants.get(&at.node).cloned()).collect())
            .collect())
    }
}

fn open_pages(
    key: &Secret<32>,
    manifest: &UploadId,
    window: &Window,
) -> Result<Vec<Vec<Secret<32>>>, DfsError> {
    window
        .pages
        .iter()
        .map(|(first, page)| Ok(open_page(key, manifest, *first, &page.clear, &page.sealed)?))
        .collect()
}
