//! Waiting for what one looks at to become true, with a deadline and the last thing seen.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Looks every 50 ms until `look` gives a value; after `limit` fails with what `look` said last.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match look() {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() >= limit => {
                bail!("{what}: not within {} s; last seen: {error:#}", limit.as_secs())
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
