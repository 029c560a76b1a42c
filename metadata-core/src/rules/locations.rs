//! Changes of listed locations, one after another: what doubting, striking off and trimming share.
//! Each change is judged by itself, behind those before it; one that does not hold (any more) is
//! skipped.

use dfs_proto::v1;

use super::chunks::{key_of, location, settle};
use crate::ops::ctx::{Ctx, Fault, OpResult};
use crate::rights::Operation;
use crate::rows::ChunkKey;
use crate::rows::chunks::Chunks;

/// A location that the state lists, with the row it stands in.
pub(crate) struct Listed {
    pub key: ChunkKey,
    pub seat: u32,
    /// The epoch that the command names.
    pub epoch: u64,
    pub row: v1::ChunkRow,
}

impl Listed {
    pub fn location(&mut self) -> &mut v1::ChunkLocation {
        location(&mut self.row, self.seat).expect("listed, as long as it was not taken")
    }

    pub fn take(&mut self) {
        self.row.locations.retain(|location| location.seat != self.seat);
    }
}

/// Has `change` change the row of every location that is listed; it answers whether it did. `count`
/// of the result says how many were made.
pub(crate) fn change_listed(
    ctx: &mut Ctx<'_>,
    changes: &[v1::LocationChange],
    mut change: impl FnMut(&mut Ctx<'_>, &mut Listed) -> Result<bool, Fault>,
) -> OpResult {
    ctx.require(Operation::Background)?;
    let mut count = 0;
    for wanted in changes {
        let key = key_of(wanted.chunk.as_ref().expect("checked"))?;
        let stored = wanted.stored.as_ref().expect("checked");
        let Some(seat) = ctx.seat_of(&stored.node_id, &stored.incarnation)? else { continue };
        let Some(before) = ctx.get::<Chunks>(&key)? else { continue };
        let mut listed = Listed { key, seat, epoch: stored.epoch, row: before.clone() };
        if location(&mut listed.row, seat).is_some() && change(ctx, &mut listed)? {
            settle(ctx, key, Some(&before), Some(listed.row))?;
            count += 1;
        }
    }
    Ok(v1::CommandResult { count, ..Default::default() })
}
