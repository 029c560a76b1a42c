//! Cluster time, and what becomes due by it: trash, expired uploads and versions, references to
//! release, the epoch floor, old request results.

use std::time::Duration;

use dfs_proto::v1;
use dfs_proto::v1::command::Kind;
use dfs_types::limits::{MAX_CHUNKS_PER_BACKGROUND_COMMAND, MAX_TICK_MS, REQUEST_WINDOW};
use dfs_types::{DfsError, MonotonicMillis, Position};
use metadata_core::query;
use server_kit::{Next, Work};

use super::{Timing, propose};
use crate::service::Operations;

const BATCH: usize = MAX_CHUNKS_PER_BACKGROUND_COMMAND;

/// Advances cluster time by this leader's own clock. Starts from zero: time in which nobody led does
/// not count.
pub struct Ticker {
    operations: Operations,
    timing: Timing,
    last: MonotonicMillis,
}

impl Ticker {
    pub fn new(operations: Operations, timing: Timing) -> Self {
        let last = operations.now();
        Self { operations, timing, last }
    }
}

impl Work for Ticker {
    async fn step(&mut self) -> Result<Next, DfsError> {
        let now = self.operations.now();
        let millis = (now - self.last).min(MAX_TICK_MS);
        if millis > 0 {
            // Counted before it is known to have worked: time may be lost, never counted twice.
            self.last = now;
            propose(&self.operations, Kind::Tick(v1::Tick { millis })).await?;
        }
        Ok(Next::After(Duration::from_millis(self.timing.tick_ms)))
    }
}

/// Purges chunks that have been unreferenced for the trash period.
pub async fn purge_trash(operations: &Operations, timing: Timing) -> Result<Next, DfsError> {
    let view = operations.parts.consensus.local_view()?;
    let Some(before) = query::clock(&view)?.cluster_ms.checked_sub(timing.trash_period_ms) else {
        return Ok(timing.pause());
    };
    let chunks = query::trash_due(&view, before, BATCH)?;
    if chunks.is_empty() {
        return Ok(timing.pause());
    }
    drop(view);
    propose(operations, Kind::PurgeChunks(v1::PurgeChunks { chunks })).await?;
    Ok(Next::Now)
}

/// Releases references of manifests that no version has any more.
pub async fn release_references(operations: &Operations, timing: Timing) -> Result<Next, DfsError> {
    if query::dropping_head(&operations.parts.consensus.local_view()?)?.is_none() {
        return Ok(timing.pause());
    }
    let kind = Kind::ReleaseReferences(v1::ReleaseReferences { count: BATCH as u32 });
    propose(operations, kind).await?;
    Ok(Next::Now)
}

/// Ends uploads that nobody went on with.
pub async fn end_uploads(operations: &Operations, timing: Timing) -> Result<Next, DfsError> {
    let view = operations.parts.consensus.local_view()?;
    let Some(before) = query::clock(&view)?.cluster_ms.checked_sub(timing.upload_expiry_ms) else {
        return Ok(timing.pause());
    };
    let expired = query::expired_uploads(&view, before, BATCH)?;
    if expired.is_empty() {
        return Ok(timing.pause());
    }
    drop(view);
    let upload_ids = expired.into_iter().map(|id| id.to_vec().into()).collect();
    let result = propose(
        operations,
        Kind::EndUpload(v1::EndUpload { upload_ids, expired: true, idle_since_ms: before }),
    )
    .await?;
    Ok(timing.again_if(result.count > 0))
}

/// Drops versions whose keep time is over.
pub async fn purge_versions(operations: &Operations, timing: Timing) -> Result<Next, DfsError> {
    let view = operations.parts.consensus.local_view()?;
    let now = query::clock(&view)?.cluster_ms;
    let versions = query::expired_versions(&view, now, BATCH)?;
    if versions.is_empty() {
        return Ok(timing.pause());
    }
    drop(view);
    let result = propose(operations, Kind::PurgeVersions(v1::PurgeVersions { versions })).await?;
    Ok(timing.again_if(result.count > 0))
}

/// Raises the epoch floor to where the log was one floor lag ago.
pub async fn raise_floor(operations: &Operations, timing: Timing) -> Result<Next, DfsError> {
    let view = operations.parts.consensus.local_view()?;
    let clock = query::clock(&view)?;
    let Some(then) = clock.cluster_ms.checked_sub(timing.floor_lag_ms) else { return Ok(timing.pause()) };
    match query::position_at(&view, then)? {
        Some(position) if position.0 > clock.epoch_floor => {
            drop(view);
            let kind = Kind::RaiseEpochFloor(v1::RaiseEpochFloor { position: position.0 });
            propose(operations, kind).await?;
            Ok(timing.pause())
        }
        _ => Ok(timing.pause()),
    }
}

/// Forgets request results that have left the at-most-once window.
pub async fn forget_results(operations: &Operations, timing: Timing) -> Result<Next, DfsError> {
    let view = operations.parts.consensus.local_view()?;
    let due = match query::oldest_request(&view)? {
        Some(oldest) => Position(oldest).log_index() + REQUEST_WINDOW < query::applied(&view)?.log_index(),
        None => false,
    };
    drop(view);
    if !due {
        return Ok(timing.pause());
    }
    let result = propose(operations, Kind::ForgetResults(v1::ForgetResults { count: BATCH as u32 })).await?;
    Ok(timing.again_if(result.count > 0))
}
