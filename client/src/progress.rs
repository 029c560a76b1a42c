//! A counter that a transfer raises and anybody may read: the hook for progress bars.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Shared counters of one or several transfers. Clones count into the same place.
#[derive(Clone, Default, Debug)]
pub struct Progress {
    inner: Arc<Counters>,
    /// The total was given at the start: transfers do not add to it.
    known_total: bool,
}

#[derive(Default, Debug)]
struct Counters {
    total_bytes: AtomicU64,
    done_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    stored_chunks: AtomicU64,
    files: AtomicU64,
}

/// What the counters said at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ProgressSnapshot {
    /// Plaintext bytes known to be ahead or done; 0 while unknown.
    pub total_bytes: u64,
    /// Plaintext bytes that are durable (put) or handed over (get).
    pub done_bytes: u64,
    /// Sealed bytes that went to chunk servers, re-sends included.
    pub sent_bytes: u64,
    /// Chunks that needed no sending because the cluster had them.
    pub stored_chunks: u64,
    /// Files done.
    pub files: u64,
}

impl Progress {
    pub fn new() -> Self {
        Self::default()
    }

    /// A counter for transfers that together have `bytes`.
    pub fn with_total(bytes: u64) -> Self {
        let progress = Self { known_total: true, ..Self::default() };
        progress.inner.total_bytes.store(bytes, Ordering::Relaxed);
        progress
    }

    pub fn snapshot(&self) -> ProgressSnapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ProgressSnapshot {
            total_bytes: read(&self.inner.total_bytes),
            done_bytes: read(&self.inner.done_bytes),
            sent_bytes: read(&self.inner.sent_bytes),
            stored_chunks: read(&self.inner.stored_chunks),
            files: read(&self.inner.files),
        }
    }

    pub fn add_total(&self, bytes: u64) {
        if !self.known_total {
            self.inner.total_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    pub fn add_done(&self, bytes: u64) {
        self.inner.done_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn add_file(&self) {
        self.inner.files.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_sent(&self, bytes: u64) {
        self.inner.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn add_stored_chunk(&self) {
        self.inner.stored_chunks.fetch_add(1, Ordering::Relaxed);
    }
}
