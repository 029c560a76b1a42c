//! Chunk servers as plans see them, and the grants that let callers use them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use chunk_format::grant::{Allows, Grant};
use chunk_format::receipt::{NodeKeys, ReceiptExpectation, UnverifiedReceipt};
use dfs_proto::v1;
use dfs_types::limits::{GRANT_LIFETIME_MS, MAX_PLAN_CHUNKS};
use dfs_types::{ChunkId, DfsError, ErrorCode, Incarnation, NodeId, Position, PrincipalId, RealmId};
use metadata_core::kv::KvRead;
use metadata_core::query::{self, ChunkView, CopyView};

use super::Operations;
use super::node_control::NodeTarget;
use crate::raft::StateView;

/// Unwrapped node keys kept.
const MAX_CACHED_KEYS: usize = 4096;

/// Keys of nodes by incarnation: unwrapped once, not for every grant. In memory only.
#[derive(Default)]
pub struct NodeKeyCache {
    keys: Mutex<BTreeMap<Incarnation, Arc<NodeKeys>>>,
}

/// One chunk server: its row, and how it looks to this leader.
#[derive(Clone)]
pub(crate) struct NodeAt {
    pub node: NodeId,
    pub incarnation: Incarnation,
    pub row: v1::NodeRow,
    /// Heard from in time by this leader.
    pub alive: bool,
}

impl NodeAt {
    pub fn target(&self) -> NodeTarget {
        NodeTarget { node: self.node.clone(), address: self.row.address.clone() }
    }

    /// Whether new chunks may be placed there.
    pub fn takes_chunks(&self) -> bool {
        self.alive && self.row.state() == v1::NodeState::Up
    }

    /// How gladly it is read from: the least first.
    fn reluctance(&self) -> u8 {
        match self.row.state() {
            v1::NodeState::Up => 0,
            v1::NodeState::Draining => 1,
            v1::NodeState::Suspect => 2,
            v1::NodeState::Down | v1::NodeState::Removed | v1::NodeState::Unspecified => 3,
        }
    }
}

/// All nodes at one moment.
pub(crate) struct NodeTable {
    nodes: BTreeMap<NodeId, NodeAt>,
}

impl NodeTable {
    pub fn load(operations: &Operations, kv: &dyn KvRead) -> Result<Self, DfsError> {
        let mut nodes = BTreeMap::new();
        for found in query::nodes(kv)? {
            let at = operations.node_at(found.row)?;
            nodes.insert(at.node.clone(), at);
        }
        Ok(Self { nodes })
    }

    pub fn get(&self, node: &NodeId) -> Option<&NodeAt> {
        self.nodes.get(node)
    }

    pub fn iter(&self) -> impl Iterator<Item = &NodeAt> {
        self.nodes.values()
    }

    /// The node that holds a copy, if it still is the incarnation that was given it.
    pub fn holder(&self, copy: &CopyView) -> Option<&NodeAt> {
        let node = NodeId::new(copy.holder.node_id.as_str()).ok()?;
        self.nodes.get(&node).filter(|at| copy.holder.current && at.incarnation == copy.holder.incarnation)
    }

    /// Where a chunk can be read: nodes that answer and undoubted copies first.
    pub fn readable<'a>(&'a self, chunk: &ChunkView) -> Vec<&'a NodeAt> {
        let mut found: Vec<(bool, bool, u8, &NodeAt)> = chunk
            .copies
            .iter()
            .filter_map(|copy| self.holder(copy).map(|at| (!at.alive, copy.doubted, at.reluctance(), at)))
            .collect();
        found.sort_by_key(|(silent, doubted, reluctance, _)| (*silent, *doubted, *reluctance));
        found.into_iter().map(|(_, _, _, at)| at).collect()
    }

    /// How many copies count and are on nodes that answer now.
    pub fn present(&self, chunk: &ChunkView) -> usize {
        let live = |copy: &&CopyView| copy.counts() && self.holder(copy).is_some_and(|at| at.alive);
        chunk.copies.iter().filter(live).count()
    }
}

/// On whose behalf, and for what, grants are made.
pub(crate) struct GrantFor {
    pub principal: PrincipalId,
    pub auth_epoch: Position,
    /// Upload, file or task.
    pub scope: [u8; 16],
    pub realm: RealmId,
    pub epoch: Position,
    pub expires_ms: u64,
}

impl GrantFor {
    /// For a principal, good for one grant lifetime from the view's cluster time.
    pub fn caller(
        principal: &v1::PrincipalRow,
        scope: [u8; 16],
        realm: RealmId,
        view: &StateView,
    ) -> Result<Self, DfsError> {
        Ok(Self {
            principal: PrincipalId::from_slice(&principal.principal_id)?,
            auth_epoch: Position(principal.position),
            scope,
            realm,
            epoch: view.position(),
            expires_ms: query::clock(view)?.cluster_ms + GRANT_LIFETIME_MS,
        })
    }

