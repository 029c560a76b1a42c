//! Whether a call may be served: the check of its grant, and the count of what PUT grants have used.
//! A restarted node counts from zero; grants live a minute, so that is the most it can cost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use chunk_format::grant::{Allows, Grant, GrantCall, GrantOp};
use dfs_types::limits::MAX_COUNTED_GRANTS;
use dfs_types::{ChunkId, DfsError, ErrorCode, RealmId};

use crate::node::Node;

pub struct Grants {
    node: Arc<Node>,
    used: Mutex<BTreeMap<GrantHash, Used>>,
}

/// BLAKE3 of an encoded grant, MAC and all: the grant's name in the table.
type GrantHash = [u8; 32];

/// A retry of a chunk costs nothing: chunks are counted, not calls.
struct Used {
    chunks: BTreeSet<ChunkId>,
    bytes: u64,
    expires_ms: u64,
}

impl Grants {
    pub fn new(node: Arc<Node>) -> Self {
        Self { node, used: Mutex::new(BTreeMap::new()) }
    }

    /// Checks a GET grant for one chunk.
    ///
    /// # Errors
    /// `grant_refused` if it is forged, expired or for anything else; `unavailable` before this node
    /// is registered.
    pub fn admit_get(&self, bytes: &[u8], realm: RealmId, chunk: ChunkId) -> Result<Grant, DfsError> {
        self.verify(bytes, realm, GrantOp::Get { chunk })
    }

    /// Checks a PUT grant and takes this chunk off what it allows.
    ///
    /// # Errors
    /// As for GET; also `grant_refused` once its chunks or bytes are used up, and `overloaded` if
    /// too many grants are in use at once.
    pub fn admit_put(
        &self,
        bytes: &[u8],
        realm: RealmId,
        chunk: ChunkId,
        sealed_length: u64,
    ) -> Result<Grant, DfsError> {
        let grant = self.verify(bytes, realm, GrantOp::Put { sealed_length })?;
        let Allows::Put { max_chunks, max_bytes, .. } = grant.allows else {
            return Err(refused("it is not a PUT grant"));
        };
        // Its receipt would be refused: better now than after the bytes were sent.
        if grant.epoch < self.node.epoch_floor() {
            return Err(refused("its epoch is below the epoch floor"));
        }
        let now_ms = self.node.cluster_now_ms()?;
        let mut table = self.used.lock().expect("no panic while grants are counted");
        let name = *blake3::hash(bytes).as_bytes();
        if !table.contains_key(&name) && table.len() >= MAX_COUNTED_GRANTS {
            table.retain(|_, used| used.expires_ms > now_ms);
            if table.len() >= MAX_COUNTED_GRANTS {
                return Err(DfsError::new(ErrorCode::Overloaded, "too many grants are in use"));
            }
        }
        let used = table.entry(name).or_insert_with(|| Used {
            chunks: BTreeSet::new(),
            bytes: 0,
            expires_ms: grant.expires_ms,
        });
        if used.chunks.contains(&chunk) {
            return Ok(grant);
        }
        if used.chunks.len() as u64 >= u64::from(max_chunks) {
            return Err(refused("all its chunks are used"));
        }
        if used.bytes.saturating_add(sealed_length) > max_bytes {
            return Err(refused("all its bytes are used"));
        }
        used.chunks.insert(chunk);
        used.bytes += sealed_length;
        Ok(grant)
    }

    fn verify(&self, bytes: &[u8], realm: RealmId, op: GrantOp) -> Result<Grant, DfsError> {
        let call = GrantCall {
            cluster: self.node.cluster,
            node: &self.node.id,
            incarnation: self.node.incarnation,
            realm,
            op,
            now_ms: self.node.cluster_now_ms()?,
        };
        Ok(Grant::verify(bytes, &self.node.keys()?.grant, &call)?)
    }
}

fn refused(why: &str) -> DfsError {
    DfsError::new(ErrorCode::GrantRefused, format!("the grant is refused: {why}"))
}
