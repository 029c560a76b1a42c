//! Receipts: a chunk server's word that it holds chunks durably, given only after bytes and epoch are
//! fsynced. The metadata leader checks the MAC before it proposes; apply checks facts only.

use dfs_types::limits::MAX_PLAN_CHUNKS;
use dfs_types::{ChunkId, ClusterId, Incarnation, NodeId, Position, RealmId};

use crate::error::FormatError;
use crate::mac::{MAC_BYTES, is_signed, sign};
pub use crate::mac::{NodeKeys, ReceiptKey};
use crate::wire::{Reader, put_short_text};

const RECEIPT_VERSION: u8 = 1;
const KIND: u8 = b'R';
const ENTRY_BYTES: usize = 40;

/// Longest receipt: what a decoder ever looks at.
pub const MAX_RECEIPT_BYTES: usize = 1024 + MAX_PLAN_CHUNKS * ENTRY_BYTES;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Receipt {
    pub cluster: ClusterId,
    pub realm: RealmId,
    pub node: NodeId,
    pub incarnation: Incarnation,
    /// The upload or task of the grant.
    pub scope: [u8; 16],
    /// The epoch of the grant: the stored epoch is not below it.
    pub epoch: Position,
    /// Chunk and sealed length, 1 to 64.
    pub chunks: Vec<(ChunkId, u64)>,
}

/// What the receiver of a receipt knows it must say.
#[derive(Clone, Copy, Debug)]
pub struct ReceiptExpectation {
    pub cluster: ClusterId,
    pub realm: RealmId,
    /// The node's current incarnation.
    pub incarnation: Incarnation,
    pub scope: [u8; 16],
    /// The lowest epoch that counts.
    pub min_epoch: Position,
}

/// A receipt that reads, of whom nobody knows yet whether it is genuine.
#[derive(Debug)]
pub struct UnverifiedReceipt<'a> {
    receipt: Receipt,
    body: &'a [u8],
    mac: &'a [u8; MAC_BYTES],
}

impl<'a> UnverifiedReceipt<'a> {
    /// Reads a receipt, to learn whose key to verify it with.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        if bytes.len() > MAX_RECEIPT_BYTES {
            return Err(FormatError::ReceiptMalformed);
        }
        let (body, mac) = bytes.split_last_chunk::<MAC_BYTES>().ok_or(FormatError::ReceiptMalformed)?;
        Ok(Self { receipt: Receipt::decode_body(body)?, body, mac })
    }

    /// Whose it claims to be.
    pub fn node(&self) -> &NodeId {
        &self.receipt.node
    }

    pub fn incarnation(&self) -> Incarnation {
        self.receipt.incarnation
    }

    /// The receipt, if the node with this key signed it.
    pub fn verify(self, key: &ReceiptKey) -> Result<Receipt, FormatError> {
        if is_signed(&key.0, self.body, self.mac) {
            Ok(self.receipt)
        } else {
            Err(FormatError::ReceiptForged)
        }
    }
}

impl Receipt {
    /// The receipt as bytes with its MAC.
    ///
    /// # Errors
    /// `ReceiptLimits` unless it has 1 to 64 chunks.
    pub fn encode(&self, key: &ReceiptKey) -> Result<Vec<u8>, FormatError> {
        self.check_limits()?;
        let mut out = vec![RECEIPT_VERSION, KIND];
        out.extend_from_slice(self.cluster.as_bytes());
        out.extend_from_slice(self.realm.as_bytes());
        put_short_text(&mut out, self.node.as_str());
        out.extend_from_slice(self.incarnation.as_bytes());
        out.extend_from_slice(&self.scope);
        out.extend_from_slice(&self.epoch.0.to_be_bytes());
        out.extend_from_slice(&(self.chunks.len() as u16).to_be_bytes());
        for (chunk, sealed_length) in &self.chunks {
            out.extend_from_slice(chunk.as_bytes());
            out.extend_from_slice(&sealed_length.to_be_bytes());
        }
        sign(&key.0, &mut out);
        Ok(out)
    }

    /// Whether a verified receipt is about what it was asked for.
    pub fn check(&self, expected: &ReceiptExpectation) -> Result<(), FormatError> {
        let refuse = |wrong: bool, error: FormatError| if wrong { Err(error) } else { Ok(()) };
        refuse(self.cluster != expected.cluster, FormatError::ReceiptCluster)?;
        refuse(self.realm != expected.realm, FormatError::ReceiptRealm)?;
        refuse(self.incarnation != expected.incarnation, FormatError::ReceiptIncarnation)?;
        refuse(self.scope != expected.scope, FormatError::ReceiptScope)?;
        let (epoch, needed) = (self.epoch.0, expected.min_epoch.0);
        refuse(epoch < needed, FormatError::ReceiptEpoch { epoch, needed })
    }

    /// Whether the receipt covers this chunk at this sealed length.
    pub fn covers(&self, chunk: &ChunkId, sealed_length: u64) -> Result<(), FormatError> {
        match self.sealed_length_of(chunk) {
            Some(found) if found == sealed_length => Ok(()),
            _ => Err(FormatError::ReceiptChunk),
        }
    }

    pub fn sealed_length_of(&self, chunk: &ChunkId) -> Option<u64> {
        self.chunks.iter().find(|(listed, _)| listed == chunk).map(|(_, length)| *length)
    }

    fn check_limits(&self) -> Result<(), FormatError> {
        if (1..=MAX_PLAN_CHUNKS).contains(&self.chunks.len()) {
            Ok(())
        } else {
            Err(FormatError::ReceiptLimits)
        }
    }

    fn decode_body(body: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader(body);
        let version = reader.u8().ok_or(FormatError::ReceiptMalformed)?;
        if version != RECEIPT_VERSION {
            return Err(FormatError::ReceiptVersion { version });
        }
        let receipt = Self::decode_fields(&mut reader).ok_or(FormatError::ReceiptMalformed)?;
        receipt.check_limits()?;
        Ok(receipt)
    }

    fn decode_fields(reader: &mut Reader<'_>) -> Option<Self> {
        if reader.u8()? != KIND {
            return None;
        }
        let receipt = Self {
            cluster: ClusterId(reader.array()?),
            realm: RealmId(reader.array()?),
            node: NodeId::new(reader.short_text()?).ok()?,
            incarnation: Incarnation(reader.array()?),
            scope: reader.array()?,
            epoch: Position(reader.u64()?),
            chunks: {
                let count = usize::from(reader.u16()?);
                let (entries, _) = reader.bytes(count * ENTRY_BYTES)?.as_chunks::<ENTRY_BYTES>();
                entries.iter().map(read_entry).collect()
            },
        };
        reader.is_empty().then_some(receipt)
    }
}

fn read_entry(entry: &[u8; ENTRY_BYTES]) -> (ChunkId, u64) {
    let (chunk, length) = entry.split_first_chunk::<32>().expect("40 bytes begin with 32");
    (ChunkId(*chunk), u64::from_be_bytes(length.try_into().expect("40 bytes end with 8")))
}
