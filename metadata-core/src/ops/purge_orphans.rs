//! PurgeOrphans: bytes that a node keeps and that no row of the state accounts for, left behind by an
//! upload that ended before its page was appended, a copy whose receipt came too late, a location that
//! was struck off. The node gets a delete ticket; its inventory only nominated them.
//!
//! **Why nothing that counts, or will, is deleted.** The ticket's position P is the epoch floor at the
//! moment this entry applies, and the node deletes only what has a stored epoch below P, compared under
//! its store's lock. So:
//!
//! 1. What is listed on this seat when the entry applies gets no ticket at all.
//! 2. A location that is listed later takes a receipt whose epoch is not below the floor of *that*
//!    moment (rules/purges::fit), so not below P: the floor never falls. The node gave that receipt
//!    after an epoch of at least P was durable, and stored epochs never fall, so the ticket, however
//!    late, finds an epoch that is not below P and keeps the chunk.
//! 3. The other way round: whatever the node receipted about bytes that the ticket did delete was
//!    stored with an epoch below P, so the receipt's epoch is below P and below every later floor. It
//!    never adds a location, so no phantom copy can come of it. This is why no purge fact is written: a
//!    fact at P would say what the floor says.
//!
//! A higher P (this entry's own position, with a fact) would be as safe and do harm: it would delete
//! what a live upload stored or touched since the floor and is about to append.
//!
//! A ticket that is under way already stays as it is: its position may be higher. Copies of a chunk
//! that has fewer than it wants are left alone whatever their epoch: they may be all there is.

use dfs_proto::v1;

use super::ctx::{Ctx, OpResult};
use crate::rights::Operation;
use crate::rows::chunks::Chunks;
use crate::rows::purged::PendingPurges;
use crate::rules::chunks::{counting, key_of, location, wanted};
use crate::rules::forms::{self, Check};
use crate::rules::purges;

pub(super) fn check(c: &v1::PurgeOrphans) -> Check {
    forms::node_id(&c.node_id)?;
    forms::id(&c.incarnation, "incarnation")?;
    forms::batch(c.chunks.len(), "chunks")?;
    c.chunks.iter().try_for_each(|chunk| forms::chunk(Some(chunk)))
}

