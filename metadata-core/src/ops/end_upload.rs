//! EndUpload: aborted by its owner, or expired by the cluster. Its references go through the dropping
//! queue.

use dfs_proto::v1;
use dfs_types::{ErrorCode, UploadId};

use super::ctx::{Ctx, OpResult, refuse};
use crate::rights::Operation;
use crate::rows::uploads::Uploads;
use crate::rules::forms::{self, Check};
use crate::rules::{uploads, versions};

pub(super) fn check(c: &v1::EndUpload) -> Check {
    forms::batch(c.upload_ids.len(), "uploads")?;
    c.upload_ids.iter().try_for_each(|id| forms::id(id, "upload id"))
}

pub(super) fn apply(ctx: &mut Ctx<'_>, c: &v1::EndUpload) -> OpResult {
    let mut count = 0;
    if c.expired {
        ctx.require(Operation::Background)?;
        for id in &c.upload_ids {
            let id = UploadId::from_slice(id)?;
            // A page may have come since the leader looked.
            let idle = |row: &v1::UploadRow| row.active_ms <= c.idle_since_ms;
            let open = |row: &v1::UploadRow| row.state() == v1::UploadState::Open;
            if let Some(row) = ctx.get::<Uploads>(&id)?.filter(open).filter(idle) {
                end(ctx, id, &row);
                count += 1;
            }
        }
    } else {
        ctx.require(Operation::AbortUpload)?;
        for id in &c.upload_ids {
            let (id, row) = uploads::find(ctx, id)?;
            if row.state() != v1::UploadState::Open {
                return refuse(ErrorCode::FailedPrecondition, "the upload was committed already");
            }
            end(ctx, id, &row);
            count += 1;
        }
    }
    Ok(v1::CommandResult { count, ..Default::default() })
}

fn end(ctx: &mut Ctx<'_>, id: UploadId, row: &v1::UploadRow) {
    if row.chunks > 0 {
        let dropping = v1::DroppingRow {
            kind: v1::DroppingKind::Manifest.into(),
            id: id.to_vec().into(),
            realm_id: row.realm_id.clone(),
            target: row.policy.unwrap_or_default().target,
            next: 0,
        };
        versions::queue(ctx, dropping);
    }
    uploads::bury(ctx, id, row, v1::UploadState::Ended, None);
}
