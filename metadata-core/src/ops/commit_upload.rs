//! CommitUpload: the version becomes visible, or nothing changes. Answered the same when repeated,
//! until the epoch floor has passed it.

use dfs_proto::v1;
use dfs_types::{ErrorCode, FileId};

use super::ctx::{Ctx, OpResult, refuse};
use crate::rights::Operation;
use crate::rows::manifests::Manifests;
use crate::rules::forms::{self, Check};
use crate::rules::versions::{Target, install};
use crate::rules::{buckets, uploads};

pub(super) fn check(c: &v1::CommitUpload) -> Check {
    forms::id(&c.upload_id, "upload id")?;
    forms::root(&c.sealed_root)
}

pub(super) fn apply(ctx: &mut Ctx<'_>, c: &v1::CommitUpload) -> OpResult {
    ctx.require(Operation::CommitUpload)?;
    let (id, upload) = uploads::find(ctx, &c.upload_id)?;
    if let (v1::UploadState::Committed, Some(result)) = (upload.state(), &upload.result) {
        return Ok(v1::CommandResult { replayed: true, ..result.clone() });
    }
    let (bucket_id, bucket) = buckets::by_id(ctx, &upload.bucket_id)?;
    if c.chunks != upload.chunks || c.size != upload.bytes {
        let message = format!(
            "the commit says {} chunks and {} bytes, the pages have {} and {}",
            c.chunks, c.size, upload.chunks, upload.bytes
        );
        return refuse(ErrorCode::ManifestMismatch, message);
    }
    if upload.size.is_some_and(|size| size != upload.bytes) {
        let message = format!("the upload was begun for {} bytes, it has {}", upload.size(), upload.bytes);
        return refuse(ErrorCode::ManifestMismatch, message);
    }

    let empty = upload.chunks == 0;
    let row = v1::VersionRow {
        size: upload.bytes,
        chunks: upload.chunks,
        manifest_id: if empty { Default::default() } else { c.upload_id.clone() },
        inline: false,
        sealed_root: c.sealed_root.clone(),
        wrapped_version_key: upload.wrapped_version_key.clone(),
        owner: ctx.caller.to_vec().into(),
        unix_ms: ctx.unix_ms,
        policy: upload.policy,
        seal_bucket: upload.bucket_id.clone(),
        seal_file: upload.file_id.clone(),
        seal_upload: c.upload_id.clone(),
        expires_ms: 0,
        realm_id: upload.realm_id.clone(),
    };
    let target = Target {
        bucket_id,
        bucket: &bucket,
        key: &upload.key,
        file_id: FileId::from_slice(&upload.file_id)?,
        spare_id: FileId(id.0),
        if_version: c.if_version,
    };
    let file_id = install(ctx, &target, &row)?;
    if !empty {
        let manifest = v1::ManifestRow {
            refs: 1,
            chunks: upload.chunks,
            pages: upload.pages,
            size: upload.bytes,
            realm_id: upload.realm_id.clone(),
            policy: upload.policy,
            inline: false,
        };
        ctx.put::<Manifests>(&id, &manifest);
        ctx.count().manifests += 1;
    }
    let result = v1::CommandResult {
        position: ctx.position,
        file_id: file_id.to_vec().into(),
        version: ctx.position,
        copies: upload.copies,
        target: upload.policy.unwrap_or_default().target,
        ..Default::default()
    };
    uploads::bury(ctx, id, &upload, v1::UploadState::Committed, Some(result.clone()));
    // Each commit leaves a tombstone, so each takes up to two old ones away.
    uploads::forget_tombstones(ctx, 2)?;
    Ok(result)
}
