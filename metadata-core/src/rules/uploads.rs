//! Uploads: finding an open one, and turning one into a tombstone.

use dfs_proto::v1;
use dfs_types::{ErrorCode, UploadId};

use super::lower;
use crate::ops::ctx::{Ctx, Fault, refuse};
use crate::rows::uploads::{UploadTombstones, Uploads, UploadsByActivity};
use crate::rows::{self, RowError};

/// The caller's upload in any state but ended. To others it does not exist.
pub(crate) fn find(ctx: &Ctx<'_>, id: &[u8]) -> Result<(UploadId, v1::UploadRow), Fault> {
    let id = UploadId::from_slice(id)?;
    match ctx.get::<Uploads>(&id)? {
        Some(row)
            if row.state() != v1::UploadState::Ended
                && (row.owner.as_ref() == ctx.caller.as_bytes() || ctx.is_admin()) =>
        {
            Ok((id, row))
        }
        _ => {
            refuse(ErrorCode::UploadNotFound, "there is no such upload: it never began, expired or was ended")
        }
    }
}

/// Keeps of an upload what answers a repetition; the rest of its row goes.
pub(crate) fn bury(
    ctx: &mut Ctx<'_>,
    id: UploadId,
    row: &v1::UploadRow,
    state: v1::UploadState,
    result: Option<v1::CommandResult>,
) {
    let tombstone = v1::UploadRow {
        state: state.into(),
        bucket_id: row.bucket_id.clone(),
        file_id: row.file_id.clone(),
        owner: row.owner.clone(),
        created_unix_ms: row.created_unix_ms,
        result,
        ..Default::default()
    };
    ctx.put::<Uploads>(&id, &tombstone);
    ctx.delete::<UploadsByActivity>(&(row.active_ms, id));
    let position = ctx.position;
    ctx.put::<UploadTombstones>(&(position, id), &());
    lower(&mut ctx.count().uploads, 1);
}

/// Forgets up to `most` tombstones that the epoch floor has passed.
pub(crate) fn forget_tombstones(ctx: &mut Ctx<'_>, most: usize) -> Result<u64, RowError> {
    let mut forgotten = 0;
    for ((position, id), ()) in rows::scan::<UploadTombstones>(ctx.kv(), &(), None, most)? {
        if position >= ctx.clock.epoch_floor {
            break;
        }
        ctx.delete::<UploadTombstones>(&(position, id));
        ctx.delete::<Uploads>(&id);
        forgotten += 1;
    }
    Ok(forgotten)
}
