//! Starts what belongs to one member and hands out the one handle to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dfs_proto::v1;
use dfs_types::{DfsError, ErrorCode};
use openraft::{Config, ServerState, SnapshotPolicy};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tonic::transport::Channel;
use transport::ChannelPool;

use super::api::{
    Formation, ForwardHandler, HELLO_TIMEOUT, Leadership, Member, MemberStatus, RaftMetricsSnapshot,
    RaftSettings, SNAPSHOT_LOG_BYTES,
};
use super::damage;
use super::elections::{self, Heard};
use super::hand_off::{self, Leaving, Order};
use super::hello::Greeter;
use super::log_store::LogStore;
use super::machine::{Machine, MetadataMachine};
use super::marks::{Conscience, Marks};
use super::membership::Membership;
use super::network::Network;
use super::open::{OpenError, Opened, mark_lost, open};
use super::peers::Peers;
use super::proposer::{Proposer, not_leader};
use super::reader::Reader;
use super::rooms::Rooms;
use super::rounds;
use super::service::{Local, RaftService};
use super::state_machine::StateMachine;
use super::state_store::{Progress, StateStore};
use super::types::{Raft, RaftMetrics};
use crate::kv::{StateView, StoreOptions};
use crate::space::is_short;

/// The handle to this server's part in the group: cheap to clone. Dropping the last one ends it.
#[derive(Clone)]
pub struct Consensus {
    inner: Arc<Inner>,
}

struct Inner {
    local: Arc<Local>,
    peers: Peers,
    proposer: Proposer,
    reader: Reader,
    membership: Arc<Membership>,
    leadership: watch::Receiver<Leadership>,
    rooms: Rooms,
    tasks: Vec<AbortHandle>,
    closed: tokio::sync::Mutex<mpsc::Receiver<()>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Longest wait for both databases to be closed.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// Consensus could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("settings: {0}")]
    Settings(String),
    #[error("Raft: {0}")]
    Raft(String),
}

fn config(settings: &RaftSettings) -> Result<Arc<Config>, StartError> {
    let config = Config {
        cluster_name: settings.cluster.to_string(),
        heartbeat_interval: settings.heartbeat.as_millis() as u64,
        election_timeout_min: settings.election_min.as_millis() as u64,
        election_timeout_max: settings.election_max.as_millis() as u64,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(settings.snapshot_entries),
        max_in_snapshot_log_to_keep: settings.keep_entries,
        // The gate in `elections` switches it on when it is time.
        enable_elect: false,
        ..Config::default()
    };
    config.validate().map(Arc::new).map_err(|error| StartError::Settings(error.to_string()))
}

/// Opens the data directory and starts Raft on it, which first applies again what was committed and may not
/// be in the state. That reads parts of the state that nobody looked at yet: damage found there is dealt with
/// like damage found at opening, or each start would end at the same place, with no command that helps.
async fn open_and_replay(
    settings: &RaftSettings,
    machine: Arc<dyn Machine>,
    network: impl Fn(&StoreOptions) -> Network,
) -> Result<(Opened, Raft), StartError> {
    let config = config(settings)?;
    let mut blank = false;
    loop {
        let (opening, machine) = (settings.clone(), Arc::clone(&machine));
        let opened = tokio::task::spawn_blocking(move || open(&opening, machine))
            .await
            .map_err(|panic| StartError::Raft(panic.to_string()))??;
        let state_machine = StateMachine::new(Arc::clone(&opened.state), Arc::clone(&settings.space));
        let raft_id = opened.identity.raft_id;
        let (config, network) = (Arc::clone(&config), network(&opened.options));
        let error = match Raft::new(raft_id, config, network, opened.log.clone(), state_machine).await {
            Ok(raft) => return Ok((opened, raft)),
            Err(error) => StartError::Raft(error.to_string()),
        };
        let damage = opened.options.damage.watch().borrow().clone();
        let Some(why) = damage.filter(|_| !blank) else { return Err(error) };
        blank = true;
        mark_lost(&settings.data_dir, &why)
            .map_err(|error| OpenError::Io(settings.data_dir.clone(), error))?;
        let Opened { log, state, mut closed, .. } = opened;
        drop((log, state));
        // What Raft held of them may be let go a moment later.
        if tokio::time::timeout(CLOSE_LIMIT, closed.recv()).await.is_err() {
            return Err(error);
        }
    }
}

