//! A snapshot's installation is cut off after each of its steps; the directory opened again has the
//! old state or the new one, and goes on.

use std::path::Path;
use std::sync::Arc;

use openraft::{EntryPayload, LeaderId};

use super::toy::{Toy, tick, total};
use crate::kv::{Compression, StoreOptions};
use crate::raft::identity::DirectoryLock;
use crate::raft::state_store::{InstallStep, StateError, StateStore};
use crate::raft::types::{Entry, EntryData, LogId};

fn entry(term: u64, index: u64) -> Entry {
    let entry = dfs_proto::v1::Entry { format: 1, commands: vec![tick(10)] };
    let data = EntryData::new(&entry, Arc::default());
    Entry { log_id: LogId::new(LeaderId::new(term, 1), index), payload: EntryPayload::Normal(data) }
}

fn store(dir: &Path, raft_id: u64, create: bool) -> Arc<StateStore> {
    let options = StoreOptions::new(Compression::None, 4 << 20);
    let lock = Arc::new(DirectoryLock::take(dir).unwrap().unwrap().0);
    match create {
        true => StateStore::create(dir, &options, raft_id, Arc::new(Toy), lock).unwrap(),
        false => StateStore::open(dir, &options, raft_id, Arc::new(Toy), lock).unwrap(),
    }
}

fn leader(entries: u64) -> (tempfile::TempDir, Arc<StateStore>) {
    let dir = tempfile::tempdir().unwrap();
    let leader = store(dir.path(), 1, true);
    leader.apply(&(1..=entries).map(|index| entry(1, index)).collect::<Vec<_>>()).unwrap();
    (dir, leader)
}

#[test]
fn old_or_new_after_a_crash_at_each_step() {
    let (_dir, leader) = leader(5);
    let (meta, snapshot) = leader.checkpoint().unwrap();
    for step in InstallStep::ALL {
        let dir = tempfile::tempdir().unwrap();
        let follower = store(dir.path(), 2, true);
        follower.apply(&[entry(1, 1)]).unwrap();
        *follower.crash_at.lock().unwrap() = Some(step);
        assert!(follower.install(&meta, snapshot.path()).is_err());
        drop(follower);
        let follower = store(dir.path(), 2, false);
        let switched = matches!(step, InstallStep::PointerRenamed | InstallStep::PointerDurable);
        let expected = if switched { 50 } else { 10 };
        assert_eq!(total(&follower.view().unwrap()), expected, "{step:?}");
        assert_eq!(std::fs::read_dir(dir.path().join("state")).unwrap().count(), 2, "{step:?}: no leftovers");
        // It goes on from there: the same snapshot again, then the log.
        follower.install(&meta, snapshot.path()).unwrap();
        follower.apply(&[entry(1, 6)]).unwrap();
        assert_eq!(total(&follower.view().unwrap()), 60, "{step:?}");
    }
}

#[test]
fn an_installed_state_is_there_after_a_restart_and_old_views_stay() {
    let (_dir, leader) = leader(5);
    let (meta, snapshot) = leader.checkpoint().unwrap();
    assert_eq!(meta.last_log_id, Some(entry(1, 5).log_id));
    // Applied after the checkpoint: not in it.
    leader.apply(&[entry(1, 6)]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let follower = store(dir.path(), 2, true);
    follower.apply(&[entry(1, 1)]).unwrap();
    let before = follower.view().unwrap();
    follower.install(&meta, snapshot.path()).unwrap();
    assert_eq!((total(&before), total(&follower.view().unwrap())), (10, 50));
    assert_eq!(follower.progress().borrow().applied, meta.last_log_id);
    drop((before, follower));
    let follower = store(dir.path(), 2, false);
    assert_eq!(total(&follower.view().unwrap()), 50);
    assert_eq!(follower.applied_state().unwrap().0, meta.last_log_id);
    assert_eq!(std::fs::read_dir(dir.path().join("state")).unwrap().count(), 2);
}

#[test]
fn a_snapshot_of_another_history_is_refused() {
    let (_dir, leader) = leader(2);
    let (meta, snapshot) = leader.checkpoint().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let follower = store(dir.path(), 2, true);
    let mut other = entry(1, 2);
    other.log_id.leader_id.node_id = 0;
    follower.apply(&[other]).unwrap();
    assert!(matches!(follower.install(&meta, snapshot.path()), Err(StateError::Damaged(_))));
    let mut lying = meta.clone();
    lying.last_log_id = Some(entry(1, 9).log_id);
    assert!(matches!(follower.install(&lying, snapshot.path()), Err(StateError::Damaged(_))));
    assert_eq!(total(&follower.view().unwrap()), 10);
}

#[test]
fn a_snapshot_goes_with_its_last_handle() {
    let (dir, leader) = leader(2);
    let (_, first) = leader.checkpoint().unwrap();
    let (_, second) = leader.checkpoint().unwrap();
    let sending = first.clone();
    drop(first);
    assert!(sending.path().exists() && second.path().exists());
    drop(sending);
    assert_eq!(std::fs::read_dir(dir.path().join("snapshots")).unwrap().count(), 1);
}
