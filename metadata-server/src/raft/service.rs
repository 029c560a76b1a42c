//! The gRPC service between members. Everything here demands a member's certificate; what is meant
//! for another raft id is refused, because the directory behind this address was formatted anew.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dfs_proto::status::to_status;
use dfs_proto::v1;
use dfs_proto::v1::raft_server::{Raft as RaftRpc, RaftServer};
use dfs_types::ClusterId;
use dfs_types::limits::MAX_GRPC_MESSAGE_BYTES;
use openraft::Snapshot;
use openraft::error::RaftError;
use serde::Serialize;
use tokio::sync::{Semaphore, watch};
use tonic::{Request, Response, Status, Streaming};
use transport::{Identity, Role, require_peer};

use super::api::ForwardHandler;
use super::elections::{Heard, leader_is_well};
use super::hand_off::{self, Leaving, Order};
use super::hello::Greeter;
use super::log_store::LogStore;
use super::marks::Mark;
use super::network::{Append, AskVote};
use super::open::mark_lost;
use super::snapshot_transfer;
use super::state_store::StateStore;
use super::types::{AppendResponse, Raft, Vote, decode, encode};
use crate::space::Space;

/// What the service needs of this member.
pub struct Local {
    pub name: String,
    pub cluster: ClusterId,
    pub raft_id: u64,
    pub data_dir: PathBuf,
    pub election_min: Duration,
    pub raft: Raft,
    pub log: LogStore,
    pub state: Arc<StateStore>,
    pub heard: Heard,
    pub greeter: Greeter,
    /// Why this member must end, once it knows.
    pub lost: watch::Sender<Option<String>>,
    /// What is damaged in its databases, once that was seen.
    pub damaged: watch::Receiver<Option<String>>,
    /// One snapshot is received at a time.
    pub receiving: Semaphore,
    pub space: Arc<Space>,
    pub feature_level: u32,
    /// On whose order this member stands for election.
    pub order: Order,
    pub leaving: Leaving,
}

pub struct RaftService {
    local: Arc<Local>,
    forward: Arc<dyn ForwardHandler>,
}

impl RaftService {
    pub fn server(local: Arc<Local>, forward: Arc<dyn ForwardHandler>) -> RaftServer<Self> {
        RaftServer::new(Self { local, forward })
            .max_decoding_message_size(MAX_GRPC_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_GRPC_MESSAGE_BYTES)
    }
}

fn member<T>(request: &Request<T>) -> Result<&Identity, Status> {
    require_peer(request.extensions(), Role::MetadataServer).map_err(|error| to_status(&error))
}

fn answer(raft_id: u64, payload: &impl Serialize) -> Response<v1::RaftMessage> {
    let target_raft_id = raft_id.to_be_bytes().to_vec().into();
    Response::new(v1::RaftMessage { target_raft_id, payload: encode(payload).into() })
}

fn stopped<E: std::error::Error>(error: RaftError<u64, E>) -> Status {
    Status::unavailable(error.to_string())
}

impl Local {
    fn take<T: serde::de::DeserializeOwned>(&self, request: Request<v1::RaftMessage>) -> Result<T, Status> {
        member(&request)?;
        let message = request.into_inner();
        self.is_meant(&message.target_raft_id)?;
        decode(&message.payload).map_err(|error| Status::invalid_argument(format!("payload: {error}")))
    }

    fn is_meant(&self, target: &[u8]) -> Result<(), Status> {
        if target != self.raft_id.to_be_bytes() {
            return Err(Status::failed_precondition(
                "another raft id is meant: this directory was formatted anew",
            ));
        }
        if self.lost.borrow().is_some() {
            return Err(Status::failed_precondition("this member lost entries and stops"));
        }
        Ok(())
    }

    /// A leader this member follows knows what it acknowledged: if the log no longer has it, this
    /// raft id must not vote any more, from this moment on.
    fn check_mark(&self, append: &Append) -> Result<(), Status> {
        let bounds = self.log.bounds();
        let followed = bounds.vote.is_none_or(|vote| vote.leader_id <= append.request.vote.leader_id);
        if !followed || append.acknowledged <= bounds.last {
            return Ok(());
        }
        let why = format!(
            "the log ends at {:?}, but {:?} was acknowledged to leader {}",
            bounds.last, append.acknowledged, append.request.vote
        );
        if let Err(error) = mark_lost(&self.data_dir, &why) {
            tracing::error!(%error, "cannot mark the data directory as lost");
        }
        self.lost.send_replace(Some(why.clone()));
        Err(Status::data_loss(why))
    }

    fn is_blank(&self) -> bool {
        let bounds = self.log.bounds();
        bounds.last.is_none() && bounds.vote.is_none_or(|vote| vote == Default::default())
    }
}

