//! The double-slot file beside the log: what the log must at least contain when it is opened again.
//!
//! A log that lost acknowledged entries (a torn database, an old copy put back, a WAL whose damaged
//! tail was cut) looks healthy by itself; here is the second witness. Two slots of one sector are
//! written in turn, so a torn write spoils at most the older half.
//!
//! Crash promise: never ahead of the log, because it is written after the log is durable and before
//! the log is cut. Votes and cuts are durable here before they count; the last log id follows
//! within about [`LAZY_GAP`], so that appending does not cost a second sync: in that window before a power
//! loss the witness is a little short-sighted, never wrong.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::types::{LogId, Vote, decode, encode};

const MAGIC: &[u8; 8] = b"dfs-slot";
const SLOT_BYTES: usize = 512;
const HEAD_BYTES: usize = 8 + 8 + 2;
const CHECK_BYTES: usize = 16;
/// Time between two lazy writes.
pub const LAZY_GAP: Duration = Duration::from_millis(20);

/// What is durable in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Witness {
    pub raft_id: u64,
    pub vote: Option<Vote>,
    pub last: Option<LogId>,
}

pub struct Slots {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

struct Shared {
    wanted: Mutex<Wanted>,
    wake: Condvar,
    file: Mutex<Slotted>,
}

#[derive(Default)]
struct Wanted {
    witness: Witness,
    behind: bool,
    closing: bool,
    failed: Option<String>,
}

struct Slotted {
    file: File,
    sequence: u64,
}

impl Slots {
    /// Makes a new file. Its directory entry is durable when the caller syncs the directory.
    pub fn create(path: &Path, witness: Witness) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        file.write_all_at(&[0; 2 * SLOT_BYTES], 0)?;
        let mut slotted = Slotted { file, sequence: 0 };
        slotted.write(&witness)?;
        slotted.file.sync_all()?;
        Ok(Self::start(slotted, witness))
    }

    /// Opens the file and says what it witnessed: None if neither slot is valid.
    pub fn open(path: &Path) -> io::Result<Option<(Self, Witness)>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let mut best: Option<(u64, Witness)> = None;
        for slot in 0..2 {
            let mut bytes = [0; SLOT_BYTES];
            if file.read_exact_at(&mut bytes, slot * SLOT_BYTES as u64).is_err() {
                continue;
            }
            if let Some((sequence, witness)) = read_slot(&bytes)
                && best.is_none_or(|(newest, _)| sequence > newest)
            {
                best = Some((sequence, witness));
            }
        }
        Ok(best.map(|(sequence, witness)| (Self::start(Slotted { file, sequence }, witness), witness)))
    }

    fn start(slotted: Slotted, witness: Witness) -> Self {
        let shared = Arc::new(Shared {
            wanted: Mutex::new(Wanted { witness, ..Default::default() }),
            wake: Condvar::new(),
            file: Mutex::new(slotted),
        });
        let theirs = Arc::clone(&shared);
        let writer = std::thread::Builder::new()
            .name("log-witness".into())
            .spawn(move || theirs.write_lazily())
            .expect("a thread at start");
        Self { shared, writer: Some(writer) }
    }

    /// The log now ends durably at `last`; written soon.
    ///
    /// # Errors
    /// If an earlier lazy write failed: the disk cannot be trusted any more.
    pub fn note(&self, last: Option<LogId>) -> io::Result<()> {
        let mut wanted = lock(&self.shared.wanted);
        if let Some(failed) = &wanted.failed {
            return Err(io::Error::other(failed.clone()));
        }
        wanted.witness.last = last;
        wanted.behind = true;
        self.shared.wake.notify_one();
        Ok(())
    }

    /// Durable when it returns.
    pub fn commit(&self, change: impl FnOnce(&mut Witness)) -> io::Result<()> {
        let mut wanted = lock(&self.shared.wanted);
        change(&mut wanted.witness);
        wanted.behind = false;
        drop(wanted);
        self.shared.write_wanted()
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        lock(&self.shared.wanted).closing = true;
        self.shared.wake.notify_one();
        if let Some(writer) = self.writer.take() {
            // A panic there has already been printed; nothing is lost that was promised.
            drop(writer.join());
        }
    }
}

