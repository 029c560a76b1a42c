//! Groups of members: elections, changes of membership, disks that are lost or put back in time.
//! What is awaited is an event with a deadline; nothing sleeps for luck.

use std::collections::BTreeSet;
use std::time::Duration;

use dfs_proto::v1;
use dfs_types::{ErrorCode, NodeId, SystemClock};
use futures::future::join_all;
use tokio::time::{Instant, timeout};
use transport::{Dialer, Identity, Role, Tls};

use super::group::{CLUSTER, Group, PATIENCE, soon};
use super::toy::{bulky, refused, tick};
use crate::raft::Formation;
use crate::raft::open::mark_lost;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_alone_answers_each_command_by_its_place() {
    let group = Group::formed(&["m1"]).await;
    let leader = group.at("m1");
    group.leader().await;
    let deadline = soon();
    let calls = (0..200u64).map(|number| {
        let command = if number % 10 == 9 { refused() } else { tick(1 << (number % 10)) };
        leader.propose(command, deadline)
    });
    let results = join_all(calls).await;
    let mut positions = BTreeSet::new();
    let mut shared = 0;
    for (number, result) in results.into_iter().enumerate() {
        match result {
            Ok(done) => {
                assert_ne!(number % 10, 9);
                assert!(positions.insert(done.position), "two commands at one position");
                shared += usize::from(done.position & 0xffff > 0);
            }
            Err(error) => assert_eq!((number % 10, error.code), (9, ErrorCode::FailedPrecondition)),
        }
    }
    assert_eq!(positions.len(), 180);
    assert!(shared > 0, "commands that wait together share an entry");
    assert_eq!(group.read_total().await, 20 * 511);
    let none = v1::Command::default();
    assert_eq!(leader.propose(none, deadline).await.unwrap_err().code, ErrorCode::InvalidArgument);
    let large = bulky(1, dfs_types::limits::MAX_COMMAND_BYTES);
    assert_eq!(leader.propose(large, deadline).await.unwrap_err().code, ErrorCode::LimitExceeded);
    group.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_survive_their_leader_and_it_comes_back() {
    let mut group = Group::formed(&["m1", "m2", "m3"]).await;
    for number in 1..=20 {
        assert!(group.propose(tick(number)).await.position > 0);
    }
    group.agree().await;
    let old = group.leader().await;
    let follower = group.follower().await;
    let error = group.at(&follower).propose(tick(1), soon()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unavailable);
    let error = group.at(&follower).read(soon()).await.map(|_| ()).unwrap_err();
    assert_eq!(error.code, ErrorCode::Unavailable);
    assert_eq!(group.at(&follower).leader().unwrap().name, old);

    group.kill(&old).await;
    let new = group.leader().await;
    assert_ne!(new, old);
    assert_eq!(group.read_total().await, 210);
    group.propose(tick(1000)).await;
    let members = group.at(&new).members().await;
    let reachable: Vec<_> = members.iter().filter(|m| m.reachable).map(|m| m.member.name.clone()).collect();
    assert_eq!((members.len(), reachable.len()), (3, 2));
    let lag = group.at(&new).replication_lag();
    let names: Vec<_> = group.seats.keys().filter(|name| **name != new).collect();
    assert_eq!(lag.keys().collect::<Vec<_>>(), names, "all others, not itself");
    assert!(lag[&old] > 0, "it cannot have the last entry: {lag:?}");
    let other = group.running.keys().find(|name| **name != new).unwrap();
    assert!(group.at(other).replication_lag().is_empty(), "only a leader can tell");

    group.start(&old).await;
    group.agree().await;
    let mut told = group.at(&new).raft_metrics();
    let caught_up = told.wait_for(|_| group.at(&new).replication_lag().values().all(|lag| *lag == 0));
    timeout(PATIENCE, caught_up).await.expect("all have confirmed everything").unwrap();
    assert_eq!(group.read_total().await, 1210);
    group.end().await;
}

/// A leader that stopped by SIGTERM used to cost its lease and an election timeout without a leader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_leaves_hands_the_lead_over() {
    let mut group = Group::formed(&["m1", "m2", "m3"]).await;
    for number in 1..=20 {
        group.propose(tick(number)).await;
    }
    group.agree().await;
    // Twice: with all voters there, then with one of them dead, so that the one that leaves must agree.
    for round in 0..2u64 {
        let old = group.leader().await;
        let term = group.at(&old).metrics_snapshot().term;
        if round == 1 {
            let dead = group.follower().await;
            group.kill(&dead).await;
        }
        let begun = Instant::now();
        assert!(group.at(&old).hand_off().await);
        let mut leadership = group.at(&old).leadership();
        timeout(PATIENCE, leadership.wait_for(|lead| !lead.leading)).await.unwrap().unwrap();
        let new = group.leader().await;
        let took = begun.elapsed();
        // Nobody could be elected before the old leader's lease is over, which is the longest election timeout.
        assert!(new != old && took < Duration::from_millis(1000), "{new} leads after {took:?}");
        assert_eq!(group.at(&new).metrics_snapshot().term, term + 1);
        let refused = group.at(&old).propose(tick(1), soon()).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Unavailable);
        group.propose(tick(1000)).await;
        group.agree().await;
        group.kill(&old).await;
        for name in ["m1", "m2", "m3"] {
            if !group.running.contains_key(name) {
                group.start(name).await;
            }
        }
        group.agree().await;
        assert_eq!(group.read_total().await, 210 + 1000 * (round + 1));
    }
    group.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_alone_hands_nothing_over_and_others_take_no_order_but_their_leaders() {
    let group = Group::formed(&["m1", "m2", "m3"]).await;
    group.propose(tick(5)).await;
    group.agree().await;
    let leader = group.leader().await;
    let term = group.at(&leader).metrics_snapshot().term;
    let follower = group.follower().await;
    let member = group.at(&follower).me();
    let mut client = group.at(&leader).client(&member).unwrap();
    let own = group.at(&leader).me().raft_id;
    let order = |target: u64, vote: openraft::Vote<u64>| v1::RaftMessage {
        target_raft_id: target.to_be_bytes().to_vec().into(),
        payload: crate::raft::types::encode(&vote).into(),
    };
    use openraft::Vote;
    let stale = order(member.raft_id, Vote::new_committed(term - 1, own));
    let candidate = order(member.raft_id, Vote::new(term, own));
    let stranger = order(own, Vote::new_committed(term, own));
    for wrong in [stale, candidate, stranger] {
        assert_eq!(client.take_over(wrong).await.unwrap_err().code(), tonic::Code::FailedPrecondition);
    }
    group.propose(tick(6)).await;
    assert_eq!(group.at(&leader).metrics_snapshot().term, term);
    // A follower that leaves has nothing to hand over.
    assert!(group.at(&follower).hand_off().await);
    assert_eq!(group.leader().await, leader);
    group.end().await;

    let alone = Group::formed(&["m1"]).await;
    alone.leader().await;
    assert!(alone.at("m1").hand_off().await);
    alone.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_nothing_is_promised() {
    let mut group = Group::formed(&["m1", "m2", "m3"]).await;
    group.propose(tick(5)).await;
    let leader = group.leader().await;
    for name in group.running.keys().filter(|name| **name != leader).cloned().collect::<Vec<_>>() {
        group.kill(&name).await;
    }
    let short = || Instant::now() + Duration::from_millis(700);
    let lone = group.at(&leader);
    assert_eq!(lone.propose(tick(1), short()).await.unwrap_err().code, ErrorCode::UnknownOutcome);
    assert_eq!(lone.read(short()).await.map(|_| ()).unwrap_err().code, ErrorCode::Unavailable);
    let term = lone.metrics_snapshot().term;
    // Everybody comes back: the entry of unknown outcome is there or not, the same on all.
    for name in ["m1", "m2", "m3"] {
        if name != leader {
            group.start(name).await;
        }
    }
    group.agree().await;
    assert!([5, 6].contains(&group.read_total().await));
    assert!(group.at(&leader).metrics_snapshot().term <= term + 2, "terms do not run away");
    group.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_member_waits_to_be_added_and_gets_the_state_by_snapshot() {
    let mut group = Group::formed(&["m1", "m2", "m3"]).await;
    for number in 1..=30 {
        group.propose(tick(number)).await;
    }
    group.agree().await;
    let wiped = group.follower().await;
    let old_id = group.at(&wiped).me().raft_id;
    group.kill(&wiped).await;
    group.wipe(&wiped);

    // The log that the wiped member will lack is purged everywhere.
    for name in group.running.keys() {
        group.at(name).trigger_snapshot().await.unwrap();
    }
    for member in group.running.values() {
        let mut metrics = member.consensus.raft_metrics();
        let purged = metrics.wait_for(|metrics| metrics.purged.is_some_and(|id| id.index > 20));
        timeout(PATIENCE, purged).await.expect("purged").unwrap();
    }

    group.start(&wiped).await;
    assert_ne!(group.at(&wiped).me().raft_id, old_id);
    let initial = group.initial();
    {
        // Blank among members of a cluster: it neither votes nor forms one of its own.
        let mut forming = Box::pin(group.at(&wiped).form_cluster(&initial));
        assert!(timeout(Duration::from_millis(600), &mut forming).await.is_err());
        group.add(&wiped).await;
        assert_eq!(timeout(PATIENCE, forming).await.unwrap().unwrap(), Formation::Member);
    }
    group.agree().await;
    let leader = group.leader().await;
    let members = group.at(&leader).members().await;
    assert_eq!(members.len(), 3);
    assert!(members.iter().all(|member| member.voter && member.reachable && member.member.raft_id != old_id));
    group.propose(tick(1)).await;
    group.agree().await;
    // The snapshot it was given is its state after a restart too.
    group.kill(&wiped).await;
    group.start(&wiped).await;
    group.agree().await;
    assert_eq!(group.read_total().await, 466);
    group.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_added_removed_and_moved_while_it_runs() {
    let mut group = Group::formed(&["m1"]).await;
    group.propose(tick(7)).await;
    for name in ["m2", "m3"] {
        group.seat(name).await;
        group.start(name).await;
        group.add(name).await;
        // Asked twice it is done already.
        group.add(name).await;
    }
    group.agree().await;
    let leader = group.leader().await;
    assert_eq!(group.at(&leader).members().await.iter().filter(|member| member.voter).count(), 3);
    let error = group.at(&leader).remove_member("m9", soon()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::NotFound);
    let error = group.at(&leader).add_member("m9", "127.0.0.1:1", 1, soon()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unavailable);
    // In words, and not as Rust prints what is inside of it.
    assert!(error.message.contains("m9 at 127.0.0.1:1") && !error.message.contains("Error"), "{error}");

    // m3 moves to another port.
    group.kill("m3").await;
    let dir = std::mem::replace(&mut group.seats.get_mut("m3").unwrap().dir, tempfile::tempdir().unwrap());
    group.seat("m3").await;
    group.seats.get_mut("m3").unwrap().dir = dir;
    group.start("m3").await;
    group.add("m3").await;
    group.propose(tick(1)).await;
    group.agree().await;
    assert_eq!(group.at(&leader).members().await.len(), 3);

    // The leader removes itself; the others go on.
    let leader = group.leader().await;
    group.at(&leader).remove_member(&leader, soon()).await.unwrap();
    group.kill(&leader).await;
    group.propose(tick(2)).await;
    group.agree().await;
    let now = group.leader().await;
    assert_eq!(group.at(&now).members().await.len(), 2);
    let other = group.follower().await;
    group.at(&now).remove_member(&other, soon()).await.unwrap();
    let error = group.at(&now).remove_member(&now, soon()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::FailedPrecondition);
    assert_eq!(group.read_total().await, 10);
    group.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_lost_its_tail_is_blank_afterwards() {
    let mut group = Group::formed(&["m1", "m2", "m3"]).await;
    group.propose(tick(3)).await;
    group.agree().await;
    let follower = group.follower().await;
    let old_id = group.at(&follower).me().raft_id;
    group.kill(&follower).await;
    mark_lost(group.seats[&follower].dir.path(), "a test").unwrap();
    group.start(&follower).await;
    assert_ne!(group.at(&follower).me().raft_id, old_id);
    // The leader still has the old id as a voter, and goes on with the other one.
    group.propose(tick(4)).await;
    group.add(&follower).await;
    group.agree().await;
    assert_eq!(group.read_total().await, 7);
    group.end().await;
}

/// The whole disk is put back to an earlier moment, witness and all: only the leader can know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_put_back_in_time_stops_itself() {
    let mut group = Group::formed(&["m1", "m2", "m3"]).await;
    group.propose(tick(3)).await;
    group.agree().await;
    let leader = group.leader().await;
    let follower = group.follower().await;
    let old_id = group.at(&follower).me().raft_id;
    let earlier = group.copy_of_disk(&follower).await;
    for _ in 0..10 {
        group.propose(tick(1)).await;
    }
    group.agree().await;
    assert_eq!(group.leader().await, leader);
    group.kill(&follower).await;
    group.seats.get_mut(&follower).unwrap().dir = earlier;
    group.start(&follower).await;
    let why = timeout(PATIENCE, group.at(&follower).stopped()).await.expect("it notices");
    // From the leader, or from whoever wrote down what it had: whoever speaks first.
    assert!(why.contains("acknowledged") || why.contains("remembers"), "{why}");
    group.kill(&follower).await;
    group.start(&follower).await;
    assert_ne!(group.at(&follower).me().raft_id, old_id);
    group.add(&follower).await;
    group.agree().await;
    assert_eq!(group.read_total().await, 13);
    group.end().await;
}

/// It was the leader when its disk was copied: it must not lead again on that old vote, and write
/// other entries under ids the others have. Whether the others had time to learn what it had, so that it is told
/// and stops, or not, so that it takes from them what it lost: both are right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_put_back_in_time_does_not_lead_on() {
    let mut group = Group::formed(&["m1", "m2", "m3"]).await;
    group.propose(tick(3)).await;
    group.agree().await;
    let leader = group.leader().await;
    let earlier = group.copy_of_disk(&leader).await;
    group.leader().await;
    for _ in 0..10 {
        group.propose(tick(1)).await;
    }
    group.agree().await;
    group.kill(&leader).await;
    group.seats.get_mut(&leader).unwrap().dir = earlier;
    group.start(&leader).await;
    group.propose(tick(1)).await;
    assert_eq!(group.read_total().await, 14);
    group.end().await;
}

/// All end, and one member's whole directory is an old copy: no leader remembers what it acknowledged,
/// but the others have written down what it had, and it stops before it votes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_put_back_in_time_while_nobody_led_is_told() {
    let mut group = Group::formed(&["m1", "m2", "m3"]).await;
    group.propose(tick(3)).await;
    group.agree().await;
    let earlier = group.copy_of_disk("m2").await;
    group.propose(tick(1)).await;
    group.agree().await;
    let marks = group.seats["m1"].dir.path().join("marks");
    let had = group.at("m2").progress().borrow().applied.unwrap();
    let m2 = group.at("m2").me().raft_id;
    let remembered = async {
        let open = || crate::raft::marks::Marks::open(marks.parent().unwrap().to_owned()).of(m2);
        while open().and_then(|mark| mark.committed).is_none_or(|committed| committed < had) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, remembered).await.expect("m1 writes down what m2 has");
    for name in ["m1", "m2", "m3"] {
        group.kill(name).await;
    }
    group.seats.get_mut("m2").unwrap().dir = earlier;
    group.start("m1").await;
    group.start("m2").await;
    let why = timeout(PATIENCE, group.at("m2").stopped()).await.expect("it is told");
    assert!(why.contains("remembers"), "{why}");
    group.kill("m2").await;
    group.start("m2").await;
    assert_ne!(group.at("m2").me().raft_id, m2);
    group.start("m3").await;
    assert_eq!(group.read_total().await, 4);
    group.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused() {
    let group = Group::formed(&["m1"]).await;
    group.leader().await;
    let seat = &group.seats["m1"];
    let message = |target: u64| v1::RaftMessage {
        target_raft_id: target.to_be_bytes().to_vec().into(),
        payload: vec![1, 2, 3].into(),
    };
    // A chunk server's certificate of the same cluster, and none at all.
    let identity = Identity::new(CLUSTER, Role::ChunkServer, NodeId::new("n1").unwrap());
    let issued = group.authority.issue(&identity, &[], &SystemClock::new()).unwrap();
    let ca = group.authority.cert_pem().as_bytes();
    let node = Tls::server(ca, issued.cert_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap();
    let expect = transport::Expect::any(Role::MetadataServer);
    for tls in [node, Tls::client(ca, None).unwrap()] {
        let channel = Dialer::new(tls).channel(&seat.address, expect.clone()).unwrap();
        let mut client = v1::raft_client::RaftClient::new(channel);
        let raft_id = group.at("m1").me().raft_id;
        let codes = [
            client.append_entries(message(raft_id)).await.unwrap_err().code(),
            client.vote(message(raft_id)).await.unwrap_err().code(),
            client.hello(v1::HelloRequest::default()).await.unwrap_err().code(),
            client.forward(v1::ForwardRequest::default()).await.unwrap_err().code(),
        ];
        for code in codes {
            assert!(
                [tonic::Code::PermissionDenied, tonic::Code::Unauthenticated].contains(&code),
                "{code:?}"
            );
        }
    }
    // A member that means another raft id, or sends what nobody can read.
    let channel = Dialer::new(seat.tls.clone()).channel(&seat.address, expect).unwrap();
    let mut client = v1::raft_client::RaftClient::new(channel);
    assert_eq!(client.vote(message(1)).await.unwrap_err().code(), tonic::Code::FailedPrecondition);
    let raft_id = group.at("m1").me().raft_id;
    assert_eq!(client.vote(message(raft_id)).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    group.end().await;
}
