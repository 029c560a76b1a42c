//! Files and their versions, by path or id.

use dfs_proto::v1;
use dfs_types::{BucketId, DfsError, DfsPath, ErrorCode, FileId};

use super::buckets::{bucket_by_id, bucket_for, may_see};
use crate::kv::KvRead;
use crate::rows::files::Files;
use crate::rows::heads::Heads;
use crate::rows::versions::{Newest, Versions};
use crate::rows::{self, Tail};

/// A file in one of its versions.
#[derive(Clone, Debug, PartialEq)]
pub struct FileView {
    pub bucket: v1::BucketRow,
    pub file_id: FileId,
    pub file: v1::FileRow,
    /// Of the content, or of the delete when `row` is None.
    pub version: u64,
    /// None: the file is deleted.
    pub row: Option<v1::VersionRow>,
    /// The delete marker, when `row` is None: when it was deleted, and by whom.
    pub marker: Option<v1::HeadRow>,
    /// The head names this version.
    pub current: bool,
}

pub fn head(kv: &dyn KvRead, bucket: BucketId, key: &str) -> Result<Option<v1::HeadRow>, DfsError> {
    Ok(rows::get::<Heads>(kv, &(bucket, Tail(key.to_owned())))?)
}

/// The file a selector names, if this viewer may see it. A deleted file is found with `row: None`.
/// Errors: `bucket_not_found`, `not_found`, `invalid_name`, `invalid_argument`.
pub fn find_file(
    kv: &dyn KvRead,
    viewer: &v1::PrincipalRow,
    selector: &v1::FileSelector,
) -> Result<FileView, DfsError> {
    match &selector.by {
        Some(v1::file_selector::By::Path(path)) => find_by_path(kv, viewer, &path.parse()?, selector.version),
        Some(v1::file_selector::By::FileId(id)) => {
            find_by_id(kv, viewer, FileId::from_slice(id)?, selector.version)
        }
        None => Err(DfsError::new(ErrorCode::InvalidArgument, "name the file by path or file_id")),
    }
}

pub fn find_by_path(
    kv: &dyn KvRead,
    viewer: &v1::PrincipalRow,
    path: &DfsPath,
    version: Option<u64>,
) -> Result<FileView, DfsError> {
    let bucket = bucket_for(kv, viewer, path.bucket.as_str())?;
    let head = head(kv, BucketId::from_slice(&bucket.bucket_id)?, path.key.as_str())?;
    let head = head.ok_or_else(|| not_found(format!("there is no file {path}")))?;
    let file_id = FileId::from_slice(&head.file_id)?;
    let file = rows::must_get::<Files>(kv, &file_id)?;
    view(kv, bucket, file_id, file, Some(head), version)
}

pub fn find_by_id(
    kv: &dyn KvRead,
    viewer: &v1::PrincipalRow,
    file_id: FileId,
    version: Option<u64>,
) -> Result<FileView, DfsError> {
    let missing = || not_found(format!("there is no file {file_id}"));
    let file = rows::get::<Files>(kv, &file_id)?.filter(|file| !file.purged).ok_or_else(missing)?;
    let bucket_id = BucketId::from_slice(&file.bucket_id)?;
    let bucket = bucket_by_id(kv, bucket_id)?.filter(|bucket| may_see(viewer, bucket)).ok_or_else(missing)?;
    let head = if file.detached { None } else { head(kv, bucket_id, &file.key)? };
    view(kv, bucket, file_id, file, head, version)
}

fn view(
    kv: &dyn KvRead,
    bucket: v1::BucketRow,
    file_id: FileId,
    file: v1::FileRow,
    head: Option<v1::HeadRow>,
    version: Option<u64>,
) -> Result<FileView, DfsError> {
    let current = head.as_ref().map(|head| (head.version, head.deleted));
    let (version, deleted) = match (version, current) {
        (Some(asked), Some((head, deleted))) if asked == head => (asked, deleted),
        (Some(asked), _) => (asked, false),
        (None, Some(current)) => current,
        (None, None) => return Err(not_found(format!("file {file_id} has no current version"))),
    };
    let row = if deleted {
        None
    } else {
        let row = rows::get::<Versions>(kv, &(file_id, Newest(version)))?;
        Some(row.ok_or_else(|| not_found(format!("file {file_id} has no version {version}")))?)
    };
    let current = current.is_some_and(|(head, _)| head == version);
    let marker = head.filter(|_| deleted);
    Ok(FileView { bucket, file_id, file, version, row, marker, current })
}

