//! Time in which this process did not run at all: stopped by Ctrl-Z, held by a debugger, or its machine
//! paused. Nobody failed to answer then, so it does not count against the patience of a call: a put that was
//! stopped for a minute goes on.
//!
//! A task looks at the clock every half second. When it finds that much more time passed, the process was
//! not running, or the runtime was so busy that nothing else was tried either.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

const TICK: Duration = Duration::from_millis(500);
/// Longest between two looks of a process that runs.
const LONGEST_LOOK: Duration = Duration::from_secs(2);

/// Clones share what they know.
#[derive(Clone)]
pub(crate) struct Awake(Arc<Mutex<Looks>>);

struct Looks {
    last: Instant,
    stopped: Duration,
}

impl Looks {
    fn stopped_at(&self, now: Instant) -> Duration {
        self.stopped + now.saturating_duration_since(self.last).saturating_sub(LONGEST_LOOK)
    }

    fn look(&mut self, now: Instant) {
        self.stopped = self.stopped_at(now);
        self.last = self.last.max(now);
    }
}

impl Awake {
    /// Watches until the last clone is gone.
    pub fn watch() -> Self {
        let looks = Arc::new(Mutex::new(Looks { last: Instant::now(), stopped: Duration::ZERO }));
        tokio::spawn(keep_looking(Arc::downgrade(&looks)));
        Self(looks)
    }

    /// A deadline that moves on by the time in which the process is stopped.
    pub fn deadline(&self, patience: Duration) -> Deadline {
        let now = Instant::now();
        Deadline { awake: self.clone(), at: now + patience, stopped_before: self.stopped_at(now) }
    }

    fn stopped_at(&self, now: Instant) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).stopped_at(now)
    }
}

async fn keep_looking(looks: Weak<Mutex<Looks>>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(looks) = looks.upgrade() else { return };
        looks.lock().unwrap_or_else(PoisonError::into_inner).look(Instant::now());
    }
}

/// See [`Awake::deadline`].
pub(crate) struct Deadline {
    awake: Awake,
    at: Instant,
    stopped_before: Duration,
}

impl Deadline {
    /// What is left; zero once it has passed.
    pub fn remaining(&self) -> Duration {
        let now = Instant::now();
        let stopped = self.awake.stopped_at(now).saturating_sub(self.stopped_before);
        (self.at + stopped).saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_look_covers_counts_as_stopped() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut looks = Looks { last: start, stopped: Duration::ZERO };
        for (look, stopped) in [(500, 0), (2_400, 0), (4_400, 0), (36_400, 30_000), (36_900, 30_000)] {
            looks.look(at(look));
            assert_eq!(looks.stopped, Duration::from_millis(stopped), "{look}");
        }
        // Between two looks as well: what wakes first need not be the task that looks.
        assert_eq!(looks.stopped_at(at(39_900)), Duration::from_millis(31_000));
        looks.look(at(1_000));
        assert_eq!(looks.stopped_at(at(38_900)), Duration::from_millis(30_000), "a clock behind is no stop");
    }

    #[test]
    fn a_deadline_moves_on_by_what_was_stopped_after_it_was_set() {
        let now = Instant::now();
        let ago = |seconds| now - Duration::from_secs(seconds);
        // Stopped for a minute already: that is over, and no part of what is set now.
        let awake = Awake(Arc::new(Mutex::new(Looks { last: now, stopped: Duration::from_secs(60) })));
        let deadline = awake.deadline(Duration::from_secs(30));
        assert!(deadline.remaining() <= Duration::from_secs(30));
        awake.0.lock().unwrap().last = ago(302);
        let left = deadline.remaining();
        assert!(left > Duration::from_secs(320) && left <= Duration::from_secs(331), "{left:?}");
        awake.0.lock().unwrap().last = now;
        let over = Deadline { at: ago(1), ..deadline };
        assert_eq!(over.remaining(), Duration::ZERO);
    }
}
