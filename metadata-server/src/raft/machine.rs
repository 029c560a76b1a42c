//! The door to the replicated state machine, so that consensus can be tested with a small one.

use dfs_proto::v1;
use dfs_types::DfsError;
use metadata_core::apply::Applied;
use metadata_core::kv::KvRead;

/// Pure and deterministic: the same state and entry give the same writes and results.
pub trait Machine: Send + Sync + 'static {
    /// Checks form and bounds of a command before it is proposed.
    fn validate(&self, command: &v1::Command) -> Result<(), DfsError>;

    /// Refuses what the cluster does not take yet, by a state that may be a little old.
    fn permit(&self, kv: &dyn KvRead, command: &v1::Command) -> Result<(), DfsError>;

    /// The highest feature level this build knows.
    fn feature_level(&self) -> u32;

    /// # Errors
    /// Why this member must stop.
    fn apply(&self, kv: &dyn KvRead, log_index: u64, entry: &v1::Entry) -> Result<Applied, String>;
}

/// The real one: metadata_core.
pub struct MetadataMachine;

impl Machine for MetadataMachine {
    fn feature_level(&self) -> u32 {
        metadata_core::apply::LATEST_FEATURE_LEVEL
    }

    fn permit(&self, kv: &dyn KvRead, command: &v1::Command) -> Result<(), DfsError> {
        metadata_core::apply::permit(kv, command)
    }

    fn validate(&self, command: &v1::Command) -> Result<(), DfsError> {
        metadata_core::apply::validate(command)
    }

    fn apply(&self, kv: &dyn KvRead, log_index: u64, entry: &v1::Entry) -> Result<Applied, String> {
        metadata_core::apply::apply_entry(kv, log_index, entry).map_err(|error| error.to_string())
    }
}
