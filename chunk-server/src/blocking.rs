//! The bounded door to blocking work: every call into the store goes through here, so that a slow
//! disk holds a known number of threads and nothing of the network.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dfs_types::DfsError;
use dfs_types::limits::{MAX_BLOCKING_CALLS, MAX_WAITING_BLOCKING_CALLS};

/// A cheap handle; clones share the bounds.
#[derive(Clone)]
pub struct BlockingPool {
    pool: server_kit::BlockingPool,
    under_way: Arc<AtomicUsize>,
}

/// Counts a call for as long as somebody waits for it.
struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl BlockingPool {
    pub fn new() -> Self {
        let pool = server_kit::BlockingPool::new(MAX_BLOCKING_CALLS, MAX_WAITING_BLOCKING_CALLS);
        Self { pool, under_way: Arc::default() }
    }

    /// Runs `work` on a thread that may block, after waiting for a free place. A caller that is
    /// dropped meanwhile leaves begun work to run to its end, unheard.
    ///
    /// # Errors
    /// What `work` answers; `overloaded` if too many wait already; `internal` if it panicked.
    pub async fn run<T, E>(&self, work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, DfsError>
    where
        T: Send + 'static,
        E: Into<DfsError> + Send + 'static,
    {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let _under_way = UnderWay(self.under_way.clone());
        self.pool.run(work).await?.map_err(Into::into)
    }

    /// Whether callers use so much of the pool that background work should wait.
    pub fn is_busy(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) > MAX_BLOCKING_CALLS / 2
    }
}

impl Default for BlockingPool {
    fn default() -> Self {
        Self::new()
    }
}
