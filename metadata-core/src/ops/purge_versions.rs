//! PurgeVersions: drops versions whose keep time is over.

use dfs_proto::v1;
use dfs_types::FileId;

use super::ctx::{Ctx, OpResult};
use crate::rights::Operation;
use crate::rows::versions::{Newest, Versions};
use crate::rules::forms::{self, Check};
use crate::rules::versions::drop_version;

pub(super) fn check(c: &v1::PurgeVersions) -> Check {
    forms::batch(c.versions.len(), "versions")?;
    c.versions.iter().try_for_each(|version| forms::id(&version.file_id, "file id"))
}

pub(super) fn apply(ctx: &mut Ctx<'_>, c: &v1::PurgeVersions) -> OpResult {
    ctx.require(Operation::Background)?;
    let mut count = 0;
    for named in &c.versions {
        let file_id = FileId::from_slice(&named.file_id)?;
        let row = ctx.get::<Versions>(&(file_id, Newest(named.version)))?;
        // It may have become current again, or be gone, since the leader looked.
        let over = |row: v1::VersionRow| row.expires_ms != 0 && row.expires_ms <= ctx.clock.cluster_ms;
        if row.is_some_and(over) {
            drop_version(ctx, file_id, named.version)?;
            count += 1;
        }
    }
    Ok(v1::CommandResult { count, ..Default::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CLUSTER, World, bucket, put_inline};
    use dfs_proto::v1::command::Kind;

    #[test]
    fn not_before_its_time_and_never_the_current_one() {
        let mut world = World::new();
        let ann = world.user("ann");
        let id = world.ok(ann, bucket("photos", 3, 1000)).created_id;
        let one = world.ok(ann, put_inline(&id, "a", b"one"));
        let two = world.ok(ann, put_inline(&id, "a", b"two"));
        let named = |result: &v1::CommandResult| v1::VersionRef {
            file_id: result.file_id.clone(),
            version: result.version,
        };
        let both = Kind::PurgeVersions(v1::PurgeVersions { versions: vec![named(&one), named(&two)] });
        world.tick(999);
        assert_eq!(world.ok(CLUSTER, both.clone()).count, 0);
        world.tick(1);
        assert_eq!(world.ok(CLUSTER, both.clone()).count, 1);
        assert_eq!(world.ok(CLUSTER, both).count, 0);
        assert_eq!(world.head(&id, "a").unwrap().version, two.version);
    }
}
