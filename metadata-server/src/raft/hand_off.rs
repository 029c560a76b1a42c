//! Handing the lead over before a leader leaves, so that a restart costs no election timeout.
//!
//! openraft 0.9 has no transfer of the lead. Here the leader stops proposing, waits until a voter has its
//! whole log, and asks it (`TakeOver`) to stand for election at once. Others would refuse its vote until
//! the lease of the leader they follow has run out; so its requests carry the vote of the leader that
//! asked, and whoever still follows just that leader, and has no entry that the candidate lacks, first
//! takes note of the higher term. That ends the lease, as any word of a higher term does in Raft, and then
//! openraft judges the vote by its own rules. Nothing here grants a vote, and safety does not depend on it:
//! an order that is late, forged by a member, or meant for another term at most costs an election.
//!
//! Bounded by [`HAND_OFF_MS`] in all; what cannot be handed over in time is left to an election.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dfs_proto::v1;
use dfs_types::limits::HAND_OFF_MS;
use dfs_types::{DfsError, ErrorCode};
use openraft::{LogIdOptionExt, ServerState, Snapshot};
use tokio::time::{Instant, timeout, timeout_at};
use tonic::Request;

use super::peers::Peers;
use super::state_store::StateStore;
use super::types::{LogId, Node, Raft, RaftMetrics, SnapshotMeta, Vote, VoteRequest, encode};

/// How long the one that was asked may take to lead.
const TAKE_OVER_LIMIT: Duration = Duration::from_millis(HAND_OFF_MS / 3);

/// Whether this member is on its way out: it proposes nothing and stands for no election.
#[derive(Clone, Default)]
pub struct Leaving(Arc<AtomicBool>);

