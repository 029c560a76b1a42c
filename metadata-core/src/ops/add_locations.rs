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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CLUSTER, World, change, delete};
    use dfs_proto::v1::command::Kind;

    #[test]
    fn a_chunk_in_trash_gets_no_more_copies() {
        let (mut world, ann, bucket) = World::with_nodes(&["a", "b", "c"], 3);
        world.file(ann, &bucket, "a", &[1], &["n1", "n2"]);
        let add = |world: &World, n| {
            let changes = vec![change(world.chunk_key(ann, n), world.at("n3"))];
            Kind::AddLocations(v1::AddLocations { changes })
        };
        world.ok(ann, delete(&bucket, "a"));
        world.release_all();
        let (trashed, unknown) = (add(&world, 1), add(&world, 9));
        assert_eq!(world.ok(CLUSTER, trashed).count, 0);
        assert_eq!(world.ok(CLUSTER, unknown).count, 0);
        world.file(ann, &bucket, "a", &[1], &[]);
        let (used, again) = (add(&world, 1), add(&world, 1));
        assert_eq!(world.ok(CLUSTER, used).count, 1);
        assert_eq!(world.counters().deficits, 0);
        assert_eq!(world.ok(CLUSTER, again).count, 0, "nothing new in it");
    }
}