/// `count` says how many tickets were drawn up.
pub(super) fn apply(ctx: &mut Ctx<'_>, c: &v1::PurgeOrphans) -> OpResult {
    ctx.require(Operation::Background)?;
    let mut count = 0;
    let floor = ctx.clock.epoch_floor;
    let seat = match ctx.seat_of(&c.node_id, &c.incarnation)? {
        Some(seat) if floor > 0 && ctx.holder(seat)?.current => seat,
        _ => return Ok(v1::CommandResult::default()),
    };
    for chunk in &c.chunks {
        let key = key_of(chunk)?;
        if ctx.get::<PendingPurges>(&(seat, key))?.is_some() {
            continue;
        }
        if let Some(mut row) = ctx.get::<Chunks>(&key)? {
            let (copies, _) = counting(ctx, &row)?;
            if location(&mut row, seat).is_some() || copies < wanted(&row) {
                continue;
            }
        }
        purges::order_delete(ctx, key, seat, floor)?;
        count += 1;
    }
    Ok(v1::CommandResult { count, ..Default::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query;
    use crate::rows::ChunkKey;
    use crate::testing::{CLUSTER, World, change, chunk_ref};
    use dfs_proto::v1::command::Kind;
    use dfs_types::ErrorCode;
    use dfs_types::error::Need;

    fn order(world: &World, node: &str, keys: &[ChunkKey]) -> Kind {
        Kind::PurgeOrphans(v1::PurgeOrphans {
            node_id: node.into(),
            incarnation: world.at(node).incarnation,
            chunks: keys.iter().copied().map(chunk_ref).collect(),
        })
    }

    fn tickets(world: &World, node: &str) -> Vec<(ChunkKey, u64)> {
        let seat = query::node(&world.kv, node).unwrap().unwrap().row.seat;
        let pending = query::pending_purges(&world.kv, seat, None, 99).unwrap();
        pending.into_iter().map(|purge| (purge.chunk, purge.position)).collect()
    }

    fn raise_floor(world: &mut World) -> u64 {
        let position = world.position();
        world.ok(CLUSTER, Kind::RaiseEpochFloor(v1::RaiseEpochFloor { position }));
        position
    }

    fn world() -> (World, dfs_types::PrincipalId, bytes::Bytes) {
        World::with_nodes(&["a", "b", "c", "d"], 3)
    }

    #[test]
    fn only_what_is_not_listed_gets_a_ticket_and_its_position_is_the_floor() {
        let (mut world, ann, bucket) = world();
        world.file(ann, &bucket, "a", &[1, 2], &["n1", "n2", "n3"]);
        let keys = [world.chunk_key(ann, 1), world.chunk_key(ann, 9)];
        let early = order(&world, "n1", &keys);
        assert_eq!(world.ok(CLUSTER, early.clone()).count, 0, "there is no floor yet");
        let floor = raise_floor(&mut world);
        world.tick(10);
        assert_eq!(world.ok(CLUSTER, early.clone()).count, 1);
        assert_eq!(tickets(&world, "n1"), [(keys[1], floor)], "chunk 1 is listed there");
        // Once is enough, and a ticket that stands is not replaced by another.
        raise_floor(&mut world);
        assert_eq!(world.ok(CLUSTER, early).count, 0);
        assert_eq!(tickets(&world, "n1"), [(keys[1], floor)]);
        // A copy beyond those listed goes; chunk 2 has all it wants.
        let surplus = order(&world, "n4", &[world.chunk_key(ann, 2)]);
        assert_eq!(world.ok(CLUSTER, surplus.clone()).count, 1);
        world.fails(ann, surplus, ErrorCode::PermissionDenied);
    }

    /// An unlisted copy of a chunk that lacks copies may be the last one there is.
    #[test]
    fn what_a_chunk_in_need_may_want_back_stays() {
        let (mut world, ann, bucket) = world();
        world.file(ann, &bucket, "a", &[1], &["n1", "n2"]);
        raise_floor(&mut world);
        let unlisted = order(&world, "n4", &[world.chunk_key(ann, 1)]);
        assert_eq!(world.ok(CLUSTER, unlisted.clone()).count, 0, "two of three");
        let add = change(world.chunk_key(ann, 1), world.at("n3"));
        world.ok(CLUSTER, Kind::AddLocations(v1::AddLocations { changes: vec![add] }));
        assert_eq!(world.ok(CLUSTER, unlisted.clone()).count, 1);
        // A node that went down counts no more, though nobody has looked at its chunks yet.
        let (mut world, ann, bucket) = self::world();
        world.file(ann, &bucket, "a", &[1], &["n1", "n2", "n3"]);
        raise_floor(&mut world);
        world.set_state("n3", v1::NodeState::Down);
        let unlisted = order(&world, "n4", &[world.chunk_key(ann, 1)]);
        assert_eq!(world.ok(CLUSTER, unlisted).count, 0);
    }

    /// The whole argument of this file's header, step by step: an upload stores a chunk and sleeps until
    /// the floor has passed it; its bytes are orphans, its receipts are worth nothing, a touch mends it.
    #[test]
    fn receipts_from_before_the_floor_make_no_phantom() {
        let (mut world, ann, bucket) = world();
        let begin = crate::testing::begin(&world, ann, &bucket, "a", 3);
        let upload = world.ok(ann, begin).created_id;
        let old = ["n1", "n2", "n3"].map(|name| world.at(name));
        world.tick(10);
        let floor = raise_floor(&mut world);
        let key = world.chunk_key(ann, 1);
        for node in ["n1", "n2", "n3"] {
            let ticket = order(&world, node, &[key]);
            assert_eq!(world.ok(CLUSTER, ticket).count, 1);
            assert!(old.iter().all(|stored| stored.epoch < tickets(&world, node)[0].1));
        }
        // Ticket carried out or not, the old receipts do not count: the client must touch or send.
        let page = crate::testing::page(&upload, 0, &[1], &old);
        let refused = world.fails(ann, page.clone(), ErrorCode::ChunksMissing);
        assert_eq!(refused.chunks.iter().map(|need| need.need).collect::<Vec<_>>(), [Need::Touch]);
        // After the tickets are confirmed no less, and no fact is needed for it.
        let done = ["n1", "n2", "n3"].map(|node| v1::PurgedAt {
            chunk: Some(chunk_ref(key)),
            node_id: node.into(),
            position: floor,
        });
        assert_eq!(world.ok(CLUSTER, Kind::PurgeDone(v1::PurgeDone { done: done.into() })).count, 3);
        world.fails(ann, page, ErrorCode::ChunksMissing);
        // Touched or sent again, with an epoch of now: a ticket of that floor does not reach it.
        let new = ["n1", "n2", "n3"].map(|name| world.at(name));
        assert!(new.iter().all(|stored| stored.epoch >= floor));
        world.ok(ann, crate::testing::page(&upload, 0, &[1], &new));
        let late = order(&world, "n1", &[key]);
        assert_eq!(world.ok(CLUSTER, late).count, 0, "it is listed now");
    }

    #[test]
    fn a_replaced_data_directory_gets_no_tickets() {
        let (mut world, ann, _) = world();
        raise_floor(&mut world);
        let old = order(&world, "n1", &[world.chunk_key(ann, 9)]);
        world.set_state("n1", v1::NodeState::Down);
        world.ok(CLUSTER, crate::testing::register("n1", "a", 2));
        assert_eq!(world.ok(CLUSTER, old).count, 0);
    }
}
