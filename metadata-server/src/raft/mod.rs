//! Consensus: the replicated log, its storage, its network and its membership. All openraft types
//! stay inside this module tree; the rest of the server sees [`Consensus`] and plain data.
//!
//! What it promises: a command answered with a result is on a majority of disks; a read begun after
//! that answer sees it; a member that lost what it acknowledged never votes again under its old id.

mod api;

pub use api::{
    Formation, ForwardHandler, HELLO_TIMEOUT, Leadership, Member, MemberStatus, RaftMetricsSnapshot,
    RaftSettings, SNAPSHOT_LOG_BYTES,
};

use std::collections::BTreeMap;

use dfs_proto::v1;
use dfs_types::{DfsError, ErrorCode, Position};
use tokio::sync::watch;
use tokio::time::Instant;

/// The handle to this server's part in the group: cheap to clone.
#[derive(Clone)]
pub struct Consensus {
    leadership: watch::Receiver<Leadership>,
}

/// The applied state at one moment; implements `metadata_core::kv::KvRead`.
#[derive(Clone)]
pub struct StateView {
    position: Position,
}

impl StateView {
    /// The position of the last applied entry (place 0xffff).
    pub fn position(&self) -> Position {
        self.position
    }
}

fn not_yet<T>() -> Result<T, DfsError> {
    Err(DfsError::new(ErrorCode::Unavailable, "consensus is not running"))
}

impl Consensus {
    /// Proposes one command and waits for its own result.
    ///
    /// # Errors
    /// `unavailable`: this server does not lead, nothing was proposed; `overloaded`: the waiting
    /// queue is full; `timeout`: the deadline passed while it still waited, nothing was proposed;
    /// `unknown_outcome`: it was proposed and not answered in time; anything else is the command's
    /// own error.
    pub async fn propose(
        &self,
        _command: v1::Command,
        _deadline: Instant,
    ) -> Result<v1::CommandResult, DfsError> {
        not_yet()
    }

    /// The state after everything acknowledged before this call.
    ///
    /// # Errors
    /// `unavailable` when this server does not lead or no majority answers by `deadline`.
    pub async fn read(&self, _deadline: Instant) -> Result<StateView, DfsError> {
        not_yet()
    }

    /// What this server has applied, with no promise of freshness.
    pub fn local_view(&self) -> StateView {
        StateView { position: Position::ZERO }
    }

    /// The leader this server knows of.
    pub fn leader(&self) -> Option<Member> {
        None
    }

    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Forms a new cluster of `initial` (name -> address) if every one of them is blank, or returns as
    /// soon as this server is part of one. Waits as long as it takes.
    pub async fn form_cluster(&self, _initial: &BTreeMap<String, String>) -> Result<Formation, DfsError> {
        not_yet()
    }

    pub async fn members(&self) -> Vec<MemberStatus> {
        Vec::new()
    }

    /// Leader only. Adds the member called `name`, or replaces its old id, or moves its address.
    pub async fn add_member(&self, _name: &str, _address: &str, _deadline: Instant) -> Result<(), DfsError> {
        not_yet()
    }

    /// Leader only.
    pub async fn remove_member(&self, _name: &str, _deadline: Instant) -> Result<(), DfsError> {
        not_yet()
    }

    pub fn metrics_snapshot(&self) -> RaftMetricsSnapshot {
        RaftMetricsSnapshot::default()
    }

    /// Resolves with the reason when the Raft core has stopped for good (a disk that fails, lost
    /// entries): the process should log it and end. Never resolves after [`Self::shutdown`].
    pub async fn stopped(&self) -> String {
        std::future::pending().await
    }

    /// Stops taking part and closes both databases once their last view is dropped.
    pub async fn shutdown(&self) {}
}
