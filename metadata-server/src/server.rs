//! Wiring: from settings to a served port, and back down in order.
//!
//! Up: keys and certificates, the databases, the port (others ask this server before there is a
//! cluster), then the cluster: formed, or joined. Ready once a leader is known and the cluster is made.
//! Down: not ready, the lead handed over while everything still answers, then no new connection, calls finish up to ten seconds, the leader's workers stop, the
//! databases close last.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::Next;
use dfs_proto::status::to_status;
use dfs_proto::v1::cluster_server::ClusterServer;
use dfs_proto::v1::metadata_server::MetadataServer;
use dfs_types::limits::MAX_GRPC_MESSAGE_BYTES;
use dfs_types::{Clock, DfsError, Entropy, ErrorCode, OsEntropy, SystemClock};
use metadata_core::query;
use server_kit::{GrpcHealth, Health, ServiceHealth, Shutdown};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tonic::service::Routes;
use transport::{ChannelPool, Dialer, ListenLimits, Role, ServeOptions, Tls, TlsListener};

use crate::bootstrap;
use crate::config::Setup;
use crate::keyring::Keyring;
use crate::leader;
use crate::leader::book::NodeBook;
use crate::raft::{Consensus, RaftSettings};
use crate::rest::{self, Rest};
use crate::service::auth;
use crate::service::grpc::{ClusterService, MetadataService};
use crate::service::node_control::{NodeControl, RemoteNodes};
use crate::service::{NodeKeyCache, Operations, Parts};
use crate::space::{self, Space};

/// The health component that waits for a leader and for the cluster to be made.
const CLUSTER: &str = "cluster";
/// How often readiness is looked at.
const READY_INTERVAL: Duration = Duration::from_millis(100);
/// The gRPC services, and what they cannot do without. Raft must be spoken before there is a cluster.
const SERVICES: &[ServiceHealth] = &[
    ServiceHealth { name: "dfs.v1.Metadata", needs: &[CLUSTER] },
    ServiceHealth { name: "dfs.v1.Cluster", needs: &[CLUSTER] },
    ServiceHealth { name: "dfs.v1.Raft", needs: &[] },
];
/// Room that a call needs around it when it is passed on to the leader.
const FORWARD_OVERHEAD_BYTES: usize = 16 * 1024;

/// The doors through which tests put in what they control.
pub struct Doors {
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    /// None: the real nodes.
    pub nodes: Option<Arc<dyn NodeControl>>,
}

impl Default for Doors {
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock::new()), entropy: Arc::new(OsEntropy), nodes: None }
    }
}

/// A running metadata server. It stops when its shutdown is triggered.
pub struct Server {
    address: SocketAddr,
    operations: Operations,
    health: Health,
    /// The end as it was asked for from outside; `shutdown` follows once the lead was handed over.
    asked: Shutdown,
    shutdown: Shutdown,
    serving: JoinHandle<()>,
    leading: JoinHandle<()>,
    tasks: JoinSet<Result<(), DfsError>>,
}

