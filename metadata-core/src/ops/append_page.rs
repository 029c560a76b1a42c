//! AppendPage: the next page of an open upload. Its chunks are referenced from now on.
//!
//! Each chunk needs min_ack copies that count: named by receipts whose facts hold (rules/purges::fit),
//! or known already. Where they are missing the answer says chunk by chunk what to do.

use dfs_proto::v1;
use dfs_types::error::{ChunkNeed, Need};
use dfs_types::limits::{
    MAX_CHUNK_BYTES, MAX_PAGE_CHUNKS, MAX_PAGES_PER_VERSION, MAX_RECEIPTS_PER_CHUNK, MAX_VERSION_BYTES,
};
use dfs_types::{DfsError, ErrorCode, RealmId};

use super::ctx::{Ctx, Fault, OpResult, refuse};
use crate::rights::Operation;
use crate::rows::ChunkKey;
use crate::rows::chunks::Chunks;
use crate::rows::pages::{self, Entry, PageStarts, Pages};
use crate::rows::uploads::{Uploads, UploadsByActivity};
use crate::rows::versions::Newest;
use crate::rules::chunks::{self, settle};
use crate::rules::forms::{self, Check, invalid};
use crate::rules::purges::{Unfit, fit};
use crate::rules::{buckets, uploads};

/// Nonce, 32 bytes a secret, tag.
fn most_sealed(chunks: usize) -> usize {
    12 + 32 * chunks + 16
}

pub(super) fn check(c: &v1::AppendPage) -> Check {
    forms::id(&c.upload_id, "upload id")?;
    let entries = pages::entries(&c.clear).ok_or_else(|| invalid("the clear list is cut"))?;
    if entries.is_empty() {
        return Err(invalid("a page has at least one chunk"));
    }
    forms::at_most(&c.clear, MAX_PAGE_CHUNKS * pages::ENTRY_BYTES, "clear list")?;
    if entries.iter().any(|entry| entry.plain == 0 || u64::from(entry.plain) > MAX_CHUNK_BYTES) {
        return Err(invalid(format!("a chunk has 1 to {MAX_CHUNK_BYTES} bytes")));
    }
    if c.sealed.is_empty() {
        return Err(invalid("the sealed secrets are missing"));
    }
    forms::at_most(&c.sealed, most_sealed(entries.len()), "sealed secrets")?;
    if c.locations.len() != entries.len() {
        return Err(invalid("locations must be given for each chunk, empty where it is stored already"));
    }
    for list in &c.locations {
        if list.stored.len() > MAX_RECEIPTS_PER_CHUNK {
            let message = format!("at most {MAX_RECEIPTS_PER_CHUNK} receipts are allowed for a chunk");
            return Err(DfsError::new(ErrorCode::LimitExceeded, message));
        }
        list.stored.iter().try_for_each(forms::stored)?;
    }
    Ok(())
}

pub(super) fn apply(ctx: &mut Ctx<'_>, c: &v1::AppendPage) -> OpResult {
    ctx.require(Operation::AppendPage)?;
    let (id, mut upload) = uploads::find(ctx, &c.upload_id)?;
    if upload.state() != v1::UploadState::Open {
        return refuse(ErrorCode::UploadNotFound, "the upload was committed already");
    }
    buckets::by_id(ctx, &upload.bucket_id)?;
    if c.first_index < upload.chunks {
        return match ctx.get::<Pages>(&(id, c.first_index))? {
            Some(page) if page.clear == c.clear => {
                Ok(v1::CommandResult { replayed: true, ..Default::default() })
            }
            _ => refuse(ErrorCode::ManifestMismatch, "another page stands there already"),
        };
    }
    if c.first_index > upload.chunks {
        let message = format!("the page begins at chunk {}, expected {}", c.first_index, upload.chunks);
        return refuse(ErrorCode::ManifestMismatch, message);
    }

    let entries = pages::entries(&c.clear).expect("checked");
    let size: u64 = entries.iter().map(|entry| u64::from(entry.plain)).sum();
    if upload.pages >= MAX_PAGES_PER_VERSION || upload.bytes + size > MAX_VERSION_BYTES {
        return refuse(ErrorCode::LimitExceeded, "the file has more pages or bytes than a file may have");
    }

    let realm = RealmId::from_slice(&upload.realm_id)?;
    let policy = upload.policy.unwrap_or_default();
    let mut needs = Vec::new();
    for (place, (entry, named)) in entries.iter().zip(&c.locations).enumerate() {
        match reference(ctx, ChunkKey { realm, chunk: entry.chunk }, entry, &named.stored, &policy)? {
            Ok(copies) => upload.copies = upload.copies.min(copies),
            Err(need) => needs.push(ChunkNeed { index: c.first_index + place as u32, need }),
        }
    }
    if !needs.is_empty() {
        let message = format!("{} of {} chunks lack durable copies", needs.len(), entries.len());
        return Err(Fault::Refused(DfsError::chunks_missing(message, needs)));
    }

    let page = v1::PageRow { clear: c.clear.clone(), sealed: c.sealed.clone(), offset: upload.bytes, size };
    ctx.put::<Pages>(&(id, c.first_index), &page);
    let start = v1::PositionRow { position: u64::from(c.first_index) };
    ctx.put::<PageStarts>(&(id, Newest(upload.bytes)), &start);
    ctx.delete::<UploadsByActivity>(&(upload.active_ms, id));
    upload.active_ms = ctx.clock.cluster_ms;
    upload.chunks += entries.len() as u32;
    upload.bytes += size;
    upload.pages += 1;
    ctx.put::<UploadsByActivity>(&(upload.active_ms, id), &());
    ctx.put::<Uploads>(&id, &upload);
    let (copies, target) = (upload.copies, policy.target);
    Ok(v1::CommandResult { copies, target, ..Default::default() })
}

/// Takes one reference to a chunk: its counting copies, or what the client must do first.
fn reference(
    ctx: &mut Ctx<'_>,
    key: ChunkKey,
    entry: &Entry,
    named: &[v1::StoredAt],
    policy: &v1::Policy,
) -> Result<Result<u32, Need>, Fault> {
    let before = ctx.get::<Chunks>(&key)?;
    let mut row = match &before {
        // The id is the hash of the sealed bytes: another length under it is no chunk of ours.
        Some(row) if row.sealed_length != entry.sealed_length() => {
            return refuse(ErrorCode::ManifestMismatch, format!("chunk {} has another length", key.chunk));
        }
        Some(row) => row.clone(),
        None if named.is_empty() => return Ok(Err(Need::Send)),
        None => v1::ChunkRow { sealed_length: entry.sealed_length(), ..Default::default() },
    };
    let mut too_old = 0;
    for stored in named {
        match fit(ctx, key, stored)? {
            Ok(seat) => chunks::note_location(&mut row, seat, stored.epoch),
            Err(Unfit::Epoch) => too_old += 1,
            Err(Unfit::Node) => {}
        }
    }
    let (copies, domains) = chunks::counting(ctx, &row)?;
    let spread = ctx.eligible_domains()?.min(policy.min_ack as usize);
    if copies < policy.min_ack || domains < spread {
        // Touching is enough where it would bring the copies up; else the bytes are needed.
        let enough = copies + too_old >= policy.min_ack;
        return Ok(Err(if too_old > 0 && enough { Need::Touch } else { Need::Send }));
    }
    chunks::add_reference(&mut row, policy.target);
    settle(ctx, key, before.as_ref(), Some(row))?;
    Ok(Ok(copies))
}
