//! Placeholder map of operations.
use dfs_proto::v1;
use dfs_types::DfsError;

use crate::apply::{Applied, ApplyError};
use crate::kv::{KvRead, WriteSet};

pub(crate) fn check(_: &v1::Command) -> Result<(), DfsError> {
    Ok(())
}

pub(crate) fn apply_entry(_: &dyn KvRead, _: u64, entry: &v1::Entry) -> Result<Applied, ApplyError> {
    Ok(Applied {
        writes: WriteSet::default(),
        results: vec![v1::CommandResult::default(); entry.commands.len()],
    })
}