#[tonic::async_trait]
impl RaftRpc for RaftService {
    async fn append_entries(
        &self,
        request: Request<v1::RaftMessage>,
    ) -> Result<Response<v1::RaftMessage>, Status> {
        let append: Append = self.local.take(request)?;
        self.local.check_mark(&append)?;
        if self.local.space.is_full() && !append.request.entries.is_empty() {
            // The leader goes on with the others; its heartbeats still come.
            return Err(Status::resource_exhausted("the disk of this member is full"));
        }
        let response = self.local.raft.append_entries(append.request).await.map_err(stopped)?;
        if !matches!(response, AppendResponse::HigherVote(_)) {
            self.local.heard.now();
        }
        Ok(answer(self.local.raft_id, &response))
    }

    async fn vote(&self, request: Request<v1::RaftMessage>) -> Result<Response<v1::RaftMessage>, Status> {
        let ask: AskVote = self.local.take(request)?;
        if let Some(remembered) = ask.remembered {
            self.local.greeter.conscience.face(&remembered).map_err(Status::data_loss)?;
        }
        let bounds = self.local.log.bounds();
        if hand_off::ends_lease(ask.handed_by, bounds.vote, bounds.last, &ask.request) {
            let told = hand_off::end_lease(&self.local.raft, &self.local.state, ask.request.vote).await;
            told.map_err(Status::unavailable)?;
        }
        let response = self.local.raft.vote(ask.request).await.map_err(stopped)?;
        Ok(answer(self.local.raft_id, &response))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<v1::SnapshotPart>>,
    ) -> Result<Response<v1::RaftMessage>, Status> {
        member(&request)?;
        self.local.is_meant(&self.local.raft_id.to_be_bytes())?;
        if self.local.space.is_full() {
            return Err(Status::resource_exhausted("the disk of this member is full"));
        }
        let _one = self
            .local
            .receiving
            .try_acquire()
            .map_err(|_| Status::resource_exhausted("another snapshot is being received"))?;
        let state = Arc::clone(&self.local.state);
        let received = snapshot_transfer::receive(state, self.local.raft_id, request.into_inner()).await?;
        let applied = self.local.state.progress().borrow().applied;
        if received.meta.last_log_id > applied
            && let (Some(new), Some(old)) = (received.meta.last_log_id, applied)
            && new.index <= old.index
        {
            // openraft 0.9 would install it and stop here; refused before it hears of it.
            return Err(Status::data_loss(format!("snapshot {new} contradicts applied entry {old}")));
        }
        let snapshot = Snapshot { meta: received.meta, snapshot: Box::new(received.handle) };
        let response = self
            .local
            .raft
            .install_full_snapshot(received.vote, snapshot)
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        self.local.heard.now();
        Ok(answer(self.local.raft_id, &response))
    }

    async fn forward(
        &self,
        request: Request<v1::ForwardRequest>,
    ) -> Result<Response<v1::ForwardResponse>, Status> {
        member(&request)?;
        Ok(Response::new(self.forward.forward(request.into_inner()).await))
    }

    async fn take_over(
        &self,
        request: Request<v1::RaftMessage>,
    ) -> Result<Response<v1::RaftMessage>, Status> {
        let of: Vote = self.local.take(request)?;
        let local = &self.local;
        if local.space.is_full() || local.leaving.is_set() || local.damaged.borrow().is_some() {
            return Err(Status::failed_precondition("this member cannot lead now"));
        }
        let followed = local.log.bounds().vote;
        hand_off::take(&local.raft, &local.order, followed, of).await.map_err(|error| to_status(&error))?;
        Ok(Response::new(v1::RaftMessage::default()))
    }

    async fn hello(&self, request: Request<v1::HelloRequest>) -> Result<Response<v1::HelloResponse>, Status> {
        member(&request)?;
        let caller = request.get_ref().raft_id;
        let local = &self.local;
        let metrics = local.raft.metrics().borrow().clone();
        let leader = match leader_is_well(&metrics, &local.heard, local.election_min) {
            true => {
                let membership = metrics.membership_config.membership();
                let node = metrics.current_leader.and_then(|id| membership.get_node(&id));
                // A leader whose address this member does not know is a leader all the same.
                node.map_or_else(|| "?".to_owned(), |node| node.address.clone())
            }
            false => String::new(),
        };
        Ok(Response::new(v1::HelloResponse {
            name: local.name.clone(),
            raft_id: local.raft_id,
            cluster_id: if local.is_blank() { Default::default() } else { local.cluster.to_vec().into() },
            leader,
            last_log_index: local.log.bounds().last.map_or(0, |last| last.index),
            mark: local.greeter.conscience.mark().to_bytes().into(),
            remembered: local.greeter.marks.of(caller).map_or_else(Vec::new, Mark::to_bytes).into(),
            disk: local.space.room(),
            feature_level: local.feature_level,
        }))
    }
}
