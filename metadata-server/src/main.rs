//! The metadata-server program: settings, logs, keys, and the server of the library.

use std::process::ExitCode;
use std::time::Duration;

use dfs_types::{DfsError, ErrorCode};
use metadata_server::config::Settings;
use metadata_server::server::{Doors, Server, load_keys, with_certificates};
use server_kit::{LogSettings, Shutdown, shutdown};

/// What blocking work gets after everything else has stopped.
const LAST_WORK: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let settings = server_kit::config::load::<Settings, Settings>().unwrap_or_else(|error| error.exit());
    if let Err(error) = prepare(&settings) {
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no threads");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(run(settings));
    runtime.shutdown_timeout(LAST_WORK);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(code = %error.code, error = %error.message, "the server ends");
            ExitCode::FAILURE
        }
    }
}

/// Before any key is read and any thread started.
fn prepare(settings: &Settings) -> anyhow::Result<()> {
    server_kit::hardening::harden()?;
    server_kit::logging::init(&LogSettings {
        format: settings.log_format.unwrap_or_default(),
        level: log_level(settings.log_level.as_deref()),
        file: settings.log_file.clone(),
        server: format!("metadata-server/{}", settings.id.as_deref().unwrap_or("?")),
    })?;
    server_kit::hardening::raise_open_files();
    Ok(())
}

/// openraft reports every unreachable member at once as ERROR, and that it stopped through us as well: it
/// is silent unless asked for.
fn log_level(given: Option<&str>) -> String {
    match given.unwrap_or("info") {
        directives if directives.contains("openraft") => directives.to_owned(),
        level => format!("{level},openraft=off"),
    }
}

async fn run(settings: Settings) -> Result<(), DfsError> {
    let setup = settings.setup()?;
    let files = settings.key_files()?;
    let (tls, keyring) = load_keys(&files)?;
    let signals = |error: std::io::Error| DfsError::new(ErrorCode::Io, format!("signals: {error}"));
    let stop = Shutdown::on_signals().map_err(signals)?;
    let reloaded = tls.clone();
    shutdown::on_hangup(&stop, move || {
        match with_certificates(&files, |ca, cert, key| Ok(reloaded.replace(ca, cert, key)?)) {
            Ok(()) => tracing::info!("certificates reread"),
            Err(error) => tracing::error!(error = %error.message, "the old certificates stay"),
        }
    })
    .map_err(signals)?;
    Server::start(setup, tls, keyring, Doors::default(), stop).await?.finished().await
}