impl Consensus {
    /// Opens the data directory and takes part in whatever cluster it belongs to. `pool` dials with
    /// this server's certificate. Serve [`Self::raft_service`] before calling [`Self::form_cluster`].
    pub async fn start(settings: RaftSettings, pool: ChannelPool) -> Result<Self, StartError> {
        Self::start_with(settings, pool, Arc::new(MetadataMachine)).await
    }

    /// The same over another state machine.
    pub async fn start_with(
        settings: RaftSettings,
        pool: ChannelPool,
        machine: Arc<dyn Machine>,
    ) -> Result<Self, StartError> {
        let peers = Peers::new(pool);
        let marks = Arc::new(Marks::open(settings.data_dir.clone()));
        let (order, leaving) = (Order::default(), Leaving::default());
        let network = |options: &StoreOptions| Network {
            peers: peers.clone(),
            order: order.clone(),
            marks: Arc::clone(&marks),
            options: options.clone(),
        };
        let (opened, raft) = open_and_replay(&settings, machine, network).await?;
        let Opened { identity, log, state, options, closed } = opened;
        let raft_id = identity.raft_id;
        tracing::info!(raft_id, name = settings.name, "consensus started");

        let heard = Heard::default();
        let lost = watch::Sender::new(None);
        let conscience = Conscience {
            data_dir: settings.data_dir.clone(),
            log: log.clone(),
            progress: state.progress(),
            lost: lost.clone(),
        };
        let feature_level = state.machine().feature_level();
        let greeter = Greeter {
            peers: peers.clone(),
            name: settings.name.clone(),
            cluster: settings.cluster,
            raft_id,
            marks,
            conscience,
            space: Arc::clone(&settings.space),
            feature_level,
        };
        let (proposer, writing) = Proposer::new(raft.clone(), leaving.clone());
        let (reader, reading) = Reader::new(raft.clone(), Arc::clone(&state));
        let membership = Arc::new(Membership::new(raft.clone(), greeter.clone(), settings.advertise.clone()));
        let (leads, leadership) = watch::channel(Leadership::default());
        let rooms = Rooms::default();
        let tasks = vec![
            tokio::spawn(writing).abort_handle(),
            tokio::spawn(reading).abort_handle(),
            tokio::spawn(rounds::ask(raft.clone(), greeter.clone(), rooms.clone())).abort_handle(),
            tokio::spawn(elections::gate(
                raft.clone(),
                heard.clone(),
                greeter.clone(),
                leaving.clone(),
                settings.heartbeat,
                settings.election_min,
            ))
            .abort_handle(),
            tokio::spawn(watch_lead(raft.clone(), Arc::clone(&state), leads, Arc::clone(&membership)))
                .abort_handle(),
            tokio::spawn(tidy(raft.clone(), log.clone(), Arc::clone(&state), peers.clone())).abort_handle(),
            tokio::spawn(stop_when_lost(raft.clone(), lost.subscribe())).abort_handle(),
            tokio::spawn(damage::give_up(
                options.damage.watch(),
                raft.clone(),
                greeter.clone(),
                settings.data_dir.clone(),
                lost.clone(),
            ))
            .abort_handle(),
        ];
        let local = Arc::new(Local {
            name: settings.name,
            cluster: settings.cluster,
            raft_id,
            data_dir: settings.data_dir,
            election_min: settings.election_min,
            raft,
            log,
            state,
            heard,
            greeter,
            lost,
            damaged: options.damage.watch(),
            receiving: Semaphore::new(1),
            space: settings.space,
            feature_level,
            order,
            leaving,
        });
        let closed = tokio::sync::Mutex::new(closed);
        let inner = Inner { local, peers, proposer, reader, membership, leadership, rooms, tasks, closed };
        Ok(Self { inner: Arc::new(inner) })
    }

    fn metrics(&self) -> RaftMetrics {
        self.inner.local.raft.metrics().borrow().clone()
    }

    /// The `dfs.v1.Raft` service to serve on this member's port.
    pub fn raft_service(&self, forward: Arc<dyn ForwardHandler>) -> v1::raft_server::RaftServer<RaftService> {
        RaftService::server(Arc::clone(&self.inner.local), forward)
    }

