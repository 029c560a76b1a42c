//! The words of the system, shared by every crate: ids, positions, limits, error codes, paths, and
//! the doors through which time and randomness come in. No I/O and no async here.

pub mod doors;
pub mod error;
pub mod ids;
pub mod limits;
pub mod path;
pub mod position;
pub mod secret;
pub mod troubleshooting;

pub use doors::{Clock, Entropy, MonotonicMillis, OsEntropy, SystemClock};
pub use error::{DfsError, ErrorCode};
pub use ids::{
    BucketId, ChunkId, ClusterId, FileId, Incarnation, NodeId, PrincipalId, RealmId, RequestId, TaskId,
    UploadId,
};
pub use path::{BucketName, DfsPath, Key};
pub use position::Position;
pub use secret::Secret;
