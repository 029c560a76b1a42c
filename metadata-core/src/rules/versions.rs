//! The one writer of heads, files, versions and manifests.
//!
//! A file has versions; a head names the current one or a delete. A version that is not current has an
//! expiry row; when it is dropped its manifest loses a reference, and a manifest without any is taken
//! apart through the dropping queue. A file goes with its last version, its head with it.

use dfs_proto::v1;
use dfs_types::{BucketId, DfsError, ErrorCode, FileId, UploadId};

use super::lower;
use crate::ops::ctx::{Ctx, Fault, refuse};
use crate::rows::dropping::Dropping;
use crate::rows::expiry::Expiries;
use crate::rows::files::Files;
use crate::rows::heads::Heads;
use crate::rows::inline::Inlines;
use crate::rows::manifests::Manifests;
use crate::rows::versions::{Newest, Versions};
use crate::rows::{Kind, RowError, Tail};

/// The current version of a name as `if_version` means it: 0 if the name is free or deleted.
pub(crate) fn current_version(head: Option<&v1::HeadRow>) -> u64 {
    head.filter(|head| !head.deleted).map_or(0, |head| head.version)
}

pub(crate) fn check_version(head: Option<&v1::HeadRow>, expected: Option<u64>) -> Result<(), DfsError> {
    let current = current_version(head);
    match expected {
        Some(expected) if expected != current => {
            let message = match (expected, current) {
                (0, current) => format!("the key is taken: it has version {current}"),
                (_, 0) => format!("expected version {expected}, but there is no file"),
                _ => format!("expected version {expected}, the current one is {current}"),
            };
            Err(DfsError::new(ErrorCode::VersionMismatch, message))
        }
        _ => Ok(()),
    }
}

pub(crate) fn head(ctx: &Ctx<'_>, bucket: BucketId, key: &str) -> Result<Option<v1::HeadRow>, RowError> {
    ctx.get::<Heads>(&(bucket, Tail(key.to_owned())))
}

pub(crate) fn file_of(head: &v1::HeadRow) -> Result<FileId, RowError> {
    FileId::from_slice(&head.file_id).map_err(|error| RowError::corrupt(Kind::Head, error.to_string()))
}

/// The head that stands for a version of a file.
pub(crate) fn head_for(
    file_id: FileId,
    file: &v1::FileRow,
    version: u64,
    row: &v1::VersionRow,
) -> v1::HeadRow {
    v1::HeadRow {
        file_id: file_id.to_vec().into(),
        version,
        deleted: false,
        size: row.size,
        unix_ms: row.unix_ms,
        chunks: row.chunks,
        inline: row.inline,
        owner: row.owner.clone(),
        created_unix_ms: file.created_unix_ms,
    }
}

/// Where a new version goes.
pub(crate) struct Target<'c> {
    pub bucket_id: BucketId,
    pub bucket: &'c v1::BucketRow,
    pub key: &'c str,
    /// The id for a new file, if the key has none and no other file has this id by now (the file may
    /// have been renamed since it was chosen)...
    pub file_id: FileId,
    /// ...else this one.
    pub spare_id: FileId,
    pub if_version: Option<u64>,
}

/// Makes `row` the current version of a key, at the command's position. Returns the key's file.
pub(crate) fn install(ctx: &mut Ctx<'_>, target: &Target<'_>, row: &v1::VersionRow) -> Result<FileId, Fault> {
    let name = (target.bucket_id, Tail(target.key.to_owned()));
    let old = ctx.get::<Heads>(&name)?;
    check_version(old.as_ref(), target.if_version)?;
    let (file_id, mut file) = match &old {
        Some(old) => {
            let file_id = file_of(old)?;
            (file_id, ctx.must_get::<Files>(&file_id)?)
        }
        None => {
            let taken = ctx.get::<Files>(&target.file_id)?.is_some();
            let file_id = if taken { target.spare_id } else { target.file_id };
            if ctx.get::<Files>(&file_id)?.is_some() {
                return refuse(ErrorCode::AlreadyExists, "the file id is taken");
            }
            let file = v1::FileRow {
                bucket_id: target.bucket_id.to_vec().into(),
                key: target.key.to_owned(),
                created_unix_ms: ctx.unix_ms,
                ..Default::default()
            };
            (file_id, file)
        }
    };
    let version = ctx.position;
    file.versions += 1;
    ctx.put::<Files>(&file_id, &file);
    ctx.put::<Versions>(&(file_id, Newest(version)), row);
    ctx.put::<Heads>(&name, &head_for(file_id, &file, version, row));
    ctx.count().versions += 1;
    match old {
        Some(old) if !old.deleted => retire(ctx, file_id, old.version, target.bucket.keep_ms)?,
        _ => ctx.count().files += 1,
    }
    Ok(file_id)
}

