//! PurgeChunks: unreferenced chunks leave the state, and their nodes get tickets to delete them.
//! Nothing happens to a chunk that was referenced again, even if it is back in trash since.

use dfs_proto::v1;

use super::ctx::{Ctx, OpResult};
use crate::rights::Operation;
use crate::rows::chunks::Chunks;
use crate::rules::chunks::{key_of, settle};
use crate::rules::forms::{self, Check};
use crate::rules::purges;

pub(super) fn check(c: &v1::PurgeChunks) -> Check {
    forms::batch(c.chunks.len(), "chunks")?;
    c.chunks.iter().try_for_each(|trashed| forms::chunk(trashed.chunk.as_ref()))
}

pub(super) fn apply(ctx: &mut Ctx<'_>, c: &v1::PurgeChunks) -> OpResult {
    ctx.require(Operation::Background)?;
    let mut count = 0;
    for trashed in &c.chunks {
        let key = key_of(trashed.chunk.as_ref().expect("checked"))?;
        let unchanged = |row: &v1::ChunkRow| {
            row.refs.is_empty() && row.trash_since != 0 && row.trash_since == trashed.since
        };
        let Some(row) = ctx.get::<Chunks>(&key)?.filter(unchanged) else { continue };
        for location in &row.locations {
            if ctx.holder(location.seat)?.current {
                purges::order_purge(ctx, key, location.seat)?;
            }
        }
        settle(ctx, key, Some(&row), None)?;
        // Each purge leaves up to a dozen facts, so each takes as many old ones away.
        purges::forget_facts(ctx, 2 * row.locations.len())?;
        count += 1;
    }
    Ok(v1::CommandResult { count, ..Default::default() })
}
