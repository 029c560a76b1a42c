//! What each member remembers of the others, on its own disk, so that one whose whole directory was put
//! back in time is told so before it votes.
//!
//! Such a member looks healthy by itself: its log, state and witness agree. But the others were told
//! by it what it had: its vote and the committed entries in its log, which never go back in an honest life.
//! Each member asks the others once a second (`rounds.rs`) and writes down the highest it heard (`marks`). Every
//! answer to a Hello and every request for a vote carries what the sender remembers of the receiver; a
//! receiver that finds itself below it marks its directory as lost and stops ([`Conscience`]). So no
//! vote goes between two members of whom one knows that the other went back.
//!
//! What this does not see: a member that went back to a moment after the others last heard of it, or one whose
//! lost entries nobody knows of who takes part in the election. Crash promise: the file is replaced whole;
//! one that is missing, old or damaged only makes the memory weaker.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::files;
use super::log_store::LogStore;
use super::open::mark_lost;
use super::state_store::Progress;
use super::types::{LogId, Vote, decode, encode};

const FILE: &str = "marks";
const CHECK_BYTES: usize = 32;

/// What a member had, durably.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Mark {
    pub vote: Option<Vote>,
    /// Committed, and in its log.
    pub committed: Option<LogId>,
}

impl Mark {
    /// What is behind `before`, in words.
    fn behind(&self, before: &Mark) -> Option<String> {
        // For whom, in which term; that this won may be unsaid after a restart (`LogStore::read_vote`).
        if self.vote.map(|vote| vote.leader_id) < before.vote.map(|vote| vote.leader_id) {
            return Some(format!("its vote is {:?}, but it had voted {:?}", self.vote, before.vote));
        }
        if self.committed < before.committed {
            return Some(format!("its log ends at {:?}, but it had {:?}", self.committed, before.committed));
        }
        None
    }

    fn raise(&mut self, heard: &Mark) {
        if heard.vote > self.vote {
            self.vote = heard.vote;
        }
        self.committed = self.committed.max(heard.committed);
    }

    pub fn to_bytes(self) -> Vec<u8> {
        encode(&self)
    }

    /// None if there is none; what cannot be read (of another build) says nothing.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        decode(bytes).ok()
    }
}

/// The memory of the others, by raft id.
pub struct Marks {
    dir: PathBuf,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    marks: BTreeMap<u64, Mark>,
    changed: bool,
}

impl Marks {
    pub fn open(dir: PathBuf) -> Self {
        let read = || -> Option<BTreeMap<u64, Mark>> {
            let bytes = std::fs::read(dir.join(FILE)).ok()?;
            let (body, check) = bytes.split_at_checked(bytes.len().checked_sub(CHECK_BYTES)?)?;
            if blake3::hash(body).as_bytes() != check {
                tracing::warn!("the file of the other members' marks is damaged: they are learned again");
                return None;
            }
            decode(body).ok()
        };
        let marks = read().unwrap_or_default();
        Self { dir, known: Mutex::new(Known { marks, changed: false }) }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn of(&self, raft_id: u64) -> Option<Mark> {
        self.known().marks.get(&raft_id).copied()
    }

    pub fn learn(&self, raft_id: u64, heard: &Mark) {
        let mut known = self.known();
        let mark = known.marks.entry(raft_id).or_default();
        let before = *mark;
        mark.raise(heard);
        let changed = before != *mark;
        known.changed |= changed;
    }

    /// Writes what changed; forgets who is no member any more. Blocks.
    pub fn write(&self, members: &BTreeSet<u64>) -> io::Result<()> {
        let body = {
            let mut known = self.known();
            if !std::mem::take(&mut known.changed) {
                return Ok(());
            }
            known.marks.retain(|raft_id, _| members.contains(raft_id));
            encode(&known.marks)
        };
        let check = blake3::hash(&body);
        files::replace(&self.dir, FILE, &[body.as_slice(), check.as_bytes()].concat())
    }
}

/// Knows what this member has, and stops it when it is shown that it had more.
#[derive(Clone)]
pub struct Conscience {
    pub data_dir: PathBuf,
    pub log: LogStore,
    pub progress: watch::Receiver<Progress>,
    pub lost: watch::Sender<Option<String>>,
}

impl Conscience {
    /// What this member says of itself.
    pub fn mark(&self) -> Mark {
        // Applied is read first: the log may only have grown since.
        let applied = self.progress.borrow().applied;
        let bounds = self.log.bounds();
        // A snapshot that was just installed may be ahead of a log that is about to be cut.
        Mark { vote: bounds.vote, committed: applied.filter(|applied| Some(*applied) <= bounds.last) }
    }

    /// # Errors
    /// This member is behind what another remembers of it. Its raft id is given up, durably, and it
    /// stops.
    pub fn face(&self, remembered: &Mark) -> Result<(), String> {
        let bounds = self.log.bounds();
        // The whole log, not only what is known to be committed yet.
        let own = Mark { vote: bounds.vote, committed: bounds.last };
        let Some(why) = own.behind(remembered) else { return Ok(()) };
        let why = format!("another member remembers more of this one than it has: {why}");
        if let Err(error) = mark_lost(&self.data_dir, &why) {
            tracing::error!(%error, "cannot mark the data directory as lost");
        }
        self.lost.send_replace(Some(why.clone()));
        Err(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openraft::LeaderId;

    fn mark(term: u64, index: u64) -> Mark {
        let committed = Some(LogId::new(LeaderId::new(term, 1), index));
        Mark { vote: Some(Vote::new_committed(term, 1)), committed }
    }

    #[test]
    fn a_lower_vote_or_log_is_behind_and_memory_never_falls() {
        assert_eq!(mark(2, 7).behind(&mark(2, 7)), None);
        assert_eq!(mark(3, 8).behind(&mark(2, 7)), None);
        assert!(mark(2, 6).behind(&mark(2, 7)).is_some());
        assert!(mark(1, 7).behind(&mark(2, 7)).is_some());
        assert_eq!(Mark { vote: Some(Vote::new(2, 1)), ..mark(2, 7) }.behind(&mark(2, 7)), None);
        assert!(Mark::default().behind(&mark(1, 0)).is_some());
        assert_eq!(Mark::default().behind(&Mark::default()), None);
        let mut highest = mark(2, 7);
        highest.raise(&mark(1, 3));
        assert_eq!(highest, mark(2, 7));
        highest.raise(&mark(3, 3));
        assert_eq!(highest, mark(3, 3));
    }

    #[test]
    fn marks_are_kept_and_a_damaged_file_is_only_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Marks::open(dir.path().to_owned());
        let marks = open();
        marks.learn(5, &mark(2, 7));
        marks.learn(6, &mark(2, 9));
        marks.learn(5, &mark(1, 3));
        marks.write(&BTreeSet::from([5])).unwrap();
        assert_eq!((open().of(5), open().of(6)), (Some(mark(2, 7)), None));
        let path = dir.path().join(FILE);
        let mut bytes = std::fs::read(&path).unwrap();
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            bytes[at] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(open().of(5), None);
            bytes[at] ^= 1;
        }
        std::fs::write(&path, &bytes[..5]).unwrap();
        assert_eq!(open().of(5), None);
        assert_eq!(Mark::from_bytes(&mark(2, 7).to_bytes()), Some(mark(2, 7)));
        assert_eq!((Mark::from_bytes(&[]), Mark::from_bytes(&[9, 9])), (None, None));
    }
}
