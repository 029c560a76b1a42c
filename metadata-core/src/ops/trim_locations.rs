//! TrimLocations: takes copies away that are more than wanted, or stand on a node that drains or is
//! down. Only if what remains meets the target, and is spread no worse than it must be.

use dfs_proto::v1;

use super::ctx::{Ctx, OpResult};
use crate::rights::Operation;
use crate::rows::chunks::Chunks;
use crate::rules::chunks::{counting, key_of, location, settle, wanted};
use crate::rules::forms::{self, Check};
use crate::rules::purges;

pub(super) fn check(c: &v1::TrimLocations) -> Check {
    forms::changes(&c.changes)
}

/// Each change is judged by itself, behind those before it; `count` says how many were made.
pub(super) fn apply(ctx: &mut Ctx<'_>, c: &v1::TrimLocations) -> OpResult {
    ctx.require(Operation::Background)?;
    let mut count = 0;
    for change in &c.changes {
        let key = key_of(change.chunk.as_ref().expect("checked"))?;
        let stored = change.stored.as_ref().expect("checked");
        let Some(seat) = ctx.seat_of(&stored.node_id, &stored.incarnation)? else { continue };
        let Some(before) = ctx.get::<Chunks>(&key)? else { continue };
        let mut row = before.clone();
        if location(&mut row, seat).is_none() {
            continue;
        }
        let (_, spread_before) = counting(ctx, &row)?;
        row.locations.retain(|location| location.seat != seat);
        let (copies, spread) = counting(ctx, &row)?;
        let target = wanted(&row);
        let must_spread = spread_before.min(ctx.eligible_domains()?.min(target as usize));
        if copies < target || spread < must_spread {
            continue;
        }
        if ctx.holder(seat)?.current {
            purges::order_purge(ctx, key, seat)?;
        }
        settle(ctx, key, Some(&before), Some(row))?;
        count += 1;
    }
    Ok(v1::CommandResult { count, ..Default::default() })
}
