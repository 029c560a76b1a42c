//! StrikeLocations: a node itself said, after a probe, that a copy is absent or corrupt. `stored.epoch`
//! is the location's epoch when it was probed: a copy made since stays.

use dfs_proto::v1;

use super::ctx::{Ctx, OpResult};
use crate::rights::Operation;
use crate::rows::chunks::Chunks;
use crate::rules::chunks::{key_of, location, settle};
use crate::rules::forms::{self, Check};
use crate::rules::purges;

pub(super) fn check(c: &v1::StrikeLocations) -> Check {
    forms::changes(&c.changes)
}

pub(super) fn apply(ctx: &mut Ctx<'_>, c: &v1::StrikeLocations) -> OpResult {
    ctx.require(Operation::Background)?;
    let mut count = 0;
    for change in &c.changes {
        let key = key_of(change.chunk.as_ref().expect("checked"))?;
        let stored = change.stored.as_ref().expect("checked");
        let Some(seat) = ctx.seat_of(&stored.node_id, &stored.incarnation)? else { continue };
        let Some(before) = ctx.get::<Chunks>(&key)? else { continue };
        let mut row = before.clone();
        if location(&mut row, seat).is_none_or(|location| location.epoch != stored.epoch) {
            continue;
        }
        row.locations.retain(|location| location.seat != seat);
        // What the node said of this chunk before does not count any more.
        purges::forbid(ctx, key, seat)?;
        settle(ctx, key, Some(&before), Some(row))?;
        count += 1;
    }
    Ok(v1::CommandResult { count, ..Default::default() })
}
