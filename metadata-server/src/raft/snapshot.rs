//! A snapshot: a directory with a checkpoint of the state, removed with its last handle.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files;

/// openraft's `SnapshotData`.
#[derive(Clone, Debug)]
pub struct SnapshotHandle(Arc<SnapshotDir>);

#[derive(Debug)]
struct SnapshotDir {
    path: PathBuf,
}

impl SnapshotHandle {
    /// Takes charge of `path`, which may not exist yet.
    pub fn new(path: PathBuf) -> Self {
        Self(Arc::new(SnapshotDir { path }))
    }

    pub fn path(&self) -> &Path {
        &self.0.path
    }
}

impl Drop for SnapshotDir {
    fn drop(&mut self) {
        if let Err(error) = files::remove_tree(&self.path) {
            // The next start empties the folder of snapshots.
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a snapshot");
        }
    }
}
