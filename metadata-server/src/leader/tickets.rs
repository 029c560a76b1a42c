//! Delete tickets: carried to the nodes that still have purged chunks, and confirmed in the log.
//! A node deletes only what has an older epoch than the ticket, so a late or repeated one is harmless.

use std::path::Path;
use std::time::Duration;

use dfs_proto::v1;
use dfs_proto::v1::command::Kind;
use dfs_types::limits::MAX_CHUNKS_PER_BACKGROUND_COMMAND;
use dfs_types::{DfsError, ErrorCode, NodeId};
use futures::{StreamExt as _, stream};
use metadata_core::query;
use server_kit::{Next, Work};

use super::{Timing, propose};
use crate::service::Operations;

const DELETE_LIMIT: Duration = Duration::from_secs(10);
const NODES_AT_ONCE: usize = 16;
const GATE_LOOK: Duration = Duration::from_millis(20);

pub struct Tickets {
    operations: Operations,
    timing: Timing,
    term: u64,
}

impl Tickets {
    pub fn new(operations: Operations, timing: Timing, term: u64) -> Self {
        Self { operations, timing, term }
    }

    /// Delivers one batch to one node; how many tickets it settled.
    async fn deliver(&self, row: v1::NodeRow) -> Result<u64, DfsError> {
        let at = self.operations.node_at(row)?;
        if !at.alive {
            return Ok(0);
        }
        let view = self.operations.parts.consensus.local_view()?;
        let pending = query::pending_purges(&view, at.row.seat, None, MAX_CHUNKS_PER_BACKGROUND_COMMAND)?;
        drop(view);
        if pending.is_empty() {
            return Ok(0);
        }
        let tickets = pending
            .iter()
            .map(|purge| v1::DeleteTicket {
                realm_id: purge.chunk.realm.to_vec().into(),
                chunk_id: purge.chunk.chunk.to_vec().into(),
                position: purge.position,
            })
            .collect();
        let request =
            v1::DeleteChunksRequest { incarnation: at.incarnation.to_vec().into(), tickets, term: self.term };
        if let Some(gate) = &self.operations.parts.ticket_gate {
            wait_behind(gate, &at.node).await?;
        }
        let answer = self.operations.parts.nodes.delete(&at.target(), request, DELETE_LIMIT).await?;
        let done: Vec<v1::PurgedAt> = pending
            .iter()
            .zip(answer.outcomes())
            .filter(|(_, outcome)| match outcome {
                v1::DeleteOutcome::Deleted | v1::DeleteOutcome::Absent => true,
                // Put again since: the ticket has nothing left to delete.
                v1::DeleteOutcome::KeptNewer => true,
                v1::DeleteOutcome::Unspecified => false,
            })
            .map(|(purge, _)| v1::PurgedAt {
                chunk: Some(crate::service::chunk_ref(&purge.chunk)),
                node_id: at.node.to_string(),
                position: purge.position,
            })
            .collect();
        if done.is_empty() {
            return Ok(0);
        }
        let settled = done.len() as u64;
        propose(&self.operations, Kind::PurgeDone(v1::PurgeDone { done })).await?;
        Ok(settled)
    }
}

/// A test's way to make tickets late: drawn up as they are, they wait while the file `gate` exists. A
/// file beside it, `gate` with the node's name as extension, says that some wait.
async fn wait_behind(gate: &Path, node: &NodeId) -> Result<(), DfsError> {
    let sign = gate.with_extension(node.as_str());
    while tokio::fs::try_exists(gate).await.unwrap_or(false) {
        let io = |error| DfsError::new(ErrorCode::Io, format!("writing {}: {error}", sign.display()));
        tokio::fs::write(&sign, b"held").await.map_err(io)?;
        tokio::time::sleep(GATE_LOOK).await;
    }
    Ok(())
}

impl Work for Tickets {
    async fn step(&mut self) -> Result<Next, DfsError> {
        let nodes = query::nodes(&self.operations.parts.consensus.local_view()?)?;
        let this = &*self;
        let deliveries = nodes.into_iter().filter(|found| found.seat.purges > 0).map(|found| async move {
            let node = found.row.node_id.clone();
            // One node's trouble must not hold up the others' deletes.
            this.deliver(found.row).await.unwrap_or_else(|error| {
                tracing::info!(node, code = %error.code, %error, "tickets not delivered");
                0
            })
        });
        let deliveries = deliveries.collect::<Vec<_>>();
        let settled: Vec<u64> = stream::iter(deliveries).buffer_unordered(NODES_AT_ONCE).collect().await;
        Ok(self.timing.again_if(settled.iter().any(|count| *count > 0)))
    }
}