impl Leaving {
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn set(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The vote of the leader that asked this member to take over, while it stands on that order.
#[derive(Clone, Default)]
pub struct Order(Arc<Mutex<Option<Vote>>>);

impl Order {
    fn replace(&self, order: Option<Vote>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = order;
    }

    /// What a vote request carries of it; none: nobody asked for it.
    pub fn for_request(&self, request: &VoteRequest) -> Option<Vote> {
        let order = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        order.filter(|order| request.vote.leader_id.term == order.leader_id.term + 1)
    }
}

/// The leader's side. Returns whether another member leads now, or none is needed; false: it is left
/// to an election.
pub async fn give(raft: &Raft, peers: &Peers, leaving: &Leaving) -> bool {
    leaving.set();
    raft.runtime_config().elect(false);
    let deadline = Instant::now() + Duration::from_millis(HAND_OFF_MS);
    let mut asked = Vec::new();
    loop {
        let now = raft.metrics().borrow().clone();
        if now.state != ServerState::Leader {
            return true;
        }
        if now.membership_config.membership().voter_ids().all(|id| id == now.id) {
            return true;
        }
        // Nothing new is proposed, so a voter that answers has everything soon.
        let mut metrics = raft.metrics();
        let ready =
            metrics.wait_for(|now| now.state != ServerState::Leader || successor(now, &asked).is_some());
        let now = match timeout_at(deadline, ready).await {
            Ok(Ok(now)) => now.clone(),
            Ok(Err(_)) | Err(_) => return false,
        };
        let Some((target, node)) = successor(&now, &asked) else { continue };
        asked.push(target);
        match ask(peers, &now, target, &node).await {
            Ok(()) => {
                let mut metrics = raft.metrics();
                let followed =
                    metrics.wait_for(|now| now.current_leader.is_some_and(|leader| leader != now.id));
                if matches!(timeout_at(deadline, followed).await, Ok(Ok(_))) {
                    tracing::info!(member = node.name, "the lead was handed over");
                    return true;
                }
            }
            Err(error) => tracing::warn!(member = node.name, %error, "it does not take over the lead"),
        }
    }
}

/// A voter that has the whole log, not among those asked already; of several, the lowest id.
fn successor(metrics: &RaftMetrics, asked: &[u64]) -> Option<(u64, Node)> {
    let membership = metrics.membership_config.membership();
    let replication = metrics.replication.as_ref()?;
    let whole = |id: &u64| {
        let matching = replication.get(id).cloned().flatten();
        *id != metrics.id && !asked.contains(id) && matching.index() == metrics.last_log_index
    };
    let id = membership.voter_ids().filter(whole).min()?;
    Some((id, membership.get_node(&id)?.clone()))
}

async fn ask(peers: &Peers, metrics: &RaftMetrics, target: u64, node: &Node) -> Result<(), DfsError> {
    let failed = |why: String| DfsError::new(ErrorCode::Unavailable, why);
    let target_raft_id = target.to_be_bytes().to_vec().into();
    let message = v1::RaftMessage { target_raft_id, payload: encode(&metrics.vote).into() };
    let mut client = peers.client(&node.name, &node.address)?;
    match timeout(TAKE_OVER_LIMIT, client.take_over(Request::new(message))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(status)) => Err(failed(status.message().to_owned())),
        Err(_) => Err(failed("no answer in time".into())),
    }
}

/// The side of the one that is asked: stands for election on the word of the leader with the vote `of`.
///
/// # Errors
/// `failed_precondition` if this member follows another leader; `unavailable` if it was not elected.
pub async fn take(raft: &Raft, order: &Order, followed: Option<Vote>, of: Vote) -> Result<(), DfsError> {
    if !of.committed || followed != Some(of) {
        return Err(DfsError::new(ErrorCode::FailedPrecondition, "this member follows another leader"));
    }
    order.replace(Some(of));
    let elected = async {
        raft.trigger().elect().await.map_err(|error| error.to_string())?;
        let mut metrics = raft.metrics();
        metrics.wait_for(|now| now.state == ServerState::Leader).await.map_err(|error| error.to_string())?;
        Ok::<(), String>(())
    };
    let outcome = timeout(TAKE_OVER_LIMIT, elected).await;
    order.replace(None);
    let failed = |why: String| Err(DfsError::new(ErrorCode::Unavailable, why));
    match outcome {
        Ok(Ok(())) => Ok(()),
        Ok(Err(why)) => failed(why),
        Err(_) => failed("not elected in time".into()),
    }
}

/// The side of whoever is asked for a vote: whether the candidate stands on the order of the leader that
/// this member follows, and lacks nothing it has.
pub fn ends_lease(
    handed_by: Option<Vote>,
    followed: Option<Vote>,
    last: Option<LogId>,
    request: &VoteRequest,
) -> bool {
    let Some(of) = handed_by else { return false };
    followed == Some(of)
        && of.committed
        && !request.vote.committed
        && request.vote.leader_id.term == of.leader_id.term + 1
        && request.last_log_id >= last
}

/// Tells openraft of the candidate's term. Of all messages an empty snapshot is the one that carries
/// nothing else: it is older than anything, so that it is not installed.
pub async fn end_lease(raft: &Raft, state: &StateStore, candidate: Vote) -> Result<(), String> {
    let nothing = state.incoming().map_err(|error| error.to_string())?;
    let snapshot = Snapshot { meta: SnapshotMeta::default(), snapshot: Box::new(nothing) };
    raft.install_full_snapshot(candidate, snapshot).await.map_err(|error| error.to_string())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use openraft::LeaderId;

    use super::*;

    #[test]
    fn only_the_order_of_the_followed_leader_ends_its_lease() {
        let log = |term, index| Some(LogId::new(LeaderId::new(term, 1), index));
        let (leader, followed) = (Vote::new_committed(4, 1), Some(Vote::new_committed(4, 1)));
        let request = VoteRequest { vote: Vote::new(5, 2), last_log_id: log(4, 9) };
        let ends =
            |of: &Vote, followed, last, request: &VoteRequest| ends_lease(Some(*of), followed, last, request);
        assert!(ends(&leader, followed, log(4, 9), &request));
        assert!(ends(&leader, followed, log(4, 8), &request));
        // It lacks an entry; another leader is followed by now; the order is of another term, or of a mere
        // candidate; the request is for a term that nobody ordered; there is no order.
        assert!(!ends(&leader, followed, log(4, 10), &request));
        assert!(!ends(&leader, Some(Vote::new_committed(4, 3)), log(4, 9), &request));
        assert!(!ends(&leader, Some(Vote::new(5, 2)), log(4, 9), &request));
        assert!(!ends(&Vote::new_committed(3, 1), followed, log(4, 9), &request));
        let candidate = Vote::new(4, 1);
        assert!(!ends(&candidate, Some(candidate), log(4, 9), &request));
        let later = VoteRequest { vote: Vote::new(6, 2), ..request.clone() };
        assert!(!ends(&leader, followed, log(4, 9), &later));
        let odd = VoteRequest { vote: Vote::new_committed(5, 2), ..request.clone() };
        assert!(!ends(&leader, followed, log(4, 9), &odd));
        assert!(!ends_lease(None, followed, log(4, 9), &request));
    }

    #[test]
    fn an_order_is_told_in_its_own_term_alone() {
        let order = Order::default();
        let request = |term| VoteRequest { vote: Vote::new(term, 2), last_log_id: None };
        assert_eq!(order.for_request(&request(5)), None);
        order.replace(Some(Vote::new_committed(4, 1)));
        assert_eq!(order.for_request(&request(5)), Some(Vote::new_committed(4, 1)));
        assert_eq!(order.for_request(&request(6)), None);
        order.replace(None);
        assert_eq!(order.for_request(&request(5)), None);
    }
}
