//! Touch: raises the epoch of chunks that are here, and says so in receipts.

use bytes::Bytes;
use dfs_proto::v1::{TouchRequest, TouchResponse};
use dfs_types::{DfsError, Position, TaskId};

use super::{ORDER_CONCURRENCY, each, keys_of};
use crate::data::DataPlane;
use crate::store::{ChunkKey, ChunkStore, ChunkStoreExt, StoreError};

pub(super) async fn touch(data: &DataPlane, request: TouchRequest) -> Result<TouchResponse, DfsError> {
    data.node.check_incarnation(&request.incarnation)?;
    let keys = keys_of(&request.chunks)?;
    let task = TaskId::from_slice(&request.task_id)?;
    let epoch = Position(request.epoch);
    let store = data.node.store()?;
    let receipts = each(keys, ORDER_CONCURRENCY, async |key: ChunkKey| {
        let store = store.clone();
        match data.pool.run(move || touch_held(&*store, &key, epoch)).await? {
            None => Ok(Bytes::new()),
            Some(sealed_length) => {
                Ok(data.node.receipt(key.realm, task.0, epoch, key.chunk, sealed_length)?.into())
            }
        }
    })
    .await?;
    Ok(TouchResponse { receipts })
}

/// The sealed length of a good copy whose epoch is now, durably, at least `epoch`.
pub(super) fn touch_held(
    store: &dyn ChunkStore,
    key: &ChunkKey,
    epoch: Position,
) -> Result<Option<u64>, StoreError> {
    match store.get(key)? {
        Some(meta) if !meta.quarantined && store.touch(key, epoch)? => Ok(Some(meta.sealed_len)),
        _ => Ok(None),
    }
}
