//! openraft's storage suite over our stores.

use std::io;
use std::sync::Arc;

use openraft::testing::{StoreBuilder, Suite};
use tempfile::TempDir;

use super::toy::Toy;
use crate::kv::{Compression, StoreOptions};
use crate::raft::identity::DirectoryLock;
use crate::raft::log_store::{LogStore, PurgeGate, RawLog};
use crate::raft::slots::{Slots, Witness};
use crate::raft::state_machine::StateMachine;
use crate::raft::state_store::StateStore;
use crate::raft::types::{LogId, StorageError, TypeConfig};
use crate::space::Space;

/// The suite purges logs that no state ever applied.
struct Open;

#[async_trait::async_trait]
impl PurgeGate for Open {
    async fn durable(&self, _: LogId) -> io::Result<()> {
        Ok(())
    }
}

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError> {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions::new(Compression::None, 4 << 20);
        let (lock, _) = DirectoryLock::take(dir.path()).unwrap().unwrap();
        let raw = RawLog::create(&dir.path().join("log"), &options, 1).unwrap();
        let slots = Slots::create(&dir.path().join("slots"), Witness::default()).unwrap();
        let state = StateStore::create(dir.path(), &options, 1, Arc::new(Toy), Arc::new(lock)).unwrap();
        let log = LogStore::new(raw, slots, Arc::new(Open), Arc::new(Space::unwatched())).unwrap();
        Ok((dir, log, StateMachine::new(state, Arc::new(Space::unwatched()))))
    }
}

#[test]
fn openrafts_storage_suite_passes() {
    Suite::test_all(Builder).unwrap();
}
