//! One metadata server: its part of the replicated state, and everything users and chunk servers call.
//!
//! - [`raft`], [`kv`]: consensus and storage; nothing above them knows how they work
//! - [`service`]: the operations, once for gRPC, REST and forwarded calls
//! - [`rest`]: the REST face; [`leader`]: background work of the leader
//! - [`server`]: wiring; [`bootstrap`]: the beginning of a cluster; [`config`]: settings
//! - [`keyring`]: master keys and wrapping; [`space`]: the disk's reserve; [`telemetry`]: metrics

pub mod bootstrap;
pub mod config;
pub mod keyring;
pub mod kv;
pub mod leader;
pub mod raft;
pub mod rest;
pub mod server;
pub mod service;
pub mod space;
pub mod telemetry;
