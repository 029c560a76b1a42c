//! What callers say: which file, how to put it, how to list. Plain values, no I/O.

use std::collections::BTreeMap;
use std::path::PathBuf;

use dfs_proto::v1;
use dfs_types::{DfsPath, FileId};

use crate::Result;
use crate::progress::Progress;

/// A file in its current or a given version, by path (`/bucket/key` or `dfs://bucket/key`) or by id.
///
/// ```
/// use dfs_client::FileRef;
/// let current: FileRef = "/photos/a.jpg".into();
/// let older = FileRef::from("/photos/a.jpg").at_version(65536);
/// assert_ne!(current, older);
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileRef {
    by: By,
    version: Option<u64>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum By {
    Path(String),
    Id(FileId),
}

impl FileRef {
    /// The same file in `version` (a position, as `stat`, `put` and `list` return it).
    pub fn at_version(mut self, version: u64) -> Self {
        self.version = Some(version);
        self
    }

    pub(crate) fn selector(&self) -> Result<v1::FileSelector> {
        let by = match &self.by {
            // Checked here so that a bad name costs no round trip.
            By::Path(path) => v1::file_selector::By::Path(path.parse::<DfsPath>()?.to_string()),
            By::Id(id) => v1::file_selector::By::FileId(id.to_vec().into()),
        };
        Ok(v1::FileSelector { by: Some(by), version: self.version })
    }
}

impl From<&str> for FileRef {
    fn from(path: &str) -> Self {
        Self { by: By::Path(path.to_owned()), version: None }
    }
}

impl From<String> for FileRef {
    fn from(path: String) -> Self {
        Self { by: By::Path(path), version: None }
    }
}

impl From<&String> for FileRef {
    fn from(path: &String) -> Self {
        Self { by: By::Path(path.clone()), version: None }
    }
}

impl From<&DfsPath> for FileRef {
    fn from(path: &DfsPath) -> Self {
        Self { by: By::Path(path.to_string()), version: None }
    }
}

impl From<FileId> for FileRef {
    fn from(id: FileId) -> Self {
        Self { by: By::Id(id), version: None }
    }
}

/// Copies wanted, and copies that must be durable before a put is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// 1 to 16.
    pub target: u32,
    /// 1 to `target`; 0 means the default for `target`: 1 for 1, 2 for 2, `target` - 1 above.
    pub min_ack: u32,
}

impl Policy {
    /// `target` copies with the default `min_ack`.
    pub fn copies(target: u32) -> Self {
        Self { target, min_ack: 0 }
    }

    /// The wire's policy with its zeroes replaced by what they mean.
    pub(crate) fn resolved(policy: Option<v1::Policy>) -> Self {
        let policy = policy.unwrap_or_default();
        let target = if policy.target == 0 { 3 } else { policy.target };
        let min_ack = match (policy.min_ack, target) {
            (0, 1 | 2) => target,
            (0, _) => target - 1,
            (given, _) => given,
        };
        Self { target, min_ack }
    }
}

impl From<Policy> for v1::Policy {
    fn from(policy: Policy) -> Self {
        Self { target: policy.target, min_ack: policy.min_ack }
    }
}

/// How to create or change a bucket. `None` means the default, or unchanged.
#[derive(Clone, Default, Debug)]
pub struct BucketOptions {
    pub policy: Option<Policy>,
    /// How long older versions and deleted files are kept, in milliseconds. Default 24 h.
    pub keep_ms: Option<u64>,
    /// Only when the bucket is created.
    pub realm: v1::RealmKind,
}

/// How to put a file.
#[derive(Clone, Default)]
pub struct PutOptions {
    /// The version the name must have now; 0: the name must be free. Else `version_mismatch`.
    pub if_version: Option<u64>,
    /// `None`: the bucket's.
    pub policy: Option<Policy>,
    /// At most 255 bytes; empty: none.
    pub content_type: String,
    /// At most 8 KiB together; sealed, like the content.
    pub user_metadata: BTreeMap<String, String>,
    /// Counts what was sent and acknowledged.
    pub progress: Option<Progress>,
    /// For sources that are files: where to note what was sent, so that the same put goes on where
    /// an interrupted one stopped. Made with mode 0600, holds no key, removed when the put is done.
    pub resume_file: Option<PathBuf>,
}

/// Versions that must be current for a change to happen, else `version_mismatch`.
#[derive(Clone, Copy, Default, Debug)]
pub struct Condition {
    /// Of the file that is changed.
    pub if_version: Option<u64>,
    /// Of the name that is overwritten; 0: it must be free.
    pub if_to_version: Option<u64>,
}

/// What to list. `Listing::all("photos")` lists every file of a bucket.
#[derive(Clone, Default, Debug)]
pub struct Listing {
    pub bucket: String,
    pub prefix: String,
    /// Keys that go on behind it are folded into one `common_prefix`. Empty: none.
    pub delimiter: String,
    /// Where to go on: `ListPage::next_cursor`. Empty: the beginning.
    pub cursor: String,
    /// Entries of a page, 1 to 1,000; 0 means 1,000.
    pub limit: u32,
    pub include_deleted: bool,
    /// Only keys behind this one, in byte order; empty: all.
    pub start_after: String,
}

impl Listing {
    pub fn all(bucket: impl Into<String>) -> Self {
        Self { bucket: bucket.into(), ..Self::default() }
    }

    pub fn under(bucket: impl Into<String>, prefix: impl Into<String>) -> Self {
        Self { bucket: bucket.into(), prefix: prefix.into(), ..Self::default() }
    }
}

/// One page of a listing, in byte order of the keys. May be empty and still have a cursor.
pub type ListPage = v1::ListResponse;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_zeroes_mean_defaults() {
        for (target, min_ack, want) in
            [(0, 0, (3, 2)), (1, 0, (1, 1)), (2, 0, (2, 2)), (5, 0, (5, 4)), (3, 3, (3, 3))]
        {
            let policy = Policy::resolved(Some(v1::Policy { target, min_ack }));
            assert_eq!((policy.target, policy.min_ack), want);
        }
    }

    #[test]
    fn bad_names_fail_without_a_call() {
        assert!(FileRef::from("photos/a").selector().is_err());
        assert!(FileRef::from("/photos/").selector().is_err());
        assert!(FileRef::from("dfs://photos/ a").selector().is_ok());
    }
}
