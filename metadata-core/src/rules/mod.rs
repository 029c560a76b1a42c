//! Rules that several operations share. Each row family has one writer here:
//! chunks (with locations, deficits, trash), versions (with heads, files, manifests), purge facts.

pub(crate) mod buckets;
pub(crate) mod chunks;
pub(crate) mod features;
pub(crate) mod forms;
pub(crate) mod housekeeping;
pub(crate) mod locations;
pub(crate) mod purges;
pub(crate) mod roster;
pub(crate) mod uploads;
pub(crate) mod versions;

/// Lowers a counter. A counter that would fall below zero is a bug that tests catch; in the field it
/// stays at zero, because a wrong figure is better than a stopped cluster.
pub(crate) fn lower(counter: &mut u64, by: u64) {
    debug_assert!(*counter >= by, "counter {counter} lowered by {by}");
    *counter = counter.saturating_sub(by);
}
