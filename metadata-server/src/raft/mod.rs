//! Consensus: the replicated log, its storage, its network and its membership. All openraft types
//! stay inside this module tree; the rest of the server sees [`Consensus`] and plain data.
//!
//! What it promises: a command answered with a result is on a majority of disks; a read begun after
//! that answer sees it; a member that lost what it acknowledged never votes again under its old id.
//!
//! - storage: [`log_store`] with its witness [`slots`], [`state_store`] and [`snapshot`]s of it, [`open`]
//! - network: [`network`] out, [`service`] in, [`snapshot_transfer`], [`peers`], [`hello`]
//! - working: [`proposer`] (group commit), [`reader`] (read-index rounds), [`elections`], [`membership`],
//!   [`rooms`] (whose disk is short), [`rounds`] (of Hello), [`hand_off`]

mod api;
mod consensus;
mod damage;
mod elections;
mod files;
mod hand_off;
mod hello;
mod identity;
mod log_store;
mod machine;
mod marks;
mod membership;
mod network;
mod open;
mod peers;
mod proposer;
mod reader;
mod rooms;
mod rounds;
mod service;
mod slots;
mod snapshot;
mod snapshot_transfer;
mod spans;
mod state_machine;
mod state_store;
#[cfg(test)]
mod tests;
mod types;

pub use crate::kv::StateView;
pub use api::{
    Formation, ForwardHandler, HELLO_TIMEOUT, Leadership, Member, MemberStatus, RaftMetricsSnapshot,
    RaftSettings, SNAPSHOT_LOG_BYTES,
};
pub use consensus::{Consensus, StartError};
pub use machine::{Machine, MetadataMachine};
pub use open::OpenError;
pub use service::RaftService;
