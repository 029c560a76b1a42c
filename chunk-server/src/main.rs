//! The chunk-server program: settings, certificates, the segment store, and the server of the library.

use std::process::ExitCode;
use std::sync::Arc;

use chunk_server::server::{ChunkServer, OpenStore, Opened};
use chunk_server::settings::Settings;
use chunk_server::store::segment::{SegmentStore, Settings as StoreSettings};
use dfs_types::{DfsError, OsEntropy};
use server_kit::Life;

fn main() -> ExitCode {
    server_kit::build::declare(option_env!("DFS_BUILD_COMMIT"));
    server_kit::program::run(serve)
}

async fn serve(settings: Settings, life: Life) -> Result<(), DfsError> {
    let setup = settings.setup()?;
    let certificates = settings.certificates()?;
    let tls = settings.load_tls()?;
    let reloaded = tls.clone();
    life.on_reload::<Settings>(move || {
        let pem = certificates.read()?;
        Ok(reloaded.replace(&pem.ca, &pem.cert, &pem.key)?)
    })?;
    ChunkServer::start(setup, tls, open_segments(&settings), life.stop).await?.finished().await
}

fn open_segments(settings: &Settings) -> OpenStore {
    let (capacity, segment_bytes) = (settings.capacity, settings.segment_bytes);
    Arc::new(move |path, incarnation| {
        let mut store = StoreSettings::new(incarnation);
        if let Some(bytes) = segment_bytes {
            store = store.with_segment_bytes(bytes);
        }
        store.capacity_bytes = capacity.unwrap_or(0);
        let (store, report) = SegmentStore::open_directory(path, Arc::new(OsEntropy), store)?;
        tracing::info!(
            segments = report.segments,
            chunks = report.chunks,
            rebuilt = report.rebuilt,
            recovered = report.recovered,
            voided = report.voided,
            "store open"
        );
        Ok(Opened { store: Arc::new(store), report })
    })
}
