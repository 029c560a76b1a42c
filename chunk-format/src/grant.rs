//! Grants: short-lived capabilities that a chunk server checks alone.
//!
//! Signed by the metadata leader under a key of the node it is for. Times are cluster time, which a
//! node learns from heartbeats: no wall clock decides.

use dfs_types::limits::MAX_PLAN_CHUNKS;
use dfs_types::{ChunkId, ClusterId, Incarnation, NodeId, Position, PrincipalId, RealmId};

use crate::error::FormatError;
pub use crate::mac::{GrantKey, NodeKeys};
use crate::mac::{MAC_BYTES, is_signed, sign};
use crate::wire::{Reader, put_short_text};

const GRANT_VERSION: u8 = 1;
const KIND: u8 = b'G';
const OP_GET: u8 = 1;
const OP_PUT: u8 = 2;

/// Longest grant: what a decoder ever looks at.
pub const MAX_GRANT_BYTES: usize = 1024 + MAX_PLAN_CHUNKS * 32;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    pub cluster: ClusterId,
    pub node: NodeId,
    pub incarnation: Incarnation,
    /// On whose behalf.
    pub principal: PrincipalId,
    /// Position at which that principal's rights were last changed.
    pub auth_epoch: Position,
    /// The upload (put), file (get) or task (copy) it belongs to.
    pub scope: [u8; 16],
    pub realm: RealmId,
    /// What the node stores beside the chunk and writes into its receipt.
    pub epoch: Position,
    /// Cluster time, ms. Good while the node's cluster time is not above it.
    pub expires_ms: u64,
    pub allows: Allows,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Allows {
    /// Reading these chunks, 1 to 64.
    Get(Vec<ChunkId>),
    /// Storing up to so many chunks (1 to 64) and sealed bytes, together, over all calls with it. The
    /// node counts; `Grant::verify` only refuses a chunk that alone is too large. The serial is drawn
    /// for each grant, so that the node never counts two of one upload as one.
    Put { max_chunks: u32, max_bytes: u64, serial: u64 },
}

/// The call a grant is shown for, as the node knows it.
#[derive(Clone, Copy, Debug)]
pub struct GrantCall<'a> {
    pub cluster: ClusterId,
    pub node: &'a NodeId,
    pub incarnation: Incarnation,
    pub realm: RealmId,
    pub op: GrantOp,
    /// The node's cluster time.
    pub now_ms: u64,
}

#[derive(Clone, Copy, Debug)]
pub enum GrantOp {
    Get { chunk: ChunkId },
    Put { sealed_length: u64 },
}

impl Grant {
    /// The grant as bytes with its MAC.
    ///
    /// # Errors
    /// `GrantLimits` if it allows nothing or more than 64 chunks.
    pub fn encode(&self, key: &GrantKey) -> Result<Vec<u8>, FormatError> {
        self.check_limits()?;
        let mut out = vec![GRANT_VERSION, KIND];
        out.extend_from_slice(self.cluster.as_bytes());
        put_short_text(&mut out, self.node.as_str());
        out.extend_from_slice(self.incarnation.as_bytes());
        out.extend_from_slice(self.principal.as_bytes());
        out.extend_from_slice(&self.auth_epoch.0.to_be_bytes());
        out.extend_from_slice(&self.scope);
        out.extend_from_slice(self.realm.as_bytes());
        out.extend_from_slice(&self.epoch.0.to_be_bytes());
        out.extend_from_slice(&self.expires_ms.to_be_bytes());
        match &self.allows {
            Allows::Get(chunks) => {
                out.push(OP_GET);
                out.extend_from_slice(&(chunks.len() as u16).to_be_bytes());
                for chunk in chunks {
                    out.extend_from_slice(chunk.as_bytes());
                }
            }
            Allows::Put { max_chunks, max_bytes, serial } => {
                out.push(OP_PUT);
                out.extend_from_slice(&max_chunks.to_be_bytes());
                out.extend_from_slice(&max_bytes.to_be_bytes());
                out.extend_from_slice(&serial.to_be_bytes());
            }
        }
        sign(&key.0, &mut out);
        Ok(out)
    }

