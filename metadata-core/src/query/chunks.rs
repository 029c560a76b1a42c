//! Chunks with their copies.

use dfs_proto::v1;
use dfs_types::{ChunkId, DfsError, RealmId};

use super::read::{manifest_id, page_entries};
use crate::kv::KvRead;
use crate::rows::chunks::Chunks;
use crate::rows::pages::Pages;
use crate::rows::{self, ChunkKey, RowError};
use crate::rules::roster::{Holder, Roster};

/// A chunk, and who has it.
#[derive(Clone, Debug, PartialEq)]
pub struct ChunkView {
    pub key: ChunkKey,
    pub sealed_length: u64,
    /// Copies wanted: the highest target of those who reference it; 0 in trash.
    pub wanted: u32,
    /// Copies that count: on nodes up or suspect, undoubted.
    pub present: u32,
    /// The position at which it got into trash; 0: it is referenced.
    pub trash_since: u64,
    pub copies: Vec<CopyView>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct CopyView {
    pub holder: Holder,
    pub epoch: u64,
    pub doubted: bool,
}

impl CopyView {
    pub fn counts(&self) -> bool {
        !self.doubted && self.holder.counts()
    }
}

/// None: no such chunk.
pub fn chunk(kv: &dyn KvRead, key: ChunkKey) -> Result<Option<ChunkView>, DfsError> {
    match rows::get::<Chunks>(kv, &key)? {
        Some(row) => Ok(Some(view(kv, &mut Roster::default(), key, &row)?)),
        None => Ok(None),
    }
}

pub(super) fn view_chunk(kv: &dyn KvRead, roster: &mut Roster, key: ChunkKey) -> Result<ChunkView, RowError> {
    let row = rows::must_get::<Chunks>(kv, &key)?;
    view(kv, roster, key, &row)
}

pub(super) fn view(
    kv: &dyn KvRead,
    roster: &mut Roster,
    key: ChunkKey,
    row: &v1::ChunkRow,
) -> Result<ChunkView, RowError> {
    let mut copies = Vec::with_capacity(row.locations.len());
    for location in &row.locations {
        let holder = roster.holder(kv, location.seat)?.clone();
        copies.push(CopyView { holder, epoch: location.epoch, doubted: location.doubted });
    }
    Ok(ChunkView {
        key,
        sealed_length: row.sealed_length,
        wanted: row.refs.iter().map(|refs| refs.target).max().unwrap_or(0),
        present: copies.iter().filter(|copy| copy.counts()).count() as u32,
        trash_since: row.trash_since,
        copies,
    })
}

/// The first place at which a version lists this chunk, with its copies. Looks at one page after
/// another: at most 4,096 of them.
pub fn chunk_of_version(
    kv: &dyn KvRead,
    version: &v1::VersionRow,
    chunk: ChunkId,
) -> Result<Option<(u32, ChunkView)>, DfsError> {
    let mut first = 0;
    while !version.inline && first < version.chunks {
        let page = rows::must_get::<Pages>(kv, &(manifest_id(version)?, first))?;
        let entries = page_entries(&page)?;
        if let Some(place) = entries.iter().position(|entry| entry.chunk == chunk) {
            let key = ChunkKey { realm: RealmId::from_slice(&version.realm_id)?, chunk };
            let view = view_chunk(kv, &mut Roster::default(), key)?;
            return Ok(Some((first + place as u32, view)));
        }
        first += entries.len().max(1) as u32;
    }
    Ok(None)
}

/// The chunk with the fewest counting copies, among those looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct WorstChunk {
    /// None: the version has no chunks, or none was looked at yet.
    pub worst: Option<(u32, ChunkView)>,
    /// Go on from this chunk index; None: all were looked at.
    pub next_index: Option<u32>,
}

/// Looks at the chunks of one page, from the page that begins at `first_index` (0, or `next_index` of
/// the call before); the caller keeps the worst of all pages.
pub fn worst_chunk(
    kv: &dyn KvRead,
    version: &v1::VersionRow,
    first_index: u32,
) -> Result<WorstChunk, DfsError> {
    if version.inline || first_index >= version.chunks {
        return Ok(WorstChunk { worst: None, next_index: None });
    }
    let page = rows::must_get::<Pages>(kv, &(manifest_id(version)?, first_index))?;
    let realm = RealmId::from_slice(&version.realm_id)?;
    let mut roster = Roster::default();
    let mut worst: Option<(u32, ChunkView)> = None;
    let entries = page_entries(&page)?;
    for (place, entry) in entries.iter().enumerate() {
        let view = view_chunk(kv, &mut roster, ChunkKey { realm, chunk: entry.chunk })?;
        if worst.as_ref().is_none_or(|(_, least)| view.present < least.present) {
            worst = Some((first_index + place as u32, view));
        }
    }
    let next = first_index + entries.len() as u32;
    let next_index = (next < version.chunks && !entries.is_empty()).then_some(next);
    Ok(WorstChunk { worst, next_index })
}
