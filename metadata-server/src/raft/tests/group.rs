//! A group of members in one process, each with its own directory and TLS port, over real sockets.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dfs_proto::v1;
use dfs_types::{ClusterId, NodeId, SystemClock};
use futures::future::join_all;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use transport::{
    Authority, ChannelPool, Dialer, Identity, ListenLimits, Role, ServeOptions, Tls, TlsListener,
};

use super::toy::{Toy, hash, total};
use crate::kv::Compression;
use crate::raft::{Consensus, Formation, ForwardHandler, RaftSettings};

pub(super) const CLUSTER: ClusterId = ClusterId([6; 16]);
/// Longest any single wait of a test may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn soon() -> Instant {
    Instant::now() + PATIENCE
}

struct NoForward;

#[async_trait::async_trait]
impl ForwardHandler for NoForward {
    async fn forward(&self, request: v1::ForwardRequest) -> v1::ForwardResponse {
        v1::ForwardResponse { payload: request.payload, error: None }
    }
}

/// What outlives a member's process.
pub(super) struct Seat {
    pub(super) name: String,
    pub(super) address: String,
    pub(super) dir: TempDir,
    pub(super) tls: Tls,
}

pub(super) struct Running {
    pub(super) consensus: Consensus,
    pub(super) stop: oneshot::Sender<()>,
    pub(super) serving: JoinHandle<()>,
}

pub(super) struct Group {
    pub(super) authority: Authority,
    pub(super) seats: BTreeMap<String, Seat>,
    pub(super) running: BTreeMap<String, Running>,
}

impl Group {
    pub(super) fn new() -> Self {
        let authority = Authority::create(CLUSTER, &SystemClock::new()).unwrap();
        Self { authority, seats: BTreeMap::new(), running: BTreeMap::new() }
    }

    /// Takes a free port for a new member.
    pub(super) async fn seat(&mut self, name: &str) {
        let identity = Identity::new(CLUSTER, Role::MetadataServer, NodeId::new(name).unwrap());
        let issued = self.authority.issue(&identity, &[], &SystemClock::new()).unwrap();
        let (ca, cert, key) = (self.authority.cert_pem(), &issued.cert_pem, &issued.key_pem);
        let tls = Tls::server(ca.as_bytes(), cert.as_bytes(), key.as_bytes()).unwrap();
        let listener = TlsListener::bind("127.0.0.1:0", tls.clone(), ListenLimits::default()).await.unwrap();
        let address = listener.local_addr().to_string();
        drop(listener);
        let seat = Seat { name: name.into(), address, dir: tempfile::tempdir().unwrap(), tls };
        self.seats.insert(name.into(), seat);
    }

