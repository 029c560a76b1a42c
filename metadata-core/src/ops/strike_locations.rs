//! StrikeLocations: a node itself said, after a probe, that a copy is absent or corrupt. `stored.epoch`
//! is the location's epoch when it was probed: a copy made since stays.

use dfs_proto::v1;

use super::ctx::{Ctx, OpResult};
use crate::rules::forms::{self, Check};
use crate::rules::locations::change_listed;
use crate::rules::purges;

pub(super) fn check(c: &v1::StrikeLocations) -> Check {
    forms::changes(&c.changes)
}

pub(super) fn apply(ctx: &mut Ctx<'_>, c: &v1::StrikeLocations) -> OpResult {
    change_listed(ctx, &c.changes, |ctx, listed| {
        if listed.location().epoch != listed.epoch {
            return Ok(false);
        }
        listed.take();
        // What the node said of this chunk before does not count any more.
        purges::forbid(ctx, listed.key, listed.seat)?;
        Ok(true)
    })
}
