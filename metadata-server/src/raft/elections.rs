//! Whether this member may stand for election: openraft 0.9 has no pre-vote, so a member that hears
//! no leader would raise its term again and again and unseat a working leader when it comes back.
//!
//! Here it first asks the voters (Hello). It may stand only while a majority, itself included, answers and
//! hears no leader either. An isolated member thus keeps its term, and one that lost only its way to the leader
//! leaves the leader alone. Asking begins one election timeout after the last word of the leader; openraft waits for
//! at least lease and election timeout, so failover is not slower. This only withholds candidacy: safety never
//! depends on it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dfs_proto::v1;
use futures::future::join_all;
use openraft::ServerState;
use tokio::time::{Instant, sleep};

use super::hand_off::Leaving;
use super::hello::Greeter;
use super::types::{Raft, RaftMetrics};

/// When the leader was last heard, shared with the service.
#[derive(Clone, Default)]
pub struct Heard(Arc<Mutex<Option<Instant>>>);

impl Heard {
    pub fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    pub fn within(&self, time: Duration) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|heard| heard.elapsed() < time)
    }
}

/// Whether this member knows of a working leader: what it answers to others who ask.
pub fn leader_is_well(metrics: &RaftMetrics, heard: &Heard, election_min: Duration) -> bool {
    match metrics.state {
        ServerState::Leader => {
            metrics.millis_since_quorum_ack.is_some_and(|ms| Duration::from_millis(ms) < election_min)
        }
        _ => metrics.current_leader.is_some() && heard.within(election_min),
    }
}

pub async fn gate(
    raft: Raft,
    heard: Heard,
    greeter: Greeter,
    leaving: Leaving,
    heartbeat: Duration,
    election_min: Duration,
) {
    let metrics = raft.metrics();
    loop {
        let now = metrics.borrow().clone();
        if !leader_is_well(&now, &heard, election_min) && now.state != ServerState::Leader {
            let may = majority_agrees(&now, &greeter).await && !leaving.is_set();
            raft.runtime_config().elect(may);
        } else {
            raft.runtime_config().elect(false);
        }
        sleep(heartbeat).await;
    }
}

async fn majority_agrees(metrics: &RaftMetrics, greeter: &Greeter) -> bool {
    let mut agree = answering(metrics, greeter, |answer| answer.leader.is_empty()).await;
    agree.push(metrics.id);
    is_majority(metrics, &agree)
}

/// The other voters that answer Hello, under the raft id they are known by, in a way that counts.
pub async fn answering(
    metrics: &RaftMetrics,
    greeter: &Greeter,
    counts: impl Fn(&v1::HelloResponse) -> bool + Copy,
) -> Vec<u64> {
    let membership = metrics.membership_config.membership();
    let asked = membership.voter_ids().filter(|id| *id != metrics.id).filter_map(|id| {
        let node = membership.get_node(&id)?.clone();
        Some(async move {
            let answer = greeter.hello(&node.name, &node.address).await.ok()?;
            (answer.raft_id == id && counts(&answer)).then_some(id)
        })
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// Whether these are a majority of the voters, of each configuration if there are two.
pub fn is_majority(metrics: &RaftMetrics, these: &[u64]) -> bool {
    let configs = metrics.membership_config.membership().get_joint_config();
    !configs.is_empty()
        && configs.iter().all(|voters| {
            let count = voters.iter().filter(|id| these.contains(id)).count();
            count * 2 > voters.len()
        })
}