impl Server {
    /// Opens the data directory and serves. Does not wait for a leader.
    ///
    /// # Errors
    /// What keeps it from ever serving: certificate, data directory, port.
    pub async fn start(
        mut setup: Setup,
        tls: Tls,
        keyring: Keyring,
        doors: Doors,
        asked: Shutdown,
    ) -> Result<Self, DfsError> {
        let shutdown = Shutdown::manual();
        tls.must_be(Role::MetadataServer, setup.name.as_str())?;
        let metrics = server_kit::metrics::install(setup.name.as_str(), crate::telemetry::METRICS)
            .map_err(|error| DfsError::new(ErrorCode::Internal, error.to_string()))?;
        let cluster = tls.cluster();
        let pool = ChannelPool::new(Dialer::new(tls.clone()));
        let limits = ListenLimits::with_open_files(server_kit::open_files());
        let listener = TlsListener::bind(&setup.listen, tls, limits).await?;
        let address = listener.local_addr();
        setup.use_port(address);
        let space = Arc::new(Space::of(&setup.data_dir, setup.space));
        let consensus = Consensus::start(raft_settings(&setup, cluster, &space), pool.clone())
            .await
            .map_err(|error| DfsError::new(ErrorCode::FailedPrecondition, error.to_string()))?;
        let nodes = doors.nodes.unwrap_or_else(|| Arc::new(RemoteNodes::new(pool.clone())));
        let operations = Operations::new(Parts {
            cluster,
            name: setup.name.to_string(),
            consensus: consensus.clone(),
            keyring,
            book: NodeBook::default(),
            liveness: setup.liveness,
            node_heartbeat_ms: setup.node_heartbeat_ms,
            clock: doors.clock,
            entropy: doors.entropy,
            members: pool,
            nodes,
            node_keys: NodeKeyCache::default(),
            ticket_gate: setup.ticket_gate.clone(),
        });
        let health = Health::new(
            Role::MetadataServer.as_str(),
            setup.name.to_string(),
            env!("CARGO_PKG_VERSION"),
            &[CLUSTER],
        );
        if let Some(listen) = &setup.metrics_listen {
            serve_metrics(listen, operations.clone(), metrics.clone(), shutdown.clone()).await?;
        }
        let router = router(&operations, &health, metrics)?;
        let serving = tokio::spawn(transport::serve(
            listener,
            router,
            stopping(shutdown.clone(), health.clone()),
            ServeOptions::default(),
        ));
        let leading = tokio::spawn(leader::run(operations.clone(), setup.timing, shutdown.token()));
        let mut tasks = JoinSet::new();
        tasks.spawn(leave(asked.clone(), shutdown.clone(), consensus.clone(), health.clone()));
        tasks.spawn(watch_readiness(operations.clone(), health.clone(), shutdown.clone()));
        tasks.spawn(space::watch(space, shutdown.clone()));
        tasks.spawn(watch_consensus(consensus.clone(), health.clone(), shutdown.clone()));
        tasks.spawn(bootstrap::run(
            operations.clone(),
            setup.initial_members,
            setup.admin_key_file,
            shutdown.clone(),
        ));
        tracing::info!(%address, cluster = %cluster, "serving");
        Ok(Self { address, operations, health, asked, shutdown, serving, leading, tasks })
    }

    /// The address in use, with the port the system picked.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn operations(&self) -> &Operations {
        &self.operations
    }

    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Runs until the shutdown is triggered, or something fails that only a restart can help.
    pub async fn finished(mut self) -> Result<(), DfsError> {
        let mut outcome = Ok(());
        while let Some(ended) = self.tasks.join_next().await {
            let ended =
                ended.unwrap_or_else(|error| Err(DfsError::new(ErrorCode::Internal, error.to_string())));
            if let Err(error) = ended {
                self.operations.parts.consensus.give_up_first().await;
                self.health.failed("stopped");
                self.shutdown.trigger();
                self.asked.trigger();
                outcome = outcome.and(Err(error));
            }
        }
        self.shutdown.wait().await;
        for task in [self.serving, self.leading] {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the server failed");
            }
        }
        let consensus = self.operations.parts.consensus.clone();
        drop(self.operations);
        consensus.close().await;
        outcome
    }
}

fn raft_settings(setup: &Setup, cluster: dfs_types::ClusterId, space: &Arc<Space>) -> RaftSettings {
    let mut settings = RaftSettings::new(setup.name.as_str(), &setup.advertise, cluster, &setup.data_dir);
    settings.heartbeat = setup.heartbeat;
    settings.election_min = setup.election_min;
    settings.election_max = setup.election_max;
    settings.compression = setup.compression;
    settings.space = Arc::clone(space);
    settings.snapshot_entries = setup.snapshot_entries.unwrap_or(settings.snapshot_entries);
    settings.keep_entries = setup.keep_entries.unwrap_or(settings.keep_entries);
    settings
}

/// REST and gRPC on one port. The request id is around everything.
fn router(
    operations: &Operations,
    health: &Health,
    metrics: server_kit::metrics::Metrics,
) -> Result<Router, DfsError> {
    let most = MAX_GRPC_MESSAGE_BYTES - FORWARD_OVERHEAD_BYTES;
    let metadata = MetadataServer::new(MetadataService(operations.clone())).max_decoding_message_size(most);
    let cluster = ClusterServer::new(ClusterService(operations.clone())).max_decoding_message_size(most);
    let raft = operations.parts.consensus.raft_service(Arc::new(operations.clone()));
    let grpc = Routes::from(Router::new()).add_service(metadata).add_service(cluster).add_service(raft);
    let grpc = grpc.add_service(GrpcHealth::service(health.clone(), SERVICES));
    let reflection = reflection(operations)?;
    Ok(rest::router(Rest { operations: operations.clone(), metrics }, health)
        .merge(grpc.into_axum_router())
        .merge(reflection)
        .layer(axum::middleware::from_fn(server_kit::http_metrics::middleware))
        .layer(axum::middleware::from_fn(server_kit::request_id::middleware)))
}

