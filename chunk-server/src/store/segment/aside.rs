//! A damaged index on its way out: renamed, so that what is made instead begins empty, and kept until that
//! is whole.
//!
//! Crash promise: an index that is not whole says so itself (its complete row is missing), so a crash at
//! any step leaves a start that rebuilds; the name alone decides nothing.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::store::StoreError;

/// Names in the data directory.
pub const INDEX: &str = "index";
const DAMAGED: &str = "index.damaged";

/// Renames the index; one that was set aside before goes. Durable when this returns.
pub fn set(directory: &Path, why: &str) -> Result<(), StoreError> {
    tracing::error!(
        directory = %directory.display(),
        why,
        "the chunk index is damaged: set aside, it is made anew from the segments"
    );
    let moved = remove(directory)
        .and_then(|()| fs::rename(directory.join(INDEX), directory.join(DAMAGED)))
        .and_then(|()| File::open(directory)?.sync_all());
    moved.map_err(|error| {
        let name = directory.join(DAMAGED);
        StoreError::IndexUnreadable(format!(
            "it is damaged and cannot be moved to {}: {error}",
            name.display()
        ))
    })
}

/// Removes what was set aside. Whatever stays is removed at the next start.
pub fn clear(directory: &Path) {
    if let Err(error) = remove(directory) {
        tracing::warn!(directory = %directory.display(), %error, "a damaged index is not removed");
    }
}

fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory.join(DAMAGED)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
