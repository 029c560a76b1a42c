//! Opens the store, and opens it again when its index turned out to be damaged: the server goes on, not
//! ready and saying so in its heartbeats, while the index is made anew from the segments. A store that
//! stopped taking changes, for its disk failed, was full or went read-only, goes on with reads and is opened
//! again once the disk takes writes: no operator has to restart anything.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dfs_types::{DfsError, ErrorCode};
use server_kit::{Health, Shutdown};
use tokio::time::Instant;

use super::writable::writable;
use super::{OpenStore, Opened, STORE, failed};
use crate::node::Node;
use crate::store::watched::{Trouble, Watch, WatchedStore};
use crate::store::{StoreError, Usage};
use crate::telemetry;

/// Between two rebuilds while one process runs: a disk that spoils every index is not worn out.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Between two looks at a disk that took no writes.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

pub(super) struct Keeper {
    pub open: OpenStore,
    pub path: PathBuf,
    pub node: Arc<Node>,
    pub health: Health,
    pub shutdown: Shutdown,
}

impl Keeper {
    /// Until shutdown. A store that cannot be opened ends the server: an operator must look. One that was
    /// open before is tried again, unless it is refused.
    pub async fn run(self) -> Result<(), DfsError> {
        let (mut pause, mut was_open) = (Duration::ZERO, false);
        loop {
            let Some(opened) = self.opened().await else { return Ok(()) };
            match opened {
                Ok(opened) => {
                    let since = Instant::now();
                    let watch = self.publish(opened);
                    was_open = true;
                    let Some(why) = self.until_trouble(&watch).await else { return Ok(()) };
                    self.health.not_ready(STORE, why);
                    watch.close();
                    self.node.close_store();
                    if since.elapsed() > 2 * LONGEST_PAUSE {
                        pause = Duration::ZERO;
                    }
                    tokio::select! {
                        () = self.shutdown.wait() => return Ok(()),
                        () = watch.gone() => {}
                    }
                }
                Err(error) if was_open && error.code != ErrorCode::FailedPrecondition => {
                    tracing::error!(error = %error.message, "the store cannot be opened again for now");
                }
                Err(error) => {
                    self.health.failed("the store cannot be opened");
                    self.shutdown.trigger();
                    return Err(error.context(self.path.display()));
                }
            }
            tokio::select! {
                () = self.shutdown.wait() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        }
    }

    /// Why the store is to be opened anew, once that can help. None if the server stops.
    async fn until_trouble(&self, watch: &Watch) -> Option<&'static str> {
        loop {
            let trouble = tokio::select! {
                () = self.shutdown.wait() => return None,
                trouble = watch.trouble() => trouble,
            };
            if trouble == Trouble::Damaged {
                return Some("the chunk index is being made anew");
            }
            if self.can_heal().await {
                tracing::warn!("the disk takes writes again: the store is opened anew");
                return Some("the store is being opened anew, the disk takes writes again");
            }
            tokio::select! {
                () = self.shutdown.wait() => return None,
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }

    /// The disk takes writes, and the store still none.
    async fn can_heal(&self) -> bool {
        let Some(store) = self.node.opened_store() else { return false };
        let path = self.path.clone();
        let looking = tokio::task::spawn_blocking(move || {
            writable(&path).map(|()| store.usage().is_ok_and(|usage| usage.stopped))
        });
        match looking.await {
            Ok(Ok(stopped)) => stopped,
            Ok(Err(error)) => {
                tracing::debug!(%error, "the disk takes no writes yet");
                false
            }
            Err(_) => false,
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
        match store.usage() {
            Ok(usage) => warn_of_tight_room(&usage),
            Err(error) => tracing::warn!(%error, "the store does not say its usage"),
        }
        let (store, watch) = WatchedStore::new(store);
        self.node.open_store(Arc::new(store));
        self.health.ready(STORE);
        watch
    }
}

/// Said at every opening, while there is time to do something: after a power loss it is too late.
fn warn_of_tight_room(usage: &Usage) {
    if let Some(advice) = tight_room(usage) {
        tracing::warn!(
            "after a power loss this node may have to write one segment of {} bytes again before it comes up, and new \
             chunks leave {} bytes free: {advice}",
            usage.upkeep_wanted,
            usage.upkeep
        );
    }
}

/// What to do, if the room for a start after a power loss is too small.
fn tight_room(usage: &Usage) -> Option<String> {
    let Usage { upkeep, upkeep_wanted, capacity, .. } = *usage;
    if upkeep >= upkeep_wanted {
        None
    } else if capacity / 4 < upkeep_wanted {
        // The store keeps a quarter free at most.
        let (least, most) = (upkeep_wanted.saturating_mul(4), capacity / 4);
        Some(format!(
            "give it a disk (and a capacity) of at least {least} bytes, or set segment_bytes to at most {most}"
        ))
    } else {
        let lacking = upkeep_wanted - upkeep;
        Some(format!("make {lacking} bytes of room on its disk, or raise its capacity by as much"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_for_one_segment_is_asked_for_while_it_can_be_made() {
        let usage = |capacity, upkeep| Usage { capacity, upkeep, upkeep_wanted: 1000, ..Usage::default() };
        assert_eq!(tight_room(&usage(100_000, 1000)), None);
        let small = tight_room(&usage(3000, 750)).unwrap();
        assert!(small.contains("4000 bytes") && small.contains("at most 750"), "{small}");
        let crowded = tight_room(&usage(100_000, 300)).unwrap();
        assert!(crowded.contains("700 bytes of room"), "{crowded}");
    }
}
