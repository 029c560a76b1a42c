//! Purge facts and tickets: below which epoch a node's word about a chunk does not count any more.

use dfs_proto::v1;

use super::lower;
use crate::ops::ctx::{Ctx, Fault};
use crate::rows::purged::{PendingPurges, Purged, PurgedByPosition};
use crate::rows::{self, ChunkKey, RowError};

/// Why a node's word does not add a location.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unfit {
    /// Unknown, replaced, draining or removed.
    Node,
    /// Given before the floor, a purge, or the node's registration: a touch would mend it.
    Epoch,
}

/// The seat at which a stored copy counts, if its facts are right: incarnation current, node neither
/// draining nor removed, epoch not below the floor, the last purge of this chunk there, or the
/// incarnation's registration, and not from the future.
pub(crate) fn fit(
    ctx: &mut Ctx<'_>,
    key: ChunkKey,
    stored: &v1::StoredAt,
) -> Result<Result<u32, Unfit>, Fault> {
    let Some(seat) = ctx.seat_of(&stored.node_id, &stored.incarnation)? else { return Ok(Err(Unfit::Node)) };
    let holder = ctx.holder(seat)?;
    if !holder.accepts() {
        return Ok(Err(Unfit::Node));
    }
    let since = holder.since;
    let purged = ctx.get::<Purged>(&(key, seat))?.map_or(0, |row| row.position);
    let least = ctx.clock.epoch_floor.max(purged).max(since);
    let in_time = stored.epoch >= least && stored.epoch <= ctx.position;
    Ok(if in_time { Ok(seat) } else { Err(Unfit::Epoch) })
}

/// From now on, older words of this seat about this chunk do not count.
pub(crate) fn forbid(ctx: &mut Ctx<'_>, key: ChunkKey, seat: u32) -> Result<(), RowError> {
    if let Some(old) = ctx.get::<Purged>(&(key, seat))? {
        ctx.delete::<PurgedByPosition>(&(old.position, key, seat));
    }
    let position = ctx.position;
    ctx.put::<Purged>(&(key, seat), &v1::PositionRow { position });
    ctx.put::<PurgedByPosition>(&(position, key, seat), &());
    Ok(())
}

/// [`forbid`], and the node is to delete its copy unless it was touched since.
pub(crate) fn order_purge(ctx: &mut Ctx<'_>, key: ChunkKey, seat: u32) -> Result<(), RowError> {
    forbid(ctx, key, seat)?;
    let position = ctx.position;
    order_delete(ctx, key, seat, position)
}

/// A ticket alone: the node is to delete its copy if that has an older epoch than `position`. Without
/// a fact, so only where older words do not count for another reason.
pub(crate) fn order_delete(
    ctx: &mut Ctx<'_>,
    key: ChunkKey,
    seat: u32,
    position: u64,
) -> Result<(), RowError> {
    if ctx.get::<PendingPurges>(&(seat, key))?.is_none() {
        ctx.seat(seat)?.purges += 1;
        ctx.count().pending_purges += 1;
    }
    ctx.put::<PendingPurges>(&(seat, key), &v1::PositionRow { position });
    Ok(())
}

/// The ticket was carried out, or its seat is no more.
pub(crate) fn purge_over(ctx: &mut Ctx<'_>, key: ChunkKey, seat: u32) -> Result<(), RowError> {
    ctx.delete::<PendingPurges>(&(seat, key));
    lower(&mut ctx.seat(seat)?.purges, 1);
    lower(&mut ctx.count().pending_purges, 1);
    Ok(())
}

/// Forgets up to `most` facts that the epoch floor has passed: it forbids those epochs by itself.
pub(crate) fn forget_facts(ctx: &mut Ctx<'_>, most: usize) -> Result<u64, RowError> {
    let mut forgotten = 0;
    for ((position, key, seat), ()) in rows::scan::<PurgedByPosition>(ctx.kv(), &(), None, most)? {
        if position > ctx.clock.epoch_floor {
            break;
        }
        ctx.delete::<PurgedByPosition>(&(position, key, seat));
        ctx.delete::<Purged>(&(key, seat));
        forgotten += 1;
    }
    Ok(forgotten)
}
