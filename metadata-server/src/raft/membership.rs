//! Forming a cluster, and changing its members while it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dfs_types::{DfsError, ErrorCode, NodeId};
use futures::future::join_all;
use openraft::error::{InitializeError, RaftError};
use openraft::{ChangeMembers, LogIdOptionExt};
use tokio::time::{Instant, sleep, timeout_at};

use super::api::{Formation, Member, MemberStatus};
use super::hello::Greeter;
use super::proposer::{membership_error, not_leader};
use super::types::{Node, Raft, RaftMetrics};

/// Between two rounds of asking the initial members.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// A learner this close behind may become a voter.
const CAUGHT_UP_ENTRIES: u64 = 16;

/// Membership of one member's group. Changes take turns.
pub struct Membership {
    raft: Raft,
    greeter: Greeter,
    advertise: String,
    changing: tokio::sync::Mutex<()>,
}

fn timed_out(what: &str) -> DfsError {
    DfsError::new(ErrorCode::UnknownOutcome, format!("{what} did not finish in time; ask for it again"))
}

impl Membership {
    pub fn new(raft: Raft, greeter: Greeter, advertise: String) -> Self {
        Self { raft, greeter, advertise, changing: tokio::sync::Mutex::new(()) }
    }

    fn metrics(&self) -> RaftMetrics {
        self.raft.metrics().borrow().clone()
    }

    /// Only the lowest name forms a cluster, and only when every other initial member has answered
    /// that it is blank: a member wiped later finds the others in a cluster and waits to be added.
    pub async fn form(&self, initial: &BTreeMap<String, String>) -> Result<Formation, DfsError> {
        let me = &self.greeter.name;
        let founder = initial.keys().next() == Some(me);
        let mut waiting_since_told = None;
        loop {
            let fatal =
                |error: openraft::error::Fatal<u64>| DfsError::new(ErrorCode::Unavailable, error.to_string());
            if self.raft.is_initialized().await.map_err(fatal)? {
                return Ok(Formation::Member);
            }
            if founder && let Some(members) = self.all_blank(initial).await {
                return match self.raft.initialize(members).await {
                    Ok(()) => Ok(Formation::Formed),
                    Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(Formation::Member),
                    Err(error) => Err(DfsError::new(ErrorCode::Internal, error.to_string())),
                };
            }
            if waiting_since_told.is_none_or(|told: Instant| told.elapsed() > Duration::from_secs(10)) {
                tracing::info!(founder, "blank: waiting for the other initial members, or to be added");
                waiting_since_told = Some(Instant::now());
            }
            sleep(ASK_AGAIN).await;
        }
    }

    async fn all_blank(&self, initial: &BTreeMap<String, String>) -> Option<BTreeMap<u64, Node>> {
        let asked = initial.iter().filter(|(name, _)| **name != self.greeter.name).map(
            |(name, address)| async move {
                let answer = self.greeter.hello(name, address).await.ok()?;
                let node = Node { name: name.clone(), address: address.clone() };
                answer.cluster_id.is_empty().then_some((answer.raft_id, node))
            },
        );
        let mut members: BTreeMap<u64, Node> = join_all(asked).await.into_iter().collect::<Option<_>>()?;
        let own = Node { name: self.greeter.name.clone(), address: self.advertise.clone() };
        members.insert(self.greeter.raft_id, own);
        (members.len() == initial.len()).then_some(members)
    }

    pub async fn list(&self) -> Vec<MemberStatus> {
        let metrics = self.metrics();
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let asked = membership.nodes().map(|(raft_id, node)| {
            let (raft_id, leader, voter) =
                (*raft_id, metrics.current_leader == Some(*raft_id), voters.contains(raft_id));
            let own_last = metrics.last_log_index;
            async move {
                let own = raft_id == self.greeter.raft_id;
                let answer = match own {
                    true => None,
                    false => self.greeter.hello(&node.name, &node.address).await.ok(),
                };
                let answer = answer.filter(|answer| answer.raft_id == raft_id);
                let answered = answer.as_ref();
                let last = match own {
                    true => Some(own_last.unwrap_or(0)),
                    false => answered.map(|answer| answer.last_log_index),
                };
                MemberStatus {
                    member: Member { name: node.name.clone(), raft_id, address: node.address.clone() },
                    voter,
                    leader,
                    reachable: last.is_some(),
                    last_log_index: last,
                    quarantined: self.greeter.peers.peer(raft_id).is_quarantined(),
                    disk: match own {
                        true => self.greeter.space.room(),
                        false => answered.and_then(|answer| answer.disk),
                    },
                    feature_level: match own {
                        true => Some(self.greeter.feature_level),
                        false => answered.map(|answer| answer.feature_level),
                    },
                }
            }
        });
        let mut all = join_all(asked).await;
        all.sort_by(|a, b| (&a.member.name, a.member.raft_id).cmp(&(&b.member.name, b.member.raft_id)));
        all
    }

    /// Ids of members and learners called `name`.
    fn ids_of(&self, name: &str) -> BTreeSet<u64> {
        let metrics = self.metrics();
        let nodes = metrics.membership_config.membership().nodes();
        nodes.filter(|(_, node)| node.name == name).map(|(id, _)| *id).collect()
    }

    fn voters(&self) -> BTreeSet<u64> {
        self.metrics().membership_config.membership().voter_ids().collect()
    }

