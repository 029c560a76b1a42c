//! The other members as this one calls them: one shared channel each, what each acknowledged to
//! this leader, and who is not to be believed any more.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dfs_proto::v1::raft_client::RaftClient;
use dfs_types::limits::MAX_GRPC_MESSAGE_BYTES;
use dfs_types::{DfsError, NodeId};
use tonic::transport::Channel;
use transport::{ChannelPool, Expect, Role};

use super::types::{LogId, Vote};

#[derive(Clone)]
pub struct Peers {
    pool: ChannelPool,
    peers: Arc<Mutex<BTreeMap<u64, Arc<Peer>>>>,
}

/// One raft id.
#[derive(Default)]
pub struct Peer {
    /// The highest log id it acknowledged to the leader with this vote.
    acknowledged: Mutex<Option<(Vote, LogId)>>,
    quarantined: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Peers {
    pub fn new(pool: ChannelPool) -> Self {
        Self { pool, peers: Arc::default() }
    }

    pub fn peer(&self, raft_id: u64) -> Arc<Peer> {
        Arc::clone(lock(&self.peers).entry(raft_id).or_default())
    }

    /// Forgets ids that are no member's any more.
    pub fn keep_only(&self, members: &std::collections::BTreeSet<u64>) {
        lock(&self.peers).retain(|raft_id, _| members.contains(raft_id));
    }

    /// A client over the channel shared by all calls to the member. Does not connect yet.
    pub fn client(&self, name: &str, address: &str) -> Result<RaftClient<Channel>, DfsError> {
        let expect = Expect::server(Role::MetadataServer, NodeId::new(name)?);
        let channel = self.pool.get(address, &expect)?;
        Ok(RaftClient::new(channel)
            .max_decoding_message_size(MAX_GRPC_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_GRPC_MESSAGE_BYTES))
    }
}

impl Peer {
    /// It has everything up to `upto`, it told the leader with `vote`.
    pub fn acknowledge(&self, vote: Vote, upto: Option<LogId>) {
        let Some(upto) = upto else { return };
        let mut acknowledged = lock(&self.acknowledged);
        match &mut *acknowledged {
            Some((same, highest)) if *same == vote => *highest = upto.max(*highest),
            other => *other = Some((vote, upto)),
        }
    }

    /// What it acknowledged to the leader with `vote`.
    pub fn acknowledged(&self, vote: Vote) -> Option<LogId> {
        lock(&self.acknowledged).filter(|(same, _)| *same == vote).map(|(_, upto)| upto)
    }

    /// Returns true the first time.
    pub fn quarantine(&self) -> bool {
        !self.quarantined.swap(true, Ordering::AcqRel)
    }

    pub fn is_quarantined(&self) -> bool {
        self.quarantined.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openraft::LeaderId;

    #[test]
    fn acknowledgements_are_per_leader_and_never_fall() {
        let id = |index| LogId::new(LeaderId::new(1, 1), index);
        let (first, second) = (Vote::new_committed(1, 1), Vote::new_committed(2, 1));
        let peer = Peer::default();
        assert_eq!(peer.acknowledged(first), None);
        peer.acknowledge(first, Some(id(5)));
        peer.acknowledge(first, Some(id(3)));
        peer.acknowledge(first, None);
        assert_eq!(peer.acknowledged(first), Some(id(5)));
        assert_eq!(peer.acknowledged(second), None);
        peer.acknowledge(second, Some(id(2)));
        assert_eq!((peer.acknowledged(first), peer.acknowledged(second)), (None, Some(id(2))));
    }
}
