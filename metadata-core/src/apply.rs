//! Entries to write sets: the one way in which the replicated state changes.
//!
//! Owner: the state store of metadata-server. Promise: pure and deterministic; the same state and
//! entry give the same bytes on every member. The caller commits `writes` as one atomic batch.

use dfs_proto::v1;
use dfs_types::{DfsError, ErrorCode};

use crate::kv::{KvError, KvRead, WriteSet};
use crate::ops::ctx::Fault;
pub use crate::rules::features::LATEST as LATEST_FEATURE_LEVEL;

/// The only entry format there is.
pub const ENTRY_FORMAT: u32 = 1;

/// What an entry does: to be written as one batch, and what to answer each command, in order.
#[derive(Debug)]
pub struct Applied {
    pub writes: WriteSet,
    pub results: Vec<v1::CommandResult>,
}

/// Why a member must stop: going on would make its state differ from the others'.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error(transparent)]
    Kv(#[from] KvError),
    #[error("a row of the state is damaged: {0}")]
    Corrupt(String),
    #[error("entry {log_index} has format {format}, this build knows 1: upgrade this server")]
    UnknownFormat { log_index: u64, format: u32 },
    #[error(
        "command {place} of entry {log_index} is of a kind this build does not know: upgrade this server"
    )]
    UnknownCommand { log_index: u64, place: usize },
    #[error(
        "position {position}: the cluster is at feature level {level}, which this build does not know: \
         upgrade this server"
    )]
    UnknownFeatureLevel { position: u64, level: u32 },
    #[error("entry {log_index} comes again or too late: the state is at position {applied}")]
    OutOfOrder { log_index: u64, applied: u64 },
    #[error("entry {log_index} has {commands} commands, more than fit")]
    TooManyCommands { log_index: u64, commands: usize },
}

/// Checks a command's form and bounds, without any state, before it is proposed.
pub fn validate(command: &v1::Command) -> Result<(), DfsError> {
    crate::ops::check(command)
}

/// Refuses a command of a kind above the cluster's feature level, before it is proposed; apply does the
/// same. The state may be an older one: what is refused for that can be asked for again.
pub fn permit(kv: &dyn KvRead, command: &v1::Command) -> Result<(), DfsError> {
    let Some(kind) = &command.kind else { return Ok(()) };
    match crate::rules::features::permit(kv, kind) {
        Ok(()) => Ok(()),
        Err(Fault::Refused(error)) => Err(error),
        Err(Fault::Fatal(error)) => Err(error.into()),
        // This member stops as soon as it applies anything.
        Err(Fault::TooNew { level }) => Err(DfsError::new(
            ErrorCode::FailedPrecondition,
            format!("this build does not know feature level {level}: upgrade this server"),
        )),
    }
}

/// Applies one entry. Each command is all or nothing and sees what those before it did; the
/// position of command `i` is `log_index << 16 | i`.
pub fn apply_entry(kv: &dyn KvRead, log_index: u64, entry: &v1::Entry) -> Result<Applied, ApplyError> {
    crate::ops::apply_entry(kv, log_index, entry)
}