/// A version stops being current: it is kept for `keep_ms` of cluster time, or dropped now.
pub(crate) fn retire(ctx: &mut Ctx<'_>, file_id: FileId, version: u64, keep_ms: u64) -> Result<(), RowError> {
    if keep_ms == 0 {
        return drop_version(ctx, file_id, version);
    }
    let mut row = ctx.must_get::<Versions>(&(file_id, Newest(version)))?;
    row.expires_ms = ctx.clock.cluster_ms.saturating_add(keep_ms);
    ctx.put::<Expiries>(&(row.expires_ms, file_id, version), &());
    ctx.put::<Versions>(&(file_id, Newest(version)), &row);
    Ok(())
}

/// Drops a version; the caller has seen to it that no live head names it, unless it is the last one.
/// With the last version the file goes, and the head that names it.
pub(crate) fn drop_version(ctx: &mut Ctx<'_>, file_id: FileId, version: u64) -> Result<(), RowError> {
    let row = ctx.must_get::<Versions>(&(file_id, Newest(version)))?;
    ctx.delete::<Versions>(&(file_id, Newest(version)));
    if row.expires_ms != 0 {
        ctx.delete::<Expiries>(&(row.expires_ms, file_id, version));
    }
    lower(&mut ctx.count().versions, 1);
    if let Ok(manifest) = UploadId::from_slice(&row.manifest_id) {
        drop_manifest_reference(ctx, manifest)?;
    }

    let mut file = ctx.must_get::<Files>(&file_id)?;
    lower(&mut file.versions, 1);
    if file.versions > 0 {
        ctx.put::<Files>(&file_id, &file);
        return Ok(());
    }
    ctx.delete::<Files>(&file_id);
    if !file.detached && !file.purged {
        let bucket = BucketId::from_slice(&file.bucket_id)
            .map_err(|error| RowError::corrupt(Kind::File, error.to_string()))?;
        let name = (bucket, Tail(file.key));
        if ctx.must_get::<Heads>(&name)?.deleted {
            ctx.delete::<Heads>(&name);
        } else {
            ctx.delete::<Heads>(&name);
            lower(&mut ctx.count().files, 1);
        }
    }
    Ok(())
}

fn drop_manifest_reference(ctx: &mut Ctx<'_>, id: UploadId) -> Result<(), RowError> {
    let mut manifest = ctx.must_get::<Manifests>(&id)?;
    lower(&mut manifest.refs, 1);
    if manifest.refs > 0 {
        ctx.put::<Manifests>(&id, &manifest);
        return Ok(());
    }
    ctx.delete::<Manifests>(&id);
    lower(&mut ctx.count().manifests, 1);
    if manifest.inline {
        ctx.delete::<Inlines>(&id);
    } else {
        let target = manifest.policy.unwrap_or_default().target;
        queue(
            ctx,
            v1::DroppingRow {
                kind: v1::DroppingKind::Manifest.into(),
                id: id.to_vec().into(),
                realm_id: manifest.realm_id,
                target,
                next: 0,
            },
        );
    }
    Ok(())
}

/// Queues something to be taken apart.
pub(crate) fn queue(ctx: &mut Ctx<'_>, row: v1::DroppingRow) {
    let at = (ctx.position, ctx.dropped);
    ctx.dropped += 1;
    ctx.put::<Dropping>(&at, &row);
    ctx.count().dropping += 1;
}

/// Takes a file off its name, which another file gets: the caller overwrites the head.
pub(crate) fn detach(ctx: &mut Ctx<'_>, head: &v1::HeadRow, keep_ms: u64) -> Result<(), RowError> {
    let file_id = file_of(head)?;
    let mut file = ctx.must_get::<Files>(&file_id)?;
    file.detached = true;
    ctx.put::<Files>(&file_id, &file);
    if !head.deleted {
        lower(&mut ctx.count().files, 1);
        retire(ctx, file_id, head.version, keep_ms)?;
    }
    Ok(())
}
