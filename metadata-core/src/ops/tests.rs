//! The frame around operations: at-most-once, all or nothing, entries that must stop a member.

use dfs_proto::v1;
use dfs_proto::v1::command::Kind;
use dfs_types::limits::REQUEST_WINDOW;
use dfs_types::{ErrorCode, PrincipalId};

use crate::apply::{ApplyError, ENTRY_FORMAT, apply_entry};
use crate::query;
use crate::testing::{CLUSTER, World, bucket, fresh, put_inline};

fn request(principal: PrincipalId, id: &bytes::Bytes, seen_position: u64, kind: Kind) -> v1::Command {
    v1::Command {
        principal_id: principal.to_vec().into(),
        request_id: id.clone(),
        seen_position,
        unix_ms: 1,
        trace_parent: bytes::Bytes::new(),
        kind: Some(kind),
    }
}

fn code(result: &v1::CommandResult) -> Option<ErrorCode> {
    result.error.as_ref().and_then(|error| ErrorCode::from_number(error.code))
}

#[test]
fn a_request_runs_once_and_is_answered_the_same() {
    let mut world = World::new();
    let (ann, bob) = (world.user("ann"), world.user("bob"));
    let bucket = world.ok(ann, bucket("photos", 3, 1000)).created_id;
    let id = fresh();
    let seen = world.position();
    let first = world.command(request(ann, &id, seen, put_inline(&bucket, "a", b"one")));
    // A retry through another server may carry other random values: the stored answer holds.
    let again = world.command(request(ann, &id, seen, put_inline(&bucket, "a", b"one")));
    assert_eq!((again.version, again.file_id, again.replayed), (first.version, first.file_id, true));
    assert_eq!(world.counters().versions, 1);
    // Twice in one entry.
    let id = fresh();
    let twice = vec![request(ann, &id, seen, put_inline(&bucket, "b", b"x")); 2];
    let results = world.entry(twice);
    assert_eq!((results[0].version, results[1].replayed), (results[1].version, true));
    // Refusals are answers too; and another principal's ids are others.
    let id = fresh();
    let refused = request(ann, &id, seen, crate::testing::delete(&bucket, "none"));
    assert_eq!(code(&world.command(refused.clone())), Some(ErrorCode::NotFound));
    assert!(world.command(refused.clone()).replayed);
    let theirs = v1::Command { principal_id: bob.to_vec().into(), ..refused };
    assert_eq!(code(&world.command(theirs)), Some(ErrorCode::BucketNotFound));
}

#[test]
fn requests_outside_the_window_are_refused_and_results_forgotten() {
    let mut world = World::new();
    let ann = world.user("ann");
    let bucket = world.ok(ann, bucket("photos", 3, 0)).created_id;
    let (id, seen) = (fresh(), world.position());
    world.command(request(ann, &id, seen, put_inline(&bucket, "a", b"one")));
    let future = request(ann, &fresh(), 1 << 50, put_inline(&bucket, "a", b"one"));
    assert_eq!(code(&world.command(future)), Some(ErrorCode::InvalidArgument));
    world.log_index += REQUEST_WINDOW + 2;
    assert!(query::oldest_request(&world.kv).unwrap().is_some());
    let late = request(ann, &fresh(), seen, put_inline(&bucket, "a", b"two"));
    assert_eq!(code(&world.command(late)), Some(ErrorCode::RequestTooOld));
    // The entry before took the old result away: the same request is too old now, never run again.
    assert_eq!(query::oldest_request(&world.kv).unwrap(), None);
    let late = request(ann, &id, seen, put_inline(&bucket, "a", b"one"));
    assert_eq!(code(&world.command(late)), Some(ErrorCode::RequestTooOld));
    assert_eq!(world.ok(CLUSTER, Kind::ForgetResults(v1::ForgetResults { count: 9 })).count, 0);
}

#[test]
fn commands_of_one_entry_see_each_other_and_fail_alone() {
    let mut world = World::new();
    let ann = world.user("ann");
    let bucket = world.ok(ann, bucket("photos", 3, 0)).created_id;
    let command = |kind| request(ann, &bytes::Bytes::new(), 0, kind);
    let results = world.entry(vec![
        command(put_inline(&bucket, "a", b"one")),
        command(crate::testing::delete(&bucket, "b")),
        command(crate::testing::rename(&bucket, "a", "b")),
        command(crate::testing::delete(&bucket, "b")),
    ]);
    let codes: Vec<_> = results.iter().map(code).collect();
    assert_eq!(codes, [None, Some(ErrorCode::NotFound), None, None]);
    let places: Vec<_> = results.iter().map(|result| result.position & 0xffff).collect();
    assert_eq!(places, [0, 1, 2, 3]);
    assert_eq!(world.position(), results[3].position);
}

