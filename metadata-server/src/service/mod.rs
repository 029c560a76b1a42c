//! The operations, once for every face: gRPC, REST and calls passed on by other members all end in
//! [`Operations::call`] or [`Operations::execute_encoded`].
//!
//! - [`methods`]: the table of operations and the right each needs.
//! - [`call`]: who calls, until when. [`auth`]: from an API key to a principal.
//! - [`route`]: here if this server leads, else at the leader.
//! - [`session`]: an admitted call on the leader; the files beside it add one area of operations each
//!   to it.

pub mod auth;
pub mod call;
pub mod grpc;
pub mod methods;
pub mod node_control;
pub mod route;
pub mod session;

mod buckets;
mod chunks;
mod cluster;
mod files;
mod grants;
mod inline;
mod nodes;
mod pages;
mod plan;
mod principals;
mod read;
mod uploads;

use std::path::PathBuf;
use std::sync::Arc;

use dfs_proto::v1::NodeState;
use dfs_types::{Clock, ClusterId, DfsError, Entropy, Incarnation, NodeId, Position};
use metadata_core::query;
use transport::ChannelPool;

use crate::keyring::Keyring;
use crate::leader::book::{KnownNode, LivenessTimes, NodeBook};
use crate::raft::Consensus;

pub use call::{Call, Who};
pub(crate) use chunks::{Found, chunk_ref, location_change};
pub(crate) use grants::{GrantFor, NodeAt, NodeKeyCache, NodeTable};
pub use methods::Method;
pub use route::Operation;

/// Everything an operation needs. Cheap to clone; one per server.
#[derive(Clone)]
pub struct Operations {
    pub(crate) parts: Arc<Parts>,
}

pub struct Parts {
    pub cluster: ClusterId,
    /// This member's name.
    pub name: String,
    pub consensus: Consensus,
    pub keyring: Keyring,
    pub book: NodeBook,
    pub liveness: LivenessTimes,
    pub node_heartbeat_ms: u64,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    /// Channels to other members.
    pub members: ChannelPool,
    pub nodes: Arc<dyn node_control::NodeControl>,
    pub node_keys: NodeKeyCache,
    /// Tests: delete tickets wait while this file exists.
    pub ticket_gate: Option<PathBuf>,
}

impl Operations {
    pub fn new(parts: Parts) -> Self {
        Self { parts: Arc::new(parts) }
    }

    /// Whether this server leads and its state has everything committed before.
    pub fn leads(&self) -> bool {
        self.parts.consensus.leadership().borrow().leading
    }

    /// Opens the node book of this term before anything looks into it: by the leader's workers or the
    /// first call, whoever comes first.
    pub(crate) fn begin_leading(&self, term: u64) -> Result<(), DfsError> {
        let book = &self.parts.book;
        if book.term() >= term {
            return Ok(());
        }
        let mut up = Vec::new();
        for found in query::nodes(&self.parts.consensus.local_view()?)? {
            if found.row.state() == NodeState::Up {
                up.push(KnownNode {
                    node: NodeId::new(found.row.node_id.as_str())?,
                    incarnation: Incarnation::from_slice(&found.row.incarnation)?,
                    capacity: found.row.capacity,
                    used: found.seat.bytes,
                });
            }
        }
        book.begin_leading(term, self.now(), up);
        Ok(())
    }

    /// For a mutation that begins here, on behalf of a caller without request ids of its own.
    pub fn new_mutation(&self) -> dfs_proto::v1::Mutation {
        dfs_proto::v1::Mutation {
            request_id: self.draw16().to_vec().into(),
            seen_position: self.position().0,
        }
    }

    /// The last position applied here; zero if the state cannot be read, which is the safe side: a
    /// request that has seen nothing is never taken for a young one.
    pub fn position(&self) -> Position {
        self.parts.consensus.local_view().map_or(Position::ZERO, |view| view.position())
    }

    pub(crate) fn draw16(&self) -> [u8; 16] {
        let mut bytes = [0u8; 16];
        self.parts.entropy.fill(&mut bytes);
        bytes
    }

    pub(crate) fn now(&self) -> dfs_types::MonotonicMillis {
        self.parts.clock.monotonic_millis()
    }
}
