//! Inventory: everything here, in pages by key. Each page is true for its moment, the whole is not a
//! snapshot; it nominates, a probe decides.

use bytes::Bytes;
use dfs_proto::v1::{InventoryEntry, InventoryRequest, InventoryResponse};
use dfs_types::DfsError;
use dfs_types::limits::MAX_INVENTORY_ENTRIES;

use super::key_of;
use crate::data::DataPlane;

pub(super) async fn inventory(
    data: &DataPlane,
    request: InventoryRequest,
) -> Result<InventoryResponse, DfsError> {
    data.node.check_incarnation(&request.incarnation)?;
    let after = request.after.map(|key| key_of(&key.realm_id, &key.chunk_id)).transpose()?;
    // 0 means no wish.
    let limit = match request.limit {
        0 => MAX_INVENTORY_ENTRIES,
        wish => wish.min(MAX_INVENTORY_ENTRIES),
    } as usize;
    let store = data.node.store()?;
    let listed = data.pool.run(move || store.list(after.as_ref(), limit)).await?;
    let end = listed.len() < limit;
    let entry = |(key, meta): (crate::store::ChunkKey, crate::store::ChunkMeta)| InventoryEntry {
        realm_id: Bytes::from(key.realm.to_vec()),
        chunk_id: Bytes::from(key.chunk.to_vec()),
        sealed_length: meta.sealed_len,
        epoch: meta.epoch.0,
        quarantined: meta.quarantined,
    };
    Ok(InventoryResponse { entries: listed.into_iter().map(entry).collect(), end })
}