#[test]
fn nobody_unknown_does_anything_and_only_the_cluster_does_background_work() {
    let mut world = World::new();
    let admin = world.admin;
    world.fails(PrincipalId([9; 16]), bucket("photos", 3, 0), ErrorCode::Unauthenticated);
    world.fails(CLUSTER, bucket("photos", 3, 0), ErrorCode::PermissionDenied);
    world.fails(admin, Kind::Tick(v1::Tick { millis: 1 }), ErrorCode::PermissionDenied);
    world.fails(CLUSTER, Kind::Tick(v1::Tick { millis: 5001 }), ErrorCode::InvalidArgument);
}

#[test]
fn what_this_build_does_not_understand_stops_the_member() {
    let world = World::new();
    let apply = |log_index, entry: v1::Entry| apply_entry(&world.kv, log_index, &entry).unwrap_err();
    let entry = v1::Entry { format: ENTRY_FORMAT, commands: vec![v1::Command::default()] };
    assert!(matches!(apply(2, entry), ApplyError::UnknownCommand { log_index: 2, place: 0 }));
    let entry = v1::Entry { format: 2, commands: vec![] };
    assert!(matches!(apply(2, entry), ApplyError::UnknownFormat { format: 2, .. }));
    let entry = v1::Entry { format: ENTRY_FORMAT, commands: vec![] };
    assert!(matches!(apply(1, entry), ApplyError::OutOfOrder { .. }));
}

#[test]
fn bootstrap_runs_once_and_the_hash_is_that_of_every_build() {
    let mut world = World::new();
    let again = v1::Bootstrap {
        cluster_id: vec![1; 16].into(),
        admin_id: vec![1; 16].into(),
        admin_name: "other".into(),
        admin_key_hash: vec![1; 32].into(),
        master_key_id: vec![1; 16].into(),
        admin_realm_id: vec![1; 16].into(),
        wrapped_admin_realm_secret: vec![1; 66].into(),
        shared_realm_id: vec![1; 16].into(),
        wrapped_shared_realm_secret: vec![1; 66].into(),
        feature_level: 0,
    };
    let hash = query::state_hash(&world.kv).unwrap().unwrap();
    assert_eq!(
        dfs_types::ids::hex(&hash),
        "208fb52a97d367793015585a05d14e01dea60e8c4cf443eb587b2b7f3c338542"
    );
    world.fails(CLUSTER, Kind::Bootstrap(again), ErrorCode::FailedPrecondition);
}

/// Every command with a right form, on ids that do not exist: what is asked is only whether the
/// caller's right is checked first.
fn every_command(world: &World, owner: PrincipalId) -> Vec<(&'static str, Kind)> {
    use crate::testing::*;
    let id = fresh();
    let chunk = world.chunk_key(owner, 1);
    let stored = v1::StoredAt { node_id: "n1".into(), incarnation: id.clone(), epoch: 1 };
    let changes = vec![change(chunk, stored.clone())];
    let node = || ("n1".to_owned(), id.clone());
    let principal = v1::PutPrincipal {
        principal_id: id.clone(),
        name: "new".into(),
        role: v1::Role::User.into(),
        key_hash: vec![1; 32].into(),
        realm_id: id.clone(),
        wrapped_realm_secret: vec![1; 66].into(),
    };
    let kinds = vec![
        Kind::Tick(v1::Tick { millis: 1 }),
        Kind::RaiseEpochFloor(v1::RaiseEpochFloor { position: 0 }),
        Kind::PutPrincipal(principal),
        bucket("matrix", 3, 0),
        Kind::SetBucket(v1::SetBucket { name: "none".into(), ..Default::default() }),
        drop_bucket("none"),
        begin(world, owner, &id, "a", 3),
        page(&id, 0, &[1], std::slice::from_ref(&stored)),
        commit(&id, 1),
        abort(&id),
        put_inline(&id, "a", b"x"),
        delete(&id, "a"),
        rename(&id, "a", "b"),
        copy(&id, 1, &id, "a"),
        Kind::PurgeVersions(v1::PurgeVersions {
            versions: vec![v1::VersionRef { file_id: id.clone(), version: 1 }],
        }),
        Kind::ReleaseReferences(v1::ReleaseReferences { count: 1 }),
        Kind::PurgeChunks(v1::PurgeChunks {
            chunks: vec![v1::TrashedChunk { chunk: Some(chunk_ref(chunk)), since: 1 }],
        }),
        Kind::PurgeDone(v1::PurgeDone {
            done: vec![v1::PurgedAt { chunk: Some(chunk_ref(chunk)), node_id: "n1".into(), position: 1 }],
        }),
        Kind::ForgetResults(v1::ForgetResults { count: 1 }),
        register("n7", "a", 1),
        Kind::SetNodeState(v1::SetNodeState { node_id: node().0, incarnation: node().1, state: 1 }),
        Kind::QueueNodeDeficits(v1::QueueNodeDeficits { node_id: node().0, incarnation: node().1, count: 1 }),
        Kind::AddLocations(v1::AddLocations { changes: changes.clone() }),
        Kind::StrikeLocations(v1::StrikeLocations { changes: changes.clone() }),
        Kind::DoubtLocations(v1::DoubtLocations { changes: changes.clone() }),
        Kind::TrimLocations(v1::TrimLocations { changes }),
        Kind::DropNode(v1::DropNode { node_id: node().0 }),
    ];
    kinds.into_iter().map(|kind| (crate::command_name(&kind), kind)).collect()
}

