//! A call on its way: who calls, under which request id, until when.

use std::time::Duration;

use server_kit::request_id::{self, RequestIdText};

use dfs_types::limits::DEFAULT_DEADLINE_MS;
use dfs_types::{NodeId, PrincipalId};
use tokio::time::Instant;

/// Who calls, as far as this server has proved it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Who {
    /// Showed an API key of this principal.
    Principal(PrincipalId),
    /// Showed the certificate of this chunk server.
    Node(NodeId),
}

#[derive(Clone, Debug)]
pub struct Call {
    pub who: Who,
    /// For the logs of every process the call goes through.
    pub request_id: RequestIdText,
    pub deadline: Instant,
}

impl Call {
    /// A call that may take `limit`, or the default and at most that.
    pub fn new(who: Who, limit: Option<Duration>) -> Self {
        let most = Duration::from_millis(DEFAULT_DEADLINE_MS);
        Self {
            who,
            request_id: request_id::current().unwrap_or_else(RequestIdText::generate),
            deadline: Instant::now() + limit.map_or(most, |limit| limit.min(most)),
        }
    }

    pub fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}
