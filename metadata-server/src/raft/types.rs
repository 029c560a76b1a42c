//! What openraft is told our types are, and how they are encoded: a version byte, then postcard.
//! Log entries carry a `v1::Entry` in its protobuf encoding, opaque to openraft.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use dfs_proto::v1;
use prost::Message;
use serde::de::{DeserializeOwned, Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::snapshot::SnapshotHandle;

openraft::declare_raft_types!(
    pub TypeConfig:
        D = EntryData,
        R = Results,
        NodeId = u64,
        Node = Node,
        SnapshotData = SnapshotHandle,
);

pub type LogId = openraft::LogId<u64>;
pub type Vote = openraft::Vote<u64>;
pub type Entry = openraft::Entry<TypeConfig>;
pub type Raft = openraft::Raft<TypeConfig>;
pub type StoredMembership = openraft::StoredMembership<u64, Node>;
pub type SnapshotMeta = openraft::SnapshotMeta<u64, Node>;
pub type StorageError = openraft::StorageError<u64>;
pub type StorageIOError = openraft::StorageIOError<u64>;
pub type AppendRequest = openraft::raft::AppendEntriesRequest<TypeConfig>;
pub type AppendResponse = openraft::raft::AppendEntriesResponse<u64>;
pub type VoteRequest = openraft::raft::VoteRequest<u64>;
pub type VoteResponse = openraft::raft::VoteResponse<u64>;
pub type SnapshotResponse = openraft::raft::SnapshotResponse<u64>;
pub type RaftMetrics = openraft::RaftMetrics<u64, Node>;

/// What the membership says of a member.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Node {
    pub name: String,
    pub address: String,
}

/// An encoded `v1::Entry`.
#[derive(Clone)]
pub struct EntryData {
    pub bytes: Bytes,
    /// Set by the log store when it is about to write the entry, so that the proposer can tell
    /// "never proposed" from "proposed, then lost the lead". Stays in the process that proposed.
    pub reached_log: Option<Arc<AtomicBool>>,
}

impl EntryData {
    pub fn new(entry: &v1::Entry, reached_log: Arc<AtomicBool>) -> Self {
        Self { bytes: entry.encode_to_vec().into(), reached_log: Some(reached_log) }
    }
}

impl std::fmt::Debug for EntryData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EntryData({} bytes)", self.bytes.len())
    }
}

impl PartialEq for EntryData {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Serialize for EntryData {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.bytes)
    }
}

impl<'de> Deserialize<'de> for EntryData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(BytesVisitor).map(|bytes| Self { bytes, reached_log: None })
    }
}

struct BytesVisitor;

impl Visitor<'_> for BytesVisitor {
    type Value = Bytes;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
        Ok(Bytes::copy_from_slice(bytes))
    }
}

/// One result per command of an entry, in order; none for blank and membership entries. Never
/// stored and never sent by openraft; it asks for serde all the same.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Results(pub Vec<v1::CommandResult>);

impl Serialize for Results {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|result| result.encode_to_vec()))
    }
}

impl<'de> Deserialize<'de> for Results {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let encoded = Vec::<Vec<u8>>::deserialize(deserializer)?;
        let decode = |bytes: &Vec<u8>| v1::CommandResult::decode(bytes.as_slice()).map_err(D::Error::custom);
        encoded.iter().map(decode).collect::<Result<_, _>>().map(Self)
    }
}

/// The only encoding there is of what this module stores and sends.
const FORMAT: u8 = 1;

/// Bytes that are not what they should be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    #[error("empty")]
    Empty,
    #[error("format {0}, this build knows 1: upgrade this server")]
    Format(u8),
    #[error("damaged: {0}")]
    Damaged(String),
}

pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![FORMAT]).expect("our types serialize")
}

/// Every byte must be used.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    match bytes.split_first() {
        None => Err(CodecError::Empty),
        Some((&FORMAT, rest)) => match postcard::take_from_bytes(rest) {
            Ok((value, [])) => Ok(value),
            Ok((_, left)) => Err(CodecError::Damaged(format!("{} bytes too many", left.len()))),
            Err(error) => Err(CodecError::Damaged(error.to_string())),
        },
        Some((format, _)) => Err(CodecError::Format(*format)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openraft::{EntryPayload, LeaderId};

    #[test]
    fn an_entry_keeps_its_bytes_and_golden_form() {
        let data = EntryData { bytes: Bytes::from_static(b"abc"), reached_log: None };
        let entry =
            Entry { log_id: LogId::new(LeaderId::new(3, 9), 300), payload: EntryPayload::Normal(data) };
        let bytes = encode(&entry);
        // version, term, node id, index (varints), variant, length, bytes: stored for ever.
        assert_eq!(bytes, [1, 3, 9, 0xac, 2, 1, 3, b'a', b'b', b'c']);
        assert_eq!(decode::<Entry>(&bytes).unwrap(), entry);
    }

    #[test]
    fn damage_is_an_error() {
        assert_eq!(decode::<u64>(&[]), Err(CodecError::Empty));
        assert_eq!(decode::<u64>(&[2, 1]), Err(CodecError::Format(2)));
        assert!(matches!(decode::<u64>(&[1, 1, 1]), Err(CodecError::Damaged(_))));
        assert!(matches!(decode::<Entry>(&[1, 3, 9]), Err(CodecError::Damaged(_))));
    }

    #[test]
    fn results_round_trip() {
        let results =
            Results(vec![v1::CommandResult { position: 7, ..Default::default() }, Default::default()]);
        assert_eq!(decode::<Results>(&encode(&results)).unwrap(), results);
    }
}
