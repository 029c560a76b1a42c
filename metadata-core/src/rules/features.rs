//! Feature levels: which commands a cluster's members have agreed to take.
//!
//! Members of several builds share one log while they are upgraded one by one, and an older build stops at a
//! kind it does not know. So a kind is refused until the level that introduced it (the table in `ops/mod.rs`)
//! was raised by a command, which is proposed only when every member's build knows that level. A field
//! added to a kind that an older build would silently ignore needs a level in just the same way.

use dfs_proto::v1::command::Kind;
use dfs_types::{DfsError, ErrorCode};

use crate::kv::KvRead;
use crate::ops::ctx::Fault;
use crate::ops::introduced;
use crate::rows;
use crate::rows::meta::{ClusterMeta, Field};

/// The level a cluster has at least.
pub(crate) const FIRST: u32 = 1;
/// The highest level this build knows.
pub const LATEST: u32 = 1;

/// Whether the cluster takes this kind now. Before Bootstrap nothing is gated.
pub(crate) fn permit(kv: &dyn KvRead, kind: &Kind) -> Result<(), Fault> {
    let Some(row) = rows::get::<ClusterMeta>(kv, &Field)? else { return Ok(()) };
    if row.feature_level > LATEST {
        return Err(Fault::TooNew { level: row.feature_level });
    }
    Ok(permitted(introduced(kind), row.feature_level)?)
}

fn permitted(introduced: u32, level: u32) -> Result<(), DfsError> {
    if introduced <= level {
        return Ok(());
    }
    Err(DfsError::new(
        ErrorCode::FailedPrecondition,
        format!(
            "this needs feature level {introduced}, the cluster is at {level}: upgrade all metadata servers, \
             then `dfsctl cluster feature-level raise`"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_taken_from_its_level_on() {
        for (introduced, level, taken) in [
            (0, 0, true),
            (0, 1, true),
            (1, 0, false),
            (1, 1, true),
            (1, 2, true),
            (2, 1, false),
            (9, 8, false),
        ] {
            assert_eq!(permitted(introduced, level).is_ok(), taken, "{introduced} at {level}");
        }
    }

    #[test]
    fn no_kind_is_newer_than_the_build() {
        let kinds = [
            (Kind::Bootstrap(Default::default()), 0),
            (Kind::RaiseFeatureLevel(Default::default()), 0),
            (Kind::Tick(Default::default()), 1),
            (Kind::DropNode(Default::default()), 1),
        ];
        for (kind, level) in kinds {
            assert_eq!(introduced(&kind), level, "{kind:?}");
            assert!(level <= LATEST);
        }
    }
}
