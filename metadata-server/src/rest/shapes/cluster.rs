//! Nodes, chunks' locations, members, and the caller.

use dfs_proto::v1;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{chunk_id, cluster_id, incarnation, principal_id, realm_id};
use crate::rest::time::rfc3339;

/// A chunk server.
#[derive(Serialize, ToSchema)]
pub struct Node {
    pub node_id: String,
    /// `host:port`.
    pub address: String,
    /// One formatted data directory of it.
    pub incarnation: String,
    /// Copies of a chunk go to different failure domains.
    pub domain: String,
    /// `up`, `suspect`, `down`, `draining` or `removed`.
    pub state: &'static str,
    pub is_alive: bool,
    /// Null: none since this leader leads.
    #[schema(format = DateTime)]
    pub last_heartbeat: Option<String>,
    /// Bytes.
    pub capacity: u64,
    /// Bytes.
    pub used: u64,
    pub chunks: u64,
    /// Build of the server.
    pub version: String,
}

/// All nodes.
#[derive(Serialize, ToSchema)]
pub struct NodeList {
    pub nodes: Vec<Node>,
    pub position: u64,
}

/// Where a chunk is.
#[derive(Serialize, ToSchema)]
pub struct Locations {
    pub chunk_id: String,
    pub realm_id: String,
    pub sealed_size: u64,
    /// Copies on live nodes that nothing speaks against.
    pub present: u32,
    pub wanted: u32,
    pub locations: Vec<Location>,
    pub position: u64,
}

/// One copy.
#[derive(Serialize, ToSchema)]
pub struct Location {
    pub node_id: String,
    pub domain: String,
    /// As in `Node.state`.
    pub node_state: &'static str,
    /// Reported missing or corrupt, not yet settled.
    pub doubted: bool,
    pub epoch: u64,
}

/// A node that is said to have a copy.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"node_id": "n2"}))]
pub struct PutLocation {
    pub node_id: String,
    /// A file that has the chunk; needed when several realms have chunks of this id.
    pub file_id: Option<String>,
    /// Of that file; absent: the current one.
    pub version: Option<u64>,
}

/// The cluster at a glance.
#[derive(Serialize, ToSchema)]
pub struct ClusterStatus {
    pub cluster_id: String,
    /// The member that leads.
    pub leader: String,
    /// Raft's term: grows with every election.
    pub term: u64,
    pub position: u64,
    pub members: Vec<Member>,
    pub nodes: Vec<Node>,
    pub files: u64,
    pub chunks: u64,
    /// Chunks with fewer copies than their target.
    pub chunks_under_target: u64,
    pub uploads_open: u64,
    /// Chunks that no file needs any more and that are kept for the trash period.
    pub chunks_in_trash: u64,
    /// Deletions that a node has not confirmed.
    pub purges_pending: u64,
}

/// A metadata server.
#[derive(Serialize, ToSchema)]
pub struct Member {
    pub name: String,
    /// One formatted data directory of it.
    pub raft_id: String,
    pub address: String,
    pub voter: bool,
    pub leader: bool,
    /// The last log entry it is known to have; 0 if not known.
    pub applied_index: u64,
    pub reachable: bool,
}

/// All members.
#[derive(Serialize, ToSchema)]
pub struct MemberList {
    pub members: Vec<Member>,
    pub position: u64,
}

/// Whom the cluster takes the caller for.
#[derive(Serialize, ToSchema)]
pub struct Caller {
    pub principal_id: String,
    pub name: String,
    /// `admin`, `user` or `readonly`.
    pub role: &'static str,
    #[schema(format = DateTime)]
    pub created_at: String,
    pub position: u64,
}

fn state_word(state: i32) -> &'static str {
    match v1::NodeState::try_from(state).unwrap_or(v1::NodeState::Unspecified) {
        v1::NodeState::Unspecified => "unknown",
        v1::NodeState::Up => "up",
        v1::NodeState::Suspect => "suspect",
        v1::NodeState::Down => "down",
        v1::NodeState::Draining => "draining",
        v1::NodeState::Removed => "removed",
    }
}

impl From<v1::NodeInfo> for Node {
    fn from(node: v1::NodeInfo) -> Self {
        Self {
            node_id: node.node_id,
            address: node.address,
            incarnation: incarnation(&node.incarnation),
            domain: node.domain,
            state: state_word(node.state),
            is_alive: node.is_alive,
            last_heartbeat: (node.last_heartbeat_unix_ms > 0).then(|| rfc3339(node.last_heartbeat_unix_ms)),
            capacity: node.capacity,
            used: node.used,
            chunks: node.chunks,
            version: node.version,
        }
    }
}

impl From<v1::ChunkLocations> for Locations {
    fn from(chunk: v1::ChunkLocations) -> Self {
        let location = |at: v1::Location| Location {
            node_state: state_word(at.node_state),
            node_id: at.node_id,
            domain: at.domain,
            doubted: at.doubted,
            epoch: at.epoch,
        };
        Self {
            chunk_id: chunk_id(&chunk.chunk_id),
            realm_id: realm_id(&chunk.realm_id),
            sealed_size: chunk.sealed_length,
            present: chunk.present,
            wanted: chunk.wanted,
            locations: chunk.locations.into_iter().map(location).collect(),
            position: chunk.position,
        }
    }
}

impl From<v1::Member> for Member {
    fn from(member: v1::Member) -> Self {
        Self {
            name: member.name,
            raft_id: member.raft_id.to_string(),
            address: member.address,
            voter: member.voter,
            leader: member.leader,
            applied_index: member.applied_index,
            reachable: member.reachable,
        }
    }
}

impl From<v1::ClusterStatusResponse> for ClusterStatus {
    fn from(status: v1::ClusterStatusResponse) -> Self {
        Self {
            cluster_id: cluster_id(&status.cluster_id),
            leader: status.leader,
            term: status.term,
            position: status.position,
            members: status.members.into_iter().map(Member::from).collect(),
            nodes: status.nodes.into_iter().map(Node::from).collect(),
            files: status.files,
            chunks: status.chunks,
            chunks_under_target: status.deficits,
            uploads_open: status.uploads,
            chunks_in_trash: status.trash_chunks,
            purges_pending: status.pending_purges,
        }
    }
}

impl From<v1::PrincipalInfo> for Caller {
    fn from(caller: v1::PrincipalInfo) -> Self {
        let role = match caller.role() {
            v1::Role::Unspecified => "unknown",
            v1::Role::Admin => "admin",
            v1::Role::User => "user",
            v1::Role::Readonly => "readonly",
        };
        Self {
            role,
            principal_id: principal_id(&caller.principal_id),
            name: caller.name,
            created_at: rfc3339(caller.created_unix_ms),
            position: caller.position,
        }
    }
}
