//! openraft's calls to other members, over the shared channels. Each has the deadline openraft gives
//! it, and none is believed that contradicts what the peer acknowledged before.
//!
//! openraft 0.9 has only a debug assertion against a follower that falls behind its own
//! acknowledgement; in a release build its progress arithmetic would wrap. So a Conflict below that mark never
//! reaches openraft here: the peer is quarantined, and each AppendEntries tells the follower its mark,
//! so that it can stop itself before it votes (see `service`).

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use dfs_proto::v1;
use openraft::error::{
    Fatal, InstallSnapshotError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{InstallSnapshotRequest, InstallSnapshotResponse};
use openraft::{OptionalSend, Snapshot};
use serde::{Deserialize, Serialize};
use tonic::Request;

use super::hand_off::Order;
use super::marks::{Mark, Marks};
use super::peers::{Peer, Peers};
use super::snapshot::SnapshotHandle;
use super::snapshot_transfer;
use super::types::{
    AppendRequest, AppendResponse, LogId, Node, SnapshotResponse, TypeConfig, Vote, VoteRequest,
    VoteResponse, decode, encode,
};

use crate::kv::{StateDb, StoreOptions};

/// Between attempts to reach a peer that cannot be reached.
const BACKOFF: Duration = Duration::from_millis(200);

/// AppendEntries with the follower's mark.
#[derive(Serialize, Deserialize)]
pub struct Append {
    /// What the target acknowledged to this leader before.
    pub acknowledged: Option<LogId>,
    pub request: AppendRequest,
}

/// A request for a vote, with what the candidate remembers of the voter, and the vote of the leader that
/// asked it to take over.
#[derive(Serialize, Deserialize)]
pub struct AskVote {
    pub remembered: Option<Mark>,
    pub handed_by: Option<Vote>,
    pub request: VoteRequest,
}

/// A peer that cannot be used now.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failed(pub String);

impl Failed {
    pub fn new(why: impl ToString) -> Self {
        Self(why.to_string())
    }
}

type CallError = RPCError<u64, Node, RaftError<u64>>;

fn unreachable(error: Failed) -> CallError {
    RPCError::Unreachable(Unreachable::new(&error))
}

#[derive(Clone)]
pub struct Network {
    pub peers: Peers,
    pub order: Order,
    pub marks: Arc<Marks>,
    /// To look through a snapshot before it is sent.
    pub options: StoreOptions,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: u64, node: &Node) -> Client {
        let (peers, options, marks) = (self.peers.clone(), self.options.clone(), Arc::clone(&self.marks));
        let (peer, order) = (self.peers.peer(target), self.order.clone());
        Client { peers, order, marks, options, peer, target, node: node.clone() }
    }
}

/// Calls to one raft id.
pub struct Client {
    peers: Peers,
    order: Order,
    marks: Arc<Marks>,
    options: StoreOptions,
    peer: Arc<Peer>,
    target: u64,
    node: Node,
}

impl Client {
    fn message(&self, payload: Vec<u8>, deadline: Duration) -> Request<v1::RaftMessage> {
        let target_raft_id = self.target.to_be_bytes().to_vec().into();
        let mut request = Request::new(v1::RaftMessage { target_raft_id, payload: payload.into() });
        request.set_timeout(deadline);
        request
    }

    fn usable(&self) -> Result<(), Failed> {
        match self.peer.is_quarantined() {
            true => Err(Failed::new("quarantined: it lost entries it had acknowledged")),
            false => Ok(()),
        }
    }

    async fn append(&self, request: AppendRequest, deadline: Duration) -> Result<AppendResponse, Failed> {
        self.usable()?;
        let (vote, before) = (request.vote, request.prev_log_id);
        let upto = request.entries.last().map(|entry| entry.log_id).or(before);
        let append = Append { acknowledged: self.peer.acknowledged(vote), request };
        let message = self.message(encode(&append), deadline);
        let mut client = self.peers.client(&self.node.name, &self.node.address).map_err(Failed::new)?;
        let answer = client.append_entries(message).await.map_err(Failed::new)?.into_inner();
        let response: AppendResponse = decode(&answer.payload).map_err(Failed::new)?;
        match &response {
            AppendResponse::Success => self.peer.acknowledge(vote, upto),
            AppendResponse::PartialSuccess(upto) => self.peer.acknowledge(vote, *upto),
            AppendResponse::Conflict if before.is_some() && self.peer.acknowledged(vote) >= before => {
                if self.peer.quarantine() {
                    tracing::error!(
                        member = self.node.name,
                        raft_id = self.target,
                        acknowledged = ?self.peer.acknowledged(vote),
                        "a member lost entries it had acknowledged: quarantined; wipe it and add it again"
                    );
                }
                return Err(Failed::new("lost entries it had acknowledged"));
            }
            AppendResponse::Conflict | AppendResponse::HigherVote(_) => {}
        }
        Ok(response)
    }

    async fn ask_vote(&self, request: VoteRequest, deadline: Duration) -> Result<VoteResponse, Failed> {
        self.usable()?;
        let handed_by = self.order.for_request(&request);
        let ask = AskVote { remembered: self.marks.of(self.target), handed_by, request };
        let message = self.message(encode(&ask), deadline);
        let mut client = self.peers.client(&self.node.name, &self.node.address).map_err(Failed::new)?;
        let answer = client.vote(message).await.map_err(Failed::new)?.into_inner();
        decode(&answer.payload).map_err(Failed::new)
    }
}

/// Whether every checksum in a snapshot of this member's state is right: what rotted here must not become
/// another member's only state.
async fn verify(snapshot: &SnapshotHandle, options: &StoreOptions) -> Result<(), Failed> {
    let (snapshot, options) = (snapshot.clone(), options.clone());
    let looked = move || {
        let read = StateDb::open_read_only(snapshot.path(), &options).and_then(|db| db.verify());
        read.inspect_err(|error| options.damage.note(error))
    };
    tokio::task::spawn_blocking(looked).await.map_err(Failed::new)?.map_err(Failed::new)
}

impl RaftNetwork<TypeConfig> for Client {
    async fn append_entries(
        &mut self,
        request: AppendRequest,
        option: RPCOption,
    ) -> Result<AppendResponse, CallError> {
        self.append(request, option.hard_ttl()).await.map_err(unreachable)
    }

    /// openraft's own chunked transfer, not used with generic snapshots.
    async fn install_snapshot(
        &mut self,
        _: InstallSnapshotRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, RPCError<u64, Node, RaftError<u64, InstallSnapshotError>>> {
        Err(RPCError::Unreachable(Unreachable::new(&Failed::new("snapshots go by InstallSnapshot streams"))))
    }

    async fn vote(&mut self, request: VoteRequest, option: RPCOption) -> Result<VoteResponse, CallError> {
        self.ask_vote(request, option.hard_ttl()).await.map_err(unreachable)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<TypeConfig>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse, StreamingError<TypeConfig, Fatal<u64>>> {
        let send = async {
            self.usable()?;
            verify(&snapshot.snapshot, &self.options).await?;
            let client = self.peers.client(&self.node.name, &self.node.address).map_err(Failed::new)?;
            snapshot_transfer::send(client, self.target, vote, &snapshot).await
        };
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = send => match sent {
                Ok(response) => {
                    if response.vote == vote {
                        self.peer.acknowledge(vote, snapshot.meta.last_log_id);
                    }
                    Ok(response)
                }
                Err(error) => Err(StreamingError::Unreachable(Unreachable::new(&error))),
            },
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(BACKOFF))
    }
}
