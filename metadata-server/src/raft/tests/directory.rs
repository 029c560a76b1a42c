//! A data directory is opened again after orderly ends, crashes and losses. What a member may have
//! acknowledged decides whether it keeps its raft id.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dfs_types::{ClusterId, NodeId, SystemClock};
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::{EntryPayload, LeaderId, Membership, RaftLogReader};
use tempfile::TempDir;
use transport::{Authority, ChannelPool, Dialer, Identity, Role, Tls};

use super::toy::{Toy, tick, total};
use crate::raft::api::RaftSettings;
use crate::raft::consensus::Consensus;
use crate::raft::log_store::LogStore;
use crate::raft::open::{OpenError, Opened, mark_lost, open};
use crate::raft::state_machine::StateMachine;
use crate::raft::types::{Entry, EntryData, LogId, Vote};
use crate::space::Space;

/// What happens to a directory while nobody has it open.
type Damage = fn(&Home);

struct Home {
    dir: TempDir,
}

fn id(term: u64, index: u64) -> LogId {
    LogId::new(LeaderId::new(term, 9), index)
}

fn entry(index: u64) -> Entry {
    let entry = dfs_proto::v1::Entry { format: 1, commands: vec![tick(index)] };
    Entry { log_id: id(1, index), payload: EntryPayload::Normal(EntryData::new(&entry, Arc::default())) }
}

fn machine(opened: &Opened) -> StateMachine {
    StateMachine::new(Arc::clone(&opened.state), Arc::new(Space::unwatched()))
}

