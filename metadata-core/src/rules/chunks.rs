//! The one writer of chunk rows: it keeps the chunks of each node, the deficit queue, the trash and the
//! counters in step with what a row says.

use std::collections::BTreeSet;

use dfs_proto::v1;
use dfs_types::limits::MAX_LOCATIONS_PER_CHUNK;
use dfs_types::{ChunkId, RealmId};

use super::lower;
use crate::ops::ctx::{Ctx, Fault};
use crate::rows::chunks::Chunks;
use crate::rows::deficits::{Deficits, LEAVING, LOST};
use crate::rows::node_chunks::NodeChunks;
use crate::rows::trash::Trash;
use crate::rows::{ChunkKey, RowError};

pub(crate) fn key_of(chunk: &v1::ChunkRef) -> Result<ChunkKey, Fault> {
    Ok(ChunkKey {
        realm: RealmId::from_slice(&chunk.realm_id)?,
        chunk: ChunkId::from_slice(&chunk.chunk_id)?,
    })
}

/// Copies wanted: the highest target among the references; 0 without any.
pub(crate) fn wanted(row: &v1::ChunkRow) -> u32 {
    row.refs.iter().map(|refs| refs.target).max().unwrap_or(0)
}

pub(crate) fn add_reference(row: &mut v1::ChunkRow, target: u32) {
    match row.refs.binary_search_by_key(&target, |refs| refs.target) {
        Ok(at) => row.refs[at].count += 1,
        Err(at) => row.refs.insert(at, v1::ChunkRefs { target, count: 1 }),
    }
}

/// Takes one reference away; false if there was none at this target.
pub(crate) fn drop_reference(row: &mut v1::ChunkRow, target: u32) -> bool {
    let Ok(at) = row.refs.binary_search_by_key(&target, |refs| refs.target) else { return false };
    row.refs[at].count -= 1;
    if row.refs[at].count == 0 {
        row.refs.remove(at);
    }
    true
}

pub(crate) fn location(row: &mut v1::ChunkRow, seat: u32) -> Option<&mut v1::ChunkLocation> {
    let at = row.locations.binary_search_by_key(&seat, |location| location.seat).ok()?;
    Some(&mut row.locations[at])
}

/// Notes a copy, or raises its epoch. A row full of locations takes no further ones.
pub(crate) fn note_location(row: &mut v1::ChunkRow, seat: u32, epoch: u64) {
    match row.locations.binary_search_by_key(&seat, |location| location.seat) {
        Ok(at) => row.locations[at].epoch = row.locations[at].epoch.max(epoch),
        Err(at) if row.locations.len() < MAX_LOCATIONS_PER_CHUNK => {
            row.locations.insert(at, v1::ChunkLocation { seat, epoch, doubted: false });
        }
        Err(_) => {}
    }
}

/// Copies that count, and the distinct domains they are in.
pub(crate) fn counting(ctx: &mut Ctx<'_>, row: &v1::ChunkRow) -> Result<(u32, usize), RowError> {
    let mut domains = BTreeSet::new();
    let mut copies = 0;
    for location in row.locations.iter().filter(|location| !location.doubted) {
        let holder = ctx.holder(location.seat)?;
        if holder.counts() {
            copies += 1;
            if !domains.contains(&holder.domain) {
                domains.insert(holder.domain.clone());
            }
        }
    }
    Ok((copies, domains.len()))
}

/// Undoubted copies on nodes that drain: they do not count, and are there.
fn leaving(ctx: &mut Ctx<'_>, row: &v1::ChunkRow) -> Result<u32, RowError> {
    let mut copies = 0;
    for location in row.locations.iter().filter(|location| !location.doubted) {
        copies += u32::from(ctx.holder(location.seat)?.leaves());
    }
    Ok(copies)
}

/// What [`v1::ChunkRow::deficit`] says of a chunk: 0, or 1 + the priority of its deficit row.
pub(crate) fn deficit_mark(copies: u32, leaving: u32, wanted: u32) -> u32 {
    let priority = match copies + leaving {
        _ if copies >= wanted => return 0,
        0 => LOST,
        left if left >= wanted => LEAVING,
        left => left.min(u32::from(LEAVING) - 1) as u8,
    };
    u32::from(priority) + 1
}

/// Writes a chunk's row, or deletes it, and all that follows from it. `before` is what the state had.
pub(crate) fn settle(
    ctx: &mut Ctx<'_>,
    key: ChunkKey,
    before: Option<&v1::ChunkRow>,
    after: Option<v1::ChunkRow>,
) -> Result<(), RowError> {
    let nothing = v1::ChunkRow::default();
    let old = before.unwrap_or(&nothing);
    let mut row = after.clone().unwrap_or_default();

    let had: BTreeSet<u32> = old.locations.iter().map(|location| location.seat).collect();
    let has: BTreeSet<u32> = row.locations.iter().map(|location| location.seat).collect();
    let was_in_trash = old.trash_since != 0;
    let in_trash = after.is_some() && row.refs.is_empty();
    for seat in had.difference(&has) {
        ctx.delete::<NodeChunks>(&(*seat, key));
        let seat = ctx.seat(*seat)?;
        lower(&mut seat.chunks, 1);
        lower(&mut seat.bytes, old.sealed_length);
        lower(&mut seat.trash_chunks, u64::from(was_in_trash));
    }
    for seat in has.difference(&had) {
        ctx.put::<NodeChunks>(&(*seat, key), &());
        let seat = ctx.seat(*seat)?;
        seat.chunks += 1;
        seat.bytes += row.sealed_length;
        seat.trash_chunks += u64::from(in_trash);
    }
    if was_in_trash != in_trash {
        for seat in had.intersection(&has) {
            let seat = ctx.seat(*seat)?;
            lower(&mut seat.trash_chunks, u64::from(was_in_trash));
            seat.trash_chunks += u64::from(in_trash);
        }
    }

    if was_in_trash && !in_trash {
        ctx.delete::<Trash>(&(old.trash_since, key));
        lower(&mut ctx.count().trash_chunks, 1);
        lower(&mut ctx.count().trash_bytes, old.sealed_length);
        row.trash_since = 0;
    } else if !was_in_trash && in_trash {
        row.trash_since = ctx.position;
        let cluster_ms = ctx.clock.cluster_ms;
        ctx.put::<Trash>(&(row.trash_since, key), &v1::TrashRow { cluster_ms });
        ctx.count().trash_chunks += 1;
        ctx.count().trash_bytes += row.sealed_length;
    }

    let (copies, _) = counting(ctx, &row)?;
    let leaving = leaving(ctx, &row)?;
    row.deficit = deficit_mark(copies, leaving, wanted(&row));
    if old.deficit != row.deficit {
        if old.deficit != 0 {
            ctx.delete::<Deficits>(&((old.deficit - 1) as u8, key));
            lower(&mut ctx.count().deficits, 1);
        }
        if row.deficit != 0 {
            ctx.put::<Deficits>(&((row.deficit - 1) as u8, key), &());
            ctx.count().deficits += 1;
        }
    }

    let (had, has) = (u64::from(wanted(old)), u64::from(wanted(&row)));
    if had != has {
        let all = &mut ctx.count().wanted_copies;
        *all = (*all + has).saturating_sub(had);
    }
    match (before.is_some(), after.is_some()) {
        (false, true) => ctx.count().chunks += 1,
        (true, false) => lower(&mut ctx.count().chunks, 1),
        _ => {}
    }
    if after.is_some() {
        ctx.put::<Chunks>(&key, &row);
    } else {
        ctx.delete::<Chunks>(&key);
    }
    Ok(())
}
