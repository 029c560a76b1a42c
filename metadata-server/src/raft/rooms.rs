//! What each voter last said of the room on its disk: the leader asks all of them every second, by Hello.
//!
//! A silent voter does not stop writes: it may be gone, and the others are a majority. But one that was
//! short when it was last heard counts as short for [`DISK_REPORT_LIFETIME_MS`] more, because it is about
//! to come back and would take everything it missed. Owner: [`ask`], one task per member; it forgets all
//! words when this member ceases to lead.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dfs_proto::v1::DiskRoom;
use dfs_types::limits::{DISK_LOOK_MS, DISK_REPORT_LIFETIME_MS};
use futures::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::api::Leadership;
use super::hello::Greeter;
use super::types::{Raft, RaftMetrics};
use crate::space::is_short;

struct Word {
    name: String,
    room: DiskRoom,
    at: Instant,
}

/// Words by raft id.
#[derive(Clone, Default)]
pub struct Rooms(Arc<Mutex<BTreeMap<u64, Word>>>);

impl Rooms {
    fn words(&self) -> MutexGuard<'_, BTreeMap<u64, Word>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, raft_id: u64, name: &str, room: DiskRoom, at: Instant) {
        let word = Word { name: name.to_owned(), room, at };
        let before = self.words().insert(raft_id, word);
        let DiskRoom { free, total, reserve } = room;
        match (before.is_some_and(|word| is_short(&word.room)), is_short(&room)) {
            (false, true) => {
                tracing::error!(member = name, free, total, reserve, "a voter's disk is down to its reserve");
            }
            (true, false) => tracing::info!(member = name, free, total, "a voter's disk has room again"),
            _ => {}
        }
    }

    fn keep_only(&self, voters: impl Fn(&u64) -> bool) {
        self.words().retain(|raft_id, _| voters(raft_id));
    }

    /// The first voter, by raft id, whose word of not too long ago is that its disk is short.
    pub fn short(&self, now: Instant) -> Option<(String, DiskRoom)> {
        let lifetime = Duration::from_millis(DISK_REPORT_LIFETIME_MS);
        let words = self.words();
        let mut counting = words.values().filter(|word| now.saturating_duration_since(word.at) < lifetime);
        counting.find(|word| is_short(&word.room)).map(|word| (word.name.clone(), word.room))
    }
}

/// Asks while this member leads.
pub async fn ask(rooms: Rooms, raft: Raft, greeter: Greeter, mut leadership: watch::Receiver<Leadership>) {
    loop {
        if !leadership.borrow_and_update().leading {
            rooms.keep_only(|_| false);
            if leadership.changed().await.is_err() {
                return;
            }
            continue;
        }
        let metrics = raft.metrics().borrow().clone();
        round(&rooms, &metrics, &greeter).await;
        sleep(Duration::from_millis(DISK_LOOK_MS)).await;
    }
}

async fn round(rooms: &Rooms, metrics: &RaftMetrics, greeter: &Greeter) {
    let membership = metrics.membership_config.membership();
    let others: Vec<u64> = membership.voter_ids().filter(|id| *id != metrics.id).collect();
    rooms.keep_only(|id| others.contains(id));
    let asked = others.iter().filter_map(|id| {
        let node = membership.get_node(id)?.clone();
        Some(async move {
            let answer = greeter.hello(&node.name, &node.address).await.ok()?;
            Some((*id, node.name, answer.disk?)).filter(|_| answer.raft_id == *id)
        })
    });
    for (id, name, room) in join_all(asked).await.into_iter().flatten() {
        rooms.note(id, &name, room, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_of_a_silent_voter_counts_for_a_while() {
        let (rooms, now) = (Rooms::default(), Instant::now());
        let later = |ms| now + Duration::from_millis(ms);
        let room = |free| DiskRoom { free, total: 100, reserve: 10 };
        assert_eq!(rooms.short(now), None);
        rooms.note(1, "m1", room(10), now);
        rooms.note(2, "m2", room(9), now);
        assert_eq!(rooms.short(now), Some(("m2".to_owned(), room(9))));
        assert!(rooms.short(later(DISK_REPORT_LIFETIME_MS - 1)).is_some());
        assert_eq!(rooms.short(later(DISK_REPORT_LIFETIME_MS)), None);
        rooms.note(2, "m2", room(10), later(1));
        assert_eq!(rooms.short(later(1)), None);
        // One that is no voter any more has no say.
        rooms.note(2, "m2", room(0), later(2));
        rooms.keep_only(|id| *id == 1);
        assert_eq!(rooms.short(later(2)), None);
    }
}