impl Shared {
    fn write_wanted(&self) -> io::Result<()> {
        // The file first: whoever writes later also reads what is wanted later.
        let mut file = lock(&self.file);
        let witness = lock(&self.wanted).witness;
        file.write(&witness).and_then(|()| file.file.sync_data())
    }

    fn write_lazily(&self) {
        loop {
            let mut wanted = lock(&self.wanted);
            while !wanted.behind && !wanted.closing {
                wanted = self.wake.wait(wanted).unwrap_or_else(PoisonError::into_inner);
            }
            let closing = wanted.closing;
            if !wanted.behind {
                return;
            }
            wanted.behind = false;
            drop(wanted);
            if let Err(error) = self.write_wanted() {
                tracing::error!(%error, "the log's witness file cannot be written");
                lock(&self.wanted).failed = Some(error.to_string());
                return;
            }
            if closing {
                return;
            }
            let wanted = lock(&self.wanted);
            drop(self.wake.wait_timeout_while(wanted, LAZY_GAP, |wanted| !wanted.closing));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slotted {
    /// Over the older slot.
    fn write(&mut self, witness: &Witness) -> io::Result<()> {
        let sequence = self.sequence + 1;
        let content = encode(witness);
        let mut bytes = [0u8; SLOT_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..16].copy_from_slice(&sequence.to_be_bytes());
        bytes[16..HEAD_BYTES].copy_from_slice(&(content.len() as u16).to_be_bytes());
        bytes[HEAD_BYTES..HEAD_BYTES + content.len()].copy_from_slice(&content);
        let (body, check) = bytes.split_at_mut(SLOT_BYTES - CHECK_BYTES);
        check.copy_from_slice(&blake3::hash(body).as_bytes()[..CHECK_BYTES]);
        self.file.write_all_at(&bytes, (sequence % 2) * SLOT_BYTES as u64)?;
        self.sequence = sequence;
        Ok(())
    }
}

fn read_slot(bytes: &[u8; SLOT_BYTES]) -> Option<(u64, Witness)> {
    let (body, check) = bytes.split_at(SLOT_BYTES - CHECK_BYTES);
    if body[..8] != MAGIC[..] || blake3::hash(body).as_bytes()[..CHECK_BYTES] != *check {
        return None;
    }
    let sequence = u64::from_be_bytes(body[8..16].try_into().ok()?);
    let length = usize::from(u16::from_be_bytes([body[16], body[17]]));
    let content = body.get(HEAD_BYTES..HEAD_BYTES + length)?;
    Some((sequence, decode(content).ok()?))
}

// The largest witness: 10 bytes for each of seven varints and a few flags.
const _: () = assert!(HEAD_BYTES + CHECK_BYTES + 7 * 10 + 8 <= SLOT_BYTES);

#[cfg(test)]
mod tests {
    use super::*;
    use openraft::LeaderId;

    fn at(index: u64) -> Option<LogId> {
        Some(LogId::new(LeaderId::new(1, u64::MAX), index))
    }

    fn reopen(path: &Path) -> Option<Witness> {
        Slots::open(path).unwrap().map(|(_, witness)| witness)
    }

    #[test]
    fn the_last_note_is_there_after_closing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("slots");
        let slots = Slots::create(&path, Witness { raft_id: 7, ..Default::default() }).unwrap();
        for index in 0..100 {
            slots.note(at(index)).unwrap();
        }
        slots.commit(|witness| witness.vote = Some(Vote::new(4, 7))).unwrap();
        assert_eq!(reopen(&path), Some(Witness { raft_id: 7, vote: Some(Vote::new(4, 7)), last: at(99) }));
        slots.note(at(100)).unwrap();
        drop(slots);
        assert_eq!(reopen(&path).unwrap().last, at(100));
    }

    #[test]
    fn a_torn_slot_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("slots");
        let slots = Slots::create(&path, Witness::default()).unwrap();
        slots.commit(|witness| witness.last = at(1)).unwrap();
        slots.commit(|witness| witness.last = at(2)).unwrap();
        drop(slots);
        let mut bytes = std::fs::read(&path).unwrap();
        let newest = usize::from(read_slot(bytes[SLOT_BYTES..].try_into().unwrap()).unwrap().1.last == at(2));
        bytes[newest * SLOT_BYTES + 20] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(reopen(&path).unwrap().last, at(1));
        bytes[(1 - newest) * SLOT_BYTES + 20] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(reopen(&path).is_none());
    }
}