    /// This server as a member. Its address is what the others were told, or empty while it is blank.
    pub fn me(&self) -> Member {
        let local = &self.inner.local;
        let metrics = self.metrics();
        let node = metrics.membership_config.membership().get_node(&local.raft_id);
        let address = node.map_or_else(String::new, |node| node.address.clone());
        Member { name: local.name.clone(), raft_id: local.raft_id, address }
    }

    #[cfg(test)]
    pub(crate) fn progress(&self) -> watch::Receiver<Progress> {
        self.inner.local.state.progress()
    }

    #[cfg(test)]
    pub(crate) fn raft_metrics(&self) -> watch::Receiver<RaftMetrics> {
        self.inner.local.raft.metrics()
    }

    /// Proposes one command and waits for its own result.
    ///
    /// # Errors
    /// `unavailable`: this server does not lead, nothing was proposed; `overloaded`: too much waits
    /// already; `no_space`: the disk here is full; `timeout`: the deadline passed while it still waited, nothing was proposed;
    /// `unknown_outcome`: it was proposed and not answered in time; anything else is the command's
    /// own error, or what validation found.
    pub async fn propose(
        &self,
        command: v1::Command,
        deadline: Instant,
    ) -> Result<v1::CommandResult, DfsError> {
        self.inner.local.state.machine().validate(&command)?;
        if self.inner.local.raft.metrics().borrow().state != ServerState::Leader {
            return Err(not_leader());
        }
        self.inner.local.state.permit(&command)?;
        if self.inner.local.space.is_full() {
            let full = "the leader's disk is full: nothing is written until it has room";
            return Err(DfsError::new(ErrorCode::NoSpace, full));
        }
        self.inner.proposer.propose(command, deadline).await
    }

    /// The state after everything acknowledged before this call.
    ///
    /// # Errors
    /// `unavailable` when this server does not lead or no majority answers by `deadline`.
    pub async fn read(&self, deadline: Instant) -> Result<StateView, DfsError> {
        self.inner.reader.read(deadline).await
    }

    /// What this server has applied, with no promise of freshness.
    ///
    /// # Errors
    /// `io` if the database fails.
    pub fn local_view(&self) -> Result<StateView, DfsError> {
        self.inner.local.state.view().map_err(|error| DfsError::new(ErrorCode::Io, error.to_string()))
    }

    /// The leader this server knows of.
    pub fn leader(&self) -> Option<Member> {
        let metrics = self.metrics();
        let raft_id = metrics.current_leader?;
        let node = metrics.membership_config.membership().get_node(&raft_id)?.clone();
        Some(Member { name: node.name, raft_id, address: node.address })
    }

