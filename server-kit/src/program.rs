//! The life of a server program, the same for each: settings, `--check-config`, `--print-config`, logs,
//! threads, signals, exit code. A program's `main` names its settings and what to serve.
//!
//! SIGTERM and SIGINT end it in order ([`crate::shutdown`]). SIGHUP rereads what can change while it
//! runs: the log level, from flags, environment and settings file as they are now, and whatever
//! [`Life::on_reload`] was given (certificates). What is wrong then is logged, and the old stays.

use std::future::Future;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches};
use dfs_types::{DfsError, ErrorCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::report::Report;
use crate::config::{self, Action};
use crate::logging::LogLevel;
use crate::metrics::{self, Metric};
use crate::probe::{self, Probe};
use crate::{LogSettings, Shutdown, build, hardening, logging, shutdown};

/// What blocking work gets after everything else has stopped.
const LAST_WORK: Duration = Duration::from_secs(1);
/// Wrong usage or settings.
const USAGE_EXIT: u8 = 2;
/// Can be changed by SIGHUP.
const LOG_LEVEL: &str = "log_level";

/// Settings of a server program.
pub trait ServerSettings:
    CommandFactory + FromArgMatches + Serialize + DeserializeOwned + Default + Send + 'static
{
    /// What the server records beside [`metrics::COMMON`].
    const METRICS: &'static [Metric];

    /// Where and how much to log.
    fn logs(&self) -> LogSettings;

    /// All that can be found wrong without touching the data directory or the network: values,
    /// files of keys and certificates.
    fn check(&self) -> Result<(), DfsError>;

    /// Asks the server that runs with these settings: the status and body of its answer to `GET path`.
    ///
    /// # Errors
    /// Why there is no answer.
    fn ask(&self, path: &str) -> impl Future<Output = Result<(Option<u16>, String), DfsError>>;
}

/// A running program's handles to the world outside.
pub struct Life {
    pub stop: Shutdown,
    level: LogLevel,
    started_with: Report,
}

impl Life {
    /// Listens to SIGHUP from here on.
    ///
    /// # Errors
    /// `io` when the system refuses the signal.
    pub fn on_reload<S: ServerSettings>(
        &self,
        mut reload: impl FnMut() -> Result<(), DfsError> + Send + 'static,
    ) -> Result<(), DfsError> {
        let (level, started_with) = (self.level.clone(), self.started_with.clone());
        shutdown::on_hangup(&self.stop, move || {
            match reload() {
                Ok(()) => tracing::info!("certificates reread"),
                Err(error) => tracing::error!(error = %error.message, "the old certificates stay"),
            }
            if let Err(error) = reread::<S>(&level, &started_with) {
                tracing::error!(error = %error.message, "the old settings stay");
            }
        })
        .map_err(signals)
    }
}

/// `main` of a server program. Exit codes: 0 ended in order, 1 failed, 2 wrong usage or settings.
pub fn run<S, F>(serve: impl FnOnce(S, Life) -> F) -> ExitCode
where
    S: ServerSettings,
    F: Future<Output = Result<(), DfsError>>,
{
    let loaded = config::load::<S, S>().unwrap_or_else(|error| error.exit());
    match loaded.action {
        Action::Print => return print(&loaded.report.to_string()),
        Action::Metrics => {
            let (common, own) = (metrics::markdown(metrics::COMMON), metrics::markdown(S::METRICS));
            let program = S::command();
            return print(&format!("## Every server\n\n{common}\n## {}\n\n{own}", program.get_name()));
        }
        Action::Check => return check(&loaded.settings),
        Action::Probe(probe) => return ask(&loaded.settings, probe),
        Action::Serve => {}
    }
    let level = match prepare::<S>(&loaded.settings.logs()) {
        Ok(level) => level,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    for (name, meant) in misspelt::<S>() {
        tracing::warn!(name, meant, "this variable is no setting");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no threads");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        let stop = Shutdown::on_signals().map_err(signals)?;
        serve(loaded.settings, Life { stop, level, started_with: loaded.report }).await
    });
    runtime.shutdown_timeout(LAST_WORK);
    traces::flush(LAST_WORK);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(code = %error.code, error = %error.message, "the server ends");
            ExitCode::FAILURE
        }
    }
}

fn check<S: ServerSettings>(settings: &S) -> ExitCode {
    for (name, meant) in misspelt::<S>() {
        eprintln!("warning: {name} is no setting; did you mean {meant}?");
    }
    let logs = settings.logs();
    let level = logging::check_level(&logs.level)
        .map_err(|error| DfsError::new(ErrorCode::InvalidArgument, error.to_string()));
    match level.and_then(|()| settings.check()) {
        Ok(()) => print(&format!("the settings of {} will do\n", logs.server)),
        Err(error) => {
            eprintln!("error: {}", error.message);
            ExitCode::from(USAGE_EXIT)
        }
    }
}

/// Prints what was asked for. That nobody reads all of it (`| head`) is no failure.
pub(crate) fn print(text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("error: writing to standard output: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

fn ask<S: ServerSettings>(settings: &S, probe: Probe) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let answer = runtime
        .map_err(|error| DfsError::new(ErrorCode::Io, format!("threads: {error}")))
        .and_then(|runtime| runtime.block_on(settings.ask(probe.path())));
    probe::report(answer)
}

fn misspelt<S: ServerSettings>() -> impl Iterator<Item = (String, String)> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    config::misspelt::<S>(names).into_iter()
}

/// Before any key is read and any thread started.
fn prepare<S: ServerSettings>(logs: &LogSettings) -> anyhow::Result<LogLevel> {
    hardening::harden()?;
    let level = logging::init(logs)?;
    let id = logs.server.split('/').next_back().unwrap_or_default();
    metrics::install(id, S::METRICS)?;
    build::announce(&logs.server);
    hardening::raise_open_files();
    Ok(level)
}

/// Flags, environment and file once more: the level is put in force, the rest is only compared.
fn reread<S: ServerSettings>(level: &LogLevel, started_with: &Report) -> Result<(), DfsError> {
    let loaded = config::load::<S, S>()?;
    let logs = loaded.settings.logs();
    level.set(&logs.level).map_err(|error| DfsError::new(ErrorCode::InvalidArgument, error.to_string()))?;
    tracing::info!(filter = logs.level, "log level in force");
    for name in started_with.changed(&loaded.report) {
        if name != LOG_LEVEL {
            tracing::warn!(name, "this setting changed; it takes effect at the next start");
        }
    }
    Ok(())
}

fn signals(error: std::io::Error) -> DfsError {
    DfsError::new(ErrorCode::Io, format!("signals: {error}"))
}
