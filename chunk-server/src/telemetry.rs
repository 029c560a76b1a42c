//! Every metric of a chunk server, by name, in one place. Bytes and seconds; counters end in `_total`.

use std::time::Duration;

use dfs_proto::v1::Redundancy;
use dfs_types::{DfsError, ErrorCode};
use metrics::{counter, gauge, histogram};
use server_kit::metrics::Kind::{Counter, Gauge, Histogram};
use server_kit::metrics::Metric;
use tokio::time::Instant;

use crate::store::Usage;

/// What this server records beside [`server_kit::metrics::COMMON`].
pub const METRICS: &[Metric] = &[
    Metric::new(
        "fs_upload_duration_seconds",
        Histogram,
        &[],
        "Time of one put of a chunk, to the receipts of this node and those behind it",
    ),
    Metric::new("fs_download_duration_seconds", Histogram, &[], "Time of one get, to its last byte"),
    Metric::new(
        "fs_replication_latency_seconds",
        Histogram,
        &["kind"],
        "forward: what the nodes behind take longer than this one in a put; copy: a copy ordered by the leader; merge: one put together from damaged ones",
    ),
    Metric::new(
        "fs_replication_factor",
        Gauge,
        &["kind"],
        "Of the whole cluster, as the leader answered the last heartbeat: copies per chunk, mean over all chunks that are referenced; actual and target. NaN while no metadata server answers",
    ),
    Metric::new(
        "fs_chunk_calls_total",
        Counter,
        &["call", "outcome"],
        "put, get, copy and merge calls; the outcome is ok or an error code",
    ),
    Metric::new("fs_chunk_bytes_total", Counter, &["call"], "Sealed bytes of calls that ended well"),
    Metric::new("fs_chunk_forward_failures_total", Counter, &["code"], "Puts whose next node failed"),
    Metric::new("fs_storage_used_bytes", Gauge, &[], "Bytes that segments take on the disk"),
    Metric::new("fs_storage_capacity_bytes", Gauge, &[], "Bytes this node may take"),
    Metric::new("fs_storage_free_bytes", Gauge, &[], "Bytes left for new chunks"),
    Metric::new(
        "fs_storage_upkeep_bytes",
        Gauge,
        &[],
        "Room that new chunks leave, as far as it is there: for marks, compaction, and what a start after a power loss writes again",
    ),
    Metric::new(
        "fs_storage_upkeep_wanted_bytes",
        Gauge,
        &[],
        "What a start after a power loss may need: one segment. With less room than this it may not be able to open the store",
    ),
    Metric::new("fs_storage_chunks", Gauge, &[], "Chunks stored"),
    Metric::new("fs_storage_segments", Gauge, &[], "Segment files"),
    Metric::new(
        "fs_storage_live_ratio",
        Gauge,
        &[],
        "Of the bytes of records in segments, the part still needed, 0 to 1; compaction frees the rest. 1 while there is no record",
    ),
    Metric::new("fs_storage_faults_total", Counter, &["kind"], "Stored chunks found corrupt or missing"),
    Metric::new("fs_storage_lost_chunks_total", Counter, &[], "Chunks that a start found gone"),
    Metric::new("fs_storage_damaged_places_total", Counter, &[], "Places that a start found spoiled"),
    Metric::new("fs_storage_index_rebuilds_total", Counter, &[], "How often the index was made anew"),
    Metric::new(
        "fs_storage_sync_duration_seconds",
        Histogram,
        &[],
        "From the last byte handed to the store until it was durable",
    ),
    Metric::new("fs_storage_group_changes", Histogram, &[], "Changes made durable by one group commit"),
    Metric::new("fs_storage_compacted_bytes_total", Counter, &[], "Bytes that compaction gave back"),
    Metric::new("fs_scrub_bytes_total", Counter, &[], "Bytes read by the scrub"),
    Metric::new(
        "fs_scrub_age_seconds",
        Gauge,
        &[],
        "Since the scrub last came to the end of everything; since the start, until it does",
    ),
    Metric::new("fs_cache_hits_total", Counter, &["cache"], "Found in the cache: blocks (the index')"),
    Metric::new("fs_cache_misses_total", Counter, &["cache"], "Not found in the cache"),
    Metric::new("fs_heartbeat_failures_total", Counter, &[], "Heartbeats that no metadata server answered"),
];

/// Makes known, before anything happens, what has labels of a closed list.
pub fn begin() {
    for kind in ["forward", "copy"] {
        let _ = histogram!("fs_replication_latency_seconds", "kind" => kind);
    }
    redundancy_unknown();
    block_cache(0, 0);
}

