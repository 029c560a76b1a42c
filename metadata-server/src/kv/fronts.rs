//! Where the rows of each kind begin. Queues (trash, request results, clock marks, what is being
//! released) are emptied from their front, and RocksDB walks over every row deleted there until
//! compaction has removed it: a scan from the very front costs more with each deletion. Known fronts
//! let it begin behind them.
//!
//! Owner: the state database, memory only. A front is a promise that no row of the kind is below it.
//! It is lowered before a write that breaks it, and raised only by a scan of a moment that is still
//! the present one; so it changes what a scan costs, never what it finds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metadata_core::kv::{Space, WriteSet};

/// By the kind, which is the first byte of a key.
type ByKind = Arc<BTreeMap<u8, Vec<u8>>>;

#[derive(Default)]
pub(super) struct Fronts {
    now: Mutex<Now>,
}

#[derive(Default)]
struct Now {
    /// Writes under way, and ended.
    writing: u32,
    written: u64,
    by_kind: ByKind,
}

/// Fronts as they are at one moment.
#[derive(Clone, Default)]
pub(super) struct Moment {
    /// Writes ended by then; None: some were under way, and nothing is known.
    written: Option<u64>,
    by_kind: ByKind,
}

impl Moment {
    /// Where a scan from `from` may as well begin.
    pub fn start<'a>(&'a self, from: &'a [u8]) -> &'a [u8] {
        let front = from.first().and_then(|kind| self.by_kind.get(kind));
        front.map_or(from, |front| from.max(front.as_slice()))
    }
}

/// While it lives, a write is under way.
pub(super) struct Writing<'a>(&'a Fronts);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let mut now = self.0.lock();
        now.writing -= 1;
        now.written += 1;
    }
}

impl Fronts {
    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called before `writes` are written, and held until they are.
    pub fn writing(&self, writes: &WriteSet) -> Writing<'_> {
        let mut now = self.lock();
        now.writing += 1;
        let puts = writes.map.iter().filter(|((space, _), value)| *space == Space::State && value.is_some());
        for ((_, key), _) in puts {
            let front = key.first().and_then(|kind| now.by_kind.get(kind));
            if front.is_some_and(|front| key < front) {
                Arc::make_mut(&mut now.by_kind).insert(key[0], key.clone());
            }
        }
        Writing(self)
    }

    /// The present moment, which a scan may begin by now. Also while a write is under way: fronts hold
    /// before and after it.
    pub fn present(&self) -> Moment {
        let now = self.lock();
        Moment { written: (now.writing == 0).then_some(now.written), by_kind: Arc::clone(&now.by_kind) }
    }

    /// The moment that `pin` pins; nothing is known of it if a write came between.
    pub fn pinned<T>(&self, pin: impl FnOnce() -> T) -> (T, Moment) {
        let moment = self.present();
        let pinned = pin();
        let now = self.lock();
        let still = now.writing == 0 && moment.written == Some(now.written);
        drop(now);
        (pinned, if still { moment } else { Moment::default() })
    }

    /// What a scan of that moment from `from` up to `to` found first. Only a scan over a whole kind
    /// tells where it begins.
    pub fn found(&self, moment: &Moment, from: &[u8], to: &[u8], first: Option<&[u8]>) {
        let [kind] = *from else { return };
        let end = kind.checked_add(1).map(|next| [next]);
        let front = match (first, &end) {
            (Some(first), _) if first.first() == Some(&kind) => first,
            // None of the kind was found, and the scan went to its end.
            (_, Some(end)) if to >= end.as_slice() => end,
            _ => return,
        };
        let mut now = self.lock();
        let present = now.writing == 0 && moment.written == Some(now.written);
        let known = now.by_kind.get(&kind).is_some_and(|known| known.as_slice() >= front);
        if present && !known {
            Arc::make_mut(&mut now.by_kind).insert(kind, front.to_vec());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn put(key: &[u8]) -> WriteSet {
        let mut writes = WriteSet::default();
        writes.put(Space::State, key.to_vec(), Bytes::new());
        writes
    }

    #[test]
    fn a_front_rises_with_what_is_found_and_falls_with_what_is_put_below_it() {
        let fronts = Fronts::default();
        let start = |from: &[u8]| fronts.present().start(from).to_vec();
        fronts.found(&fronts.present(), &[7], &[8], Some(&[7, 5]));
        assert_eq!(start(&[7]), [7, 5]);
        assert_eq!(start(&[7, 2]), [7, 5]);
        assert_eq!(start(&[7, 9]), [7, 9]);
        assert_eq!(start(&[6]), [6]);
        drop(fronts.writing(&put(&[7, 6])));
        assert_eq!(start(&[7]), [7, 5]);
        drop(fronts.writing(&put(&[7, 3])));
        assert_eq!(start(&[7]), [7, 3]);
        // A part of a kind says nothing of its front; all of it, and nothing there, does.
        fronts.found(&fronts.present(), &[7], &[7, 9], None);
        fronts.found(&fronts.present(), &[7, 1], &[8], Some(&[7, 8]));
        assert_eq!(start(&[7]), [7, 3]);
        for first in [None, Some(&[8, 4][..])] {
            fronts.found(&fronts.present(), &[7], &[9], first);
            assert_eq!(start(&[7]), [8]);
            drop(fronts.writing(&put(&[7, 1])));
            assert_eq!(start(&[7]), [7, 1]);
        }
    }

    #[test]
    fn a_moment_that_has_passed_raises_nothing() {
        let fronts = Fronts::default();
        let before = fronts.present();
        let writing = fronts.writing(&put(&[7, 1]));
        let during = fronts.present();
        let ((), pinned) = fronts.pinned(|| ());
        drop(writing);
        for moment in [before, during, pinned] {
            fronts.found(&moment, &[7], &[8], Some(&[7, 5]));
            assert_eq!(fronts.present().start(&[7]), [7]);
        }
        let ((), pinned) = fronts.pinned(|| drop(fronts.writing(&put(&[7, 1]))));
        assert_eq!(pinned.written, None);
    }
}