    /// Whether a working leader is known: heard lately, or, of this server itself, acknowledged by a
    /// majority lately.
    pub fn leader_is_well(&self) -> bool {
        let local = &self.inner.local;
        elections::leader_is_well(&self.metrics(), &local.heard, local.election_min)
    }

    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.clone()
    }

    /// Whether this member is one by the latest membership it knows. Who is taken out may never hear of it.
    pub fn is_member(&self) -> bool {
        let metrics = self.metrics();
        metrics.membership_config.membership().get_node(&metrics.id).is_some()
    }

    /// The voter whose disk is down to its reserve, by its word of the last half minute, with that word.
    /// Asked where this server leads.
    pub fn short_of_room(&self) -> Option<(String, v1::DiskRoom)> {
        let local = &self.inner.local;
        match local.space.room() {
            Some(room) if is_short(&room) => Some((local.name.clone(), room)),
            _ => self.inner.rooms.short(Instant::now()),
        }
    }

    /// A client of another member's `Raft` service (Forward) over the channel all calls share.
    pub fn client(&self, member: &Member) -> Result<v1::raft_client::RaftClient<Channel>, DfsError> {
        self.inner.peers.client(&member.name, &member.address)
    }

    /// Forms a new cluster of `initial` (name -> address, this server among them) if every one is
    /// blank, or returns as soon as this server is part of one. Waits as long as it takes.
    pub async fn form_cluster(&self, initial: &BTreeMap<String, String>) -> Result<Formation, DfsError> {
        self.inner.membership.form(initial).await
    }

    /// All members and learners by name, each asked whether it answers.
    pub async fn members(&self) -> Vec<MemberStatus> {
        self.inner.membership.list().await
    }

    /// Leader only. Adds the member called `name`, which must answer at `address`: as a learner until it
    /// has caught up, then as a voter in place of the raft id that had its name before; or moves its address.
    /// Asked again after a failure it goes on where it stopped. Its build must know `feature_level`.
    pub async fn add_member(
        &self,
        name: &str,
        address: &str,
        feature_level: u32,
        deadline: Instant,
    ) -> Result<(), DfsError> {
        self.inner.membership.add(name, address, feature_level, deadline).await
    }

    /// Leader only; a leader that removes itself leads until that is committed.
    pub async fn remove_member(&self, name: &str, deadline: Instant) -> Result<(), DfsError> {
        self.inner.membership.remove(name, deadline).await
    }

    /// Makes a snapshot now and lets the log before it be purged. Returns before it is done.
    pub async fn trigger_snapshot(&self) -> Result<(), DfsError> {
        let triggered = self.inner.local.raft.trigger().snapshot().await;
        triggered.map_err(|error| DfsError::new(ErrorCode::Unavailable, error.to_string()))
    }

    pub fn metrics_snapshot(&self) -> RaftMetricsSnapshot {
        let metrics = self.metrics();
        let index = |id: Option<super::types::LogId>| id.map_or(0, |id| id.index);
        RaftMetricsSnapshot {
            raft_id: metrics.id,
            term: metrics.current_term,
            leading: self.inner.leadership.borrow().leading,
            leader_raft_id: metrics.current_leader,
            last_log_index: metrics.last_log_index.unwrap_or(0),
            applied_index: index(metrics.last_applied),
            snapshot_index: index(metrics.snapshot),
            purged_index: index(metrics.purged),
            voters: metrics.membership_config.membership().voter_ids().count() as u64,
            millis_since_quorum: metrics.millis_since_quorum_ack,
            waiting_commands: self.inner.proposer.waiting(),
            running: metrics.running_state.is_ok(),
        }
    }

    /// By the name of each other member, voters and learners: entries of this leader's log that it has not
    /// confirmed. Empty where this member does not lead.
    pub fn replication_lag(&self) -> BTreeMap<String, u64> {
        let metrics = self.metrics();
        let Some(confirmed) = metrics.replication.filter(|_| self.inner.leadership.borrow().leading) else {
            return BTreeMap::new();
        };
        let entries = |last: Option<u64>| last.map_or(0, |index| index + 1);
        let all = entries(metrics.last_log_index);
        let members = metrics.membership_config.membership().nodes();
        let others = members.filter(|(raft_id, _)| **raft_id != metrics.id);
        let lag = others.filter_map(|(raft_id, node)| {
            let confirmed = confirmed.get(raft_id)?.map(|id| id.index);
            Some((node.name.clone(), all.saturating_sub(entries(confirmed))))
        });
        lag.collect()
    }

    /// Whether this member found its own database damaged: it stops as soon as the others can do
    /// without it.
    pub fn is_damaged(&self) -> bool {
        self.inner.local.damaged.borrow().is_some()
    }

    /// What ends this process may be damage, which the next start would meet again: waits a little until this
    /// member has given itself up, if it is damaged and the others do without it.
    pub async fn give_up_first(&self) {
        if self.is_damaged() {
            let mut lost = self.inner.local.lost.subscribe();
            let _ = tokio::time::timeout(4 * HELLO_TIMEOUT, lost.wait_for(Option::is_some)).await;
        }
    }

    /// Hits and misses of the block cache that both databases share.
    pub fn block_cache(&self) -> (u64, u64) {
        self.inner.local.state.block_cache()
    }

    /// Resolves with the reason when the Raft core has stopped for good (a disk that fails, lost
    /// entries): the process should log it and end. After [`Self::shutdown`] it resolves too.
    pub async fn stopped(&self) -> String {
        let mut metrics = self.inner.local.raft.metrics();
        let reason = match metrics.wait_for(|metrics| metrics.running_state.is_err()).await {
            Ok(metrics) => metrics.running_state.as_ref().err().map(|error| error.to_string()),
            Err(_) => None,
        };
        self.give_up_first().await;
        let lost = self.inner.local.lost.borrow().clone();
        lost.or(reason).unwrap_or_else(|| "Raft stopped".to_owned())
    }

    /// Before this member leaves for good: proposes nothing from here on, stands for no election, and, if it
    /// leads, hands the lead to a voter that has everything. Takes at most
    /// [`HAND_OFF_MS`](dfs_types::limits::HAND_OFF_MS). False: the others will have to elect.
    pub async fn hand_off(&self) -> bool {
        let local = &self.inner.local;
        hand_off::give(&local.raft, &self.inner.peers, &local.leaving).await
    }

    /// Stops taking part. What waits is answered `unknown_outcome` or `unavailable`.
    pub async fn shutdown(&self) {
        for task in &self.inner.tasks {
            task.abort();
        }
        if let Err(error) = self.inner.local.raft.shutdown().await {
            tracing::warn!(%error, "Raft did not stop in order");
        }
    }

    /// Gives this handle up and returns when the directory is free for another process. Other clones, and the
    /// service, must be gone or go: a call that is just ending may hold one a moment longer. They are
    /// waited for 10 s.
    pub async fn close(self) {
        self.shutdown().await;
        let (_, empty) = mpsc::channel(1);
        let mut closed = std::mem::replace(&mut *self.inner.closed.lock().await, empty);
        drop(self.inner);
        if tokio::time::timeout(CLOSE_LIMIT, closed.recv()).await.is_err() {
            tracing::warn!("the data directory is still in use by this process");
        }
    }
}

