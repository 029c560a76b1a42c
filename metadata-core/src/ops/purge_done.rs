//! PurgeDone: nodes have carried out tickets, or keep a newer copy. What they were forbids older
//! receipts until the floor passes (rules/purges).

use dfs_proto::v1;

use super::ctx::{Ctx, OpResult};
use crate::rights::Operation;
use crate::rows::Tail;
use crate::rows::nodes::Nodes;
use crate::rows::purged::PendingPurges;
use crate::rules::chunks::key_of;
use crate::rules::forms::{self, Check};
use crate::rules::purges;

pub(super) fn check(c: &v1::PurgeDone) -> Check {
    forms::batch(c.done.len(), "tickets")?;
    for done in &c.done {
        forms::chunk(done.chunk.as_ref())?;
        forms::node_id(&done.node_id)?;
    }
    Ok(())
}

pub(super) fn apply(ctx: &mut Ctx<'_>, c: &v1::PurgeDone) -> OpResult {
    ctx.require(Operation::Background)?;
    let mut count = 0;
    for done in &c.done {
        let key = key_of(done.chunk.as_ref().expect("checked"))?;
        let Some(node) = ctx.get::<Nodes>(&Tail(done.node_id.clone()))? else { continue };
        // A later ticket for the same chunk stays.
        let same = |row: v1::PositionRow| row.position == done.position;
        if ctx.get::<PendingPurges>(&(node.seat, key))?.is_some_and(same) {
            purges::purge_over(ctx, key, node.seat)?;
            count += 1;
        }
    }
    Ok(v1::CommandResult { count, ..Default::default() })
}
