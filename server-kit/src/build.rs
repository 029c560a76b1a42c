//! What this program was built from: in `/health`, in the first line of the log, as a metric.

use std::sync::OnceLock;

/// What the compiler says of itself.
const RUSTC: &str = env!("DFS_RUSTC_VERSION");
const PROFILE: &str = env!("DFS_BUILD_PROFILE");

static COMMIT: OnceLock<&'static str> = OnceLock::new();

/// How the program was built.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Build {
    /// Of the source; `unknown` if it was not known at the build.
    pub commit: &'static str,
    pub rustc: &'static str,
    /// `release` or `debug`.
    pub profile: &'static str,
}

/// Called by `main` with `option_env!("DFS_BUILD_COMMIT")`: only the programs depend on the commit, so
/// that another one does not make every crate compile again.
pub fn declare(commit: Option<&'static str>) {
    // The first word stays: a process is one program.
    let _ = COMMIT.set(commit.filter(|commit| !commit.is_empty()).unwrap_or("unknown"));
}

pub fn info() -> Build {
    Build { commit: COMMIT.get().copied().unwrap_or("unknown"), rustc: RUSTC, profile: PROFILE }
}

/// The first line of the log, for a server such as `chunk-server/n1`; and `fs_build_info`, always 1, whose
/// labels say the same. Logs and metrics must be set up.
pub fn announce(server: &str) {
    let Build { commit, rustc, profile } = info();
    let version = env!("CARGO_PKG_VERSION");
    let role = server.split('/').next().unwrap_or_default().to_owned();
    tracing::info!(version, commit, rustc, profile, "starting");
    let labels = [
        ("role", role.as_str()),
        ("version", version),
        ("commit", commit),
        ("rustc", rustc),
        ("profile", profile),
    ];
    let labels: Vec<_> = labels.map(|(name, value)| metrics::Label::new(name, value.to_owned())).into();
    metrics::gauge!("fs_build_info", labels).set(1.0);
}
