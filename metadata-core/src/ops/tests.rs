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
    };
    let hash = query::state_hash(&world.kv).unwrap().unwrap();
    assert_eq!(
        dfs_types::ids::hex(&hash),
        "208fb52a97d367793015585a05d14e01dea60e8c4cf443eb587b2b7f3c338542"
    );
    world.fails(CLUSTER, Kind::Bootstrap(again), ErrorCode::FailedPrecondition);
}
