//! Wiring: from settings to a served port, and back down in order.
//!
//! Up: identity, port, then the store in the background while the port already answers `/health`;
//! ready once the index is open and a metadata server has registered the node. Down: no new
//! connection, calls finish up to ten seconds, workers stop, the store closes last.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dfs_proto::v1::chunk_control_server::ChunkControlServer;
use dfs_proto::v1::chunk_data_server::ChunkDataServer;
use dfs_types::limits::MAX_GRPC_MESSAGE_BYTES;
use dfs_types::{DfsError, ErrorCode, Incarnation, NodeId, OsEntropy, SystemClock};
use server_kit::{GrpcHealth, Health, ServiceHealth, Shutdown, Workers};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::service::Routes;
use transport::{Dialer, ListenLimits, Role, ServeOptions, Tls, TlsListener};

use crate::blocking::BlockingPool;
use crate::control::ControlPlane;
use crate::data::DataPlane;
use crate::node::Node;
use crate::node::heartbeat::{Heartbeats, Membership, REGISTRATION};
use crate::node::identity::DataDir;
use crate::peers::{MAX_DATA_MESSAGE, Peers};
use crate::store::segment::OpenReport;
use crate::store::{ChunkStore, StoreError};
use crate::telemetry;
use crate::upkeep::{Compactor, Pace, Scrubber};

mod http;
mod keeper;
mod writable;

use keeper::Keeper;

/// The health component that waits for the index.
const STORE: &str = "store";
/// The gRPC services, and what they cannot do without.
const SERVICES: &[ServiceHealth] = &[
    ServiceHealth { name: "dfs.v1.ChunkData", needs: &[STORE, REGISTRATION] },
    ServiceHealth { name: "dfs.v1.ChunkControl", needs: &[STORE] },
];
/// What workers get to finish their unit, after calls had theirs.
const WORKERS_DEADLINE: Duration = Duration::from_secs(2);

/// Checked settings of one server.
#[derive(Clone, Debug)]
pub struct Setup {
    pub node: NodeId,
    pub data_dir: PathBuf,
    pub listen: String,
    /// None: the address in use.
    pub advertise: Option<String>,
    pub domain: String,
    pub metadata: Vec<String>,
    pub metrics_listen: Option<String>,
    pub pace: Pace,
}

/// Opens the store in a data directory; may take as long as rebuilding the index does. Called again when
/// the index turned out to be damaged, and not before the store it gave is closed.
pub type OpenStore = Arc<dyn Fn(&Path, Incarnation) -> Result<Opened, StoreError> + Send + Sync>;

/// A store, and what opening it showed.
pub struct Opened {
    pub store: Arc<dyn ChunkStore>,
    pub report: OpenReport,
}

/// A running chunk server. It stops when its shutdown is triggered.
pub struct ChunkServer {
    address: SocketAddr,
    node: Arc<Node>,
    health: Health,
    shutdown: Shutdown,
    workers: Workers,
    serving: JoinHandle<()>,
    metrics: Option<JoinHandle<()>>,
    keeping: JoinHandle<Result<(), DfsError>>,
}

