//! The doors through which time and randomness come in, so that a simulation can hold them.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds on a clock that never steps back, from an origin of the process's own.
pub type MonotonicMillis = u64;

/// Time. Wall time is for people and ids; every decision uses monotonic or cluster time.
pub trait Clock: Send + Sync {
    fn monotonic_millis(&self) -> MonotonicMillis;
    /// Milliseconds since 1970 by the wall clock.
    fn unix_millis(&self) -> u64;
}

/// Randomness fit for keys.
pub trait Entropy: Send + Sync {
    fn fill(&self, bytes: &mut [u8]);

    fn array<const N: usize>(&self) -> [u8; N]
    where
        Self: Sized,
    {
        let mut bytes = [0u8; N];
        self.fill(&mut bytes);
        bytes
    }
}

/// The machine's clocks.
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn monotonic_millis(&self) -> MonotonicMillis {
        self.origin.elapsed().as_millis() as u64
    }

    #[allow(clippy::disallowed_methods)] // This is the door.
    fn unix_millis(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }
}

/// The kernel's random number generator.
#[derive(Clone, Copy, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    /// # Panics
    /// If the kernel has no randomness to give: going on would make guessable keys.
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the kernel's random number generator failed");
    }
}
