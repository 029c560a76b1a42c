//! A store that can be closed under its users: the first answer that says "the index is damaged" is the
//! last one it gives, and whoever keeps it hears when nobody holds it any more and it may be opened again.
//! Of a store that stopped taking changes the keeper hears too, and decides itself when to close it.
//!
//! Crash promise: that of the store inside; a refused call did nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use dfs_types::Position;
use tokio::sync::{Notify, oneshot};

use super::{Change, Changed, ChunkKey, ChunkMeta, ChunkStore, ChunkWriter, Compaction, StoreError, Usage};

/// The store as everybody else sees it.
pub struct WatchedStore {
    shared: Arc<Shared>,
}

/// The keeper's end.
pub struct Watch {
    signal: Arc<Signal>,
    gone: oneshot::Receiver<()>,
}

#[derive(Default)]
struct Signal {
    /// Nothing is answered any more.
    closed: AtomicBool,
    stopped: AtomicBool,
    notify: Notify,
}

/// What the keeper must do something about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// The index is damaged; the store is closed.
    Damaged,
    /// No change is taken any more, reads go on.
    Stopped,
}

/// Held by the store and by every writer. Fields drop in this order: the store is closed before anybody
/// hears that it is gone.
struct Shared {
    store: Arc<dyn ChunkStore>,
    signal: Arc<Signal>,
    _gone: oneshot::Sender<()>,
}

struct WatchedWriter {
    inner: Box<dyn ChunkWriter>,
    shared: Arc<Shared>,
}

impl WatchedStore {
    /// Takes the only handle on `store`.
    pub fn new(store: Arc<dyn ChunkStore>) -> (Self, Watch) {
        let signal = Arc::new(Signal::default());
        let (sender, gone) = oneshot::channel();
        let shared = Arc::new(Shared { store, signal: signal.clone(), _gone: sender });
        (Self { shared }, Watch { signal, gone })
    }
}

impl Watch {
    /// Waits until an answer said that the index is damaged, or that the store takes no change. The latter
    /// is said again by every such answer.
    pub async fn trouble(&self) -> Trouble {
        loop {
            if self.signal.closed.load(Ordering::Acquire) {
                return Trouble::Damaged;
            }
            if self.signal.stopped.swap(false, Ordering::AcqRel) {
                return Trouble::Stopped;
            }
            self.signal.notify.notified().await;
        }
    }

    /// From here on the store answers nothing.
    pub fn close(&self) {
        self.signal.closed.store(true, Ordering::Release);
    }

    /// Waits until the store and all its writers are dropped. Calls under way end with an error soon:
    /// every further step of theirs is refused.
    pub async fn gone(self) {
        // The sender is never used, only dropped.
        let _ = self.gone.await;
    }
}

impl Shared {
    fn call<T>(&self, work: impl FnOnce(&dyn ChunkStore) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.open()?;
        self.heard(work(self.store.as_ref()))
    }

    fn open(&self) -> Result<(), StoreError> {
        if self.signal.closed.load(Ordering::Acquire) {
            return Err(StoreError::IndexDamaged("the store is closed, to be opened anew".to_owned()));
        }
        Ok(())
    }

    fn heard<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        match &result {
            Err(StoreError::IndexDamaged(why)) if !self.signal.closed.swap(true, Ordering::AcqRel) => {
                tracing::error!(why, "the chunk index is damaged: the store is closed, to be opened anew");
                // One permit is kept for a keeper that does not wait yet.
                self.signal.notify.notify_one();
            }
            Err(StoreError::Broken(_)) => self.stopped(),
            _ => {}
        }
        result
    }

    fn stopped(&self) {
        self.signal.stopped.store(true, Ordering::Release);
        self.signal.notify.notify_one();
    }
}

impl ChunkStore for WatchedStore {
    fn begin(
        &self,
        key: &ChunkKey,
        sealed_len: u64,
        epoch: Position,
    ) -> Result<Box<dyn ChunkWriter>, StoreError> {
        let inner = self.shared.call(|store| store.begin(key, sealed_len, epoch))?;
        Ok(Box::new(WatchedWriter { inner, shared: self.shared.clone() }))
    }

    fn get(&self, key: &ChunkKey) -> Result<Option<ChunkMeta>, StoreError> {
        self.shared.call(|store| store.get(key))
    }

    fn read(&self, key: &ChunkKey, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.shared.call(|store| store.read(key, offset, len))
    }

    fn groups(&self, key: &ChunkKey) -> Result<Vec<[u8; 32]>, StoreError> {
        self.shared.call(|store| store.groups(key))
    }

    fn change(&self, key: &ChunkKey, change: Change) -> Result<Changed, StoreError> {
        self.shared.call(|store| store.change(key, change))
    }

    fn list(&self, after: Option<&ChunkKey>, limit: usize) -> Result<Vec<(ChunkKey, ChunkMeta)>, StoreError> {
        self.shared.call(|store| store.list(after, limit))
    }

    fn usage(&self) -> Result<Usage, StoreError> {
        let usage = self.shared.call(|store| store.usage())?;
        if usage.stopped {
            self.shared.stopped();
        }
        Ok(usage)
    }

    fn compact(&self) -> Result<Compaction, StoreError> {
        self.shared.call(|store| store.compact())
    }
}

impl ChunkWriter for WatchedWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.shared.open()?;
        let result = self.inner.write(bytes);
        self.shared.heard(result)
    }

    fn finish(self: Box<Self>, groups: &[[u8; 32]]) -> Result<ChunkMeta, StoreError> {
        self.shared.open()?;
        let Self { inner, shared } = *self;
        shared.heard(inner.finish(groups))
    }
}