/// The data calls that are counted and timed alike.
#[derive(Clone, Copy, Debug)]
pub enum Call {
    Put,
    Get,
    Copy,
    Merge,
}

impl Call {
    pub fn as_str(self) -> &'static str {
        match self {
            Call::Put => "put",
            Call::Get => "get",
            Call::Copy => "copy",
            Call::Merge => "merge",
        }
    }
}

/// Counts one call when it ends, with its outcome: `ok` or the error's code.
pub fn call_finished(call: Call, started: Instant, bytes: u64, error: Option<ErrorCode>) {
    let outcome = error.map_or("ok", ErrorCode::as_str);
    counter!("fs_chunk_calls_total", "call" => call.as_str(), "outcome" => outcome).increment(1);
    if error.is_none() {
        counter!("fs_chunk_bytes_total", "call" => call.as_str()).increment(bytes);
    }
    let took = started.elapsed();
    match call {
        Call::Put => histogram!("fs_upload_duration_seconds").record(took),
        Call::Get => histogram!("fs_download_duration_seconds").record(took),
        Call::Copy => histogram!("fs_replication_latency_seconds", "kind" => "copy").record(took),
        Call::Merge => histogram!("fs_replication_latency_seconds", "kind" => "merge").record(took),
    }
}

/// From the last byte handed to the store until it said durable.
pub fn sync_finished(took: Duration) {
    histogram!("fs_storage_sync_duration_seconds").record(took);
}

pub fn forward_failed(error: &DfsError) {
    counter!("fs_chunk_forward_failures_total", "code" => error.code.as_str()).increment(1);
}

pub fn usage(usage: &Usage) {
    gauge!("fs_storage_used_bytes").set(usage.used as f64);
    gauge!("fs_storage_capacity_bytes").set(usage.capacity as f64);
    gauge!("fs_storage_free_bytes").set(usage.free as f64);
    gauge!("fs_storage_upkeep_bytes").set(usage.upkeep as f64);
    gauge!("fs_storage_upkeep_wanted_bytes").set(usage.upkeep_wanted as f64);
    gauge!("fs_storage_chunks").set(usage.chunks as f64);
    gauge!("fs_storage_segments").set(usage.segments as f64);
    let ratio = if usage.written == 0 { 1.0 } else { usage.live as f64 / usage.written as f64 };
    gauge!("fs_storage_live_ratio").set(ratio);
}

pub fn fault_found(corrupt: bool) {
    let kind = if corrupt { "corrupt" } else { "missing" };
    counter!("fs_storage_faults_total", "kind" => kind).increment(1);
}

/// What a start found missing: chunks whose segment is gone, places at which a record should be.
pub fn opened(lost: u64, damaged: u64) {
    counter!("fs_storage_lost_chunks_total").increment(lost);
    counter!("fs_storage_damaged_places_total").increment(damaged);
}

pub fn index_rebuilt() {
    counter!("fs_storage_index_rebuilds_total").increment(1);
}

pub fn heartbeat_failed() {
    counter!("fs_heartbeat_failures_total").increment(1);
}

/// From when this node was done with a put until those behind it answered.
pub fn forwarded(waited: Duration) {
    histogram!("fs_replication_latency_seconds", "kind" => "forward").record(waited);
}

/// Only the leader can tell: no node knows who else has its chunks.
pub fn redundancy(of: &Redundancy) {
    let chunks = of.chunks.max(1) as f64;
    replication_factor(of.copies as f64 / chunks, of.wanted_copies as f64 / chunks);
}

/// "Not a number" is nothing to Prometheus: an old word about copies would hide that they are lost.
pub fn redundancy_unknown() {
    replication_factor(f64::NAN, f64::NAN);
}

fn replication_factor(actual: f64, target: f64) {
    gauge!("fs_replication_factor", "kind" => "actual").set(actual);
    gauge!("fs_replication_factor", "kind" => "target").set(target);
}

pub fn group_committed(changes: usize) {
    histogram!("fs_storage_group_changes").record(changes as f64);
}

pub fn compacted(freed: u64) {
    counter!("fs_storage_compacted_bytes_total").increment(freed);
}

pub fn scrubbed(bytes: u64, since_whole: Duration) {
    counter!("fs_scrub_bytes_total").increment(bytes);
    gauge!("fs_scrub_age_seconds").set(since_whole.as_secs_f64());
}

pub fn block_cache(hits: u64, misses: u64) {
    counter!("fs_cache_hits_total", "cache" => "blocks").absolute(hits);
    counter!("fs_cache_misses_total", "cache" => "blocks").absolute(misses);
}
