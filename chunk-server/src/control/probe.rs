//! Probe: what is here of the chunks asked for. The answer about absence is what locations are
//! struck off by, so it is given only from an index that is whole.

use dfs_proto::v1::{ProbeRequest, ProbeResponse, ProbeResult, ProbeState};
use dfs_types::DfsError;

use super::{each, keys_of};
use crate::data::DataPlane;
use crate::store::{ChunkKey, ChunkMeta, ChunkStore, StoreError};
use crate::telemetry;
use crate::upkeep::is_corrupt;

/// Looking up is cheap; reading whole chunks must leave the disk to others.
const LOOKUP_CONCURRENCY: usize = 16;
const VERIFY_CONCURRENCY: usize = 2;

pub(super) async fn probe(data: &DataPlane, request: ProbeRequest) -> Result<ProbeResponse, DfsError> {
    data.node.check_incarnation(&request.incarnation)?;
    let keys = keys_of(&request.chunks)?;
    let Some(store) = data.node.opened_store() else {
        let unknown = ProbeResult { state: ProbeState::Unknown as i32, epoch: 0 };
        return Ok(ProbeResponse { results: vec![unknown; keys.len()] });
    };
    let verify = request.verify;
    let concurrency = if verify { VERIFY_CONCURRENCY } else { LOOKUP_CONCURRENCY };
    let results = each(keys, concurrency, async |key: ChunkKey| {
        let store = store.clone();
        let meta = data.pool.run(move || look(&*store, &key, verify)).await?;
        if meta.is_some_and(|meta| meta.quarantined) {
            telemetry::fault_found(true);
            data.node.faults.report(key.realm, key.chunk, true);
        }
        Ok(result(meta))
    })
    .await?;
    Ok(ProbeResponse { results })
}

/// With `verify`, reads and hashes a chunk not yet known to be bad, and quarantines it if it is.
fn look(store: &dyn ChunkStore, key: &ChunkKey, verify: bool) -> Result<Option<ChunkMeta>, StoreError> {
    let Some(meta) = store.get(key)? else { return Ok(None) };
    if meta.quarantined || !verify {
        return Ok(Some(meta));
    }
    let corrupt = is_corrupt(store, key)?;
    // It may have been deleted while it was read.
    Ok(store.get(key)?.map(|meta| ChunkMeta { quarantined: meta.quarantined || corrupt, ..meta }))
}

fn result(meta: Option<ChunkMeta>) -> ProbeResult {
    let state = match meta {
        None => ProbeState::Absent,
        Some(meta) if meta.quarantined => ProbeState::Corrupt,
        Some(_) => ProbeState::Present,
    };
    ProbeResult { state: state as i32, epoch: meta.map_or(0, |meta| meta.epoch.0) }
}
