//! For whom room on nodes is set aside, so that it is given back when they are over instead of a minute later.
//!
//! Owner: the node book; memory only. Bounded: what is not noted here expires by itself.

use std::collections::BTreeMap;

use dfs_types::limits::MAX_NOTED_RESERVATIONS;
use dfs_types::{MonotonicMillis, NodeId};

/// An upload's id, or a task's.
pub type Holder = [u8; 16];

/// Bytes set aside on one node until a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    pub until: MonotonicMillis,
    pub bytes: u64,
}

#[derive(Default)]
pub struct Holders {
    noted: BTreeMap<Holder, BTreeMap<(NodeId, MonotonicMillis), u64>>,
    count: usize,
    /// Expired notes are looked for no earlier.
    next_sweep: MonotonicMillis,
}

/// Between two sweeps of a full table.
const SWEEP_MS: u64 = 5_000;

impl Holders {
    /// Notes what was set aside; a full table forgets it, and then it lasts its whole time.
    pub fn note(&mut self, holder: Holder, node: &NodeId, held: Held, now: MonotonicMillis) {
        if self.count >= MAX_NOTED_RESERVATIONS && now >= self.next_sweep {
            self.next_sweep = now + SWEEP_MS;
            self.sweep(now);
        }
        if self.count >= MAX_NOTED_RESERVATIONS {
            return;
        }
        let of_holder = self.noted.entry(holder).or_default();
        let before = of_holder.len();
        of_holder
            .entry((node.clone(), held.until))
            .and_modify(|bytes| *bytes = bytes.saturating_add(held.bytes))
            .or_insert(held.bytes);
        self.count += of_holder.len() - before;
    }

    /// All that was set aside for `holder`; it is forgotten here.
    pub fn take(&mut self, holder: Holder) -> Vec<(NodeId, Held)> {
        let taken = self.noted.remove(&holder).unwrap_or_default();
        self.count -= taken.len();
        taken.into_iter().map(|((node, until), bytes)| (node, Held { until, bytes })).collect()
    }

    fn sweep(&mut self, now: MonotonicMillis) {
        self.noted.retain(|_, of_holder| {
            of_holder.retain(|(_, until), _| *until > now);
            !of_holder.is_empty()
        });
        self.count = self.noted.values().map(BTreeMap::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_forgets_and_is_swept() {
        let node = NodeId::new("n1").unwrap();
        let mut holders = Holders::default();
        let holder = |n: usize| (n as u128).to_be_bytes();
        for n in 0..MAX_NOTED_RESERVATIONS + 10 {
            holders.note(holder(n), &node, Held { until: 100, bytes: 1 }, 0);
        }
        assert_eq!((holders.count, holders.noted.len()), (MAX_NOTED_RESERVATIONS, MAX_NOTED_RESERVATIONS));
        assert_eq!(holders.take(holder(0)), [(node.clone(), Held { until: 100, bytes: 1 })]);
        assert!(holders.take(holder(MAX_NOTED_RESERVATIONS + 1)).is_empty());
        holders.note(holder(0), &node, Held { until: 30_000, bytes: 2 }, SWEEP_MS);
        holders.note(holder(0), &node, Held { until: 30_000, bytes: 3 }, SWEEP_MS);
        assert_eq!((holders.count, holders.noted.len()), (1, 1), "what expired went");
        assert_eq!(holders.take(holder(0)), [(node, Held { until: 30_000, bytes: 5 })]);
        assert_eq!(holders.count, 0);
    }
}
