//! Background work in one shape: a name, one unit of work, how long until the next. So that every
//! worker can be paused, nudged, listed and stopped alike, and its errors are logged once, here.
//!
//! A worker is stopped between units; a unit must therefore be bounded, and persist what it did
//! before it returns, as after any crash.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dfs_types::DfsError;
use futures::FutureExt;
use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

/// Waits after the first error; doubled with each further one.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// When the next unit is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// There is more: at once.
    Now,
    After(Duration),
    /// Only when nudged.
    Idle,
    /// Never: the work is done.
    Done,
}

/// Something done over and over in the background.
pub trait Work: Send + 'static {
    /// One bounded unit. An error is logged, and the unit tried again after a growing wait.
    fn step(&mut self) -> impl Future<Output = Result<Next, DfsError>> + Send;
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    Working,
    Waiting,
    Paused,
    /// A unit failed and is tried again after a wait.
    Retrying,
    /// A unit panicked; only a restart of the server helps.
    Failed,
    Done,
}

/// For listings.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct WorkerStatus {
    pub name: String,
    pub state: WorkerState,
    /// Units done without an error.
    pub units: u64,
    pub errors: u64,
    pub last_error: Option<String>,
}

/// All background work of a server. A cheap handle.
#[derive(Clone)]
pub struct Workers {
    shared: Arc<Shared>,
}

struct Shared {
    stop: CancellationToken,
    all: Mutex<BTreeMap<String, Arc<Control>>>,
    tasks: Mutex<JoinSet<()>>,
}

struct Control {
    status: Mutex<WorkerStatus>,
    paused: watch::Sender<bool>,
    nudged: Notify,
}

impl Workers {
    /// Work ends when `stop` is cancelled; [`Workers::finish`] waits for it.
    pub fn new(stop: CancellationToken) -> Self {
        Self { shared: Arc::new(Shared { stop, all: Mutex::default(), tasks: Mutex::default() }) }
    }

    /// Starts `work` under a name of its own. A finished worker of that name is replaced.
    ///
    /// # Panics
    /// If a worker of that name is still at work: two of them would do it twice.
    pub fn start(&self, name: &str, work: impl Work) {
        let status = WorkerStatus {
            name: name.to_owned(),
            state: WorkerState::Working,
            units: 0,
            errors: 0,
            last_error: None,
        };
        let control = Arc::new(Control {
            status: Mutex::new(status),
            paused: watch::Sender::new(false),
            nudged: Notify::new(),
        });
        let previous = lock(&self.shared.all).insert(name.to_owned(), Arc::clone(&control));
        let ended = |state| matches!(state, WorkerState::Done | WorkerState::Failed);
        assert!(
            previous.is_none_or(|previous| ended(lock(&previous.status).state)),
            "two workers are called {name}"
        );
        lock(&self.shared.tasks).spawn(run(name.to_owned(), work, control, self.shared.stop.clone()));
    }

    pub fn statuses(&self) -> Vec<WorkerStatus> {
        lock(&self.shared.all).values().map(|control| lock(&control.status).clone()).collect()
    }

    /// Makes the worker's next unit due now. No effect on an unknown name.
    pub fn nudge(&self, name: &str) {
        if let Some(control) = lock(&self.shared.all).get(name) {
            control.nudged.notify_one();
        }
    }

    /// Stops the worker between units until it is resumed. Returns whether there is such a worker.
    pub fn pause(&self, name: &str, paused: bool) -> bool {
        let all = lock(&self.shared.all);
        all.get(name).map(|control| control.paused.send_replace(paused)).is_some()
    }

    /// Stops all workers: each finishes its unit, up to the deadline, after which it is cut off.
    pub async fn finish(&self, deadline: Instant) {
        self.shared.stop.cancel();
        let mut tasks = std::mem::take(&mut *lock(&self.shared.tasks));
        let finished = timeout_at(deadline, async { while tasks.join_next().await.is_some() {} }).await;
        if finished.is_err() {
            tracing::warn!(workers = tasks.len(), "cutting off workers that did not finish");
            tasks.shutdown().await;
        }
    }
}