impl ChunkServer {
    /// Starts serving. Does not wait for the index or for a metadata server.
    ///
    /// # Errors
    /// What keeps it from ever serving: the data directory, the certificate, the port.
    pub async fn start(
        setup: Setup,
        tls: Tls,
        open: OpenStore,
        shutdown: Shutdown,
    ) -> Result<Self, DfsError> {
        tls.must_be(Role::ChunkServer, setup.node.as_str())?;
        server_kit::metrics::install(setup.node.as_str(), telemetry::METRICS)
            .map_err(|error| DfsError::new(ErrorCode::Internal, error.to_string()))?;
        telemetry::begin();
        let clock = Arc::new(SystemClock::new());
        let data_dir = DataDir::open(&setup.data_dir, &setup.node, &*clock, &OsEntropy)?;
        if let Some(joined) = data_dir.identity().cluster.filter(|joined| *joined != tls.cluster()) {
            return Err(DfsError::new(
                ErrorCode::FailedPrecondition,
                format!(
                    "{} is of cluster {joined}, the certificate of {}: use the right certificate, or an empty directory",
                    setup.data_dir.display(),
                    tls.cluster()
                ),
            ));
        }
        let incarnation = data_dir.identity().incarnation;
        let node = Arc::new(Node::new(setup.node.clone(), incarnation, tls.cluster(), clock));
        let health = Health::new(
            Role::ChunkServer.as_str(),
            setup.node.to_string(),
            env!("CARGO_PKG_VERSION"),
            &[STORE, REGISTRATION],
        );
        let peers = Peers::new(Dialer::new(tls.clone()));
        let pool = BlockingPool::new();
        let data = DataPlane::new(node.clone(), pool.clone(), peers.clone());

        let metrics = match &setup.metrics_listen {
            Some(address) => Some(http::serve_metrics(address, shutdown.clone()).await?),
            None => None,
        };
        let limits = ListenLimits::with_open_files(server_kit::open_files());
        let listener = TlsListener::bind(&setup.listen, tls, limits).await?;
        let address = listener.local_addr();
        let serving = tokio::spawn(transport::serve(
            listener,
            router(data, &health)?,
            stopping(shutdown.clone(), health.clone(), node.clone()),
            ServeOptions::default(),
        ));
        let keeper = Keeper {
            open,
            path: data_dir.path().to_owned(),
            node: node.clone(),
            health: health.clone(),
            shutdown: shutdown.clone(),
        };
        let keeping = tokio::spawn(keeper.run());

        // Not the shutdown's own token: heartbeats go on while calls finish.
        let workers = Workers::new(Default::default());
        let membership = Membership {
            node: node.clone(),
            peers,
            pool: pool.clone(),
            health: health.clone(),
            data_dir: Arc::new(Mutex::new(data_dir)),
            metadata: setup.metadata,
            advertise: setup.advertise.unwrap_or_else(|| address.to_string()),
            domain: setup.domain,
        };
        workers.start("heartbeat", Heartbeats::new(membership));
        let pace = setup.pace;
        workers.start("compaction", Compactor { node: node.clone(), pool: pool.clone(), pace: pace.clone() });
        workers.start("scrub", Scrubber::new(node.clone(), pool, pace));
        workers.start("metrics", http::MetricsUpkeep);
        tracing::info!(%address, %incarnation, "serving");
        Ok(Self { address, node, health, shutdown, workers, serving, metrics, keeping })
    }

    /// The address in use, with the port the system picked.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn health(&self) -> &Health {
        &self.health
    }

    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    pub fn workers(&self) -> &Workers {
        &self.workers
    }

    /// Waits for the shutdown, and takes the server down.
    ///
    /// # Errors
    /// The store's, if that could not be opened and this is why the server ends.
    pub async fn finished(self) -> Result<(), DfsError> {
        let Self { node, shutdown, workers, serving, metrics, keeping, .. } = self;
        if serving.await.is_err() {
            // Its panic is in the log already.
            shutdown.trigger();
        }
        if let Some(metrics) = metrics {
            metrics.abort();
        }
        workers.finish(Instant::now() + WORKERS_DEADLINE).await;
        let kept = keeping.await.unwrap_or_else(|_| Err(failed("keeping the store panicked: see the log")));
        drop(workers);
        // Closing may block on the disk.
        let closed = tokio::task::spawn_blocking(move || drop(node)).await;
        closed.map_err(|_| failed("closing the store panicked: see the log"))?;
        tracing::info!("stopped");
        kept
    }
}

fn router(data: DataPlane, health: &Health) -> Result<axum::Router, DfsError> {
    let control = ControlPlane::new(data.clone());
    let routes = Routes::new(ChunkDataServer::new(data).max_decoding_message_size(MAX_DATA_MESSAGE))
        .add_service(
            ChunkControlServer::new(control)
                .max_decoding_message_size(MAX_GRPC_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_GRPC_MESSAGE_BYTES),
        )
        .add_service(GrpcHealth::service(health.clone(), SERVICES));
    Ok(routes
        .into_axum_router()
        .merge(health.routes())
        .merge(http::metrics_for_servers())
        .merge(http::reflection_for_servers(SERVICES)?)
        .layer(axum::middleware::from_fn(server_kit::http_metrics::middleware))
        .layer(axum::middleware::from_fn(server_kit::request_id::middleware)))
}

async fn stopping(shutdown: Shutdown, health: Health, node: Arc<Node>) {
    shutdown.wait().await;
    health.draining();
    node.drain();
}

fn failed(message: &str) -> DfsError {
    DfsError::new(ErrorCode::Internal, message)
}
