//! Opens the store, and opens it again when its index turned out to be damaged: the server goes on, not
//! ready and saying so in its heartbeats, while the index is made anew from the segments.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dfs_types::DfsError;
use server_kit::{Health, Shutdown};

use super::{OpenStore, Opened, STORE, failed};
use crate::node::Node;
use crate::store::StoreError;
use crate::store::watched::{Watch, WatchedStore};
use crate::telemetry;

/// Between two rebuilds while one process runs: a disk that spoils every index is not worn out.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

pub(super) struct Keeper {
    pub open: OpenStore,
    pub path: PathBuf,
    pub node: Arc<Node>,
    pub health: Health,
    pub shutdown: Shutdown,
}

impl Keeper {
    /// Until shutdown. A store that cannot be opened ends the server: an operator must look.
    pub async fn run(self) -> Result<(), DfsError> {
        let mut pause = Duration::ZERO;
        loop {
            let Some(opened) = self.opened().await else { return Ok(()) };
            let watch = match opened {
                Ok(opened) => self.publish(opened),
                Err(error) => {
                    self.health.failed("the store cannot be opened");
                    self.shutdown.trigger();
                    return Err(error.context(self.path.display()));
                }
            };
            tokio::select! {
                () = self.shutdown.wait() => return Ok(()),
                () = watch.damaged() => {}
            }
            self.health.not_ready(STORE, "the chunk index is being made anew");
            self.node.close_store();
            let gone_and_rested = async {
                watch.gone().await;
                tokio::time::sleep(pause).await;
            };
            tokio::select! {
                () = self.shutdown.wait() => return Ok(()),
                () = gone_and_rested => {}
            }
            pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        }
    }

    /// None if the server stops meanwhile. A scan is not waited for: it begins again at the next start.
    async fn opened(&self) -> Option<Result<Opened, DfsError>> {
        let (open, path, incarnation) = (self.open.clone(), self.path.clone(), self.node.incarnation);
        let opening = tokio::task::spawn_blocking(move || open(&path, incarnation));
        let opened = tokio::select! {
            biased;
            opened = opening => opened,
            () = self.shutdown.wait() => return None,
        };
        let opened: Result<Result<Opened, StoreError>, _> = opened;
        Some(match opened {
            Ok(opened) => opened.map_err(DfsError::from),
            Err(_) => Err(failed("opening the store panicked: see the log")),
        })
    }

    fn publish(&self, opened: Opened) -> Watch {
        let Opened { store, report } = opened;
        if report.index_damaged.is_some() {
            telemetry::index_rebuilt();
        }
        if report.lost > 0 || report.damaged > 0 || !report.faults.is_empty() {
            tracing::error!(
                lost = report.lost,
                damaged = report.damaged,
                voided = report.voided,
                reported = report.faults.len(),
                "the store does not have all it should: the metadata service is told, copies are made again"
            );
        }
        telemetry::opened(report.lost, report.damaged);
        for fault in &report.faults {
            telemetry::fault_found(fault.corrupt);
            self.node.faults.report(fault.key.realm, fault.key.chunk, fault.corrupt);
        }
        let (store, watch) = WatchedStore::new(store);
        self.node.open_store(Arc::new(store));
        self.health.ready(STORE);
        watch
    }
}
