//! Every metric of a metadata server, in one place. Labels are from closed lists, never what a caller
//! typed. Bytes and seconds; counters end in `_total`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dfs_proto::v1::NodeState;
use dfs_types::{DfsError, ErrorCode};
use metadata_core::query;
use metrics::{counter, gauge, histogram};
use server_kit::Next;
use server_kit::metrics::Kind::{Counter, Gauge, Histogram};
use server_kit::metrics::Metric;
use tokio::time::Instant;

use crate::leader::Timing;
use crate::service::Operations;

/// What this server records beside [`server_kit::metrics::COMMON`].
pub const METRICS: &[Metric] = &[
    Metric::new(
        "fs_operations_total",
        Counter,
        &["method", "code"],
        "Operations, whether they came by gRPC, by REST or from another member",
    ),
    Metric::new(
        "fs_operation_duration_seconds",
        Histogram,
        &["method"],
        "Time of one operation, the hop to the leader included",
    ),
    Metric::new(
        "fs_upload_duration_seconds",
        Histogram,
        &[],
        "Leader: from the beginning of an upload to its commit; for inline content the one call",
    ),
    Metric::new(
        "fs_download_duration_seconds",
        Histogram,
        &[],
        "Time to answer OpenRead, with the content if it is inline",
    ),
    Metric::new(
        "fs_replication_latency_seconds",
        Histogram,
        &[],
        "Leader: from the order to copy a chunk to its committed location",
    ),
    Metric::new(
        "fs_replication_factor",
        Gauge,
        &["kind"],
        "Leader: copies per chunk, mean over all chunks that are referenced; actual (on nodes that are not down) and target",
    ),
    Metric::new(
        "fs_storage_used_bytes",
        Gauge,
        &[],
        "Bytes of log, state and snapshots in the data directory",
    ),
    Metric::new("fs_storage_reserve_bytes", Gauge, &[], "Below so much free room new data is refused"),
    Metric::new("fs_storage_ballast_bytes", Gauge, &[], "Size of the ballast file; 0: it was given back"),
    Metric::new("fs_storage_free_bytes", Gauge, &[], "Free bytes of the data directory's disk"),
    Metric::new(
        "fs_cache_hits_total",
        Counter,
        &["cache"],
        "Found in the cache: blocks (RocksDB's), node_keys",
    ),
    Metric::new("fs_cache_misses_total", Counter, &["cache"], "Not found in the cache"),
    Metric::new("fs_raft_term", Gauge, &[], "Term"),
    Metric::new("fs_raft_is_leader", Gauge, &[], "1: this member leads and a majority has confirmed it"),
    Metric::new("fs_raft_last_log_index", Gauge, &[], "Index of the last entry in the log"),
    Metric::new("fs_raft_applied_index", Gauge, &[], "Index of the last entry applied to the state"),
    Metric::new("fs_raft_apply_lag_entries", Gauge, &[], "Entries in the log that are not applied"),
    Metric::new("fs_raft_snapshot_index", Gauge, &[], "Last index of the latest snapshot"),
    Metric::new("fs_raft_voters", Gauge, &[], "Voters of the membership in force"),
    Metric::new(
        "fs_raft_replication_lag_entries",
        Gauge,
        &["member"],
        "Leader, by other member: entries of the log that it has not confirmed",
    ),
    Metric::new("fs_raft_waiting_commands", Gauge, &[], "Commands waiting for the log writer"),
    Metric::new("fs_raft_quorum_age_seconds", Gauge, &[], "Leader: since a majority last answered"),
    Metric::new("fs_raft_entry_bytes", Histogram, &[], "Size of an appended entry"),
    Metric::new(
        "fs_raft_append_duration_seconds",
        Histogram,
        &[],
        "Time of one append to the log, with its fsync",
    ),
    Metric::new("fs_raft_apply_duration_seconds", Histogram, &[], "Time to apply what came together"),
    Metric::new("fs_files", Gauge, &[], "Leader: files that are not deleted"),
    Metric::new("fs_chunks", Gauge, &[], "Leader: chunks, those in trash included"),
    Metric::new("fs_chunks_in_trash", Gauge, &[], "Leader: chunks without references that wait to be purged"),
    Metric::new(
        "fs_repair_queue_chunks",
        Gauge,
        &["class"],
        "Leader: chunks with too few copies: last_copy, under_target, leaving (on a node that drains), lost (none left); each counted up to 10,000",
    ),
    Metric::new("fs_repair_copies_total", Counter, &[], "Leader: copies made by repair"),
    Metric::new("fs_repair_failures_total", Counter, &[], "Leader: copies ordered by repair that failed"),
    Metric::new(
        "fs_repair_merges_total",
        Counter,
        &[],
        "Leader: chunks put together from several damaged copies",
    ),
    Metric::new("fs_spread_copies_total", Counter, &[], "Leader: copies made to have them in more domains"),
    Metric::new("fs_trimmed_copies_total", Counter, &[], "Leader: surplus copies taken off"),
    Metric::new("fs_orphans_total", Counter, &[], "Leader: stored chunks that no file needs, ordered to go"),
    Metric::new(
        "fs_node_absent_chunks",
        Gauge,
        &["node"],
        "Leader, by chunk server: listed chunks that its inventory lacked",
    ),
    Metric::new(
        "fs_node_absence_held",
        Gauge,
        &["node"],
        "Leader, by chunk server: 1 while too many are absent to be struck off without an operator",
    ),
    Metric::new("fs_uploads_open", Gauge, &[], "Leader: uploads begun and not ended"),
    Metric::new("fs_purges_pending", Gauge, &[], "Leader: deletions that nodes have not confirmed"),
    Metric::new("fs_releases_queued", Gauge, &[], "Leader: manifests whose references are being released"),
    Metric::new("fs_nodes", Gauge, &["state"], "Leader: chunk servers by state"),
];

