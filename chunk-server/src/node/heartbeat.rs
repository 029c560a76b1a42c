//! Membership: registers this node with the metadata service and keeps telling it that the node
//! lives. Owner of everything the service tells the node: keys, cluster time, epoch floor.
//!
//! Any of the configured addresses will do, for a follower passes the call on; one that fails is
//! left for the next. It does not matter which of the two sides starts first.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chunk_format::grant::NodeKeys;
use dfs_proto::status::from_status;
use dfs_proto::v1::{HeartbeatRequest, RegisterNodeRequest};
use dfs_types::limits::{HEARTBEAT_DEADLINE_MS, NODE_HEARTBEAT_MS, NODE_SUSPECT_MS};
use dfs_types::{ClusterId, DfsError, ErrorCode, Position, Secret};
use server_kit::{Health, Next, Work};

use super::Node;
use super::identity::DataDir;
use crate::blocking::BlockingPool;
use crate::peers::{Peers, within};
use crate::store::Usage;
use crate::telemetry;

/// A busy disk may hold a look at the usage longer than this; the last one known then goes out.
const USAGE_DEADLINE: Duration = Duration::from_millis(500);
/// Between heartbeats of a node whose store is still being opened.
const WHILE_OPENING: Duration = Duration::from_millis(100);
/// The health component that waits until the leader knows this node and the room it has.
pub const REGISTRATION: &str = "registration";
/// The health component of a store that was opened and then stopped taking changes.
const CHANGES: &str = "changes";
const NO_CHANGES: &str =
    "no changes until the disk takes writes again (it failed, is full or read-only): mend it, see the log";
/// Between two addresses tried in a row.
const NEXT_ADDRESS: Duration = Duration::from_millis(100);

pub struct Membership {
    pub node: Arc<Node>,
    pub peers: Peers,
    pub pool: BlockingPool,
    pub health: Health,
    pub data_dir: Arc<Mutex<DataDir>>,
    /// host:port of metadata servers, as configured; not empty.
    pub metadata: Vec<String>,
    /// host:port under which others reach this node.
    pub advertise: String,
    pub domain: String,
}

/// The loop's state: one owner, the worker that runs it.
pub struct Heartbeats {
    membership: Membership,
    /// Which address is asked.
    address: usize,
    failures_in_a_row: usize,
    /// The capacity told with the registration, 0 if it was not known yet; None: not registered.
    registered: Option<u64>,
    usage: Usage,
    interval: Duration,
    last_error: Option<String>,
}

impl Heartbeats {
    pub fn new(membership: Membership) -> Self {
        assert!(!membership.metadata.is_empty(), "settings demand a metadata server");
        Self {
            membership,
            address: 0,
            failures_in_a_row: 0,
            registered: None,
            usage: Usage::default(),
            interval: Duration::from_millis(NODE_HEARTBEAT_MS),
            last_error: None,
        }
    }

    /// A registration if one is due, else a heartbeat. Answers how long to wait before the next.
    async fn beat(&mut self) -> Duration {
        self.look_at_usage().await;
        let address = self.membership.metadata[self.address].clone();
        // A node that registered while its store was being opened did not know its size, which is what a new
        // leader goes by until it hears the node itself.
        let known = self.registered.filter(|told| *told > 0 || self.usage.capacity == 0);
        let result =
            if known.is_some() { self.heartbeat(&address).await } else { self.register(&address).await };
        match result {
            Ok(wait) => {
                self.failures_in_a_row = 0;
                self.last_error = None;
                wait
            }
            Err(error) => self.failed(&address, error),
        }
    }

    /// A connection that took a call and said nothing is not used again; the next address is.
    fn failed(&mut self, address: &str, error: DfsError) -> Duration {
        telemetry::heartbeat_failed();
        if error.code == ErrorCode::Timeout {
            self.membership.peers.discard_cluster(address);
        }
        let text = format!("{}: {}", error.code, error.message);
        // The same error every second says nothing new.
        if self.last_error.as_ref() != Some(&text) {
            tracing::warn!(address, code = %error.code, error = %error.message, "no metadata server took the call");
            self.last_error = Some(text);
        }
        self.failures_in_a_row += 1;
        self.address = (self.address + 1) % self.membership.metadata.len();
        let round = self.failures_in_a_row.is_multiple_of(self.membership.metadata.len());
        if round {
            telemetry::redundancy_unknown();
        }
        if round { self.interval } else { NEXT_ADDRESS }
    }