    /// The grant in `bytes` if it is this node's, allows this call and has not expired. The MAC is
    /// checked before any field is believed.
    pub fn verify(bytes: &[u8], key: &GrantKey, call: &GrantCall<'_>) -> Result<Grant, FormatError> {
        if bytes.len() > MAX_GRANT_BYTES {
            return Err(FormatError::GrantMalformed);
        }
        let (body, mac) = bytes.split_last_chunk::<MAC_BYTES>().ok_or(FormatError::GrantMalformed)?;
        if !is_signed(&key.0, body, mac) {
            return Err(FormatError::GrantForged);
        }
        let grant = Self::decode_body(body)?;
        grant.check(call)?;
        Ok(grant)
    }

    fn check(&self, call: &GrantCall<'_>) -> Result<(), FormatError> {
        let refuse = |wrong: bool, error: FormatError| if wrong { Err(error) } else { Ok(()) };
        refuse(self.cluster != call.cluster, FormatError::GrantCluster)?;
        refuse(self.node != *call.node, FormatError::GrantNode)?;
        refuse(self.incarnation != call.incarnation, FormatError::GrantIncarnation)?;
        let (expired_ms, now_ms) = (self.expires_ms, call.now_ms);
        refuse(now_ms > expired_ms, FormatError::GrantExpired { expired_ms, now_ms })?;
        refuse(self.realm != call.realm, FormatError::GrantRealm)?;
        match (&self.allows, call.op) {
            (Allows::Get(chunks), GrantOp::Get { chunk }) => {
                refuse(!chunks.contains(&chunk), FormatError::GrantChunk)
            }
            (Allows::Put { max_bytes, .. }, GrantOp::Put { sealed_length }) => {
                refuse(sealed_length > *max_bytes, FormatError::GrantBytes)
            }
            (Allows::Get(_), GrantOp::Put { .. }) | (Allows::Put { .. }, GrantOp::Get { .. }) => {
                Err(FormatError::GrantOperation)
            }
        }
    }

    fn check_limits(&self) -> Result<(), FormatError> {
        let count = match &self.allows {
            Allows::Get(chunks) => chunks.len(),
            Allows::Put { max_bytes: 0, .. } => 0,
            Allows::Put { max_chunks, .. } => *max_chunks as usize,
        };
        if (1..=MAX_PLAN_CHUNKS).contains(&count) { Ok(()) } else { Err(FormatError::GrantLimits) }
    }

    fn decode_body(body: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader(body);
        let version = reader.u8().ok_or(FormatError::GrantMalformed)?;
        if version != GRANT_VERSION {
            return Err(FormatError::GrantVersion { version });
        }
        let grant = Self::decode_fields(&mut reader).ok_or(FormatError::GrantMalformed)?;
        grant.check_limits()?;
        Ok(grant)
    }

    fn decode_fields(reader: &mut Reader<'_>) -> Option<Self> {
        if reader.u8()? != KIND {
            return None;
        }
        let grant = Self {
            cluster: ClusterId(reader.array()?),
            node: NodeId::new(reader.short_text()?).ok()?,
            incarnation: Incarnation(reader.array()?),
            principal: PrincipalId(reader.array()?),
            auth_epoch: Position(reader.u64()?),
            scope: reader.array()?,
            realm: RealmId(reader.array()?),
            epoch: Position(reader.u64()?),
            expires_ms: reader.u64()?,
            allows: match reader.u8()? {
                OP_GET => {
                    let count = usize::from(reader.u16()?);
                    let (chunks, rest) = reader.bytes(count * 32)?.as_chunks::<32>();
                    debug_assert!(rest.is_empty());
                    Allows::Get(chunks.iter().map(|chunk| ChunkId(*chunk)).collect())
                }
                OP_PUT => {
                    Allows::Put { max_chunks: reader.u32()?, max_bytes: reader.u64()?, serial: reader.u64()? }
                }
                _ => return None,
            },
        };
        reader.is_empty().then_some(grant)
    }
}
