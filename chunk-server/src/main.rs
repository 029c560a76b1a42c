//! The chunk-server program: settings, logs, certificates, and the server of the library.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use chunk_server::server::{ChunkServer, OpenStore};
use chunk_server::settings::{Certificates, Settings};
use chunk_server::store::ChunkStore;
use chunk_server::store::segment::{SegmentStore, Settings as StoreSettings};
use dfs_types::{DfsError, ErrorCode, OsEntropy};
use server_kit::{LogSettings, Shutdown, secret_file, shutdown};
use transport::Tls;

/// What blocking work, such as a scan for the index, gets after everything else has stopped.
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
        level: settings.log_level.clone().unwrap_or_else(|| "info".to_owned()),
        file: settings.log_file.clone(),
        server: format!("chunk-server/{}", settings.id.as_deref().unwrap_or("?")),
    })?;
    server_kit::metrics::install()?;
    server_kit::hardening::raise_open_files();
    Ok(())
}

async fn run(settings: Settings) -> Result<(), DfsError> {
    let setup = settings.setup()?;
    let certificates = settings.certificates()?;
    let tls = with_certificates(&certificates, |ca, cert, key| Ok(Tls::server(ca, cert, key)?))?;
    let signals = |error: std::io::Error| DfsError::new(ErrorCode::Io, format!("signals: {error}"));
    let stop = Shutdown::on_signals().map_err(signals)?;
    let reloaded = tls.clone();
    shutdown::on_hangup(&stop, move || {
        let replaced = with_certificates(&certificates, |ca, cert, key| Ok(reloaded.replace(ca, cert, key)?));
        match replaced {
            Ok(()) => tracing::info!("certificates reread"),
            Err(error) => tracing::error!(error = %error.message, "the old certificates stay"),
        }
    })
    .map_err(signals)?;
    ChunkServer::start(setup, tls, open_segments(&settings), stop).await?.finished().await
}

fn with_certificates<T>(
    files: &Certificates,
    use_them: impl FnOnce(&[u8], &[u8], &[u8]) -> Result<T, DfsError>,
) -> Result<T, DfsError> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|e| DfsError::new(ErrorCode::Io, format!("{}: {e}", path.display())))
    };
    let key = secret_file::read(&files.key)?;
    use_them(&read(&files.ca)?, &read(&files.cert)?, &key)
}

fn open_segments(settings: &Settings) -> OpenStore {
    let (capacity, segment_bytes) = (settings.capacity, settings.segment_bytes);
    Box::new(move |path, incarnation| {
        let mut store = StoreSettings::new(incarnation);
        if let Some(bytes) = segment_bytes {
            store = store.with_segment_bytes(bytes);
        }
        store.capacity_bytes = capacity.unwrap_or(0);
        let (store, report) = SegmentStore::open_directory(path, Arc::new(OsEntropy), store)?;
        tracing::info!(?report, "store open");
        Ok(Arc::new(store) as Arc<dyn ChunkStore>)
    })
}
