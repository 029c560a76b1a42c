//! Forgetting in small steps what the epoch floor or the request window has passed.

use dfs_types::Position;
use dfs_types::limits::REQUEST_WINDOW;

use super::{purges, uploads};
use crate::kv::{KvRead, Overlay};
use crate::ops::ctx::Ctx;
use crate::rows::marks::Marks;
use crate::rows::requests::{Requests, RequestsByPosition};
use crate::rows::{self, RowError};

/// Rows of each kind one tick may forget.
const STEP: usize = 256;

/// Forgets tombstones, purge facts and clock marks below the floor, a bounded number of each.
pub(crate) fn below_floor(ctx: &mut Ctx<'_>) -> Result<u64, RowError> {
    let mut forgotten = uploads::forget_tombstones(ctx, STEP)?;
    forgotten += purges::forget_facts(ctx, STEP)?;
    for (cluster_ms, row) in rows::scan::<Marks>(ctx.kv(), &(), None, STEP)? {
        if row.position > ctx.clock.epoch_floor {
            break;
        }
        ctx.delete::<Marks>(&cluster_ms);
        forgotten += 1;
    }
    Ok(forgotten)
}

/// Whether a position has left the at-most-once window. The window is counted in log indices.
pub(crate) fn out_of_window(seen: u64, now: u64) -> bool {
    Position(seen).log_index() + REQUEST_WINDOW < Position(now).log_index()
}

/// Forgets up to `most` request results that left the window.
pub(crate) fn forget_results(tx: &mut Overlay<'_>, now: u64, most: usize) -> Result<u64, RowError> {
    let mut forgotten = 0;
    let oldest = rows::scan::<RequestsByPosition>(&*tx as &dyn KvRead, &(), None, most)?;
    for ((position, principal, request), ()) in oldest {
        if !out_of_window(position, now) {
            break;
        }
        rows::delete::<RequestsByPosition>(tx, &(position, principal, request));
        rows::delete::<Requests>(tx, &(principal, request));
        forgotten += 1;
    }
    Ok(forgotten)
}
