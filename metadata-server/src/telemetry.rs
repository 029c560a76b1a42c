//! Metrics of this server. Labels are from closed lists, never what a caller typed.

use dfs_proto::v1::NodeState;
use dfs_types::{DfsError, ErrorCode};
use metadata_core::query;
use server_kit::Next;
use tokio::time::Instant;

use crate::leader::Timing;
use crate::service::Operations;

/// Counts one operation, by name and code (`dfs_operations_total`, `dfs_operation_seconds`), and logs
/// it, under the request id of the span around it.
pub fn operation(method: &'static str, error: Option<&DfsError>, started: Instant) {
    let code = error.map_or("ok", |error| error.code.as_str());
    let micros = started.elapsed().as_micros() as u64;
    match error {
        None => tracing::debug!(method, micros, "done"),
        Some(error) => match error.code {
            ErrorCode::Internal | ErrorCode::Io | ErrorCode::Integrity => {
                tracing::error!(method, code, %error, micros, "operation failed");
            }
            _ => tracing::debug!(method, code, %error, micros, "refused"),
        },
    }
    metrics::counter!("dfs_operations_total", "method" => method, "code" => code).increment(1);
    metrics::histogram!("dfs_operation_seconds", "method" => method).record(started.elapsed().as_secs_f64());
}

/// Gauges of this member's part in the group.
pub fn raft(operations: &Operations) {
    let raft = operations.parts.consensus.metrics_snapshot();
    metrics::gauge!("dfs_raft_term").set(raft.term as f64);
    metrics::gauge!("dfs_raft_leading").set(f64::from(u8::from(raft.leading)));
    metrics::gauge!("dfs_raft_last_log_index").set(raft.last_log_index as f64);
    metrics::gauge!("dfs_raft_applied_index").set(raft.applied_index as f64);
    metrics::gauge!("dfs_raft_snapshot_index").set(raft.snapshot_index as f64);
    metrics::gauge!("dfs_raft_voters").set(raft.voters as f64);
    metrics::gauge!("dfs_raft_waiting_commands").set(raft.waiting_commands as f64);
}

/// Gauges that only the leader can tell: nodes by state, and the counters of the state.
pub async fn measure(operations: &Operations, timing: Timing) -> Result<Next, DfsError> {
    let view = operations.parts.consensus.local_view()?;
    let counters = query::counters(&view)?;
    for (name, value) in [
        ("dfs_files", counters.files),
        ("dfs_chunks", counters.chunks),
        ("dfs_chunks_in_trash", counters.trash_chunks),
        ("dfs_chunks_under_target", counters.deficits),
        ("dfs_uploads_open", counters.uploads),
        ("dfs_purges_pending", counters.pending_purges),
        ("dfs_releases_queued", counters.dropping),
    ] {
        metrics::gauge!(name).set(value as f64);
    }
    let nodes = query::nodes(&view)?;
    for state in [NodeState::Up, NodeState::Suspect, NodeState::Down, NodeState::Draining, NodeState::Removed]
    {
        let count = nodes.iter().filter(|node| node.row.state() == state).count();
        let word = state.as_str_name().trim_start_matches("NODE_STATE_").to_ascii_lowercase();
        metrics::gauge!("dfs_nodes", "state" => word).set(count as f64);
    }
    Ok(timing.pause_at_least(std::time::Duration::from_secs(1)))
}
