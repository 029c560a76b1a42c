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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CLUSTER, World, abort, bucket, commit, page};
    use dfs_proto::v1::command::Kind;

    #[test]
    fn aborted_and_expired_uploads_let_their_chunks_go() {
        let mut world = World::new();
        for (name, domain) in [("n1", "a"), ("n2", "b")] {
            world.node(name, domain);
        }
        let (ann, bob) = (world.user("ann"), world.user("bob"));
        let bucket = world.ok(ann, bucket("photos", 2, 0)).created_id;
        let upload = world.upload(ann, &bucket, "a", &[1, 2, 3, 1], &["n1", "n2"]);
        world.fails(bob, abort(&upload), ErrorCode::UploadNotFound);
        world.ok(ann, abort(&upload));
        world.fails(ann, abort(&upload), ErrorCode::UploadNotFound);
        world.fails(ann, commit(&upload, 4), ErrorCode::UploadNotFound);
        world.release_all();
        assert_eq!(world.counters().trash_chunks, 3);

        let upload = world.upload(ann, &bucket, "a", &[1, 2], &[]);
        assert_eq!(world.counters().trash_chunks, 1, "chunks come back from trash");
        world.tick(1000);
        let at = [world.at("n1"), world.at("n2")];
        world.ok(ann, page(&upload, 2, &[4], &at));
        let expire = |idle_since_ms| {
            Kind::EndUpload(v1::EndUpload { upload_ids: vec![upload.clone()], expired: true, idle_since_ms })
        };
        assert_eq!(world.ok(CLUSTER, expire(999)).count, 0, "a page came meanwhile");
        world.fails(ann, expire(1000), ErrorCode::PermissionDenied);
        assert_eq!(world.ok(CLUSTER, expire(1000)).count, 1);
        world.release_all();
        assert_eq!(world.counters().trash_chunks, 4);
    }
}
