//! One metadata server.

pub mod kv;
pub mod raft;
