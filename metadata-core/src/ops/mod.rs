//! Operations: one file per command, with its form (`check`) and its rules (`apply`). This file is the
//! map from commands to them, and the frame around each: rights, at-most-once, all or nothing.

mod add_locations;
mod append_page;
mod begin_upload;
mod bootstrap;
mod commit_upload;
mod copy_file;
pub(crate) mod ctx;
mod delete_file;
mod doubt_locations;
mod drop_bucket;
mod drop_node;
mod end_upload;
mod entry;
mod forget_results;
mod purge_chunks;
mod purge_done;
mod purge_orphans;
mod purge_versions;
mod put_bucket;
mod put_inline;
mod put_principal;
mod queue_node_deficits;
mod raise_epoch_floor;
mod raise_feature_level;
mod register_node;
mod release_references;
mod rename_file;
mod set_bucket;
mod set_node_state;
mod strike_locations;
mod tick;
mod trim_locations;

#[cfg(test)]
mod tests;

use dfs_proto::v1;
use dfs_proto::v1::command::Kind;
use dfs_types::limits::MAX_COMMAND_BYTES;
use dfs_types::{DfsError, ErrorCode};
use prost::Message;

use crate::rules::forms::{self, Check, invalid};
use ctx::{Ctx, OpResult};

pub(crate) use entry::apply_entry;

macro_rules! operations {
    ($(level $level:literal { $($variant:ident => $module:ident,)* })*) => {
        fn check_kind(kind: &Kind) -> Check {
            match kind { $($(Kind::$variant(c) => $module::check(c),)*)* }
        }

        fn apply_kind(ctx: &mut Ctx<'_>, kind: &Kind) -> OpResult {
            match kind { $($(Kind::$variant(c) => $module::apply(ctx, c),)*)* }
        }

        /// The command's name for logs and metrics.
        pub fn name(kind: &Kind) -> &'static str {
            match kind { $($(Kind::$variant(_) => stringify!($module),)*)* }
        }

        /// The feature level with which this kind came.
        pub(crate) fn introduced(kind: &Kind) -> u32 {
            match kind { $($(Kind::$variant(_) => $level,)*)* }
        }
    };
}

// Every kind of command under the feature level that introduced it (`rules/features.rs`). A kind that
// comes after a release goes under the next level; a released line never moves.
operations! {
  level 0 {
    Bootstrap => bootstrap,
    RaiseFeatureLevel => raise_feature_level,
  }
  level 1 {
    Tick => tick,
    RaiseEpochFloor => raise_epoch_floor,
    PutPrincipal => put_principal,
    PutBucket => put_bucket,
    SetBucket => set_bucket,
    DropBucket => drop_bucket,
    BeginUpload => begin_upload,
    AppendPage => append_page,
    CommitUpload => commit_upload,
    EndUpload => end_upload,
    PutInline => put_inline,
    DeleteFile => delete_file,
    RenameFile => rename_file,
    CopyFile => copy_file,
    PurgeVersions => purge_versions,
    ReleaseReferences => release_references,
    PurgeChunks => purge_chunks,
    PurgeDone => purge_done,
    PurgeOrphans => purge_orphans,
    ForgetResults => forget_results,
    RegisterNode => register_node,
    SetNodeState => set_node_state,
    QueueNodeDeficits => queue_node_deficits,
    AddLocations => add_locations,
    StrikeLocations => strike_locations,
    DoubtLocations => doubt_locations,
    TrimLocations => trim_locations,
    DropNode => drop_node,
  }
}

/// Form and bounds of a whole command.
pub(crate) fn check(command: &v1::Command) -> Check {
    forms::id(&command.principal_id, "principal id")?;
    if !command.request_id.is_empty() {
        forms::id(&command.request_id, "request id")?;
    }
    let length = command.encoded_len();
    if length > MAX_COMMAND_BYTES {
        let message = format!("the command has {length} bytes, at most {MAX_COMMAND_BYTES} are allowed");
        return Err(DfsError::new(ErrorCode::LimitExceeded, message));
    }
    match &command.kind {
        Some(kind) => check_kind(kind),
        None => Err(invalid("the command says nothing")),
    }
}
