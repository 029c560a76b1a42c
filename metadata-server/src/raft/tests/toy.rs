//! A small state machine: `Tick` counts, everything else is refused. Each result carries its
//! position; a hash chain over all writes tells whether two members went the same way.

use bytes::Bytes;
use dfs_proto::v1;
use dfs_proto::v1::command::Kind;
use dfs_types::{DfsError, ErrorCode, Position};
use metadata_core::apply::Applied;
use metadata_core::kv::{KvRead, Overlay, Space};

use crate::raft::machine::Machine;

pub struct Toy;

pub fn tick(millis: u64) -> v1::Command {
    v1::Command { kind: Some(Kind::Tick(v1::Tick { millis })), ..Default::default() }
}

/// A command the toy refuses in apply.
pub fn refused() -> v1::Command {
    v1::Command { kind: Some(Kind::ForgetResults(v1::ForgetResults { count: 1 })), ..Default::default() }
}

/// A tick that fills `bytes` of the log.
pub fn bulky(millis: u64, bytes: usize) -> v1::Command {
    v1::Command { request_id: vec![7; bytes].into(), ..tick(millis) }
}

fn number(kv: &dyn KvRead, key: &[u8]) -> u64 {
    let bytes = kv.get(Space::State, key).unwrap();
    bytes.map_or(0, |bytes| u64::from_be_bytes(bytes.as_ref().try_into().unwrap()))
}

/// The sum of all ticks.
pub fn total(kv: &dyn KvRead) -> u64 {
    number(kv, b"total")
}

pub fn hash(kv: &dyn KvRead) -> Option<Bytes> {
    kv.get(Space::State, b"hash").unwrap()
}

impl Machine for Toy {
    fn feature_level(&self) -> u32 {
        7
    }

    fn permit(&self, _: &dyn KvRead, _: &v1::Command) -> Result<(), DfsError> {
        Ok(())
    }

    fn validate(&self, command: &v1::Command) -> Result<(), DfsError> {
        match command.kind {
            None => Err(DfsError::new(ErrorCode::InvalidArgument, "no kind")),
            Some(_) => Ok(()),
        }
    }

    fn apply(&self, kv: &dyn KvRead, log_index: u64, entry: &v1::Entry) -> Result<Applied, String> {
        let mut overlay = Overlay::new(kv);
        let mut results = Vec::new();
        for (place, command) in entry.commands.iter().enumerate() {
            let position = Position::new(log_index, place as u16).0;
            let mut result = v1::CommandResult { position, ..Default::default() };
            match &command.kind {
                Some(Kind::Tick(tick)) => {
                    let sum = total(&overlay) + tick.millis;
                    overlay.put(Space::State, b"total".to_vec(), Bytes::copy_from_slice(&sum.to_be_bytes()));
                    result.count = sum;
                }
                _ => {
                    result.error = Some((&DfsError::new(ErrorCode::FailedPrecondition, "not a tick")).into());
                }
            }
            results.push(result);
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&hash(kv).unwrap_or_default());
        hasher.update(&log_index.to_be_bytes());
        overlay.writes().canonical(|bytes| {
            hasher.update(bytes);
        });
        let digest = Bytes::copy_from_slice(hasher.finalize().as_bytes());
        overlay.put(Space::State, b"hash".to_vec(), digest);
        Ok(Applied { writes: overlay.into_writes(), results })
    }
}
