//! AppendPage: the next page of an open upload. Its chunks are referenced from now on.
//!
//! Each chunk needs min_ack copies that count: named by receipts whose facts hold (rules/purges::fit),
//! or known already. Where they are missing the answer says chunk by chunk what to do.

use dfs_proto::v1;
use dfs_types::error::{ChunkNeed, Need};
use dfs_types::limits::{
    MAX_CHUNK_BYTES, MAX_PAGE_CHUNKS, MAX_PAGES_PER_VERSION, MAX_RECEIPTS_PER_CHUNK, MAX_VERSION_BYTES,
};
use dfs_types::{DfsError, ErrorCode, RealmId};

use super::ctx::{Ctx, Fault, OpResult, refuse};
use crate::rights::Operation;
use crate::rows::ChunkKey;
use crate::rows::chunks::Chunks;
use crate::rows::pages::{self, Entry, PageStarts, Pages};
use crate::rows::uploads::{Uploads, UploadsByActivity};
use crate::rows::versions::Newest;
use crate::rules::chunks::{self, settle};
use crate::rules::forms::{self, Check, invalid};
use crate::rules::purges::{Unfit, fit};
use crate::rules::{buckets, uploads};

/// Nonce, 32 bytes a secret, tag.
fn most_sealed(chunks: usize) -> usize {
    12 + 32 * chunks + 16
}

pub(super) fn check(c: &v1::AppendPage) -> Check {
    forms::id(&c.upload_id, "upload id")?;
    let entries = pages::entries(&c.clear).ok_or_else(|| invalid("the clear list is cut"))?;
    if entries.is_empty() {
        return Err(invalid("a page has at least one chunk"));
    }
    forms::at_most(&c.clear, MAX_PAGE_CHUNKS * pages::ENTRY_BYTES, "clear list")?;
    if entries.iter().any(|entry| entry.plain == 0 || u64::from(entry.plain) > MAX_CHUNK_BYTES) {
        return Err(invalid(format!("a chunk has 1 to {MAX_CHUNK_BYTES} bytes")));
    }
    if c.sealed.is_empty() {
        return Err(invalid("the sealed secrets are missing"));
    }
    forms::at_most(&c.sealed, most_sealed(entries.len()), "sealed secrets")?;
    if c.locations.len() != entries.len() {
        return Err(invalid("locations must be given for each chunk, empty where it is stored already"));
    }
    for list in &c.locations {
        if list.stored.len() > MAX_RECEIPTS_PER_CHUNK {
            let message = format!("at most {MAX_RECEIPTS_PER_CHUNK} receipts are allowed for a chunk");
            return Err(DfsError::new(ErrorCode::LimitExceeded, message));
        }
        list.stored.iter().try_for_each(forms::stored)?;
    }
    Ok(())
}

