//! QueueNodeDeficits: looks again, in bounded steps, at the chunks of a node whose copies began or
//! stopped counting, and writes or clears their deficits. Locations of a replaced incarnation go.

use dfs_proto::v1;
use dfs_types::limits::MAX_CHUNKS_PER_BACKGROUND_COMMAND;
use dfs_types::{ErrorCode, Incarnation};

use super::ctx::{Ctx, Fault, OpResult, refuse};
use crate::rights::Operation;
use crate::rows::chunks::Chunks;
use crate::rows::node_chunks::NodeChunks;
use crate::rows::purged::PendingPurges;
use crate::rows::seats::SeatsByIncarnation;
use crate::rows::{self, ChunkKey, Kind, Part, RowError};
use crate::rules::chunks::settle;
use crate::rules::forms::{self, Check};
use crate::rules::purges;

pub(super) fn check(c: &v1::QueueNodeDeficits) -> Check {
    forms::node_id(&c.node_id)?;
    forms::id(&c.incarnation, "incarnation")?;
    forms::batch(c.count as usize, "chunks")
}

pub(super) fn apply(ctx: &mut Ctx<'_>, c: &v1::QueueNodeDeficits) -> OpResult {
    ctx.require(Operation::Background)?;
    let Some(number) = ctx.seat_of(&c.node_id, &c.incarnation)? else {
        return refuse(ErrorCode::NodeNotFound, "there is no such node or incarnation");
    };
    let seat = ctx.seat(number)?.clone();
    if !seat.recheck {
        return Ok(v1::CommandResult::default());
    }
    let step = (c.count as usize).min(MAX_CHUNKS_PER_BACKGROUND_COMMAND);
    let after = cursor(&seat)?.map(|key| (number, key));
    let page = rows::scan::<NodeChunks>(ctx.kv(), &number, after.as_ref(), step)?;
    for ((_, key), ()) in &page {
        let before = ctx.must_get::<Chunks>(key)?;
        let mut row = before.clone();
        if seat.retired {
            row.locations.retain(|location| location.seat != number);
        }
        settle(ctx, *key, Some(&before), Some(row))?;
    }
    let mut count = page.len();
    if page.len() == step {
        let mut last = Vec::new();
        page.last().expect("step is at least 1").0.1.write(&mut last);
        ctx.seat(number)?.recheck_after = last.into();
    } else if seat.retired {
        count += clear(ctx, number, &c.incarnation, step - page.len())?;
    } else {
        let seat = ctx.seat(number)?;
        seat.recheck = false;
        seat.recheck_after = Default::default();
    }
    Ok(v1::CommandResult { count: count as u64, ..Default::default() })
}

/// A replaced or removed incarnation: its tickets go, then the seat itself.
fn clear(ctx: &mut Ctx<'_>, number: u32, incarnation: &[u8], step: usize) -> Result<usize, Fault> {
    let tickets = rows::scan::<PendingPurges>(ctx.kv(), &number, None, step)?;
    for ((_, key), _) in &tickets {
        purges::purge_over(ctx, *key, number)?;
    }
    let empty = { ctx.seat(number)?.purges == 0 && ctx.seat(number)?.chunks == 0 };
    if empty {
        ctx.drop_seat(number);
        ctx.delete::<SeatsByIncarnation>(&Incarnation::from_slice(incarnation)?);
    }
    // The last step did something, even if only the seat was left.
    Ok(tickets.len().max(1))
}

fn cursor(seat: &v1::SeatRow) -> Result<Option<ChunkKey>, RowError> {
    if seat.recheck_after.is_empty() {
        return Ok(None);
    }
    let key = ChunkKey::read(&mut seat.recheck_after.as_ref());
    key.map(Some).ok_or_else(|| RowError::corrupt(Kind::Seat, "cursor"))
}