    async fn change(
        &self,
        change: impl Into<ChangeMembers<u64, Node>>,
        what: &str,
        deadline: Instant,
    ) -> Result<(), DfsError> {
        match timeout_at(deadline, self.raft.change_membership(change, false)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(membership_error(error)),
            Err(_) => Err(timed_out(what)),
        }
    }

    pub async fn add(
        &self,
        name: &str,
        address: &str,
        feature_level: u32,
        deadline: Instant,
    ) -> Result<(), DfsError> {
        NodeId::new(name)?;
        let _turn = timeout_at(deadline, self.changing.lock())
            .await
            .map_err(|_| DfsError::new(ErrorCode::Timeout, "another membership change is under way"))?;
        if self.metrics().current_leader != Some(self.greeter.raft_id) {
            return Err(not_leader());
        }
        let node = Node { name: name.to_owned(), address: address.to_owned() };
        let raft_id = if name == self.greeter.name {
            self.greeter.raft_id
        } else {
            let answer = self.greeter.hello(name, address).await?;
            if answer.feature_level < feature_level {
                return Err(DfsError::new(
                    ErrorCode::FailedPrecondition,
                    format!(
                        "{name} knows feature level {} at most, the cluster is at {feature_level}: upgrade it",
                        answer.feature_level
                    ),
                ));
            }
            answer.raft_id
        };
        let known = self.metrics().membership_config.membership().get_node(&raft_id).cloned();
        match known {
            None => self.add_learner(raft_id, node, deadline).await?,
            // Safe to replace: whoever answers there must show this name and this raft id.
            Some(old) if old != node => {
                let moved = ChangeMembers::SetNodes(BTreeMap::from([(raft_id, node)]));
                self.change(moved, "moving the member", deadline).await?;
            }
            Some(_) => {}
        }
        self.catch_up(raft_id, deadline).await?;
        let replaced: BTreeSet<u64> = self.ids_of(name).into_iter().filter(|id| *id != raft_id).collect();
        let now = self.voters();
        let wanted: BTreeSet<u64> =
            now.iter().copied().filter(|id| !replaced.contains(id)).chain([raft_id]).collect();
        if wanted != now {
            self.change(wanted, "making the member a voter", deadline).await?;
        }
        let leftover: BTreeSet<u64> = self.ids_of(name).into_iter().filter(|id| *id != raft_id).collect();
        if !leftover.is_empty() {
            self.change(ChangeMembers::RemoveNodes(leftover), "removing the old id", deadline).await?;
        }
        Ok(())
    }

    async fn add_learner(&self, raft_id: u64, node: Node, deadline: Instant) -> Result<(), DfsError> {
        match timeout_at(deadline, self.raft.add_learner(raft_id, node, false)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(membership_error(error)),
            Err(_) => Err(timed_out("adding the member")),
        }
    }

    async fn catch_up(&self, raft_id: u64, deadline: Instant) -> Result<(), DfsError> {
        if raft_id == self.greeter.raft_id {
            return Ok(());
        }
        let mut metrics = self.raft.metrics();
        let near = metrics.wait_for(|metrics| match &metrics.replication {
            None => true,
            Some(replication) => {
                let matching = replication.get(&raft_id).cloned().flatten();
                let end = metrics.last_log_index.map_or(0, |last| last + 1);
                matching.is_some() && matching.next_index() + CAUGHT_UP_ENTRIES >= end
            }
        });
        let replicating = match timeout_at(deadline, near).await {
            Ok(Ok(metrics)) => metrics.replication.is_some(),
            Ok(Err(_)) => false,
            Err(_) => return Err(timed_out("the member is a learner now; catching up")),
        };
        if replicating { Ok(()) } else { Err(not_leader()) }
    }

    pub async fn remove(&self, name: &str, deadline: Instant) -> Result<(), DfsError> {
        let _turn = timeout_at(deadline, self.changing.lock())
            .await
            .map_err(|_| DfsError::new(ErrorCode::Timeout, "another membership change is under way"))?;
        if self.metrics().current_leader != Some(self.greeter.raft_id) {
            return Err(not_leader());
        }
        let ids = self.ids_of(name);
        if ids.is_empty() {
            return Err(DfsError::new(ErrorCode::NotFound, format!("no member is called {name:?}")));
        }
        let voters = self.voters();
        let learners: BTreeSet<u64> = ids.difference(&voters).copied().collect();
        if !learners.is_empty() {
            self.change(ChangeMembers::RemoveNodes(learners), "removing the member", deadline).await?;
        }
        let leaving: BTreeSet<u64> = ids.intersection(&voters).copied().collect();
        if leaving.is_empty() {
            return Ok(());
        }
        if leaving.len() == voters.len() {
            return Err(DfsError::new(ErrorCode::FailedPrecondition, "the last member cannot be removed"));
        }
        self.change(ChangeMembers::RemoveVoters(leaving), "removing the member", deadline).await
    }

    /// Ends a change that an earlier leader began and did not finish.
    pub async fn finish_change(&self) {
        let _turn = self.changing.lock().await;
        let metrics = self.metrics();
        let configs = metrics.membership_config.membership().get_joint_config();
        if configs.len() > 1
            && let Some(goal) = configs.last()
        {
            tracing::info!("finishing the membership change of an earlier leader");
            if let Err(error) = self.raft.change_membership(goal.clone(), false).await {
                tracing::warn!(%error, "the membership change is still unfinished");
            }
        }
    }
}
