//! AddLocations: copies that a task made or probed, by verified receipts. Clears doubts.

use dfs_proto::v1;

use super::ctx::{Ctx, OpResult};
use crate::rights::Operation;
use crate::rows::chunks::Chunks;
use crate::rules::chunks::{key_of, location, note_location, settle};
use crate::rules::forms::{self, Check};
use crate::rules::purges::fit;

pub(super) fn check(c: &v1::AddLocations) -> Check {
    forms::changes(&c.changes)
}

/// Changes that do not hold (any more) are skipped: `count` says how many were made.
pub(super) fn apply(ctx: &mut Ctx<'_>, c: &v1::AddLocations) -> OpResult {
    ctx.require(Operation::ChangeLocations)?;
    let mut count = 0;
    for change in &c.changes {
        let key = key_of(change.chunk.as_ref().expect("checked"))?;
        let stored = change.stored.as_ref().expect("checked");
        let Some(before) = ctx.get::<Chunks>(&key)?.filter(|row| !row.refs.is_empty()) else { continue };
        let Ok(seat) = fit(ctx, key, stored)? else { continue };
        let mut row = before.clone();
        note_location(&mut row, seat, stored.epoch);
        if let Some(location) = location(&mut row, seat) {
            location.doubted = false;
        }
        if row != before {
            settle(ctx, key, Some(&before), Some(row))?;
            count += 1;
        }
    }
    Ok(v1::CommandResult { count, ..Default::default() })
}
