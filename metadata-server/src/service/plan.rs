//! PlanChunks: content secrets for chunks about to be sealed, and for sealed ones either "stored
//! already" or nodes with grants. Proposes nothing; what it sets aside is leader memory.

use std::collections::{BTreeMap, BTreeSet};

use chunk_format::seal::{content_secret, plain_length};
use dfs_proto::v1;
use dfs_types::limits::MAX_PLAN_CHUNKS;
use dfs_types::{ChunkId, DfsError, ErrorCode, NodeId, RealmId, UploadId};
use metadata_core::kv::KvRead;
use metadata_core::placement::{Candidate, place};
use metadata_core::query;
use metadata_core::rows::ChunkKey;

use super::grants::{GrantFor, NodeTable};
use super::session::Session;

/// Most nodes a caller may exclude.
const MAX_EXCLUDED: usize = 64;

impl Session {
    pub(super) async fn plan_chunks(
        &self,
        request: v1::PlanChunksRequest,
    ) -> Result<v1::PlanChunksResponse, DfsError> {
        let id = UploadId::from_slice(&request.upload_id)?;
        if request.hashes.len() > MAX_PLAN_CHUNKS || request.sealed.len() > MAX_PLAN_CHUNKS {
            return Err(DfsError::new(
                ErrorCode::LimitExceeded,
                format!("a plan has at most {MAX_PLAN_CHUNKS} chunks"),
            ));
        }
        let exclude = excluded(&request.exclude_nodes)?;
        let (row, view) = self.upload_to_write(id).await?;
        if row.state() != v1::UploadState::Open {
            return Err(DfsError::new(
                ErrorCode::UploadNotFound,
                format!("upload {id} is not open any more"),
            ));
        }
        let secrets = self.content_secrets(&view, id, &row, &request.hashes)?;
        let mut plans = Vec::with_capacity(request.sealed.len());
        if !request.sealed.is_empty() {
            let table = NodeTable::load(&self.operations, &view)?;
            let realm = RealmId::from_slice(&row.realm_id)?;
            let policy = row.policy.unwrap_or_default();
            let mut chosen: Vec<(u32, Vec<NodeId>)> = Vec::new();
            let mut bytes: BTreeMap<NodeId, u64> = BTreeMap::new();
            for chunk in &request.sealed {
                let chunk_id = ChunkId::from_slice(&chunk.chunk_id)?;
                plain_length(chunk.sealed_length)?;
                let key = ChunkKey { realm, chunk: chunk_id };
                let have = query::chunk(&view, key)?;
                let enough = have.as_ref().is_some_and(|have| {
                    have.sealed_length == chunk.sealed_length
                        && table.present(have) >= policy.min_ack as usize
                });
                if enough && !chunk.must_send {
                    plans.push(v1::ChunkPlan { index: chunk.index, stored: true, nodes: Vec::new() });
                    continue;
                }
                let mut seed = realm.to_vec();
                seed.extend_from_slice(chunk_id.as_bytes());
                let nodes = self.choose(&table, &policy, chunk.sealed_length, &exclude, &bytes, &seed)?;
                for node in &nodes {
                    *bytes.entry(node.clone()).or_default() += chunk.sealed_length;
                }
                chosen.push((chunk.index, nodes));
            }
            let grants = self.put_grants(&table, &view, id, realm, &bytes)?;
            for (index, nodes) in chosen {
                let nodes = nodes.iter().filter_map(|node| grants.get(node).cloned()).collect();
                plans.push(v1::ChunkPlan { index, stored: false, nodes });
            }
            plans.sort_by_key(|plan| plan.index);
        }
        Ok(v1::PlanChunksResponse { secrets, plans, position: view.position().0 })
    }

    fn content_secrets(
        &self,
        kv: &dyn KvRead,
        id: UploadId,
        row: &v1::UploadRow,
        hashes: &[v1::PlainChunk],
    ) -> Result<Vec<v1::ChunkSecret>, DfsError> {
        if hashes.is_empty() {
            return Ok(Vec::new());
        }
        let realm_secret = self.upload_realm_secret(kv, id, row)?;
        hashes
            .iter()
            .map(|chunk| {
                let hash: [u8; 32] =
                    chunk.plain_hash.as_ref().try_into().map_err(|_| {
                        DfsError::new(ErrorCode::InvalidArgument, "plain_hash must be 32 bytes")
                    })?;
                let secret = content_secret(&realm_secret, &hash);
                Ok(v1::ChunkSecret {
                    index: chunk.index,
                    secret: bytes::Bytes::copy_from_slice(secret.expose()),
                })
            })
            .collect()
    }

    /// Target nodes for one chunk, as many as there are, at least min_ack.
    ///
    /// # Errors
    /// `not_enough_nodes`, which says how many of what kind there are.
    pub(super) fn choose(
        &self,
        table: &NodeTable,
        policy: &v1::Policy,
        sealed_length: u64,
        exclude: &BTreeSet<NodeId>,
        planned: &BTreeMap<NodeId, u64>,
        seed: &[u8],
    ) -> Result<Vec<NodeId>, DfsError> {
        let now = self.operations.now();
        let (mut live, mut roomy) = (0, Vec::new());
        for at in table.iter().filter(|at| at.takes_chunks()) {
            live += 1;
            let Some(life) = self.parts().book.life(&at.node) else { continue };
            let free = life.plannable(now).saturating_sub(planned.get(&at.node).copied().unwrap_or(0));
            if free >= sealed_length {
                roomy.push(Candidate {
                    node: at.node.clone(),
                    domain: at.row.domain.clone(),
                    free,
                    capacity: life.capacity,
                });
            }
        }
        let nodes = place(&roomy, policy.target as usize, exclude, seed);
        if nodes.len() >= policy.min_ack.max(1) as usize {
            return Ok(nodes);
        }
        let excluded = roomy.iter().filter(|candidate| exclude.contains(&candidate.node)).count();
        Err(DfsError::new(
            ErrorCode::NotEnoughNodes,
            format!(
                "{} nodes must have the chunk before a commit and {} can: {live} are up, {} have room, {excluded} of those are excluded by the caller",
                policy.min_ack,
                nodes.len(),
                roomy.len(),
            ),
        ))
    }

    /// One grant per node for the bytes planned there, and those bytes set aside.
    pub(super) fn put_grants(
        &self,
        table: &NodeTable,
        view: &crate::raft::StateView,
        upload: UploadId,
        realm: RealmId,
        bytes: &BTreeMap<NodeId, u64>,
    ) -> Result<BTreeMap<NodeId, v1::PlannedNode>, DfsError> {
        let grant_for = GrantFor::caller(self.principal()?, upload.0, realm, view)?;
        let now = self.operations.now();
        let mut grants = BTreeMap::new();
        for (node, bytes) in bytes {
            let at = table.get(node).expect("placement chose it from the table");
            let grant = self.operations.put_grant(at, &grant_for, *bytes)?;
            self.parts().book.reserve(upload.0, node, *bytes, now);
            let address = v1::NodeAddress { node_id: node.to_string(), address: at.row.address.clone() };
            grants.insert(node.clone(), v1::PlannedNode { node: Some(address), grant: grant.into() });
        }
        Ok(grants)
    }
}

fn excluded(names: &[String]) -> Result<BTreeSet<NodeId>, DfsError> {
    if names.len() > MAX_EXCLUDED {
        return Err(DfsError::new(
            ErrorCode::LimitExceeded,
            format!("at most {MAX_EXCLUDED} nodes can be excluded"),
        ));
    }
    names.iter().map(|name| NodeId::new(name.as_str())).collect()
}