/// Counts one operation, by name and code, and logs
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
    counter!("fs_operations_total", "method" => method, "code" => code).increment(1);
    histogram!("fs_operation_duration_seconds", "method" => method).record(started.elapsed());
    match (method, error) {
        ("OpenRead", None) => histogram!("fs_download_duration_seconds").record(started.elapsed()),
        ("PutInline", None) => histogram!("fs_upload_duration_seconds").record(started.elapsed()),
        _ => {}
    }
}

/// A commit through this leader. Both by the wall clock: for people.
pub fn upload_committed(began_unix_ms: u64, now_unix_ms: u64) {
    let took = Duration::from_millis(now_unix_ms.saturating_sub(began_unix_ms));
    histogram!("fs_upload_duration_seconds").record(took);
}

pub fn copies_located(ordered: impl Iterator<Item = Instant>) {
    for at in ordered {
        histogram!("fs_replication_latency_seconds").record(at.elapsed());
    }
}

pub fn copy_made() {
    counter!("fs_repair_copies_total").increment(1);
}

pub fn copy_failed() {
    counter!("fs_repair_failures_total").increment(1);
}

/// Chunks without any good copy, put together from several bad ones.
pub fn copies_merged() {
    counter!("fs_repair_merges_total").increment(1);
}

pub fn copy_spread() {
    counter!("fs_spread_copies_total").increment(1);
}

pub fn copies_trimmed(copies: u64) {
    counter!("fs_trimmed_copies_total").increment(copies);
}

pub fn orphans_found(chunks: u64) {
    counter!("fs_orphans_total").increment(chunks);
}

/// Chunk servers of which this member has told something.
static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

fn told() -> MutexGuard<'static, BTreeSet<String>> {
    TOLD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a node's inventory lacks; `held`: too much of it to strike without an operator.
pub fn absent(node: &str, chunks: u64, held: bool) {
    told().insert(node.to_owned());
    gauge!("fs_node_absent_chunks", "node" => node.to_owned()).set(chunks as f64);
    gauge!("fs_node_absence_held", "node" => node.to_owned()).set(f64::from(u8::from(held)));
}

pub fn cache(name: &'static str, hit: bool) {
    let metric = if hit { "fs_cache_hits_total" } else { "fs_cache_misses_total" };
    counter!(metric, "cache" => name).increment(1);
}

pub fn block_cache(hits: u64, misses: u64) {
    counter!("fs_cache_hits_total", "cache" => "blocks").absolute(hits);
    counter!("fs_cache_misses_total", "cache" => "blocks").absolute(misses);
}

pub fn appended(sizes: &[usize], took: Duration) {
    histogram!("fs_raft_append_duration_seconds").record(took);
    for size in sizes {
        histogram!("fs_raft_entry_bytes").record(*size as f64);
    }
}

pub fn applied(took: Duration) {
    histogram!("fs_raft_apply_duration_seconds").record(took);
}

pub fn disk(free: u64, reserve: u64, ballast: u64) {
    gauge!("fs_storage_free_bytes").set(free as f64);
    gauge!("fs_storage_reserve_bytes").set(reserve as f64);
    gauge!("fs_storage_ballast_bytes").set(ballast as f64);
}

pub fn disk_used(bytes: u64) {
    gauge!("fs_storage_used_bytes").set(bytes as f64);
}

/// Gauges of this member's part in the group.
pub fn raft(operations: &Operations) {
    let raft = operations.parts.consensus.metrics_snapshot();
    gauge!("fs_raft_term").set(raft.term as f64);
    gauge!("fs_raft_is_leader").set(f64::from(u8::from(raft.leading)));
    gauge!("fs_raft_last_log_index").set(raft.last_log_index as f64);
    gauge!("fs_raft_applied_index").set(raft.applied_index as f64);
    gauge!("fs_raft_apply_lag_entries").set(raft.last_log_index.saturating_sub(raft.applied_index) as f64);
    gauge!("fs_raft_snapshot_index").set(raft.snapshot_index as f64);
    gauge!("fs_raft_voters").set(raft.voters as f64);
    gauge!("fs_raft_waiting_commands").set(raft.waiting_commands as f64);
    gauge!("fs_raft_quorum_age_seconds").set(raft.millis_since_quorum.map_or(0.0, |ms| ms as f64 / 1e3));
    let (hits, misses) = operations.parts.consensus.block_cache();
    block_cache(hits, misses);
    replication_lag(operations.parts.consensus.replication_lag());
    if !raft.leading {
        forget_leader();
    }
}

