//! Waiting: for what one looks at to become true, with a deadline and the last thing seen; for a process to end.

use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Between two looks at what cannot be awaited from outside.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Looks every 50 ms until `look` gives a value; after `limit` fails with what `look` said last.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match look() {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() >= limit => {
                bail!("{what}: not within {} s; last seen: {error:#}", limit.as_secs())
            }
            Err(_) => std::thread::sleep(LOOK_AGAIN),
        }
    }
}

/// Looks every 50 ms for all of `length`, and fails as soon as `look` does.
pub fn throughout(what: &str, length: Duration, mut look: impl FnMut() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < length {
        look()
            .with_context(|| format!("{what}: after {:.1} s of {length:?}", start.elapsed().as_secs_f64()))?;
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}

/// How a child ended; `None` if it still runs after `limit`.
pub fn ended(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let limit = Timespec::try_from(limit)?;
    rustix::io::retry_on_intr(|| poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit)))?;
    Ok(child.try_wait()?)
}