impl Home {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn settings(&self) -> RaftSettings {
        RaftSettings {
            compression: crate::kv::Compression::None,
            block_cache_bytes: 4 << 20,
            ..RaftSettings::new("m1", "localhost:1", ClusterId([3; 16]), self.dir.path())
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn open(&self) -> Opened {
        open(&self.settings(), Arc::new(Toy)).unwrap()
    }

    fn refused(&self, settings: RaftSettings) -> OpenError {
        match open(&settings, Arc::new(Toy)) {
            Ok(_) => panic!("opened"),
            Err(error) => error,
        }
    }

    /// Votes in term 1, writes entries 0 to 5 and applies 0 to `applied`.
    async fn fill(&self, applied: u64) -> u64 {
        let opened = self.open();
        let mut log = opened.log.clone();
        log.save_vote(&Vote::new_committed(1, 9)).await.unwrap();
        log.blocking_append((0..6).map(entry)).await.unwrap();
        let mut machine = machine(&opened);
        machine.apply((0..=applied).map(entry)).await.unwrap();
        let raft_id = opened.identity.raft_id;
        drop((log, machine));
        shut(opened).await;
        raft_id
    }
}

/// Returns when the directory is free again.
async fn shut(opened: Opened) {
    let Opened { log, state, mut closed, .. } = opened;
    drop((log, state));
    closed.recv().await;
}

async fn indexes(log: &LogStore) -> Vec<u64> {
    log.clone().try_get_log_entries(0..).await.unwrap().iter().map(|entry| entry.log_id.index).collect()
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[tokio::test]
async fn everything_is_there_again() {
    let home = Home::new();
    let raft_id = home.fill(3).await;
    let opened = home.open();
    assert_eq!(opened.identity.raft_id, raft_id);
    let bounds = opened.log.bounds();
    assert_eq!(
        (bounds.vote, bounds.last, bounds.purged),
        (Some(Vote::new_committed(1, 9)), Some(id(1, 5)), None)
    );
    assert_eq!(indexes(&opened.log).await, [0, 1, 2, 3, 4, 5]);
    let view = opened.state.view().unwrap();
    assert_eq!((total(&view), view.position().log_index()), (6, 3));
}

#[tokio::test]
async fn a_cut_log_and_a_purged_log_keep_their_id() {
    let home = Home::new();
    let raft_id = home.fill(3).await;
    let opened = home.open();
    let mut log = opened.log.clone();
    log.truncate(id(1, 5)).await.unwrap();
    log.purge(id(1, 2)).await.unwrap();
    drop(log);
    shut(opened).await;
    let opened = home.open();
    assert_eq!(opened.identity.raft_id, raft_id);
    assert_eq!(indexes(&opened.log).await, [3, 4]);
    assert_eq!(opened.log.bounds().last, Some(id(1, 4)));
    // Everything cut away, as a conflict with a new leader may.
    opened.log.clone().truncate(id(1, 3)).await.unwrap();
    assert_eq!(opened.log.bounds().last, Some(id(1, 2)));
    shut(opened).await;
    assert_eq!(home.open().identity.raft_id, raft_id);
}

#[tokio::test]
async fn a_log_that_went_back_gets_a_new_id() {
    let home = Home::new();
    let opened = home.open();
    opened.log.clone().save_vote(&Vote::new(1, 9)).await.unwrap();
    shut(opened).await;
    copy_tree(&home.path("log"), &home.path("old"));
    let raft_id = home.fill(3).await;
    fs::remove_dir_all(home.path("log")).unwrap();
    fs::rename(home.path("old"), home.path("log")).unwrap();
    let opened = home.open();
    assert_ne!(opened.identity.raft_id, raft_id);
    assert_eq!((opened.log.bounds().last, opened.log.bounds().vote), (None, None));
    assert!(home.path("damaged/log").exists());
}

#[tokio::test]
async fn a_leader_does_not_lead_on_after_a_restart() {
    let home = Home::new();
    let opened = home.open();
    let own = opened.identity.raft_id;
    for (vote, again) in [
        (Vote::new_committed(1, own ^ 1), Vote::new_committed(1, own ^ 1)),
        (Vote::new_committed(2, own), Vote::new(2, own)),
    ] {
        let mut log = opened.log.clone();
        log.save_vote(&vote).await.unwrap();
        assert_eq!(log.read_vote().await.unwrap(), Some(again));
    }
    shut(opened).await;
    assert_eq!(home.open().identity.raft_id, own);
}

#[tokio::test]
async fn a_forgotten_vote_alone_is_a_loss_too() {
    let home = Home::new();
    let opened = home.open();
    let raft_id = opened.identity.raft_id;
    shut(opened).await;
    copy_tree(&home.path("log"), &home.path("old"));
    let opened = home.open();
    opened.log.clone().save_vote(&Vote::new(8, 9)).await.unwrap();
    shut(opened).await;
    fs::remove_dir_all(home.path("log")).unwrap();
    fs::rename(home.path("old"), home.path("log")).unwrap();
    assert_ne!(home.open().identity.raft_id, raft_id);
}

#[tokio::test]
async fn missing_or_damaged_parts_give_a_new_id() {
    let cut_wal: Damage = |home| {
        for file in fs::read_dir(home.path("log")).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|end| end == "log") {
                fs::write(path, b"").unwrap();
            }
        }
    };
    let both_slots: Damage = |home| fs::write(home.path("slots"), [1; 1024]).unwrap();
    let cases: [(&str, Damage); 8] = [
        ("log", |home| fs::remove_dir_all(home.path("log")).unwrap()),
        ("state", |home| fs::remove_dir_all(home.path("state")).unwrap()),
        ("pointer", |home| fs::write(home.path("state/CURRENT"), "db-9").unwrap()),
        ("slots", |home| fs::remove_file(home.path("slots")).unwrap()),
        ("both slots", both_slots),
        ("identity", |home| fs::remove_file(home.path("identity")).unwrap()),
        ("damaged identity", |home| fs::write(home.path("identity"), b"x").unwrap()),
        ("wal", cut_wal),
    ];
    for (what, damage) in cases {
        let home = Home::new();
        let raft_id = home.fill(3).await;
        damage(&home);
        let opened = home.open();
        assert_ne!(opened.identity.raft_id, raft_id, "{what}");
        assert_eq!(opened.log.bounds().last, None, "{what}");
        assert_eq!(total(&opened.state.view().unwrap()), 0, "{what}");
        let second = opened.identity.raft_id;
        shut(opened).await;
        assert_eq!(home.open().identity.raft_id, second, "{what}: stays what it became");
    }
}

#[tokio::test]
async fn a_gap_between_log_and_state_gives_a_new_id() {
    let home = Home::new();
    let raft_id = home.fill(0).await;
    // A state from before the purge: as if the disk of the state had been put back.
    copy_tree(&home.path("state/db-1"), &home.path("old"));
    let opened = home.open();
    machine(&opened).apply((1..=3).map(entry)).await.unwrap();
    opened.log.clone().purge(id(1, 3)).await.unwrap();
    shut(opened).await;
    fs::remove_dir_all(home.path("state/db-1")).unwrap();
    fs::rename(home.path("old"), home.path("state/db-1")).unwrap();
    assert_ne!(home.open().identity.raft_id, raft_id);
}

#[tokio::test]
async fn a_member_that_noticed_its_loss_does_not_keep_its_id() {
    let home = Home::new();
    let raft_id = home.fill(3).await;
    mark_lost(home.dir.path(), "a test").unwrap();
    assert_ne!(home.open().identity.raft_id, raft_id);
}

/// Entries that were committed and not yet applied are applied at the start, and need a row whose block is
/// rotten: each start ended there, with an error that no command helped against.
#[tokio::test(flavor = "multi_thread")]
async fn damage_that_replay_meets_gives_a_new_id() {
    let home = Home::new();
    let raft_id = home.fill(3).await;
    let opened = home.open();
    opened.log.clone().save_committed(Some(id(1, 5))).await.unwrap();
    shut(opened).await;
    // An opening writes what the log of the database before it had into tables.
    shut(home.open()).await;
    let flipped = fs::read_dir(home.path("state/db-1")).unwrap().filter(|file| {
        let path = file.as_ref().unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let found = bytes.windows(5).position(|row| row == b"total");
        let found = found.filter(|_| path.extension().is_some_and(|end| end == "sst"));
        if let Some(at) = found {
            bytes[at] ^= 1;
            fs::write(path, bytes).unwrap();
        }
        found.is_some()
    });
    assert_eq!(flipped.count(), 1);
    let cluster = home.settings().cluster;
    let authority = Authority::create(cluster, &SystemClock::new()).unwrap();
    let name = Identity::new(cluster, Role::MetadataServer, NodeId::new("m1").unwrap());
    let issued = authority.issue(&name, &[], &SystemClock::new()).unwrap();
    let (ca, cert, key) = (authority.cert_pem(), &issued.cert_pem, &issued.key_pem);
    let tls = Tls::server(ca.as_bytes(), cert.as_bytes(), key.as_bytes()).unwrap();
    let pool = ChannelPool::new(Dialer::new(tls));
    let consensus = Consensus::start_with(home.settings(), pool, Arc::new(Toy)).await.unwrap();
    assert_ne!(consensus.me().raft_id, raft_id);
    assert_eq!(total(&consensus.local_view().unwrap()), 0);
    assert!(home.path("damaged/state").exists());
    consensus.close().await;
}

#[tokio::test]
async fn a_state_ahead_of_the_log_is_an_installed_snapshot() {
    let home = Home::new();
    let raft_id = home.fill(5).await;
    let opened = home.open();
    machine(&opened).apply([6, 7].map(entry)).await.unwrap();
    shut(opened).await;
    assert_eq!(home.open().identity.raft_id, raft_id);
}

#[tokio::test]
async fn foreign_directories_are_refused() {
    let home = Home::new();
    let opened = home.open();
    assert!(matches!(home.refused(home.settings()), OpenError::InUse(_)));
    shut(opened).await;
    let other = RaftSettings { name: "m2".into(), ..home.settings() };
    assert!(matches!(home.refused(other), OpenError::Foreign { .. }));
    let other = RaftSettings { cluster: ClusterId([4; 16]), ..home.settings() };
    assert!(matches!(home.refused(other), OpenError::ForeignCluster(_)));
}

#[tokio::test]
async fn a_hole_in_the_log_is_refused() {
    let home = Home::new();
    let opened = home.open();
    let mut log = opened.log.clone();
    log.blocking_append([entry(0), entry(1)]).await.unwrap();
    assert!(log.blocking_append([entry(3)]).await.is_err());
    assert_eq!(indexes(&log).await, [0, 1]);
}

#[tokio::test]
async fn a_purge_waits_for_the_state() {
    let home = Home::new();
    home.fill(1).await;
    let opened = home.open();
    let mut log = opened.log.clone();
    let mut purge = Box::pin(log.purge(id(1, 4)));
    assert!(futures::poll!(&mut purge).is_pending());
    let mut machine = machine(&opened);
    machine.apply((2..=3).map(entry)).await.unwrap();
    assert!(futures::poll!(&mut purge).is_pending());
    machine.apply([entry(4)]).await.unwrap();
    purge.await.unwrap();
    assert_eq!(indexes(&opened.log).await, [5]);
    // A state that has stopped never gets there: the purge fails instead of waiting for ever.
    let mut log = opened.log.clone();
    let mut purge = Box::pin(log.purge(id(1, 5)));
    assert!(futures::poll!(&mut purge).is_pending());
    opened.state.fail();
    assert!(purge.await.is_err());
}

#[tokio::test]
async fn a_bad_entry_stops_the_state_and_changes_nothing() {
    let home = Home::new();
    let opened = home.open();
    let mut machine = machine(&opened);
    let membership = Membership::new(vec![[9].into()], ());
    let joined = Entry { log_id: id(1, 0), payload: EntryPayload::Membership(membership.clone()) };
    machine.apply([joined, entry(1)]).await.unwrap();
    let bad = EntryData { bytes: vec![0xff].into(), reached_log: None };
    let bad = Entry { log_id: id(1, 2), payload: EntryPayload::Normal(bad) };
    assert!(machine.apply([bad]).await.is_err());
    assert!(opened.state.progress().borrow().failed);
    let (applied, stored) = opened.state.applied_state().unwrap();
    assert_eq!((applied, stored.membership()), (Some(id(1, 1)), &membership));
}
