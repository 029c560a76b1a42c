//! What one chunk server knows of itself: ids that never change while it runs, and what the metadata
//! service told it. Owner of the told part: the heartbeat worker; everybody else reads.

pub mod clock;
pub mod faults;
pub mod heartbeat;
pub mod identity;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use chunk_format::grant::NodeKeys;
use chunk_format::receipt::Receipt;
use dfs_types::{
    ChunkId, Clock, ClusterId, DfsError, ErrorCode, Incarnation, MonotonicMillis, NodeId, Position, RealmId,
};

use crate::store::ChunkStore;
use clock::ClusterClock;
use faults::Faults;

pub struct Node {
    pub id: NodeId,
    pub incarnation: Incarnation,
    pub cluster: ClusterId,
    pub faults: Faults,
    clock: ClusterClock,
    /// Of grants and receipts. Handed over at registration, never written anywhere.
    keys: RwLock<Option<Arc<NodeKeys>>>,
    epoch_floor: AtomicU64,
    term: AtomicU64,
    draining: AtomicBool,
    /// Users' puts and gets under way.
    streams: AtomicU32,
    /// None while the index is opened or made anew.
    store: RwLock<Option<Arc<dyn ChunkStore>>>,
}

impl Node {
    pub fn new(id: NodeId, incarnation: Incarnation, cluster: ClusterId, clock: Arc<dyn Clock>) -> Self {
        Self {
            id,
            incarnation,
            cluster,
            faults: Faults::default(),
            clock: ClusterClock::new(clock),
            keys: RwLock::new(None),
            epoch_floor: AtomicU64::new(0),
            term: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            streams: AtomicU32::new(0),
            store: RwLock::new(None),
        }
    }

    /// Makes the store known, once its index is open.
    pub fn open_store(&self, store: Arc<dyn ChunkStore>) {
        *self.store.write().expect("no panic while the store is held") = Some(store);
    }

    /// Takes the store away, because its index is to be made anew: whoever has it still may finish.
    pub fn close_store(&self) {
        *self.store.write().expect("no panic while the store is held") = None;
    }

    /// # Errors
    /// `unavailable` while the index is being opened or rebuilt.
    pub fn store(&self) -> Result<Arc<dyn ChunkStore>, DfsError> {
        self.opened_store().ok_or_else(|| {
            DfsError::new(ErrorCode::Unavailable, format!("node {} is still opening its index", self.id))
        })
    }

    pub fn opened_store(&self) -> Option<Arc<dyn ChunkStore>> {
        self.store.read().expect("no panic while the store is held").clone()
    }

    pub fn registered(&self, keys: NodeKeys) {
        *self.keys.write().expect("no panic while keys are held") = Some(Arc::new(keys));
    }

    /// # Errors
    /// `unavailable` before the first registration: without keys no grant can be checked.
    pub fn keys(&self) -> Result<Arc<NodeKeys>, DfsError> {
        let keys = self.keys.read().expect("no panic while keys are held").clone();
        keys.ok_or_else(|| {
            DfsError::new(ErrorCode::Unavailable, format!("node {} is not registered yet", self.id))
        })
    }

    /// From here on heartbeats offer no room for new chunks.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// A user's put or get begins; it is over when what this returns is dropped.
    pub fn serves_user(self: &Arc<Self>) -> UserStream {
        self.streams.fetch_add(1, Ordering::Relaxed);
        UserStream(self.clone())
    }

    /// Users' puts and gets under way: copying for repair yields to them.
    pub fn user_streams(&self) -> u32 {
        self.streams.load(Ordering::Relaxed)
    }

    pub fn asking(&self) -> MonotonicMillis {
        self.clock.asking()
    }

    /// What an answer of the metadata service says of the cluster, asked for at `asked_at`.
    pub fn learn(&self, asked_at: MonotonicMillis, cluster_ms: u64, epoch_floor: u64, position: Position) {
        self.clock.learn(asked_at, cluster_ms, position);
        self.epoch_floor.fetch_max(epoch_floor, Ordering::Relaxed);
    }

    /// Cluster milliseconds now.
    ///
    /// # Errors
    /// `unavailable` before the first registration.
    pub fn cluster_now_ms(&self) -> Result<u64, DfsError> {
        self.clock.now_ms().ok_or_else(|| {
            DfsError::new(ErrorCode::Unavailable, format!("node {} knows no cluster time yet", self.id))
        })
    }

    pub fn epoch_floor(&self) -> Position {
        Position(self.epoch_floor.load(Ordering::Relaxed))
    }

    /// Takes an order's term.
    ///
    /// # Errors
    /// `failed_precondition` for one below a term seen before: its leader was deposed.
    pub fn enter_term(&self, term: u64) -> Result<(), DfsError> {
        let highest = self.term.fetch_max(term, Ordering::AcqRel);
        if term < highest {
            return Err(DfsError::new(
                ErrorCode::FailedPrecondition,
                format!("the order is of term {term}, node {} has seen term {highest}", self.id),
            ));
        }
        Ok(())
    }

    /// # Errors
    /// `node_conflict` if a message means another formatted directory than this one.
    pub fn check_incarnation(&self, bytes: &[u8]) -> Result<(), DfsError> {
        if Incarnation::from_slice(bytes)? == self.incarnation {
            return Ok(());
        }
        Err(DfsError::new(
            ErrorCode::NodeConflict,
            format!("node {} is incarnation {}, not the one asked for", self.id, self.incarnation),
        ))
    }

    /// This node's word that it holds a chunk durably. To be given only after the chunk's bytes and
    /// an epoch of at least `epoch` were fsynced.
    pub fn receipt(
        &self,
        realm: RealmId,
        scope: [u8; 16],
        epoch: Position,
        chunk: ChunkId,
        sealed_length: u64,
    ) -> Result<Vec<u8>, DfsError> {
        let receipt = Receipt {
            cluster: self.cluster,
            realm,
            node: self.id.clone(),
            incarnation: self.incarnation,
            scope,
            epoch,
            chunks: vec![(chunk, sealed_length)],
        };
        Ok(receipt.encode(&self.keys()?.receipt)?)
    }
}

/// One of [`Node::user_streams`].
pub struct UserStream(Arc<Node>);

impl Drop for UserStream {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}
