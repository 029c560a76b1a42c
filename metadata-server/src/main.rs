//! The metadata-server program: settings, keys, and the server of the library.

use std::process::ExitCode;

use dfs_types::DfsError;
use metadata_server::config::Settings;
use metadata_server::server::{Doors, Server};
use server_kit::Life;

fn main() -> ExitCode {
    server_kit::build::declare(option_env!("DFS_BUILD_COMMIT"));
    server_kit::program::run(serve)
}

async fn serve(settings: Settings, life: Life) -> Result<(), DfsError> {
    let setup = settings.setup()?;
    let certificates = settings.certificates()?;
    let (tls, keyring) = settings.load_keys()?;
    let reloaded = tls.clone();
    life.on_reload::<Settings>(move || {
        let pem = certificates.read()?;
        Ok(reloaded.replace(&pem.ca, &pem.cert, &pem.key)?)
    })?;
    Server::start(setup, tls, keyring, Doors::default(), life.stop).await?.finished().await
}