pub(super) fn apply(ctx: &mut Ctx<'_>, c: &v1::AppendPage) -> OpResult {
    ctx.require(Operation::AppendPage)?;
    let (id, mut upload) = uploads::find(ctx, &c.upload_id)?;
    if upload.state() != v1::UploadState::Open {
        return refuse(ErrorCode::UploadNotFound, "the upload was committed already");
    }
    buckets::by_id(ctx, &upload.bucket_id)?;
    if c.first_index < upload.chunks {
        return match ctx.get::<Pages>(&(id, c.first_index))? {
            Some(page) if page.clear == c.clear => Ok(v1::CommandResult {
                copies: upload.copies,
                target: upload.policy.unwrap_or_default().target,
                replayed: true,
                ..Default::default()
            }),
            _ => refuse(ErrorCode::ManifestMismatch, "another page stands there already"),
        };
    }
    if c.first_index > upload.chunks {
        let message = format!("the page begins at chunk {}, expected {}", c.first_index, upload.chunks);
        return refuse(ErrorCode::ManifestMismatch, message);
    }

    let entries = pages::entries(&c.clear).expect("checked");
    let size: u64 = entries.iter().map(|entry| u64::from(entry.plain)).sum();
    if upload.pages >= MAX_PAGES_PER_VERSION || upload.bytes + size > MAX_VERSION_BYTES {
        return refuse(ErrorCode::LimitExceeded, "the file has more pages or bytes than a file may have");
    }

    let realm = RealmId::from_slice(&upload.realm_id)?;
    let policy = upload.policy.unwrap_or_default();
    let mut needs = Vec::new();
    for (place, (entry, named)) in entries.iter().zip(&c.locations).enumerate() {
        match reference(ctx, ChunkKey { realm, chunk: entry.chunk }, entry, &named.stored, &policy)? {
            Ok(copies) => upload.copies = upload.copies.min(copies),
            Err(need) => needs.push(ChunkNeed { index: c.first_index + place as u32, need }),
        }
    }
    if !needs.is_empty() {
        let message = format!("{} of {} chunks lack durable copies", needs.len(), entries.len());
        return Err(Fault::Refused(DfsError::chunks_missing(message, needs)));
    }

    let page = v1::PageRow { clear: c.clear.clone(), sealed: c.sealed.clone(), offset: upload.bytes, size };
    ctx.put::<Pages>(&(id, c.first_index), &page);
    let start = v1::PositionRow { position: u64::from(c.first_index) };
    ctx.put::<PageStarts>(&(id, Newest(upload.bytes)), &start);
    ctx.delete::<UploadsByActivity>(&(upload.active_ms, id));
    upload.active_ms = ctx.clock.cluster_ms;
    upload.chunks += entries.len() as u32;
    upload.bytes += size;
    upload.pages += 1;
    ctx.put::<UploadsByActivity>(&(upload.active_ms, id), &());
    ctx.put::<Uploads>(&id, &upload);
    let (copies, target) = (upload.copies, policy.target);
    Ok(v1::CommandResult { copies, target, ..Default::default() })
}