/// Who may run what: denied means `permission_denied`, anything else means the right was there.
#[test]
fn the_matrix_of_rights() {
    let mut world = World::new();
    let user = world.user("ann");
    let readonly = world.principal("eve", v1::Role::Readonly);
    let admin = world.admin;
    let user_does = [
        "put_bucket",
        "set_bucket",
        "drop_bucket",
        "begin_upload",
        "append_page",
        "commit_upload",
        "end_upload",
        "put_inline",
        "delete_file",
        "rename_file",
        "copy_file",
    ];
    let admin_does = ["put_principal", "register_node", "set_node_state", "add_locations", "drop_node"];
    for (name, kind) in every_command(&world, user) {
        let mut may = |who| {
            let command = v1::Command {
                principal_id: PrincipalId::to_vec(who).into(),
                kind: Some(kind.clone()),
                ..Default::default()
            };
            crate::validate(&command).unwrap();
            code(&world.command(command)) != Some(ErrorCode::PermissionDenied)
        };
        let (users, admins) = (user_does.contains(&name), admin_does.contains(&name));
        assert!(!may(readonly), "{name}");
        assert_eq!(may(user), users, "{name}");
        assert_eq!(may(admin), users || admins, "{name}");
        assert_eq!(may(CLUSTER), !users, "{name}");
    }
}

/// Work per command does not grow with the file.
#[test]
fn commits_copies_and_purges_of_large_files_are_small() {
    use crate::testing::*;
    let (mut world, ann, bucket) = World::with_nodes(&["a", "b", "c"], 3);
    let all: Vec<u8> = (0..1000).map(|n| (n % 250) as u8).collect();
    let upload = world.upload(ann, &bucket, "a", &all, &["n1", "n2", "n3"]);
    let rows = |world: &mut World, kind: Kind| {
        let command = request(ann, &bytes::Bytes::new(), 0, kind);
        let principal_id = match &command.kind {
            Some(Kind::ReleaseReferences(_)) => CLUSTER.to_vec().into(),
            _ => command.principal_id.clone(),
        };
        let commands = vec![v1::Command { principal_id, ..command }];
        let entry = v1::Entry { format: ENTRY_FORMAT, commands };
        world.log_index += 1;
        let applied = apply_entry(&world.kv, world.log_index, &entry).unwrap();
        assert_eq!(code(&applied.results[0]), None);
        let (rows, result) = (applied.writes.len(), applied.results[0].clone());
        world.kv.apply(applied.writes);
        (rows, result)
    };
    let (committed, result) = rows(&mut world, commit(&upload, all.len()));
    assert!(committed < 16, "{committed}");
    let (copied, _) = rows(&mut world, copy(&result.file_id, result.version, &bucket, "b"));
    assert!(copied < 16, "{copied}");
    for key in ["a", "b"] {
        let (purged, _) = rows(&mut world, purge(&bucket, key));
        assert!(purged < 16, "{purged}");
    }
    let mut steps = 0;
    loop {
        let release = Kind::ReleaseReferences(v1::ReleaseReferences { count: 256 });
        let (released, result) = rows(&mut world, release);
        assert!(released < 16 + 3 * 256, "{released}");
        if result.count == 0 {
            break;
        }
        steps += 1;
    }
    assert!((4..8).contains(&steps), "{steps}");
    assert_eq!(world.counters().trash_chunks, 250);
    crate::invariants::check_invariants(&world.kv).unwrap();
}

proptest::proptest! {
    /// Whatever bytes a log holds that still decode: refused or done, never a panic.
    #[test]
    fn damaged_commands_never_panic(n in 0usize..27, at in 0usize..400, byte: u8, cut in 0usize..400) {
        let mut world = World::new();
        world.node("n1", "a");
        let ann = world.user("ann");
        let (_, kind) = every_command(&world, ann).swap_remove(n);
        let command = request(ann, &fresh(), 0, kind);
        let mut bytes = prost::Message::encode_to_vec(&command);
        let length = bytes.len();
        bytes[at % length] = byte;
        if byte % 3 == 0 {
            bytes.truncate(cut % length);
        }
        if let Ok(damaged) = <v1::Command as prost::Message>::decode(bytes.as_slice()) {
            let known = damaged.kind.is_some();
            let valid = crate::validate(&damaged).is_ok();
            proptest::prop_assert!(known || !valid, "an empty command is not valid");
            if known {
                let as_cluster = v1::Command { principal_id: CLUSTER.to_vec().into(), ..damaged.clone() };
                world.entry(vec![damaged, as_cluster]);
            }
        }
    }
}
