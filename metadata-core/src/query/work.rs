//! What the leader's background loops have to do: each a bounded page, oldest or most urgent first.

use dfs_proto::v1;
use dfs_types::{ChunkId, DfsError, FileId, PrincipalId, RealmId, RequestId, UploadId};

use super::chunks::{ChunkView, view_chunk};
use crate::inventory::ListedCopy;
use crate::kv::KvRead;
use crate::rows::chunks::Chunks;
use crate::rows::deficits::{Deficits, LEAVING, LOST};
use crate::rows::dropping::Dropping;
use crate::rows::expiry::Expiries;
use crate::rows::node_chunks::NodeChunks;
use crate::rows::purged::PendingPurges;
use crate::rows::requests::RequestsByPosition;
use crate::rows::trash::Trash;
use crate::rows::uploads::UploadsByActivity;
use crate::rows::{self, ChunkKey};
use crate::rules::roster::Roster;

/// A chunk with fewer counting copies than wanted. Priority: how many are left, those on nodes that
/// drain among them; [`rows::deficits::LEAVING`] if those are enough, [`rows::deficits::LOST`] for none.
#[derive(Clone, Debug, PartialEq)]
pub struct Deficit {
    pub priority: u8,
    pub chunk: ChunkView,
}

/// Deficits, last copies first, behind `after`, at most `limit`.
pub fn deficits_page(
    kv: &dyn KvRead,
    after: Option<(u8, ChunkKey)>,
    limit: usize,
) -> Result<Vec<Deficit>, DfsError> {
    let mut roster = Roster::default();
    let page = rows::scan::<Deficits>(kv, &(), after.as_ref(), limit)?;
    page.into_iter()
        .map(|((priority, key), ())| Ok(Deficit { priority, chunk: view_chunk(kv, &mut roster, key)? }))
        .collect()
}

/// Chunks under target, by copies present and wanted, among the first `limit` deficits; those with the
/// fewest copies come first.
pub fn deficits_by_copies(kv: &dyn KvRead, limit: usize) -> Result<Vec<v1::CopiesCount>, DfsError> {
    let mut counts = std::collections::BTreeMap::<(u32, u32), u64>::new();
    for deficit in deficits_page(kv, None, limit)? {
        *counts.entry((deficit.chunk.present, deficit.chunk.wanted)).or_default() += 1;
    }
    let count = |((present, wanted), chunks)| v1::CopiesCount { present, wanted, chunks };
    Ok(counts.into_iter().map(count).collect())
}

/// Chunks without any copy that counts, behind `after`, at most `limit`: they stand behind all other
/// deficits.
pub fn lost_page(kv: &dyn KvRead, after: Option<ChunkKey>, limit: usize) -> Result<Vec<ChunkView>, DfsError> {
    let mut roster = Roster::default();
    let after = after.map(|key| (LOST, key));
    let page = rows::scan::<Deficits>(kv, &LOST, after.as_ref(), limit)?;
    page.into_iter().map(|((_, key), ())| Ok(view_chunk(kv, &mut roster, key)?)).collect()
}

/// How many chunks wait for copies, by how badly.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DeficitClasses {
    pub last_copy: usize,
    pub under_target: usize,
    /// With all copies, some of them on a node that drains.
    pub leaving: usize,
    /// Without any counting copy.
    pub lost: usize,
}

/// Counts each class up to `most`.
pub fn deficit_classes(kv: &dyn KvRead, most: usize) -> Result<DeficitClasses, DfsError> {
    let nothing = ChunkKey { realm: RealmId([0; 16]), chunk: ChunkId([0; 32]) };
    let count = |from: u8, to: u8| -> Result<usize, DfsError> {
        let page = rows::scan::<Deficits>(kv, &(), Some(&(from, nothing)), most)?;
        Ok(page.iter().take_while(|((priority, _), ())| *priority <= to).count())
    };
    Ok(DeficitClasses {
        last_copy: count(1, 1)?,
        under_target: count(2, LEAVING - 1)?,
        leaving: count(LEAVING, LEAVING)?,
        lost: count(LOST, LOST)?,
    })
}

