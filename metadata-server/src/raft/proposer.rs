//! Group commit: one task packs all commands that wait into one log entry, because openraft 0.9
//! appends and syncs one entry at a time. Few entries are under way at once, so that commands
//! gather meanwhile; each waiter gets the result of its own place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use dfs_proto::v1;
use dfs_types::limits::{
    MAX_COMMAND_BYTES, MAX_COMMANDS_PER_ENTRY, MAX_ENTRIES_IN_FLIGHT, MAX_ENTRY_BYTES, MAX_WAITING_BYTES,
    MAX_WAITING_COMMANDS,
};
use dfs_types::{DfsError, ErrorCode};
use openraft::ServerState;
use openraft::error::{ClientWriteError, RaftError};
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::hand_off::Leaving;
use super::types::{EntryData, Raft, Results};

/// Entries proposed and not applied yet. Two: while one is on its way to the others, the next is
/// synced here; more would only make entries smaller.
const ENTRIES_UNDER_WAY: usize = 2;
const _: () = assert!(ENTRIES_UNDER_WAY <= MAX_ENTRIES_IN_FLIGHT);
/// Bytes of an entry beside its commands, and of each command beside its own encoding.
const ENTRY_OVERHEAD: usize = 16;
const COMMAND_OVERHEAD: usize = 8;
const ENTRY_FORMAT: u32 = metadata_core::apply::ENTRY_FORMAT;

/// The stages of a waiting command.
const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const GIVEN_UP: u8 = 2;

type Answer = Result<v1::CommandResult, DfsError>;

struct Waiting {
    command: v1::Command,
    bytes: usize,
    stage: Arc<AtomicU8>,
    answer: oneshot::Sender<Answer>,
}

/// The proposing side. Cheap to clone.
#[derive(Clone)]
pub struct Proposer {
    queue: mpsc::Sender<Waiting>,
    waiting: Arc<Backlog>,
    leaving: Leaving,
}

/// What waits for the log writer.
#[derive(Default)]
struct Backlog {
    commands: AtomicU64,
    bytes: AtomicU64,
}

impl Backlog {
    /// False: it is full already.
    fn enter(&self, bytes: usize) -> bool {
        if self.bytes.fetch_add(bytes as u64, Ordering::AcqRel) + bytes as u64 > MAX_WAITING_BYTES {
            self.bytes.fetch_sub(bytes as u64, Ordering::AcqRel);
            return false;
        }
        self.commands.fetch_add(1, Ordering::AcqRel);
        true
    }

    fn leave(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes as u64, Ordering::AcqRel);
        self.commands.fetch_sub(1, Ordering::AcqRel);
    }
}

pub fn not_leader() -> DfsError {
    DfsError::new(ErrorCode::Unavailable, "this server does not lead the cluster")
}

fn unknown() -> DfsError {
    DfsError::new(
        ErrorCode::UnknownOutcome,
        "the write was proposed, but whether it was committed is not known: retry with the same request id",
    )
}

impl Proposer {
    /// The handle, and the task to run.
    pub fn new(raft: Raft, leaving: Leaving) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, commands) = mpsc::channel(MAX_WAITING_COMMANDS);
        let waiting = Arc::new(Backlog::default());
        let writing = write(raft, commands, Arc::clone(&waiting), leaving.clone());
        (Self { queue, waiting, leaving }, writing)
    }

    pub fn waiting(&self) -> u64 {
        self.waiting.commands.load(Ordering::Relaxed)
    }

    pub async fn propose(&self, command: v1::Command, deadline: Instant) -> Answer {
        let bytes = command.encoded_len();
        if bytes > MAX_COMMAND_BYTES {
            return Err(DfsError::new(
                ErrorCode::LimitExceeded,
                format!("the command has {bytes} bytes, at most {MAX_COMMAND_BYTES} are allowed"),
            ));
        }
        if self.leaving.is_set() {
            return Err(not_leader());
        }
        let overloaded = || DfsError::new(ErrorCode::Overloaded, "too many commands wait for the log");
        if !self.waiting.enter(bytes) {
            return Err(overloaded());
        }
        let stage = Arc::new(AtomicU8::new(WAITING));
        let (answer, answered) = oneshot::channel();
        let queued = self.queue.try_send(Waiting { command, bytes, stage: Arc::clone(&stage), answer });
        if let Err(error) = queued {
            self.waiting.leave(bytes);
            return Err(match error {
                mpsc::error::TrySendError::Full(_) => overloaded(),
                mpsc::error::TrySendError::Closed(_) => not_leader(),
            });
        }
        // Also when this future is dropped: a command nobody waits for is not proposed.
        let give_up = GiveUp(Arc::clone(&stage));
        match timeout_at(deadline, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) if stage.load(Ordering::Acquire) == WAITING => Err(not_leader()),
            Ok(Err(_)) => Err(unknown()),
            Err(_) if give_up.now() => {
                Err(DfsError::new(ErrorCode::Timeout, "the deadline passed before the write was proposed"))
            }
            Err(_) => Err(unknown()),
        }
    }
}

