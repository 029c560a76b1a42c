//! What a process that holds keys does first: no core dumps, no reading of its memory by other
//! processes of the same user, and room for its connections and files.

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// Open files beyond this are of no use to us.
const ENOUGH_FILES: u64 = 1 << 20;
/// With fewer, a loaded server refuses connections.
const FEW_FILES: u64 = 4096;

#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct HardeningError {
    what: &'static str,
    source: std::io::Error,
}

/// Call before any key is read. Fails if core dumps or memory reads cannot be forbidden.
pub fn harden() -> Result<(), HardeningError> {
    let failed = |what| move |source: rustix::io::Errno| HardeningError { what, source: source.into() };
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .map_err(failed("forbidding core dumps"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed("forbidding memory reads"))?;
    Ok(())
}

/// Raises the limit of open files as far as the system lets us. Returns the limit in force and logs
/// a warning if it is low.
pub fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(ENOUGH_FILES).min(ENOUGH_FILES);
    let mut current = limit.current.unwrap_or(ENOUGH_FILES);
    if current < most
        && setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: limit.maximum }).is_ok()
    {
        current = most;
    }
    if current < FEW_FILES {
        tracing::warn!(limit = current, "few open files allowed: raise `ulimit -n`");
    }
    current
}

/// How many files the process may have open now.
pub fn open_files() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(ENOUGH_FILES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardened_means_no_core_and_no_reader() {
        harden().unwrap();
        assert_eq!(getrlimit(Resource::Core).current, Some(0));
        assert_eq!(rustix::process::dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        assert!(raise_open_files() > 0);
    }
}