/// Takes one reference to a chunk: its counting copies, or what the client must do first.
fn reference(
    ctx: &mut Ctx<'_>,
    key: ChunkKey,
    entry: &Entry,
    named: &[v1::StoredAt],
    policy: &v1::Policy,
) -> Result<Result<u32, Need>, Fault> {
    let before = ctx.get::<Chunks>(&key)?;
    let mut row = match &before {
        // The id is the hash of the sealed bytes: another length under it is no chunk of ours.
        Some(row) if row.sealed_length != entry.sealed_length() => {
            return refuse(ErrorCode::ManifestMismatch, format!("chunk {} has another length", key.chunk));
        }
        Some(row) => row.clone(),
        None if named.is_empty() => return Ok(Err(Need::Send)),
        None => v1::ChunkRow { sealed_length: entry.sealed_length(), ..Default::default() },
    };
    let mut too_old = 0;
    for stored in named {
        match fit(ctx, key, stored)? {
            Ok(seat) => chunks::note_location(&mut row, seat, stored.epoch),
            Err(Unfit::Epoch) => too_old += 1,
            Err(Unfit::Node) => {}
        }
    }
    let (copies, domains) = chunks::counting(ctx, &row)?;
    let spread = ctx.eligible_domains()?.min(policy.min_ack as usize);
    if copies < policy.min_ack || domains < spread {
        // Touching is enough where it would bring the copies up; else the bytes are needed.
        let enough = copies + too_old >= policy.min_ack;
        return Ok(Err(if too_old > 0 && enough { Need::Touch } else { Need::Send }));
    }
    chunks::add_reference(&mut row, policy.target);
    settle(ctx, key, before.as_ref(), Some(row))?;
    Ok(Ok(copies))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CLUSTER, World, begin, bucket, commit, page};
    use dfs_types::PrincipalId;

    /// Three nodes in three domains, a bucket of ann's, and an open upload of hers.
    fn world() -> (World, PrincipalId, bytes::Bytes, bytes::Bytes) {
        let (mut world, ann, bucket_id) = World::with_nodes(&["a", "b", "c"], 3);
        let c = begin(&world, ann, &bucket_id, "a", 3);
        let upload = world.ok(ann, c).created_id;
        (world, ann, bucket_id, upload)
    }

    fn needs(error: &DfsError) -> Vec<(u32, Need)> {
        error.chunks.iter().map(|chunk| (chunk.index, chunk.need)).collect()
    }

    #[test]
    fn pages_come_in_order_and_may_come_again() {
        let (mut world, ann, _, upload) = world();
        let at = [world.at("n1"), world.at("n2"), world.at("n3")];
        world.fails(ann, page(&upload, 2, &[1, 2], &at), ErrorCode::ManifestMismatch);
        let appended = world.ok(ann, page(&upload, 0, &[1, 2], &at));
        assert_eq!((appended.copies, appended.target), (3, 3));
        assert!(world.ok(ann, page(&upload, 0, &[1, 2], &at)).replayed);
        assert_eq!(world.chunk(ann, 1).unwrap().present, 3);
        world.fails(ann, page(&upload, 0, &[1, 3], &at), ErrorCode::ManifestMismatch);
        world.fails(ann, page(&upload, 1, &[2], &at), ErrorCode::ManifestMismatch);
        world.ok(ann, page(&upload, 2, &[3], &at));
        let bob = world.user("bob");
        world.fails(bob, page(&upload, 3, &[4], &at), ErrorCode::UploadNotFound);
    }

    #[test]
    fn fewer_than_min_ack_copies_are_refused_and_below_target_is_a_deficit() {
        let (mut world, ann, _, upload) = world();
        let (one, two) = (world.at("n1"), world.at("n2"));
        let error =
            world.fails(ann, page(&upload, 0, &[1, 2], std::slice::from_ref(&one)), ErrorCode::ChunksMissing);
        assert_eq!(needs(&error), [(0, Need::Send), (1, Need::Send)]);
        assert_eq!(world.counters().chunks, 0, "all or nothing");
        // The same node twice is one copy.
        world.fails(ann, page(&upload, 0, &[1], &[one.clone(), one.clone()]), ErrorCode::ChunksMissing);
        let appended = world.ok(ann, page(&upload, 0, &[1], &[one, two]));
        assert_eq!((appended.copies, appended.target), (2, 3));
        assert_eq!(world.counters().deficits, 1);
        assert_eq!(crate::query::deficits_page(&world.kv, None, 9).unwrap()[0].priority, 2);
    }

    #[test]
    fn copies_in_one_domain_do_not_do_while_there_are_others() {
        let (mut world, ann, _, upload) = world();
        world.node("n4", "a");
        let same = [world.at("n1"), world.at("n4")];
        world.fails(ann, page(&upload, 0, &[1], &same), ErrorCode::ChunksMissing);
        for name in ["n2", "n3"] {
            world.set_state(name, v1::NodeState::Down);
        }
        world.ok(ann, page(&upload, 0, &[1], &same));
    }

    #[test]
    fn receipts_of_old_epochs_ask_for_a_touch_and_of_wrong_nodes_for_the_bytes() {
        let (mut world, ann, _, upload) = world();
        let old = [world.at("n1"), world.at("n2")];
        let floor = v1::RaiseEpochFloor { position: world.position() };
        world.tick(1);
        let floor = v1::RaiseEpochFloor { position: floor.position + 1 };
        world.ok(CLUSTER, v1::command::Kind::RaiseEpochFloor(floor));
        let error = world.fails(ann, page(&upload, 0, &[1], &old), ErrorCode::ChunksMissing);
        assert_eq!(needs(&error), [(0, Need::Touch)]);

        // One touch would not do: two copies are needed.
        let error = world.fails(ann, page(&upload, 0, &[1], &old[..1]), ErrorCode::ChunksMissing);
        assert_eq!(needs(&error), [(0, Need::Send)]);

        let good = world.at("n1");
        let mut foreign = world.at("n2");
        foreign.incarnation = vec![9; 16].into();
        let error =
            world.fails(ann, page(&upload, 0, &[1], &[good.clone(), foreign]), ErrorCode::ChunksMissing);
        assert_eq!(needs(&error), [(0, Need::Send)]);
        let draining = world.at("n2");
        world.set_state("n2", v1::NodeState::Draining);
        world.fails(ann, page(&upload, 0, &[1], &[good.clone(), draining]), ErrorCode::ChunksMissing);
        let mut future = world.at("n3");
        future.epoch += 1 << 40;
        world.fails(ann, page(&upload, 0, &[1], &[good, future]), ErrorCode::ChunksMissing);
    }

    #[test]
    fn hits_need_live_undoubted_copies_in_the_callers_realm() {
        let (mut world, ann, bucket_id, upload) = world();
        world.fails(ann, page(&upload, 0, &[1], &[]), ErrorCode::ChunksMissing);
        world.file(ann, &bucket_id, "b", &[1, 2], &["n1", "n2"]);
        world.ok(ann, page(&upload, 0, &[1, 1], &[]));
        // An older receipt for a copy that is listed does not lower its epoch.
        let epoch = |world: &World| world.chunk(ann, 1).unwrap().copies[0].epoch;
        let before = epoch(&world);
        let older = v1::StoredAt { epoch: before - 65536, ..world.at("n1") };
        world.ok(ann, page(&upload, 2, &[1], &[older]));
        assert_eq!(epoch(&world), before);

        // Another tenant's realm does not have it.
        let bob = world.user("bob");
        let theirs = world.ok(bob, bucket("theirs", 3, 0)).created_id;
        let c = begin(&world, bob, &theirs, "a", 3);
        let their_upload = world.ok(bob, c).created_id;
        world.fails(bob, page(&their_upload, 0, &[1], &[]), ErrorCode::ChunksMissing);

        let doubted = crate::testing::change(world.chunk_key(ann, 2), world.at("n1"));
        let c = v1::DoubtLocations { changes: vec![doubted] };
        world.ok(CLUSTER, v1::command::Kind::DoubtLocations(c));
        let error = world.fails(ann, page(&upload, 3, &[1, 2], &[]), ErrorCode::ChunksMissing);
        assert_eq!(needs(&error), [(4, Need::Send)]);
        world.set_state("n2", v1::NodeState::Down);
        let error = world.fails(ann, page(&upload, 3, &[1, 2], &[]), ErrorCode::ChunksMissing);
        assert_eq!(needs(&error), [(3, Need::Send), (4, Need::Send)]);
        // A receipt from a third node makes it two again.
        let third = world.at("n3");
        world.ok(ann, page(&upload, 3, &[1], &[third]));
        world.ok(ann, commit(&upload, 4));
    }

    #[test]
    fn a_receipt_from_before_a_purge_is_no_copy() {
        let (mut world, ann, bucket_id, upload) = world();
        let early = [world.at("n1"), world.at("n2")];
        world.file(ann, &bucket_id, "b", &[1], &["n1", "n2", "n3"]);
        world.ok(ann, crate::testing::delete(&bucket_id, "b"));
        world.release_all();
        assert_eq!(world.purge_trash(), 1);
        assert_eq!(world.chunk(ann, 1), None);
        let done = |name: &str, position| v1::PurgedAt {
            chunk: Some(crate::testing::chunk_ref(world.chunk_key(ann, 1))),
            node_id: name.into(),
            position,
        };
        let at = world.position();
        let done = vec![done("n1", at), done("n2", at), done("n3", at - 1)];
        let done = world.ok(CLUSTER, v1::command::Kind::PurgeDone(v1::PurgeDone { done }));
        assert_eq!((done.count, world.counters().pending_purges), (2, 1));
        // The nodes have deleted it by now, and yet their receipts name an epoch above the floor.
        let error = world.fails(ann, page(&upload, 0, &[1], &early), ErrorCode::ChunksMissing);
        assert_eq!(needs(&error), [(0, Need::Touch)]);
        let fresh = [world.at("n1"), world.at("n2")];
        world.ok(ann, page(&upload, 0, &[1], &fresh));
    }

    #[test]
    fn a_full_page_fits_a_command() {
        let stored = |n: u8| v1::StoredAt {
            node_id: format!("chunk-server-{n}.distribute"),
            incarnation: vec![n; 16].into(),
            epoch: u64::MAX >> 8,
        };
        let v1::command::Kind::AppendPage(c) =
            page(&[1; 16], 0, &[7; MAX_PAGE_CHUNKS], &[stored(1), stored(2), stored(3)])
        else {
            unreachable!()
        };
        check(&c).unwrap();
        let length = prost::Message::encoded_len(&c);
        assert!(length < dfs_types::limits::MAX_COMMAND_BYTES, "{length}");
        let more = v1::AppendPage { clear: vec![1; 1025 * 36].into(), ..c };
        assert_eq!(check(&more).unwrap_err().code, ErrorCode::LimitExceeded);
    }
}
