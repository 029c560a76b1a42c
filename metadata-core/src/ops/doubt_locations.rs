//! DoubtLocations: somebody reported a copy missing or corrupt. It stops counting until a probe settles
//! it. `stored.epoch` is not looked at.

use dfs_proto::v1;

use super::ctx::{Ctx, OpResult};
use crate::rules::forms::{self, Check};
use crate::rules::locations::change_listed;

pub(super) fn check(c: &v1::DoubtLocations) -> Check {
    forms::changes(&c.changes)
}

pub(super) fn apply(ctx: &mut Ctx<'_>, c: &v1::DoubtLocations) -> OpResult {
    change_listed(ctx, &c.changes, |_, listed| {
        let location = listed.location();
        Ok(!std::mem::replace(&mut location.doubted, true))
    })
}
