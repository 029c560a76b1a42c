//! Chunks this node found lost or corrupt and has yet to tell the metadata service. In memory only:
//! a restarted node finds them again.

use std::collections::BTreeMap;
use std::sync::Mutex;

use dfs_proto::v1::ChunkFault;
use dfs_types::limits::{MAX_FAULTS_PER_HEARTBEAT, MAX_FAULTS_WAITING};
use dfs_types::{ChunkId, RealmId};

/// A set, so that a chunk read a thousand times is reported once. Full, it drops what comes: scrub
/// will find that again.
#[derive(Default)]
pub struct Faults {
    waiting: Mutex<BTreeMap<(RealmId, ChunkId), bool>>,
}

impl Faults {
    /// `corrupt`: the bytes are there and wrong; else they are gone.
    pub fn report(&self, realm: RealmId, chunk: ChunkId, corrupt: bool) {
        let mut waiting = self.waiting.lock().expect("no panic while faults are held");
        if waiting.len() < MAX_FAULTS_WAITING || waiting.contains_key(&(realm, chunk)) {
            waiting.insert((realm, chunk), corrupt);
        }
    }

    /// What the next heartbeat says. They stay until [`Faults::told`].
    pub fn next(&self) -> Vec<ChunkFault> {
        let waiting = self.waiting.lock().expect("no panic while faults are held");
        let fault = |(&(realm, chunk), &corrupt): (&(RealmId, ChunkId), &bool)| ChunkFault {
            realm_id: realm.to_vec().into(),
            chunk_id: chunk.to_vec().into(),
            corrupt,
        };
        waiting.iter().take(MAX_FAULTS_PER_HEARTBEAT).map(fault).collect()
    }

    /// Forgets what a leader has taken.
    pub fn told(&self, faults: &[ChunkFault]) {
        let mut waiting = self.waiting.lock().expect("no panic while faults are held");
        for fault in faults {
            if let (Ok(realm), Ok(chunk)) =
                (RealmId::from_slice(&fault.realm_id), ChunkId::from_slice(&fault.chunk_id))
            {
                waiting.remove(&(realm, chunk));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_wait_until_told() {
        let faults = Faults::default();
        for n in 0..300u16 {
            let mut id = [0; 32];
            id[..2].copy_from_slice(&n.to_be_bytes());
            faults.report(RealmId([1; 16]), ChunkId(id), true);
            faults.report(RealmId([1; 16]), ChunkId(id), true);
        }
        let first = faults.next();
        assert_eq!(first.len(), MAX_FAULTS_PER_HEARTBEAT);
        assert_eq!(faults.next(), first, "not forgotten before somebody took them");
        faults.told(&first);
        assert_eq!(faults.next().len(), 300 - MAX_FAULTS_PER_HEARTBEAT);
    }
}
