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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query;
    use crate::testing::{CLUSTER, World, delete};
    use dfs_proto::v1::command::Kind;

    /// A chunk purged by an order that was made before it was used again would be lost.
    #[test]
    fn a_chunk_used_again_survives_a_late_order_even_from_trash() {
        let (mut world, ann, bucket) = World::with_nodes(&["a", "b"], 2);
        world.file(ann, &bucket, "a", &[1], &["n1", "n2"]);
        world.ok(ann, delete(&bucket, "a"));
        world.release_all();
        let late = query::trash_due(&world.kv, 0, 9).unwrap();
        assert_eq!(late.len(), 1);
        world.file(ann, &bucket, "a", &[1], &[]);
        let order = Kind::PurgeChunks(v1::PurgeChunks { chunks: late });
        assert_eq!(world.ok(CLUSTER, order.clone()).count, 0);
        world.ok(ann, delete(&bucket, "a"));
        world.release_all();
        assert_eq!(world.ok(CLUSTER, order).count, 0, "in trash again, since another position");
        assert_eq!(world.purge_trash(), 1);
        let counters = world.counters();
        assert_eq!((counters.chunks, counters.trash_chunks, counters.pending_purges), (0, 0, 2));
        let seat = query::node(&world.kv, "n1").unwrap().unwrap().row.seat;
        let tickets = query::pending_purges(&world.kv, seat, None, 9).unwrap();
        assert_eq!(tickets[0].position, world.position());
    }

    #[test]
    fn facts_go_when_the_floor_passes() {
        let (mut world, ann, bucket) = World::with_nodes(&["a", "b"], 2);
        world.file(ann, &bucket, "a", &[1], &["n1", "n2"]);
        world.ok(ann, delete(&bucket, "a"));
        world.release_all();
        world.purge_trash();
        let position = world.position();
        let floor = Kind::RaiseEpochFloor(v1::RaiseEpochFloor { position });
        // Two facts, and the tombstone of the upload.
        assert_eq!(world.ok(CLUSTER, floor.clone()).count, 1 + 2 + 1);
        assert_eq!(world.ok(CLUSTER, floor).count, 0);
        let beyond = v1::RaiseEpochFloor { position: world.position() + 65536 };
        world.fails(CLUSTER, Kind::RaiseEpochFloor(beyond), dfs_types::ErrorCode::FailedPrecondition);
    }
}