/// Publishes when this member begins and ends to lead; a new leader finishes what an earlier began.
async fn watch_lead(
    raft: Raft,
    state: Arc<StateStore>,
    leads: watch::Sender<Leadership>,
    membership: Arc<Membership>,
) {
    let (mut metrics, mut progress) = (raft.metrics(), state.progress());
    loop {
        let now = {
            let metrics = metrics.borrow_and_update();
            let progress: Progress = *progress.borrow_and_update();
            let applied_own = progress.applied.is_some_and(|id| id.leader_id == metrics.vote.leader_id);
            // openraft resumes the lead at once after a restart, on its old vote alone; here it counts
            // when a majority has answered this process.
            let leading = metrics.state == ServerState::Leader
                && metrics.millis_since_quorum_ack.is_some()
                && metrics.running_state.is_ok()
                && !progress.failed
                && applied_own;
            Leadership { term: metrics.current_term, leading }
        };
        let changed = leads.send_if_modified(|before| std::mem::replace(before, now) != now);
        if changed && now.leading {
            let membership = Arc::clone(&membership);
            tokio::spawn(async move { membership.finish_change().await });
        }
        let ended = tokio::select! {
            changed = metrics.changed() => changed.is_err(),
            changed = progress.changed() => changed.is_err(),
        };
        if ended {
            leads.send_modify(|lead| lead.leading = false);
            return;
        }
    }
}

/// Takes a snapshot when the log has grown by many bytes in few entries; forgets peers that are gone.
async fn tidy(raft: Raft, log: LogStore, state: Arc<StateStore>, peers: Peers) {
    let mut progress = state.progress();
    let mut at_last = log.appended_bytes();
    let mut members = None;
    while progress.changed().await.is_ok() {
        if log.appended_bytes() - at_last > SNAPSHOT_LOG_BYTES {
            at_last = log.appended_bytes();
            if raft.trigger().snapshot().await.is_err() {
                return;
            }
        }
        let membership = raft.metrics().borrow().membership_config.clone();
        if members != *membership.log_id() {
            members = *membership.log_id();
            let ids: BTreeSet<u64> = membership.nodes().map(|(id, _)| *id).collect();
            peers.keep_only(&ids);
        }
    }
}

async fn stop_when_lost(raft: Raft, mut lost: watch::Receiver<Option<String>>) {
    if let Ok(why) = lost.wait_for(Option::is_some).await.map(|why| why.clone()) {
        tracing::error!(why, "this member lost entries it had acknowledged and stops");
        // openraft's own error on the way out says nothing more.
        let _ = raft.shutdown().await;
    }
}