    pub(super) async fn start(&mut self, name: &str) {
        let seat = &self.seats[name];
        let settings = RaftSettings {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(500),
            election_max: Duration::from_millis(1000),
            compression: Compression::None,
            block_cache_bytes: 4 << 20,
            snapshot_entries: 1_000_000,
            keep_entries: 0,
            ..RaftSettings::new(&seat.name, &seat.address, CLUSTER, seat.dir.path())
        };
        let pool = ChannelPool::new(Dialer::new(seat.tls.clone()));
        let consensus = Consensus::start_with(settings, pool, Arc::new(Toy)).await.unwrap();
        let service = consensus.raft_service(Arc::new(NoForward));
        let router = tonic::service::Routes::new(service).into_axum_router();
        // The port was free a moment ago; whoever holds it now lets go of it soon.
        let deadline = soon();
        let listener = loop {
            match TlsListener::bind(&seat.address, seat.tls.clone(), ListenLimits::default()).await {
                Ok(listener) => break listener,
                Err(error) if Instant::now() > deadline => panic!("{error}"),
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let (stop, stopped) = oneshot::channel();
        let options = ServeOptions { drain: Duration::from_millis(1), ..ServeOptions::default() };
        let serving = tokio::spawn(async move {
            let ended = async move { drop(stopped.await) };
            transport::serve(listener, router, ended, options).await;
        });
        self.running.insert(name.into(), Running { consensus, stop, serving });
    }

    /// Ends a member as a kill would, as far as one process allows: its port closes, its core stops,
    /// nothing is handed over. Returns when its directory is free.
    pub(super) async fn kill(&mut self, name: &str) {
        let Running { consensus, stop, serving } = self.running.remove(name).unwrap();
        drop(stop);
        serving.await.unwrap();
        timeout(PATIENCE, consensus.close()).await.expect("closed");
    }

    /// What is on a member's disk now: it is killed for the copy, and started again.
    pub(super) async fn copy_of_disk(&mut self, name: &str) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        self.kill(name).await;
        copy_all(self.seats[name].dir.path(), copy.path());
        self.start(name).await;
        copy
    }

    pub(super) fn wipe(&mut self, name: &str) {
        self.seats.get_mut(name).unwrap().dir = tempfile::tempdir().unwrap();
    }

    pub(super) fn initial(&self) -> BTreeMap<String, String> {
        self.seats.values().map(|seat| (seat.name.clone(), seat.address.clone())).collect()
    }

    pub(super) fn at(&self, name: &str) -> &Consensus {
        &self.running[name].consensus
    }

    /// A group that has formed.
    pub(super) async fn formed(names: &[&str]) -> Self {
        let mut group = Self::new();
        for name in names {
            group.seat(name).await;
        }
        for name in names {
            group.start(name).await;
        }
        let initial = group.initial();
        let forming = group.running.values().map(|member| member.consensus.form_cluster(&initial));
        let formations = timeout(PATIENCE, join_all(forming)).await.expect("formed");
        let formed = formations.iter().filter(|formation| *formation.as_ref().unwrap() == Formation::Formed);
        assert_eq!(formed.count(), 1);
        group
    }

    /// The name of the member that leads, once one does.
    pub(super) async fn leader(&self) -> String {
        let waits = self.running.iter().map(|(name, member)| {
            let mut leadership = member.consensus.leadership();
            Box::pin(async move {
                if leadership.wait_for(|lead| lead.leading).await.is_err() {
                    // It stopped itself, and will never lead.
                    std::future::pending::<()>().await;
                }
                name.clone()
            })
        });
        timeout(PATIENCE, futures::future::select_all(waits)).await.expect("a leader").0
    }

    /// The name of a running member that does not lead.
    pub(super) async fn follower(&self) -> String {
        let leader = self.leader().await;
        self.running.keys().find(|name| **name != leader).expect("more than one runs").clone()
    }

    /// Has the leader add a member at its address of now.
    pub(super) async fn add(&self, name: &str) {
        let leader = self.leader().await;
        self.at(&leader).add_member(name, &self.seats[name].address, 1, soon()).await.unwrap();
    }

    /// Proposes wherever the lead is until it is done. Ticks are not idempotent: only for groups
    /// whose lead does not move during the call.
    pub(super) async fn propose(&self, command: v1::Command) -> v1::CommandResult {
        let leader = self.leader().await;
        self.at(&leader).propose(command, soon()).await.unwrap()
    }

    pub(super) async fn read_total(&self) -> u64 {
        let leader = self.leader().await;
        total(&self.at(&leader).read(soon()).await.unwrap())
    }

    /// Waits until all running members have applied what the leader has, then compares hashes.
    pub(super) async fn agree(&self) {
        let leader = self.leader().await;
        let view = self.at(&leader).read(soon()).await.unwrap();
        for (name, member) in &self.running {
            let mut progress = member.consensus.progress();
            let wanted = view.position().log_index();
            let reached = progress.wait_for(|now| now.applied.is_some_and(|id| id.index >= wanted));
            timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{name} does not catch up")).unwrap();
            let theirs = member.consensus.local_view().unwrap();
            assert_eq!((total(&theirs), hash(&theirs)), (total(&view), hash(&view)), "{name}");
        }
    }

    pub(super) async fn end(mut self) {
        for name in self.running.keys().cloned().collect::<Vec<_>>() {
            self.kill(&name).await;
        }
    }
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let target = to.join(file.file_name());
        match file.file_type().unwrap().is_dir() {
            true => copy_all(&file.path(), &target),
            false => drop(fs::copy(file.path(), target).unwrap()),
        }
    }
}
