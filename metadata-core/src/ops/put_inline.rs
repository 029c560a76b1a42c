//! PutInline: a small file in one command, its sealed content kept beside the state.

use dfs_proto::v1;
use dfs_types::limits::MAX_INLINE_BYTES;
use dfs_types::{ChunkId, DfsError, ErrorCode, FileId, UploadId};

use super::ctx::{Ctx, OpResult, refuse};
use crate::rights::Operation;
use crate::rows::inline::Inlines;
use crate::rows::manifests::Manifests;
use crate::rows::pages::Entry;
use crate::rows::uploads::Uploads;
use crate::rules::buckets;
use crate::rules::forms::{self, Check, invalid};
use crate::rules::versions::{Target, install};

/// Room for one secret, nonce and tag.
const MAX_SEALED_PAGE: usize = 128;

pub(super) fn check(c: &v1::PutInline) -> Check {
    forms::id(&c.bucket_id, "bucket id")?;
    forms::id(&c.file_id, "file id")?;
    forms::id(&c.upload_id, "upload id")?;
    forms::key(&c.key)?;
    forms::root(&c.sealed_root)?;
    forms::wrapped(&c.wrapped_version_key, "wrapped version key")?;
    forms::complete_policy(c.policy.as_ref())?;
    if c.size > MAX_INLINE_BYTES as u64 {
        let message = format!("inline content has at most {MAX_INLINE_BYTES} bytes, not {}", c.size);
        return Err(DfsError::new(ErrorCode::LimitExceeded, message));
    }
    let sealed = match c.size {
        0 => 0,
        size => Entry { chunk: ChunkId::default(), plain: size as u32 }.sealed_length(),
    };
    if c.sealed.len() as u64 != sealed {
        return Err(invalid(format!("{} bytes are sealed to {sealed}, not {}", c.size, c.sealed.len())));
    }
    if c.sealed_page.is_empty() != (c.size == 0) {
        return Err(invalid("a sealed page belongs to content, and to an empty file none"));
    }
    forms::at_most(&c.sealed_page, MAX_SEALED_PAGE, "sealed page")
}

pub(super) fn apply(ctx: &mut Ctx<'_>, c: &v1::PutInline) -> OpResult {
    ctx.require(Operation::PutInline)?;
    let (bucket_id, bucket) = buckets::by_id(ctx, &c.bucket_id)?;
    let id = UploadId::from_slice(&c.upload_id)?;
    if ctx.get::<Manifests>(&id)?.is_some() || ctx.get::<Uploads>(&id)?.is_some() {
        return refuse(ErrorCode::AlreadyExists, "the upload id is taken");
    }
    let empty = c.size == 0;
    let row = v1::VersionRow {
        size: c.size,
        chunks: u32::from(!empty),
        manifest_id: if empty { Default::default() } else { c.upload_id.clone() },
        inline: !empty,
        sealed_root: c.sealed_root.clone(),
        wrapped_version_key: c.wrapped_version_key.clone(),
        owner: ctx.caller.to_vec().into(),
        unix_ms: ctx.unix_ms,
        policy: c.policy,
        seal_bucket: c.bucket_id.clone(),
        seal_file: c.file_id.clone(),
        seal_upload: c.upload_id.clone(),
        expires_ms: 0,
        realm_id: Default::default(),
    };
    let target = Target {
        bucket_id,
        bucket: &bucket,
        key: &c.key,
        file_id: FileId::from_slice(&c.file_id)?,
        spare_id: FileId(id.0),
        if_version: c.if_version,
    };
    let file_id = install(ctx, &target, &row)?;
    if !empty {
        let manifest = v1::ManifestRow {
            refs: 1,
            chunks: 1,
            size: c.size,
            policy: c.policy,
            inline: true,
            ..Default::default()
        };
        ctx.put::<Manifests>(&id, &manifest);
        ctx.count().manifests += 1;
        let content = v1::InlineRow { sealed: c.sealed.clone(), sealed_page: c.sealed_page.clone() };
        ctx.put::<Inlines>(&id, &content);
    }
    // Its copies are the members' own: the policy's target holds for chunks.
    let target = c.policy.unwrap_or_default().target;
    Ok(v1::CommandResult {
        file_id: file_id.to_vec().into(),
        version: ctx.position,
        copies: target,
        target,
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, bucket, put_inline};

    fn guarded(bucket: &[u8], key: &str, content: &[u8], if_version: u64) -> v1::command::Kind {
        let v1::command::Kind::PutInline(c) = put_inline(bucket, key, content) else { unreachable!() };
        v1::command::Kind::PutInline(v1::PutInline { if_version: Some(if_version), ..c })
    }

    #[test]
    fn compare_and_swap() {
        let mut world = World::new();
        let ann = world.user("ann");
        let id = world.ok(ann, bucket("photos", 3, 0)).created_id;
        let first = world.ok(ann, guarded(&id, "a", b"one", 0));
        world.fails(ann, guarded(&id, "a", b"two", 0), ErrorCode::VersionMismatch);
        world.fails(ann, guarded(&id, "a", b"two", 7), ErrorCode::VersionMismatch);
        world.fails(ann, guarded(&id, "b", b"two", 7), ErrorCode::VersionMismatch);
        let second = world.ok(ann, guarded(&id, "a", b"two", first.version));
        assert_eq!(first.file_id, second.file_id);
        assert!(second.version > first.version);
        // Nothing is kept: the first content is gone.
        assert_eq!(world.counters().versions, 1);
        assert_eq!(world.counters().manifests, 1);
    }

    #[test]
    fn forms() {
        let v1::command::Kind::PutInline(good) = put_inline(&[1; 16], "a", b"one") else { unreachable!() };
        check(&good).unwrap();
        let bad = |change: fn(&mut v1::PutInline)| {
            let mut c = good.clone();
            change(&mut c);
            check(&c).unwrap_err().code
        };
        assert_eq!(bad(|c| c.size = 16 * 1024 + 1), ErrorCode::LimitExceeded);
        assert_eq!(bad(|c| c.size = 4), ErrorCode::InvalidArgument);
        assert_eq!(bad(|c| c.size = 0), ErrorCode::InvalidArgument);
        assert_eq!(bad(|c| c.sealed_page = Default::default()), ErrorCode::InvalidArgument);
        assert_eq!(bad(|c| c.key = "a\0".into()), ErrorCode::InvalidName);
        assert_eq!(bad(|c| c.key = "k".repeat(5000)), ErrorCode::InvalidName);
        assert_eq!(bad(|c| c.sealed_root = vec![0; 20_000].into()), ErrorCode::LimitExceeded);
    }
}