struct GiveUp(Arc<AtomicU8>);

impl GiveUp {
    /// Whether the command was still waiting, and now never will be proposed.
    fn now(&self) -> bool {
        self.0.compare_exchange(WAITING, GIVEN_UP, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.now();
    }
}

async fn write(raft: Raft, mut commands: mpsc::Receiver<Waiting>, waiting: Arc<Backlog>, leaving: Leaving) {
    let under_way = Arc::new(Semaphore::new(ENTRIES_UNDER_WAY));
    let metrics = raft.metrics();
    let mut left_over: Option<Waiting> = None;
    loop {
        let first = match left_over.take() {
            Some(first) => first,
            None => match commands.recv().await {
                Some(first) => first,
                None => return,
            },
        };
        // While this waits, more commands gather.
        let Ok(permit) = Arc::clone(&under_way).acquire_owned().await else { return };
        let mut batch = Vec::new();
        let mut bytes = ENTRY_OVERHEAD;
        let mut next = Some(first);
        while let Some(command) = next {
            if batch.len() == MAX_COMMANDS_PER_ENTRY
                || bytes + command.bytes + COMMAND_OVERHEAD > MAX_ENTRY_BYTES
            {
                left_over = Some(command);
                break;
            }
            waiting.leave(command.bytes);
            let taken =
                command.stage.compare_exchange(WAITING, TAKEN, Ordering::AcqRel, Ordering::Acquire).is_ok();
            if taken {
                bytes += command.bytes + COMMAND_OVERHEAD;
                batch.push(command);
            }
            next = commands.try_recv().ok();
        }
        if batch.is_empty() {
            continue;
        }
        if leaving.is_set() || metrics.borrow().state != ServerState::Leader {
            for command in batch {
                // A receiver that is gone has given up.
                let _ = command.answer.send(Err(not_leader()));
            }
            continue;
        }
        propose_entry(&raft, batch, permit).await;
    }
}

async fn propose_entry(raft: &Raft, batch: Vec<Waiting>, permit: OwnedSemaphorePermit) {
    let mut answers = Vec::with_capacity(batch.len());
    let mut entry = v1::Entry { format: ENTRY_FORMAT, commands: Vec::with_capacity(batch.len()) };
    for waiting in batch {
        entry.commands.push(waiting.command);
        answers.push(waiting.answer);
    }
    let reached_log = Arc::new(AtomicBool::new(false));
    let data = EntryData::new(&entry, Arc::clone(&reached_log));
    // Awaited here, so that entries are proposed in the order in which they were packed.
    let proposed = raft.client_write_ff(data).await;
    tokio::spawn(async move {
        let failure = match proposed {
            Err(_) => not_leader(),
            Ok(response) => match response.await {
                Ok(Ok(done)) => {
                    answer_all(answers, done.data);
                    drop(permit);
                    return;
                }
                Ok(Err(error)) => refused(&error, reached_log.load(Ordering::Acquire)),
                // openraft stopped.
                Err(_) => unknown(),
            },
        };
        drop(permit);
        for answer in answers {
            let _ = answer.send(Err(failure.clone()));
        }
    });
}

/// An entry that was in the log when the lead was lost may still be committed by another leader.
fn refused(error: &ClientWriteError<u64, super::types::Node>, reached_log: bool) -> DfsError {
    match error {
        _ if reached_log => unknown(),
        ClientWriteError::ForwardToLeader(_) => not_leader(),
        ClientWriteError::ChangeMembershipError(error) => {
            DfsError::new(ErrorCode::Internal, error.to_string())
        }
    }
}

fn answer_all(answers: Vec<oneshot::Sender<Answer>>, results: Results) {
    // The state store checked that there is one result per command.
    for (answer, mut result) in answers.into_iter().zip(results.0) {
        let result = match result.error.take() {
            None => Ok(result),
            Some(error) => Err(DfsError::from(error)),
        };
        let _ = answer.send(result);
    }
}

/// For calls of openraft that answer with a client-write error.
pub fn membership_error(error: RaftError<u64, ClientWriteError<u64, super::types::Node>>) -> DfsError {
    use openraft::error::ChangeMembershipError as C;
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => not_leader(),
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => match error {
            C::InProgress(_) => {
                DfsError::new(ErrorCode::FailedPrecondition, "another membership change is under way")
            }
            C::EmptyMembership(_) => {
                DfsError::new(ErrorCode::FailedPrecondition, "the last member cannot be removed")
            }
            C::LearnerNotFound(error) => DfsError::new(ErrorCode::Internal, error.to_string()),
        },
        RaftError::Fatal(error) => DfsError::new(ErrorCode::Unavailable, error.to_string()),
    }
}
