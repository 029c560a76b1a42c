//! What each voter last said of the room on its disk: all are asked every second (`rounds.rs`).
//!
//! A silent voter does not stop writes: it may be gone, and the others are a majority. But one that was
//! short when it was last heard counts as short for [`DISK_REPORT_LIFETIME_MS`] more, because it is about
//! to come back and would take everything it missed. Memory only, of every member; a leader decides by it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dfs_proto::v1::DiskRoom;
use dfs_types::limits::DISK_REPORT_LIFETIME_MS;
use tokio::time::Instant;

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

    pub fn note(&self, raft_id: u64, name: &str, room: DiskRoom, at: Instant) {
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

    /// Who is no voter any more has no say.
    pub fn keep_only(&self, voters: impl Fn(&u64) -> bool) {
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