/// What became of a file, newest first: its deletion, if it is deleted now, and the versions that are kept;
/// those older than `before` if given, at most `limit`.
pub fn history(
    kv: &dyn KvRead,
    found: &FileView,
    before: Option<u64>,
    limit: usize,
) -> Result<Vec<FileView>, DfsError> {
    let file_id = found.file_id;
    let bucket_id = BucketId::from_slice(&found.bucket.bucket_id)?;
    let head = if found.file.detached { None } else { head(kv, bucket_id, &found.file.key)? };
    let current = head.as_ref().map(|head| head.version);
    let marker = head.filter(|head| head.deleted && before.is_none_or(|before| head.version < before));
    let mut page: Vec<FileView> = marker
        .map(|marker| FileView {
            version: marker.version,
            row: None,
            current: true,
            marker: Some(marker),
            ..found.clone()
        })
        .into_iter()
        .collect();
    for (version, row) in versions_page(kv, file_id, before, limit.saturating_sub(page.len()))? {
        let current = current == Some(version);
        page.push(FileView { version, row: Some(row), marker: None, current, ..found.clone() });
    }
    page.truncate(limit);
    Ok(page)
}

/// Versions of a file, newest first, those older than `before` if given, at most `limit`.
/// The caller has checked with [`find_file`] that they may be seen.
pub fn versions_page(
    kv: &dyn KvRead,
    file_id: FileId,
    before: Option<u64>,
    limit: usize,
) -> Result<Vec<(u64, v1::VersionRow)>, DfsError> {
    let after = before.map(|version| (file_id, Newest(version)));
    let page = rows::scan::<Versions>(kv, &file_id, after.as_ref(), limit)?;
    Ok(page.into_iter().map(|((_, version), row)| (version.0, row)).collect())
}

fn not_found(message: String) -> DfsError {
    DfsError::new(ErrorCode::NotFound, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, bucket, delete, put_inline, rename};

    #[test]
    fn files_by_path_and_id_for_those_who_may_see_them() {
        let mut world = World::new();
        let (ann, bob) = (world.user("ann"), world.user("bob"));
        let id = world.ok(ann, bucket("photos", 3, 1000)).created_id;
        let one = world.ok(ann, put_inline(&id, "a", b"one"));
        let two = world.ok(ann, put_inline(&id, "a", b"two"));
        let file = FileId::from_slice(&one.file_id).unwrap();
        let path: DfsPath = "/photos/a".parse().unwrap();
        let by_path = |world: &World, who, version| find_by_path(&world.kv, &world.row(who), &path, version);
        let by_id = |world: &World, who, version| find_by_id(&world.kv, &world.row(who), file, version);
        let code = |found: Result<FileView, DfsError>| found.unwrap_err().code;

        let view = by_path(&world, ann, None).unwrap();
        assert_eq!((view.version, view.current), (two.version, true));
        assert_eq!(by_id(&world, ann, None).unwrap(), view);
        let old = by_id(&world, world.admin, Some(one.version)).unwrap();
        assert!(!old.current && old.row.unwrap().expires_ms > 0);
        assert_eq!(code(by_path(&world, bob, None)), ErrorCode::BucketNotFound);
        assert_eq!(code(by_id(&world, bob, None)), ErrorCode::NotFound);
        assert_eq!(code(by_id(&world, ann, Some(3))), ErrorCode::NotFound);

        world.ok(ann, delete(&id, "a"));
        let gone = by_path(&world, ann, None).unwrap();
        assert!(gone.row.is_none() && gone.current);
        // The deletion says when, and is the newest of the history; the cursor goes through it.
        let marker = gone.marker.clone().unwrap();
        assert_eq!((marker.version, marker.owner.as_ref()), (gone.version, ann.as_bytes().as_slice()));
        assert!(marker.unix_ms > 0);
        let history = |before, limit| -> Vec<(u64, bool)> {
            let page = history(&world.kv, &gone, before, limit).unwrap();
            page.iter().map(|view| (view.version, view.row.is_none() && view.current)).collect()
        };
        let (newest, second, first) = ((gone.version, true), (two.version, false), (one.version, false));
        assert_eq!(history(None, 9), [newest, second, first]);
        assert_eq!(history(None, 1), [newest]);
        assert_eq!(history(Some(gone.version), 1), [second]);
        assert_eq!(history(Some(two.version), 9), [first]);
        assert!(by_path(&world, ann, Some(two.version)).unwrap().row.is_some());

        // Replaced by a rename, the file has no current version, but still its old ones.
        world.ok(ann, put_inline(&id, "b", b"three"));
        world.ok(ann, rename(&id, "b", "a"));
        assert_eq!(code(by_id(&world, ann, None)), ErrorCode::NotFound);
        assert!(by_id(&world, ann, Some(two.version)).unwrap().row.is_some());
        let versions = versions_page(&world.kv, file, None, 9).unwrap();
        assert_eq!(versions.iter().map(|(v, _)| *v).collect::<Vec<_>>(), [two.version, one.version]);
        assert_eq!(versions_page(&world.kv, file, Some(two.version), 9).unwrap().len(), 1);
    }
}
