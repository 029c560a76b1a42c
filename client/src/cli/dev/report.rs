//! What the commands print of a cluster.

use dfs_types::{Clock, SystemClock};
use serde::Serialize;

use super::layout::Layout;
use super::plan::{Plan, Server};
use super::process::Running;
use super::ready::Readiness;
use crate::cli::table;

/// A cluster, or some of its servers, as JSON.
#[derive(Serialize)]
pub(super) struct Report {
    pub data_dir: String,
    /// The dfsctl.toml of the cluster.
    pub config: String,
    pub cluster_id: String,
    /// Whether all servers listed are.
    pub ready: bool,
    pub servers: Vec<ServerReport>,
}

#[derive(Serialize)]
pub(super) struct ServerReport {
    pub role: &'static str,
    pub id: String,
    pub address: String,
    /// running or stopped
    pub state: &'static str,
    pub ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub pid: Option<i32>,
    pub started: Option<String>,
    pub data_dir: String,
    pub log: String,
}

impl Report {
    pub fn new(layout: &Layout, plan: &Plan, servers: Vec<ServerReport>) -> Self {
        Self {
            data_dir: layout.root().display().to_string(),
            config: layout.config().display().to_string(),
            cluster_id: plan.cluster_id.clone(),
            ready: servers.iter().all(|server| server.ready),
            servers,
        }
    }

    /// One line a server.
    pub fn table(&self) -> String {
        let header = ["ROLE", "ID", "ADDRESS", "PID", "STARTED", "STATE"];
        let rows = self.servers.iter().map(|server| {
            let state = match (&server.reason, server.ready) {
                (_, true) => "ready".to_owned(),
                (Some(reason), false) => format!("{}, not ready: {reason}", server.state),
                (None, false) => server.state.to_owned(),
            };
            [
                server.role.to_owned(),
                server.id.clone(),
                server.address.clone(),
                server.pid.map(|pid| pid.to_string()).unwrap_or_default(),
                server.started.clone().unwrap_or_default(),
                state,
            ]
        });
        table::table(header, &["STARTED", "PID", "ROLE"], rows)
    }
}

impl ServerReport {
    pub fn new(
        layout: &Layout,
        server: &Server,
        running: Option<&Running>,
        readiness: Option<&Readiness>,
    ) -> Self {
        let folder = layout.server(&server.id);
        Self {
            role: server.role.word(),
            id: server.id.clone(),
            address: server.address(),
            state: if running.is_some() { "running" } else { "stopped" },
            ready: readiness.is_some_and(|readiness| *readiness == Readiness::Ready),
            reason: readiness.and_then(|readiness| readiness.reason()).map(str::to_owned),
            pid: running.map(|running| running.pid),
            started: running.map(|running| running.record().started),
            data_dir: folder.data.display().to_string(),
            log: folder.log.display().to_string(),
        }
    }
}

/// Milliseconds between two readings of a clock, for "ready in 3.2 s".
pub(super) struct Stopwatch(SystemClock);

impl Stopwatch {
    pub fn start() -> Self {
        Self(SystemClock::new())
    }

    pub fn seconds(&self) -> f64 {
        self.0.monotonic_millis() as f64 / 1000.0
    }
}
