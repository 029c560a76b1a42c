//! Cluster time as one node knows it: the last heartbeat's, plus what its own monotonic clock says
//! has passed since. Kept in memory only; a restarted node knows no time until it is told.

use std::sync::{Arc, Mutex};

use dfs_types::{Clock, MonotonicMillis, Position};

/// Decides whether a grant has expired. Never late: time is counted from before the question was
/// asked, so that a slow answer makes the node's time run ahead of the cluster's, not behind.
pub struct ClusterClock {
    clock: Arc<dyn Clock>,
    reading: Mutex<Option<Reading>>,
}

#[derive(Clone, Copy)]
struct Reading {
    cluster_ms: u64,
    asked_at: MonotonicMillis,
    position: Position,
}

impl ClusterClock {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, reading: Mutex::new(None) }
    }

    /// The monotonic time to hand to [`ClusterClock::learn`] later: taken before a question is sent.
    pub fn asking(&self) -> MonotonicMillis {
        self.clock.monotonic_millis()
    }

    /// Takes an answer. One from an older state than the last is dropped: a deposed leader's clock
    /// stands still, and would bring expired grants back to life.
    pub fn learn(&self, asked_at: MonotonicMillis, cluster_ms: u64, position: Position) {
        let mut reading = self.reading.lock().expect("no panic while the clock is held");
        if reading.is_none_or(|last| position >= last.position) {
            *reading = Some(Reading { cluster_ms, asked_at, position });
        }
    }

    /// Cluster milliseconds now; nothing before the first answer.
    pub fn now_ms(&self) -> Option<u64> {
        let reading = (*self.reading.lock().expect("no panic while the clock is held"))?;
        let passed = self.clock.monotonic_millis().saturating_sub(reading.asked_at);
        Some(reading.cluster_ms.saturating_add(passed))
    }

    /// The newest position heard of.
    pub fn position(&self) -> Position {
        let reading = self.reading.lock().expect("no panic while the clock is held");
        reading.map_or(Position::ZERO, |reading| reading.position)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    struct Hand(AtomicU64);

    impl Clock for Hand {
        fn monotonic_millis(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
        fn unix_millis(&self) -> u64 {
            0
        }
    }

    #[test]
    fn runs_on_from_the_moment_of_asking_and_ignores_older_states() {
        let hand = Arc::new(Hand(AtomicU64::new(1_000)));
        let clock = ClusterClock::new(hand.clone());
        assert_eq!(clock.now_ms(), None);

        let asked = clock.asking();
        hand.0.store(1_400, Ordering::Relaxed);
        clock.learn(asked, 50_000, Position(7));
        assert_eq!(clock.now_ms(), Some(50_400));

        clock.learn(clock.asking(), 10_000, Position(6));
        assert_eq!(clock.now_ms(), Some(50_400));
        // A newer state may say an earlier time: cluster time stands still without a leader.
        clock.learn(clock.asking(), 50_100, Position(8));
        assert_eq!(clock.now_ms(), Some(50_100));
    }
}
