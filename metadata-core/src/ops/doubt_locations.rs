//! DoubtLocations: somebody reported a copy missing or corrupt. It stops counting until a probe settles
//! it. `stored.epoch` is not looked at.

use dfs_proto::v1;

use super::ctx::{Ctx, OpResult};
use crate::rights::Operation;
use crate::rows::chunks::Chunks;
use crate::rules::chunks::{key_of, location, settle};
use crate::rules::forms::{self, Check};

pub(super) fn check(c: &v1::DoubtLocations) -> Check {
    forms::changes(&c.changes)
}

pub(super) fn apply(ctx: &mut Ctx<'_>, c: &v1::DoubtLocations) -> OpResult {
    ctx.require(Operation::Background)?;
    let mut count = 0;
    for change in &c.changes {
        let key = key_of(change.chunk.as_ref().expect("checked"))?;
        let stored = change.stored.as_ref().expect("checked");
        let Some(seat) = ctx.seat_of(&stored.node_id, &stored.incarnation)? else { continue };
        let Some(before) = ctx.get::<Chunks>(&key)? else { continue };
        let mut row = before.clone();
        match location(&mut row, seat) {
            Some(location) if !location.doubted => location.doubted = true,
            _ => continue,
        }
        settle(ctx, key, Some(&before), Some(row))?;
        count += 1;
    }
    Ok(v1::CommandResult { count, ..Default::default() })
}
