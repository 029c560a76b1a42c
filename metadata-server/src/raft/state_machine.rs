//! openraft's view of the state: apply, snapshot, install. Only translation; the work is in
//! [`StateStore`].

use std::sync::{Arc, Mutex, PoisonError};

use openraft::storage::RaftStateMachine;
use openraft::{OptionalSend, RaftSnapshotBuilder, Snapshot};

use super::snapshot::SnapshotHandle;
use super::state_store::{StateError, StateStore};
use super::types::{
    Entry, LogId, Results, SnapshotMeta, StorageError, StorageIOError, StoredMembership, TypeConfig,
};
use crate::space::Space;

type Latest = Arc<Mutex<Option<(SnapshotMeta, SnapshotHandle)>>>;

pub struct StateMachine {
    store: Arc<StateStore>,
    /// The newest snapshot; an older one goes when nobody sends it any more.
    latest: Latest,
    space: Arc<Space>,
}

impl StateMachine {
    pub fn new(store: Arc<StateStore>, space: Arc<Space>) -> Self {
        Self { store, latest: Latest::default(), space }
    }

    /// Runs `work` where it may block. Any error is the end of this member: those who wait for the
    /// state are told.
    async fn blocking<T: Send + 'static>(
        &self,
        wrap: fn(&StateError) -> StorageIOError,
        work: impl FnOnce(&StateStore) -> Result<T, StateError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let store = Arc::clone(&self.store);
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        done.unwrap_or_else(|panic| Err(StateError::Apply(panic.to_string()))).map_err(|error| {
            self.store.fail();
            self.space.failed(&error);
            wrap(&error).into()
        })
    }
}

fn keep(latest: &Latest, meta: SnapshotMeta, handle: SnapshotHandle) {
    *latest.lock().unwrap_or_else(PoisonError::into_inner) = Some((meta, handle));
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        self.blocking(|e| StorageIOError::read_state_machine(e), |store| store.applied_state()).await
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Results>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let space = Arc::clone(&self.space);
        let apply = move |store: &StateStore| {
            space.before_write();
            store.apply(&entries)
        };
        self.blocking(|e| StorageIOError::write_state_machine(e), apply).await
    }

    /// The checkpoint is made here, in turn with apply; the builder only hands it over.
    async fn get_snapshot_builder(&mut self) -> Builder {
        let made =
            self.blocking(|e| StorageIOError::write_snapshot(None, e), |store| store.checkpoint()).await;
        Builder { made: Some(made), latest: Arc::clone(&self.latest) }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotHandle>, StorageError> {
        self.blocking(|e| StorageIOError::write_snapshot(None, e), |store| Ok(Box::new(store.incoming()?)))
            .await
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<SnapshotHandle>,
    ) -> Result<(), StorageError> {
        let (head, handle) = (meta.clone(), (*snapshot).clone());
        self.blocking(
            |e| StorageIOError::write_snapshot(None, e),
            move |store| store.install(&head, handle.path()),
        )
        .await?;
        keep(&self.latest, meta.clone(), *snapshot);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(latest
            .as_ref()
            .map(|(meta, handle)| Snapshot { meta: meta.clone(), snapshot: Box::new(handle.clone()) }))
    }
}

pub struct Builder {
    made: Option<Result<(SnapshotMeta, SnapshotHandle), StorageError>>,
    latest: Latest,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        let Some(made) = self.made.take() else {
            let twice = openraft::AnyError::error("a builder builds once");
            return Err(StorageIOError::write_snapshot(None, twice).into());
        };
        let (meta, handle) = made?;
        keep(&self.latest, meta.clone(), handle.clone());
        Ok(Snapshot { meta, snapshot: Box::new(handle) })
    }
}
