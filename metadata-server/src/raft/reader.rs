//! Linearizable reads: everybody who waits joins the next read-index round, one round at a time.
//! A round confirms the lead with a majority after its readers arrived, then waits until the state
//! has applied what was committed by then; all its readers share one view.

use std::sync::Arc;
use std::time::Duration;

use dfs_types::limits::MAX_WAITING_COMMANDS;
use dfs_types::{DfsError, ErrorCode};
use openraft::LogIdOptionExt;
use openraft::error::{CheckIsLeaderError, RaftError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout_at};

use super::proposer::not_leader;
use super::state_store::StateStore;
use super::types::{LogId, Raft};
use crate::kv::StateView;

/// Between two rounds when no majority answered.
const RETRY: Duration = Duration::from_millis(20);

struct Waiting {
    deadline: Instant,
    answer: oneshot::Sender<Result<StateView, DfsError>>,
}

/// The asking side. Cheap to clone.
#[derive(Clone)]
pub struct Reader {
    queue: mpsc::Sender<Waiting>,
}

fn no_majority() -> DfsError {
    DfsError::new(ErrorCode::Unavailable, "no majority of the members confirmed that this server leads")
}

impl Reader {
    /// The handle, and the task to run.
    pub fn new(raft: Raft, state: Arc<StateStore>) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, waiting) = mpsc::channel(MAX_WAITING_COMMANDS);
        (Self { queue }, rounds(raft, state, waiting))
    }

    pub async fn read(&self, deadline: Instant) -> Result<StateView, DfsError> {
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(Waiting { deadline, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => DfsError::new(ErrorCode::Overloaded, "too many reads wait"),
            mpsc::error::TrySendError::Closed(_) => not_leader(),
        })?;
        match timeout_at(deadline, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(not_leader()),
            Err(_) => Err(no_majority()),
        }
    }
}

async fn rounds(raft: Raft, state: Arc<StateStore>, mut queue: mpsc::Receiver<Waiting>) {
    let mut waiting: Vec<Waiting> = Vec::new();
    loop {
        if waiting.is_empty() {
            match queue.recv().await {
                Some(first) => waiting.push(first),
                None => return,
            }
        }
        // Whoever is here by now arrived before the round begins.
        while waiting.len() < MAX_WAITING_COMMANDS
            && let Ok(next) = queue.try_recv()
        {
            waiting.push(next);
        }
        match raft.get_read_log_id().await {
            Ok((index, _)) => {
                let answer = view_at(&state, index, &waiting).await;
                for reader in waiting.drain(..) {
                    // A receiver that is gone has given up.
                    let _ = reader.answer.send(answer.clone());
                }
            }
            Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_))) => {
                let now = Instant::now();
                waiting.retain(|reader| reader.deadline > now && !reader.answer.is_closed());
                sleep(RETRY).await;
            }
            Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(_)) | RaftError::Fatal(_)) => {
                for reader in waiting.drain(..) {
                    let _ = reader.answer.send(Err(not_leader()));
                }
            }
        }
    }
}

async fn view_at(
    state: &StateStore,
    index: Option<LogId>,
    waiting: &[Waiting],
) -> Result<StateView, DfsError> {
    let latest = waiting.iter().map(|reader| reader.deadline).max().unwrap_or_else(Instant::now);
    let mut progress = state.progress();
    let reached =
        progress.wait_for(|progress| progress.failed || progress.applied.next_index() >= index.next_index());
    match timeout_at(latest, reached).await {
        Ok(Ok(progress)) if !progress.failed => {}
        Ok(_) => return Err(not_leader()),
        Err(_) => return Err(no_majority()),
    }
    state.view().map_err(|error| DfsError::new(ErrorCode::Io, error.to_string()))
}
