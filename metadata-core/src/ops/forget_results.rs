//! ForgetResults: forgets request results that left the at-most-once window. Entries do a little of it
//! themselves; this catches up.

use dfs_proto::v1;

use super::ctx::{Ctx, OpResult};
use crate::rights::Operation;
use crate::rules::forms::{self, Check};

pub(super) fn check(c: &v1::ForgetResults) -> Check {
    forms::batch(c.count as usize, "results")
}

pub(super) fn apply(ctx: &mut Ctx<'_>, c: &v1::ForgetResults) -> OpResult {
    ctx.require(Operation::Background)?;
    let count = ctx.forget_results(c.count as usize)?;
    Ok(v1::CommandResult { count, ..Default::default() })
}
