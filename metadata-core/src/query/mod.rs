//! Read-only answers over any view of the state. Every function does bounded work: pages have limits,
//! lists stop after a number of rows examined. All errors are [`dfs_types::DfsError`]: `io` or
//! `internal` when the store fails, else what the caller did wrong.

mod buckets;
mod chunks;
mod cluster;
mod files;
mod list;
mod nodes;
mod principals;
mod read;
mod uploads;
mod work;

pub use crate::rules::roster::Holder;
pub use buckets::{BucketPage, bucket_by_id, bucket_for, buckets_page, may_see};
pub use chunks::{ChunkView, CopyView, WorstChunk, chunk, chunk_of_version, worst_chunk};
pub use cluster::{applied, clock, cluster, counters, position_at, state_hash};
pub use files::{FileView, find_by_id, find_by_path, find_file, head, history, versions_page};
pub use list::{ListPage, ListParams, Listed, list};
pub use nodes::{NodeView, node, node_by_incarnation, nodes, nodes_to_recheck, redundancy};
pub use principals::{principal, principal_by_key_hash, principal_by_name, principals_page};
pub use read::{Window, WindowChunk, inline, window};
pub use uploads::{upload, upload_entries, upload_for};
pub use work::{
    Deficit, DeficitClasses, PendingPurge, chunks_of_node, deficit_classes, deficits_by_copies,
    deficits_page, dropping_head, expired_uploads, expired_versions, listed_at, lost_page, oldest_request,
    pending_purges, trash_due,
};
