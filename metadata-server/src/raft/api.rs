//! The words in which the rest of the server speaks of consensus. No openraft type leaves this
//! module tree; everything here is plain data.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dfs_proto::v1;
use dfs_types::ClusterId;
use dfs_types::limits;

use crate::kv::Compression;
use crate::space::Space;

/// One metadata server of the group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// The name its operator gave it ("m1"); the id in its certificate.
    pub name: String,
    /// Drawn when its data directory was formatted. A wiped member comes back with another.
    pub raft_id: u64,
    /// host:port at which the others reach it.
    pub address: String,
}

/// Whether this server leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Leadership {
    pub term: u64,
    /// True only after an entry of this term has been applied here and a majority has answered this
    /// process: everything committed before is in the state then, and background loops may start.
    /// A leader that is cut off does not know it yet; what it proposes then is never committed.
    pub leading: bool,
}

/// A member as `dfsctl cluster members ls` shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberStatus {
    pub member: Member,
    /// False: a learner, which takes the log but does not vote yet.
    pub voter: bool,
    pub leader: bool,
    /// It answered a Hello within [`HELLO_TIMEOUT`]; this server itself always is.
    pub reachable: bool,
    /// Its last log index, if it answered.
    pub last_log_index: Option<u64>,
    /// It lost entries it had acknowledged: nothing is sent to it until it comes back with a new id.
    pub quarantined: bool,
    /// The room on its disk, if it answered and has looked.
    pub disk: Option<v1::DiskRoom>,
    /// The highest feature level its build knows, if it answered.
    pub feature_level: Option<u32>,
}

/// What [`super::Consensus::form_cluster`] found out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Formation {
    /// This server formed the cluster just now; whoever leads should propose `Bootstrap`.
    Formed,
    /// This server is part of a cluster.
    Member,
}

/// A point-in-time reading for /metrics.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RaftMetricsSnapshot {
    pub raft_id: u64,
    pub term: u64,
    pub leading: bool,
    pub leader_raft_id: Option<u64>,
    pub last_log_index: u64,
    pub applied_index: u64,
    pub snapshot_index: u64,
    pub purged_index: u64,
    pub voters: u64,
    /// Leader only: how long ago a majority last answered.
    pub millis_since_quorum: Option<u64>,
    /// Commands waiting for the log writer.
    pub waiting_commands: u64,
    /// False when the Raft core has stopped for good; the process should end.
    pub running: bool,
}

/// How one member runs. Times not given by the operator are in [`dfs_types::limits`].
#[derive(Clone, Debug)]
pub struct RaftSettings {
    pub name: String,
    /// host:port the others use.
    pub advertise: String,
    pub cluster: ClusterId,
    /// Owned by this server alone: a second process that opens it is refused.
    pub data_dir: PathBuf,
    pub heartbeat: Duration,
    pub election_min: Duration,
    pub election_max: Duration,
    pub compression: Compression,
    /// Bytes of block cache, shared by both databases.
    pub block_cache_bytes: usize,
    /// A snapshot is taken after so many entries (or [`SNAPSHOT_LOG_BYTES`]).
    pub snapshot_entries: u64,
    /// Entries kept behind a snapshot for followers that are only a little late.
    pub keep_entries: u64,
    /// The room on the disk of `data_dir`. Whoever starts this member keeps it looked after.
    pub space: Arc<Space>,
}

impl RaftSettings {
    /// The defaults for a member called `name`.
    pub fn new(name: &str, advertise: &str, cluster: ClusterId, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            advertise: advertise.into(),
            cluster,
            data_dir: data_dir.into(),
            heartbeat: Duration::from_millis(limits::RAFT_HEARTBEAT_MS),
            election_min: Duration::from_millis(limits::ELECTION_MIN_MS),
            election_max: Duration::from_millis(limits::ELECTION_MAX_MS),
            compression: Compression::Zstd,
            block_cache_bytes: 32 << 20,
            snapshot_entries: 8192,
            keep_entries: 2048,
            space: Arc::new(Space::unwatched()),
        }
    }
}

/// Answers `Raft.Forward`: a user's or node's call that another member passed on. The caller's
/// certificate was already checked to be a member's.
#[async_trait::async_trait]
pub trait ForwardHandler: Send + Sync {
    async fn forward(&self, request: v1::ForwardRequest) -> v1::ForwardResponse;
}

/// How long a Hello may take.
pub const HELLO_TIMEOUT: Duration = Duration::from_millis(750);
/// A snapshot is also taken when the log has grown by so many bytes since the last.
pub const SNAPSHOT_LOG_BYTES: u64 = 256 << 20;
