//! Every metric of a chunk server, by name, in one place. Bytes and seconds; counters end in `_total`.

use std::time::Duration;

use dfs_types::{DfsError, ErrorCode};
use metrics::{counter, gauge, histogram};
use tokio::time::Instant;

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
    histogram!("fs_chunk_call_seconds", "call" => call.as_str()).record(started.elapsed());
}

/// From the last byte handed to the store until it said durable.
pub fn sync_finished(took: Duration) {
    histogram!("fs_storage_sync_seconds").record(took);
}

pub fn forward_failed(error: &DfsError) {
    counter!("fs_chunk_forward_failures_total", "code" => error.code.as_str()).increment(1);
}

pub fn usage(used: u64, capacity: u64, free: u64, chunks: u64) {
    gauge!("fs_storage_used_bytes").set(used as f64);
    gauge!("fs_storage_capacity_bytes").set(capacity as f64);
    gauge!("fs_storage_free_bytes").set(free as f64);
    gauge!("fs_storage_chunks").set(chunks as f64);
}

pub fn fault_found(corrupt: bool) {
    let kind = if corrupt { "corrupt" } else { "missing" };
    counter!("fs_storage_faults_total", "kind" => kind).increment(1);
}

/// What a start found missing: chunks whose segment is gone, places at which a record should be.
pub fn opened(lost: u64, damaged: u64) {
    counter!("fs_store_lost_chunks_total").increment(lost);
    counter!("fs_store_damaged_places_total").increment(damaged);
}

pub fn index_rebuilt() {
    counter!("fs_store_index_rebuilds_total").increment(1);
}

pub fn heartbeat_failed() {
    counter!("fs_node_heartbeat_failures_total").increment(1);
}
