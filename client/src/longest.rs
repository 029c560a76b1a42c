//! How long the slowest operation of a client took: what a caller had to wait at most while something
//! was broken.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The longest of all timings so far. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Longest {
    micros: Arc<AtomicU64>,
}

impl Longest {
    /// Times until the answer is dropped, so that what was given up or cancelled counts as well.
    pub fn time(&self) -> Timing<'_> {
        Timing { longest: self, start: Instant::now() }
    }

    pub fn get(&self) -> Duration {
        Duration::from_micros(self.micros.load(Ordering::Relaxed))
    }
}

pub(crate) struct Timing<'a> {
    longest: &'a Longest,
    start: Instant,
}

impl Drop for Timing<'_> {
    fn drop(&mut self) {
        self.longest.micros.fetch_max(self.start.elapsed().as_micros() as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_longest_stays_even_if_it_was_cancelled() {
        let longest = Longest::default();
        let begun = Instant::now() - Duration::from_secs(7);
        let slow = async {
            let _timing = Timing { longest: &longest, start: begun };
            std::future::pending::<()>().await;
        };
        assert!(tokio::time::timeout(Duration::ZERO, slow).await.is_err());
        drop(longest.clone().time());
        assert!((7..60).contains(&longest.get().as_secs()));
    }
}
