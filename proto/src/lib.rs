//! Wire and Raft-log schemas: the messages and services generated from `dfs/v1/*.proto`, and the
//! one conversion between [`dfs_types::DfsError`] and a gRPC status.

pub mod codec;
pub mod status;

#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("dfs.v1");
}

/// The compiled descriptors of every .proto file, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
