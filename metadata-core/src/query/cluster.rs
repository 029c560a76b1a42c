//! The cluster's own rows.

use dfs_proto::v1;
use dfs_types::{DfsError, Position};

use crate::kv::KvRead;
use crate::rows::marks::Marks;
use crate::rows::meta::{AppliedMeta, Clock, ClusterMeta, Counters, Field, StateHash};
use crate::rows::{self, RowError};

/// None before Bootstrap was applied.
pub fn cluster(kv: &dyn KvRead) -> Result<Option<v1::ClusterRow>, DfsError> {
    Ok(rows::get::<ClusterMeta>(kv, &Field)?)
}

/// Cluster time (ms) and epoch floor; zeros in a blank state.
pub fn clock(kv: &dyn KvRead) -> Result<v1::ClockRow, DfsError> {
    Ok(rows::get::<Clock>(kv, &Field)?.unwrap_or_default())
}

pub fn counters(kv: &dyn KvRead) -> Result<v1::CountersRow, DfsError> {
    Ok(rows::get::<Counters>(kv, &Field)?.unwrap_or_default())
}

/// Position of the last command applied; zero in a blank state.
pub fn applied(kv: &dyn KvRead) -> Result<Position, DfsError> {
    Ok(Position(rows::get::<AppliedMeta>(kv, &Field)?.unwrap_or_default().position))
}

/// The chained hash over all write sets; None in a blank state. Equal at equal [`applied`] positions.
pub fn state_hash(kv: &dyn KvRead) -> Result<Option<[u8; 32]>, DfsError> {
    let Some(row) = rows::get::<StateHash>(kv, &Field)? else { return Ok(None) };
    let hash = row.hash.as_ref().try_into();
    Ok(Some(hash.map_err(|_| RowError::corrupt(rows::Kind::Meta, "hash length"))?))
}

/// The newest position known to be at least as old as cluster time `cluster_ms`: what the epoch
/// floor may be raised to when that time is a floor lag ago. None: no tick is that old.
///
/// Marks grow by one a tick and go when the floor passes them, so the scan is bounded by a batch: the
/// answer may be an older mark than the newest that fits, never a younger one.
pub fn position_at(kv: &dyn KvRead, cluster_ms: u64) -> Result<Option<Position>, DfsError> {
    const NEAR_MS: u64 = 60_000;
    const BATCH: usize = 1024;
    for from in [cluster_ms.saturating_sub(NEAR_MS), 0] {
        let from = rows::key_bytes::<Marks>(&from);
        let to = rows::successor(&rows::key_bytes::<Marks>(&cluster_ms));
        if let Some((_, row)) = rows::scan_range::<Marks>(kv, &from, &to, BATCH)?.pop() {
            return Ok(Some(Position(row.position)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    #[test]
    fn marks_tell_how_far_the_floor_may_rise() {
        let mut world = World::new();
        assert_eq!(position_at(&world.kv, 5000).unwrap(), None);
        world.tick(1000);
        let first = world.position();
        world.tick(1000);
        world.user("ann");
        assert_eq!(position_at(&world.kv, 999).unwrap(), None);
        assert_eq!(position_at(&world.kv, 1999).unwrap(), Some(Position(first)));
        assert_eq!(position_at(&world.kv, 1_000_000).unwrap(), Some(Position(first + 65536)));
        assert_eq!(clock(&world.kv).unwrap().cluster_ms, 2000);
    }
}