/// What the server can be asked, told to whoever has an API key.
fn reflection(operations: &Operations) -> Result<Router, DfsError> {
    let routes = server_kit::grpc_reflection::routes(dfs_proto::DESCRIPTORS, SERVICES)?;
    let operations = operations.clone();
    Ok(routes.layer(axum::middleware::from_fn(move |request: Request, next: Next| {
        let operations = operations.clone();
        async move {
            match auth::authenticate(&operations, request.headers(), None).await {
                Ok(_) => next.run(request).await,
                Err(error) => to_status(&error).into_http::<axum::body::Body>(),
            }
        }
    })))
}

/// Metrics without a credential, on an address of their own that the operator chose.
async fn serve_metrics(
    listen: &str,
    operations: Operations,
    metrics: server_kit::metrics::Metrics,
    shutdown: Shutdown,
) -> Result<(), DfsError> {
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|error| DfsError::new(ErrorCode::Io, format!("metrics_listen {listen}: {error}")))?;
    let get = axum::routing::get(move || {
        let (operations, metrics) = (operations.clone(), metrics.clone());
        async move {
            crate::telemetry::raft(&operations);
            metrics.response()
        }
    });
    let router = Router::new().route("/metrics", get);
    tokio::spawn(async move {
        let stopped = async move { shutdown.wait().await };
        if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stopped).await {
            tracing::error!(%error, "serving metrics ended");
        }
    });
    Ok(())
}

/// When the end is asked for: hands the lead over, then lets the server go down.
async fn leave(
    asked: Shutdown,
    shutdown: Shutdown,
    consensus: Consensus,
    health: Health,
) -> Result<(), DfsError> {
    tokio::select! {
        () = asked.wait() => {}
        () = shutdown.wait() => return Ok(()),
    }
    health.draining();
    if !consensus.hand_off().await {
        tracing::warn!("the lead was not handed over: the others elect");
    }
    shutdown.trigger();
    Ok(())
}

async fn stopping(shutdown: Shutdown, health: Health) {
    shutdown.wait().await;
    health.draining();
}

/// Says whether this server may be sent requests. Ends with an error if the master keys here are not
/// the cluster's: nothing could be unwrapped.
async fn watch_readiness(operations: Operations, health: Health, shutdown: Shutdown) -> Result<(), DfsError> {
    let mut checked = false;
    loop {
        if !checked && let Some(row) = query::cluster(&operations.parts.consensus.local_view()?)? {
            if !operations.parts.keyring.has_master(&row.master_key_id) {
                return Err(DfsError::new(
                    ErrorCode::FailedPrecondition,
                    "the master key file lacks the key with which this cluster was made",
                ));
            }
            checked = true;
        }
        match (checked, operations.parts.consensus.leader_is_well()) {
            (true, true) => health.ready(CLUSTER),
            (true, false) if !operations.parts.consensus.is_member() => {
                health.not_ready(CLUSTER, "taken out of the cluster");
            }
            (true, false) => health.not_ready(CLUSTER, "no leader"),
            (false, _) => health.not_ready(CLUSTER, "waiting for a cluster"),
        }
        tokio::select! {
            () = shutdown.wait() => return Ok(()),
            () = tokio::time::sleep(READY_INTERVAL) => {}
        }
    }
}

/// Ends the server when consensus has ended.
async fn watch_consensus(consensus: Consensus, health: Health, shutdown: Shutdown) -> Result<(), DfsError> {
    tokio::select! {
        () = shutdown.wait() => Ok(()),
        reason = consensus.stopped() => {
            health.failed("consensus stopped");
            Err(DfsError::new(ErrorCode::Io, format!("consensus stopped: {reason}")))
        }
    }
}
