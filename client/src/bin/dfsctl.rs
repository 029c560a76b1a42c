//! The command line of a Distribute cluster. Everything is in `dfs_client::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    keep_freed_memory();
    dfs_client::cli::main()
}

/// Chunks come and go by the megabyte, and glibc would give each back to the system only to have the
/// next one's pages made and zeroed anew: a tenth of what a get costs. How much memory a transfer may
/// hold is bounded elsewhere; this only lets the process keep what it had until it ends.
#[cfg(target_env = "gnu")]
fn keep_freed_memory() {
    const MAPPED_FROM: libc::c_int = 16 << 20;
    const TRIMMED_FROM: libc::c_int = 32 << 20;
    // SAFETY: mallopt takes two numbers and may be called at any time; no other thread runs yet. If it
    // refuses, allocation stays as it was.
    #[allow(unsafe_code)]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM);
        libc::mallopt(libc::M_TRIM_THRESHOLD, TRIMMED_FROM);
    }
}

#[cfg(not(target_env = "gnu"))]
fn keep_freed_memory() {}