    /// For an order of the cluster itself.
    pub fn task(task: [u8; 16], realm: RealmId, view: &StateView) -> Result<Self, DfsError> {
        Ok(Self {
            principal: PrincipalId::default(),
            auth_epoch: Position::ZERO,
            scope: task,
            realm,
            epoch: view.position(),
            expires_ms: query::clock(view)?.cluster_ms + GRANT_LIFETIME_MS,
        })
    }
}

impl Operations {
    pub(crate) fn node_at(&self, row: v1::NodeRow) -> Result<NodeAt, DfsError> {
        let node = NodeId::new(row.node_id.as_str())?;
        let incarnation = Incarnation::from_slice(&row.incarnation)?;
        let alive = self.parts.book.is_alive(&node, incarnation, self.parts.liveness, self.now());
        Ok(NodeAt { node, incarnation, row, alive })
    }

    /// The keys of a node's current incarnation.
    pub(crate) fn node_keys(&self, at: &NodeAt) -> Result<Arc<NodeKeys>, DfsError> {
        let mut cache = self.parts.node_keys.keys.lock().expect("the cache is never left half written");
        if let Some(keys) = cache.get(&at.incarnation) {
            crate::telemetry::cache("node_keys", true);
            return Ok(keys.clone());
        }
        crate::telemetry::cache("node_keys", false);
        let secret = self.parts.keyring.node_secret(&at.incarnation, &at.row.wrapped_secret)?;
        let keys = Arc::new(NodeKeys::derive(&secret));
        if cache.len() >= MAX_CACHED_KEYS {
            cache.clear();
        }
        cache.insert(at.incarnation, keys.clone());
        Ok(keys)
    }

    fn grant(&self, at: &NodeAt, of: &GrantFor, allows: Allows) -> Result<Vec<u8>, DfsError> {
        let grant = Grant {
            cluster: self.parts.cluster,
            node: at.node.clone(),
            incarnation: at.incarnation,
            principal: of.principal,
            auth_epoch: of.auth_epoch,
            scope: of.scope,
            realm: of.realm,
            epoch: of.epoch,
            expires_ms: of.expires_ms,
            allows,
        };
        Ok(grant.encode(&self.node_keys(at)?.grant)?)
    }

    /// Lets the caller store up to so many bytes in up to 64 chunks.
    pub(crate) fn put_grant(&self, at: &NodeAt, of: &GrantFor, max_bytes: u64) -> Result<Vec<u8>, DfsError> {
        let mut serial = [0u8; 8];
        self.parts.entropy.fill(&mut serial);
        let serial = u64::from_be_bytes(serial);
        self.grant(at, of, Allows::Put { max_chunks: MAX_PLAN_CHUNKS as u32, max_bytes, serial })
    }

    /// Lets the caller read these chunks, 1 to 64.
    pub(crate) fn get_grant(
        &self,
        at: &NodeAt,
        of: &GrantFor,
        chunks: Vec<ChunkId>,
    ) -> Result<Vec<u8>, DfsError> {
        self.grant(at, of, Allows::Get(chunks))
    }

    /// Checks a receipt's MAC and that it is about this scope and realm; answers who has which chunks.
    ///
    /// # Errors
    /// `receipt_refused` if it is forged or about something else. A genuine one of an incarnation
    /// that is gone is None: that node has nothing any more.
    pub(crate) fn check_receipt(
        &self,
        table: &NodeTable,
        receipt: &[u8],
        scope: [u8; 16],
        realm: RealmId,
    ) -> Result<Option<Receipted>, DfsError> {
        let receipt = UnverifiedReceipt::parse(receipt)?;
        let at = table.get(receipt.node()).ok_or_else(|| {
            DfsError::new(ErrorCode::ReceiptRefused, format!("no node is called {}", receipt.node()))
        })?;
        if receipt.incarnation() != at.incarnation {
            return Ok(None);
        }
        let receipt = receipt.verify(&self.node_keys(at)?.receipt)?;
        receipt.check(&ReceiptExpectation {
            cluster: self.parts.cluster,
            realm,
            incarnation: at.incarnation,
            scope,
            // How old is too old, only the state at apply can say.
            min_epoch: Position::ZERO,
        })?;
        let stored = v1::StoredAt {
            node_id: at.node.to_string(),
            incarnation: at.incarnation.to_vec().into(),
            epoch: receipt.epoch.0,
        };
        Ok(Some(Receipted { stored, chunks: receipt.chunks }))
    }
}

/// A genuine receipt.
pub(crate) struct Receipted {
    pub stored: v1::StoredAt,
    /// With sealed lengths.
    pub chunks: Vec<(ChunkId, u64)>,
}
