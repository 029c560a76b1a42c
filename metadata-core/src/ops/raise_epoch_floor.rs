//! RaiseEpochFloor: receipts and unreferenced chunks with an older epoch stop counting. Never beyond
//! what has been applied, never back.

use dfs_proto::v1;
use dfs_types::ErrorCode;

use super::ctx::{Ctx, OpResult, refuse};
use crate::rights::Operation;
use crate::rows::meta::{Clock, Field};
use crate::rules::forms::Check;
use crate::rules::housekeeping;

pub(super) fn check(_: &v1::RaiseEpochFloor) -> Check {
    Ok(())
}

pub(super) fn apply(ctx: &mut Ctx<'_>, c: &v1::RaiseEpochFloor) -> OpResult {
    ctx.require(Operation::Background)?;
    if c.position >= ctx.position {
        return refuse(ErrorCode::FailedPrecondition, "the epoch floor cannot be above what was applied");
    }
    let mut count = 0;
    if c.position > ctx.clock.epoch_floor {
        ctx.clock.epoch_floor = c.position;
        let clock = ctx.clock;
        ctx.put::<Clock>(&Field, &clock);
        count = 1;
    }
    count += housekeeping::below_floor(ctx)?;
    Ok(v1::CommandResult { count, ..Default::default() })
}