/// Members whose lag this member has told.
static LAGS_TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// By name. Nothing is told any more of a member that is gone, nor of any by a former leader.
fn replication_lag(lags: BTreeMap<String, u64>) {
    let mut told = LAGS_TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    for gone in told.iter().filter(|name| !lags.contains_key(*name)) {
        gauge!("fs_raft_replication_lag_entries", "member" => gone.clone()).set(f64::NAN);
    }
    for (member, lag) in &lags {
        gauge!("fs_raft_replication_lag_entries", "member" => member.clone()).set(*lag as f64);
    }
    *told = lags.into_keys().collect();
}

/// What only a leader can tell is zero elsewhere: two members must not both seem to know.
fn forget_leader() {
    for metric in METRICS.iter().filter(|metric| metric.kind == Gauge && metric.help.starts_with("Leader:")) {
        if metric.labels.is_empty() {
            gauge!(metric.name).set(0.0);
        }
    }
    for class in CLASSES {
        gauge!("fs_repair_queue_chunks", "class" => class).set(0.0);
    }
    replication_factor(0.0, 0.0);
    // A former leader must not go on saying how a node was: "not a number" is nothing to Prometheus.
    for node in std::mem::take(&mut *told()) {
        for metric in ["fs_node_health_status", "fs_node_absent_chunks", "fs_node_absence_held"] {
            gauge!(metric, "node" => node.clone()).set(f64::NAN);
        }
    }
}

fn replication_factor(actual: f64, target: f64) {
    gauge!("fs_replication_factor", "kind" => "actual").set(actual);
    gauge!("fs_replication_factor", "kind" => "target").set(target);
}

/// Classes of the repair queue.
const CLASSES: [&str; 4] = ["last_copy", "under_target", "leaving", "lost"];
/// How far a class is counted.
const MOST_COUNTED: usize = 10_000;

/// Gauges that only the leader can tell: nodes by state, the repair queue, and the counters of the
/// state.
pub async fn measure(operations: &Operations, timing: Timing) -> Result<Next, DfsError> {
    let view = operations.parts.consensus.local_view()?;
    let counters = query::counters(&view)?;
    for (name, value) in [
        ("fs_files", counters.files),
        ("fs_chunks", counters.chunks),
        ("fs_chunks_in_trash", counters.trash_chunks),
        ("fs_uploads_open", counters.uploads),
        ("fs_purges_pending", counters.pending_purges),
        ("fs_releases_queued", counters.dropping),
    ] {
        gauge!(name).set(value as f64);
    }
    let queue = query::deficit_classes(&view, MOST_COUNTED)?;
    for (class, count) in
        CLASSES.into_iter().zip([queue.last_copy, queue.under_target, queue.leaving, queue.lost])
    {
        gauge!("fs_repair_queue_chunks", "class" => class).set(count as f64);
    }
    let nodes = query::nodes(&view)?;
    let redundancy = query::redundancy(&nodes, &counters);
    let referenced = redundancy.chunks.max(1) as f64;
    replication_factor(redundancy.copies as f64 / referenced, redundancy.wanted_copies as f64 / referenced);
    operations.parts.book.counted(redundancy);
    let mut by_state: BTreeMap<&str, u64> =
        ["up", "suspect", "down", "draining", "removed"].map(|state| (state, 0)).into();
    for node in &nodes {
        let state = node.row.state();
        *by_state.entry(state_word(state)).or_default() += 1;
        if state != NodeState::Removed {
            told().insert(node.row.node_id.clone());
            gauge!("fs_node_health_status", "node" => node.row.node_id.clone()).set(health(state));
        }
    }
    for (state, count) in by_state {
        gauge!("fs_nodes", "state" => state).set(count as f64);
    }
    Ok(timing.pause_at_least(Duration::from_secs(1)))
}

fn state_word(state: NodeState) -> &'static str {
    match state {
        NodeState::Up => "up",
        NodeState::Suspect => "suspect",
        NodeState::Draining => "draining",
        NodeState::Removed => "removed",
        NodeState::Down | NodeState::Unspecified => "down",
    }
}

fn health(state: NodeState) -> f64 {
    match state {
        NodeState::Up | NodeState::Draining => 1.0,
        NodeState::Suspect => 0.5,
        NodeState::Down | NodeState::Removed | NodeState::Unspecified => 0.0,
    }
}
