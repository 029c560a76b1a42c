//! Disk work off the async threads, bounded: so many calls at once, so many waiting, then
//! `overloaded`. A simulation runs the calls inline, in order, by the same interface.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dfs_types::{DfsError, ErrorCode};
use tokio::sync::Semaphore;

/// A cheap handle; clones share the bounds.
#[derive(Clone)]
pub struct BlockingPool {
    mode: Mode,
}

#[derive(Clone)]
enum Mode {
    Inline,
    Threads(Arc<Threads>),
}

struct Threads {
    running: Arc<Semaphore>,
    waiting: AtomicUsize,
    max_waiting: usize,
}

/// Counts a caller as waiting for as long as it does, also when it gives up.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl BlockingPool {
    pub fn new(max_running: usize, max_waiting: usize) -> Self {
        let running = Arc::new(Semaphore::new(max_running));
        Self { mode: Mode::Threads(Arc::new(Threads { running, waiting: AtomicUsize::new(0), max_waiting })) }
    }

    /// Runs every call where it is made.
    pub fn inline() -> Self {
        Self { mode: Mode::Inline }
    }

    /// Runs `work` and gives back what it returns. A caller that goes away while waiting costs
    /// nothing; once `work` has begun it runs to its end. `internal` if `work` panics.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, DfsError> {
        let threads = match &self.mode {
            Mode::Inline => return Ok(work()),
            Mode::Threads(threads) => threads,
        };
        let permit = match Arc::clone(&threads.running).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let waiting = Waiting(&threads.waiting);
                if threads.waiting.fetch_add(1, Ordering::Relaxed) >= threads.max_waiting {
                    return Err(DfsError::new(ErrorCode::Overloaded, "too much disk work is waiting"));
                }
                let acquired = Arc::clone(&threads.running).acquire_owned().await;
                drop(waiting);
                acquired.map_err(|_| DfsError::new(ErrorCode::Unavailable, "the server is stopping"))?
            }
        };
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        done.await.map_err(|error| DfsError::new(ErrorCode::Internal, format!("blocking work: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn bounded_and_released() {
        let pool = BlockingPool::new(1, 1);
        let (release, held) = mpsc::channel::<()>();
        let first = tokio::spawn({
            let pool = pool.clone();
            async move { pool.run(move || held.recv().is_ok()).await }
        });
        let threads = match &pool.mode {
            Mode::Threads(threads) => Arc::clone(threads),
            Mode::Inline => unreachable!(),
        };
        while threads.running.available_permits() == 1 {
            tokio::task::yield_now().await;
        }
        let second = tokio::spawn({
            let pool = pool.clone();
            async move { pool.run(|| 2).await }
        });
        while threads.waiting.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.run(|| 3).await.unwrap_err().code, ErrorCode::Overloaded);
        release.send(()).unwrap();
        assert!(first.await.unwrap().unwrap());
        assert_eq!(second.await.unwrap().unwrap(), 2);
        assert_eq!(threads.waiting.load(Ordering::Relaxed), 0);
        let panicked = pool.run(|| panic!("on purpose")).await.unwrap_err();
        assert_eq!(panicked.code, ErrorCode::Internal);
        assert_eq!(BlockingPool::inline().run(|| 4).await.unwrap(), 4);
    }
}
