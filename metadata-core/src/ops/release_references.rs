//! ReleaseReferences: one bounded step of taking manifests and purged files apart, oldest first.
//! A chunk without references goes to trash.

use dfs_proto::v1;
use dfs_types::limits::MAX_CHUNKS_PER_BACKGROUND_COMMAND;
use dfs_types::{FileId, RealmId, UploadId};

use super::ctx::{Ctx, Fault, OpResult};
use crate::rights::Operation;
use crate::rows::chunks::Chunks;
use crate::rows::dropping::Dropping;
use crate::rows::pages::{self, PageStarts, Pages};
use crate::rows::versions::{Newest, Versions};
use crate::rows::{self, ChunkKey, Kind, RowError};
use crate::rules::chunks::{drop_reference, settle};
use crate::rules::forms::{self, Check};
use crate::rules::lower;
use crate::rules::versions::drop_version;

pub(super) fn check(c: &v1::ReleaseReferences) -> Check {
    forms::batch(c.count as usize, "references")
}

pub(super) fn apply(ctx: &mut Ctx<'_>, c: &v1::ReleaseReferences) -> OpResult {
    ctx.require(Operation::Background)?;
    let mut left = (c.count as usize).min(MAX_CHUNKS_PER_BACKGROUND_COMMAND);
    let mut count = 0;
    while left > 0 {
        let Some((at, row)) = rows::first::<Dropping>(ctx.kv(), &())? else { break };
        let (used, rest) = match row.kind() {
            v1::DroppingKind::Manifest => release_chunks(ctx, row, left)?,
            v1::DroppingKind::File => drop_versions(ctx, row, left)?,
            v1::DroppingKind::Unspecified => {
                return Err(RowError::corrupt(Kind::Dropping, "kind").into());
            }
        };
        match rest {
            Some(row) => ctx.put::<Dropping>(&at, &row),
            None => {
                ctx.delete::<Dropping>(&at);
                lower(&mut ctx.count().dropping, 1);
            }
        }
        // A finished row counts even if nothing was left in it: else the loop would not end.
        let used = used.max(1);
        count += used as u64;
        left = left.saturating_sub(used);
    }
    Ok(v1::CommandResult { count, ..Default::default() })
}

/// Releases up to `left` references of the first page that is left, and deletes the page with its last.
fn release_chunks(
    ctx: &mut Ctx<'_>,
    mut row: v1::DroppingRow,
    left: usize,
) -> Result<(usize, Option<v1::DroppingRow>), Fault> {
    let manifest = UploadId::from_slice(&row.id)?;
    let realm = RealmId::from_slice(&row.realm_id)?;
    let Some(((_, first), page)) = rows::first::<Pages>(ctx.kv(), &manifest)? else { return Ok((0, None)) };
    let entries = pages::entries(&page.clear).ok_or_else(|| RowError::corrupt(Kind::Page, "clear list"))?;
    let done = row.next.saturating_sub(first) as usize;
    let step = &entries[done.min(entries.len())..entries.len().min(done + left)];
    for entry in step {
        let key = ChunkKey { realm, chunk: entry.chunk };
        let before = ctx.must_get::<Chunks>(&key)?;
        let mut after = before.clone();
        if !drop_reference(&mut after, row.target) {
            return Err(RowError::corrupt(Kind::Chunk, "a reference is missing").into());
        }
        settle(ctx, key, Some(&before), Some(after))?;
    }
    row.next = first + (done + step.len()) as u32;
    if row.next >= first + entries.len() as u32 {
        ctx.delete::<Pages>(&(manifest, first));
        ctx.delete::<PageStarts>(&(manifest, Newest(page.offset)));
        if rows::first::<Pages>(ctx.kv(), &manifest)?.is_none() {
            return Ok((step.len(), None));
        }
    }
    Ok((step.len(), Some(row)))
}

fn drop_versions(
    ctx: &mut Ctx<'_>,
    row: v1::DroppingRow,
    left: usize,
) -> Result<(usize, Option<v1::DroppingRow>), Fault> {
    let file_id = FileId::from_slice(&row.id)?;
    let versions = rows::scan::<Versions>(ctx.kv(), &file_id, None, left)?;
    let used = versions.len();
    for ((_, Newest(version)), _) in versions {
        drop_version(ctx, file_id, version)?;
    }
    Ok((used, (used == left).then_some(row)))
}