    async fn register(&mut self, address: &str) -> Result<Duration, DfsError> {
        let Membership { node, peers, data_dir, advertise, domain, .. } = &self.membership;
        let joined = data_dir.lock().expect("no panic while the identity is held").identity().cluster;
        let capacity = self.usage.capacity;
        let request = RegisterNodeRequest {
            node_id: node.id.to_string(),
            incarnation: node.incarnation.to_vec().into(),
            address: advertise.clone(),
            domain: domain.clone(),
            capacity,
            used: self.usage.used,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster_id: joined.map(ClusterId::to_vec).unwrap_or_default().into(),
        };
        let mut client = peers.cluster(address)?;
        let asked_at = node.asking();
        let call = async { client.register_node(request).await.map_err(|status| from_status(&status)) };
        let answer = within(deadline(), "the registration", call).await?.into_inner();

        let cluster = ClusterId::from_slice(&answer.cluster_id)?;
        if cluster != node.cluster {
            return Err(DfsError::new(
                ErrorCode::FailedPrecondition,
                format!("the metadata service is cluster {cluster}, the certificate is of {}", node.cluster),
            ));
        }
        let secret = Secret::from_slice(&answer.node_secret).ok_or_else(|| {
            DfsError::new(ErrorCode::Internal, "the registration came without a node secret of 32 bytes")
        })?;
        let dir = data_dir.clone();
        let join = move || dir.lock().expect("no panic while the identity is held").join(cluster);
        self.membership.pool.run(join).await?;

        node.learn(asked_at, answer.cluster_time_ms, answer.epoch_floor, Position(answer.position));
        node.registered(NodeKeys::derive(&secret));
        self.registered = Some(capacity);
        tracing::info!(address, incarnation = %node.incarnation, "registered");
        // The leader knows nothing of our disk yet.
        Ok(Duration::ZERO)
    }

    async fn heartbeat(&mut self, address: &str) -> Result<Duration, DfsError> {
        let Membership { node, peers, .. } = &self.membership;
        let faults = node.faults.next();
        let rebuilding = node.opened_store().is_none();
        let request = HeartbeatRequest {
            node_id: node.id.to_string(),
            incarnation: node.incarnation.to_vec().into(),
            capacity: self.usage.capacity,
            used: self.usage.used,
            chunks: self.usage.chunks,
            free: if node.is_draining() || rebuilding { 0 } else { self.usage.free },
            index_rebuilding: rebuilding,
            faults: faults.clone(),
            streams: node.user_streams(),
        };
        let mut client = peers.cluster(address)?;
        let asked_at = node.asking();
        let call = async { client.heartbeat(request).await.map_err(|status| from_status(&status)) };
        let answer = within(deadline(), "the heartbeat", call).await?.into_inner();
        node.learn(asked_at, answer.cluster_time_ms, answer.epoch_floor, Position(answer.position));
        if answer.register_again {
            tracing::info!(address, "the leader asks for a new registration");
            self.registered = None;
            return Ok(Duration::ZERO);
        }
        node.faults.told(&faults);
        if let Some(redundancy) = &answer.redundancy {
            telemetry::redundancy(redundancy);
        }
        // Ready is who can be given chunks: the leader knows the room on an opened store now.
        if rebuilding {
            return Ok(WHILE_OPENING);
        }
        self.membership.health.ready(REGISTRATION);
        if answer.interval_ms > 0 {
            // Never so seldom that the node looks suspect, never a busy loop.
            self.interval = Duration::from_millis(answer.interval_ms.clamp(10, NODE_SUSPECT_MS / 2));
        }
        Ok(self.interval)
    }

    async fn look_at_usage(&mut self) {
        let Some(store) = self.membership.node.opened_store() else { return };
        let looking = self.membership.pool.run(move || store.usage());
        match tokio::time::timeout(USAGE_DEADLINE, looking).await {
            Ok(Ok(usage)) => {
                telemetry::usage(&usage);
                match usage.stopped {
                    // Reads go on, and the keeper of the store looks whether the disk is well again.
                    true => self.membership.health.not_ready(CHANGES, NO_CHANGES),
                    false => self.membership.health.ready(CHANGES),
                }
                self.usage = usage;
            }
            Ok(Err(error)) => tracing::warn!(error = %error.message, "the store does not say its usage"),
            Err(_) => tracing::debug!("the store is slow to say its usage"),
        }
    }
}

impl Work for Heartbeats {
    async fn step(&mut self) -> Result<Next, DfsError> {
        Ok(match self.beat().await {
            Duration::ZERO => Next::Now,
            wait => Next::After(wait),
        })
    }
}

fn deadline() -> Duration {
    Duration::from_millis(HEARTBEAT_DEADLINE_MS)
}