async fn run(name: String, mut work: impl Work, control: Arc<Control>, stop: CancellationToken) {
    let mut failures = 0u32;
    loop {
        let mut resumed = control.paused.subscribe();
        if *resumed.borrow() {
            control.set(WorkerState::Paused);
            tokio::select! {
                () = stop.cancelled() => return control.set(WorkerState::Done),
                _ = resumed.wait_for(|paused| !paused) => {}
            }
        }
        if stop.is_cancelled() {
            return control.set(WorkerState::Done);
        }
        control.set(WorkerState::Working);
        let wait = match AssertUnwindSafe(work.step()).catch_unwind().await {
            Ok(Ok(next)) => {
                failures = 0;
                control.succeeded();
                match next {
                    Next::Now => {
                        // Lets others on this thread run between the units of a long job.
                        tokio::task::yield_now().await;
                        continue;
                    }
                    Next::After(wait) => Some(wait),
                    Next::Idle => None,
                    Next::Done => return control.set(WorkerState::Done),
                }
            }
            Ok(Err(error)) => {
                let wait = FIRST_RETRY.saturating_mul(1 << failures.min(10)).min(LONGEST_RETRY);
                failures += 1;
                tracing::warn!(worker = name, code = %error.code, %error, retry_ms = wait.as_millis() as u64,
                    "background work failed");
                control.failed_once(error.to_string());
                Some(wait)
            }
            Err(_) => {
                tracing::error!(worker = name, "background work panicked and stays off until a restart");
                control.failed_once("panic".to_owned());
                return control.set(WorkerState::Failed);
            }
        };
        if failures == 0 {
            control.set(WorkerState::Waiting);
        }
        let due = async {
            match wait {
                Some(wait) => sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = control.nudged.notified() => {}
            () = due => {}
        }
    }
}

impl Control {
    fn set(&self, state: WorkerState) {
        lock(&self.status).state = state;
    }

    fn succeeded(&self) {
        lock(&self.status).units += 1;
    }

    fn failed_once(&self, error: String) {
        let mut status = lock(&self.status);
        status.state = WorkerState::Retrying;
        status.errors += 1;
        status.last_error = Some(error);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_types::ErrorCode;
    use tokio::sync::mpsc;

    /// Does what the test tells it, one order a unit, and reports each unit.
    struct Obedient {
        orders: mpsc::UnboundedReceiver<Result<Next, DfsError>>,
        done: mpsc::UnboundedSender<()>,
    }

    impl Work for Obedient {
        async fn step(&mut self) -> Result<Next, DfsError> {
            let order = self.orders.recv().await.unwrap_or(Ok(Next::Done));
            let _ = self.done.send(());
            order
        }
    }

    type Orders = mpsc::UnboundedSender<Result<Next, DfsError>>;

    fn started(workers: &Workers) -> (Orders, mpsc::UnboundedReceiver<()>) {
        let ((order, orders), (done, reports)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
        workers.start("w", Obedient { orders, done });
        (order, reports)
    }

    #[tokio::test(start_paused = true)]
    async fn waits_as_told_retries_and_stops() {
        let workers = Workers::new(CancellationToken::new());
        let (order, mut reports) = started(&workers);
        let start = Instant::now();
        order.send(Ok(Next::After(Duration::from_secs(5)))).unwrap();
        order.send(Ok(Next::Idle)).unwrap();
        reports.recv().await.unwrap();
        reports.recv().await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 5);
        // Idle: nothing happens until a nudge.
        order.send(Err(DfsError::new(ErrorCode::Io, "disk"))).unwrap();
        order.send(Ok(Next::Idle)).unwrap();
        assert!(tokio::time::timeout(Duration::from_secs(600), reports.recv()).await.is_err());
        workers.nudge("w");
        let start = Instant::now();
        reports.recv().await.unwrap();
        reports.recv().await.unwrap();
        assert_eq!(start.elapsed(), FIRST_RETRY);
        let status = workers.statuses().remove(0);
        assert_eq!((status.units, status.errors, status.last_error.as_deref()), (3, 1, Some("disk")));
        workers.finish(Instant::now() + Duration::from_secs(1)).await;
        assert_eq!(workers.statuses()[0].state, WorkerState::Done);
    }

    #[tokio::test(start_paused = true)]
    async fn a_paused_worker_does_nothing_until_resumed() {
        let workers = Workers::new(CancellationToken::new());
        let (order, mut reports) = started(&workers);
        assert!(workers.pause("w", true));
        assert!(!workers.pause("nobody", true));
        order.send(Ok(Next::Now)).unwrap();
        order.send(Ok(Next::Now)).unwrap();
        assert!(tokio::time::timeout(Duration::from_secs(600), reports.recv()).await.is_err());
        assert_eq!(workers.statuses()[0].state, WorkerState::Paused);
        workers.pause("w", false);
        reports.recv().await.unwrap();
        reports.recv().await.unwrap();
        // In the middle of a unit that never ends by itself: cut off at the deadline.
        workers.finish(Instant::now() + Duration::from_secs(1)).await;
    }
}
