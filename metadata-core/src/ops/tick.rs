//! Tick: cluster time goes on by the leader's monotonic time since its previous tick.

use dfs_proto::v1;
use dfs_types::limits::MAX_TICK_MS;

use super::ctx::{Ctx, OpResult};
use crate::rights::Operation;
use crate::rows::marks::Marks;
use crate::rows::meta::{Clock, Field};
use crate::rules::forms::{Check, invalid};
use crate::rules::housekeeping;

pub(super) fn check(c: &v1::Tick) -> Check {
    if (1..=MAX_TICK_MS).contains(&c.millis) {
        Ok(())
    } else {
        Err(invalid(format!("a tick of {} ms, 1 to {MAX_TICK_MS} are allowed", c.millis)))
    }
}

pub(super) fn apply(ctx: &mut Ctx<'_>, c: &v1::Tick) -> OpResult {
    ctx.require(Operation::Background)?;
    ctx.clock.cluster_ms += c.millis;
    let clock = ctx.clock;
    ctx.put::<Clock>(&Field, &clock);
    let position = ctx.position;
    ctx.put::<Marks>(&clock.cluster_ms, &v1::PositionRow { position });
    let count = housekeeping::below_floor(ctx)?;
    Ok(v1::CommandResult { count, ..Default::default() })
}