/// Chunks that have been in trash since cluster time `before_ms` or longer, oldest first: for
/// PurgeChunks.
pub fn trash_due(kv: &dyn KvRead, before_ms: u64, limit: usize) -> Result<Vec<v1::TrashedChunk>, DfsError> {
    let page = rows::scan::<Trash>(kv, &(), None, limit)?;
    Ok(page
        .into_iter()
        .take_while(|(_, row)| row.cluster_ms <= before_ms)
        .map(|((since, key), _)| v1::TrashedChunk { chunk: Some(chunk_ref(key)), since })
        .collect())
}

pub(crate) fn chunk_ref(key: ChunkKey) -> v1::ChunkRef {
    v1::ChunkRef { realm_id: key.realm.to_vec().into(), chunk_id: key.chunk.to_vec().into() }
}

/// A delete ticket that its node has not confirmed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PendingPurge {
    pub chunk: ChunkKey,
    pub position: u64,
}

/// Tickets of one seat (`NodeRow::seat`), behind `after`, at most `limit`.
pub fn pending_purges(
    kv: &dyn KvRead,
    seat: u32,
    after: Option<ChunkKey>,
    limit: usize,
) -> Result<Vec<PendingPurge>, DfsError> {
    let after = after.map(|key| (seat, key));
    let page = rows::scan::<PendingPurges>(kv, &seat, after.as_ref(), limit)?;
    Ok(page.into_iter().map(|((_, chunk), row)| PendingPurge { chunk, position: row.position }).collect())
}

/// Chunks that have a location at this seat, behind `after`, at most `limit`: for drains and for
/// comparing inventories.
pub fn chunks_of_node(
    kv: &dyn KvRead,
    seat: u32,
    after: Option<ChunkKey>,
    limit: usize,
) -> Result<Vec<ChunkView>, DfsError> {
    let after = after.map(|key| (seat, key));
    let mut roster = Roster::default();
    let page = rows::scan::<NodeChunks>(kv, &seat, after.as_ref(), limit)?;
    page.into_iter().map(|((_, key), ())| Ok(view_chunk(kv, &mut roster, key)?)).collect()
}

/// The same by their keys and listed epochs alone, in the order of keys.
pub fn listed_at(
    kv: &dyn KvRead,
    seat: u32,
    after: Option<ChunkKey>,
    limit: usize,
) -> Result<Vec<ListedCopy>, DfsError> {
    let after = after.map(|key| (seat, key));
    let page = rows::scan::<NodeChunks>(kv, &seat, after.as_ref(), limit)?;
    page.into_iter()
        .map(|((_, key), ())| {
            let row = rows::must_get::<Chunks>(kv, &key)?;
            let at = row.locations.iter().find(|location| location.seat == seat);
            Ok(ListedCopy { key, epoch: at.map_or(0, |location| location.epoch) })
        })
        .collect()
}

/// Open uploads without a page since cluster time `before_ms`, longest idle first: for EndUpload.
pub fn expired_uploads(kv: &dyn KvRead, before_ms: u64, limit: usize) -> Result<Vec<UploadId>, DfsError> {
    let page = rows::scan::<UploadsByActivity>(kv, &(), None, limit)?;
    Ok(page
        .into_iter()
        .map(|(key, ())| key)
        .take_while(|(ms, _)| *ms <= before_ms)
        .map(|(_, id)| id)
        .collect())
}

/// Versions whose keep time is over at cluster time `now_ms`, for PurgeVersions.
pub fn expired_versions(kv: &dyn KvRead, now_ms: u64, limit: usize) -> Result<Vec<v1::VersionRef>, DfsError> {
    let page = rows::scan::<Expiries>(kv, &(), None, limit)?;
    let of =
        |(_, file, version): (u64, FileId, u64)| v1::VersionRef { file_id: file.to_vec().into(), version };
    Ok(page.into_iter().map(|(key, ())| key).take_while(|(ms, _, _)| *ms <= now_ms).map(of).collect())
}

/// The oldest thing being taken apart; None: nothing to release.
pub fn dropping_head(kv: &dyn KvRead) -> Result<Option<v1::DroppingRow>, DfsError> {
    Ok(rows::first::<Dropping>(kv, &())?.map(|(_, row)| row))
}

/// Position of the oldest kept request result.
pub fn oldest_request(kv: &dyn KvRead) -> Result<Option<u64>, DfsError> {
    let first: Option<((u64, PrincipalId, RequestId), ())> = rows::first::<RequestsByPosition>(kv, &())?;
    Ok(first.map(|((position, _, _), ())| position))
}
