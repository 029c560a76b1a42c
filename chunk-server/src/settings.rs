//! What an operator can set: by file, `DFS_*` environment and flag, one name for all three.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use dfs_types::limits::{GIB, MAX_ADDRESS_BYTES, MAX_DOMAIN_BYTES, MAX_SEGMENT_BYTES, MIN_SEGMENT_BYTES};
use dfs_types::{DfsError, ErrorCode, NodeId};
use serde::{Deserialize, Serialize};
use server_kit::certificates::CertificateFiles;
use server_kit::config::required;
use server_kit::metrics::Metric;
use server_kit::{ConfigError, LogFormat, LogSettings, ServerSettings};
use transport::{Role, Tls};

use crate::server::Setup;
use crate::upkeep::Pace;

/// A chunk server: keeps sealed chunks for a cluster.
#[derive(clap::Parser, Serialize, Deserialize, Clone, Debug)]
#[command(name = "chunk-server", version)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Name of this node, as in its certificate: 1-63 of a-z 0-9 . -
    #[arg(long)]
    pub id: Option<String>,
    /// Where chunks are kept. Formatted if empty; one process at a time.
    #[arg(long)]
    pub data_dir: Option<PathBuf>,
    /// IP:PORT to listen on; port 0 picks a free one [default: 0.0.0.0:3001]
    #[arg(long)]
    pub listen: Option<String>,
    /// HOST:PORT under which others reach this node [default: the listen address]
    #[arg(long)]
    pub advertise: Option<String>,
    /// Failure domain; copies are spread over domains [default: the node's name]
    #[arg(long)]
    pub domain: Option<String>,
    /// Certificate of the cluster's authority, PEM.
    #[arg(long)]
    pub ca: Option<PathBuf>,
    /// This node's certificate, PEM; reread at SIGHUP.
    #[arg(long)]
    pub cert: Option<PathBuf>,
    /// Its private key, PEM; nobody else may read the file.
    #[arg(long)]
    pub key: Option<PathBuf>,
    /// HOST:PORT of metadata servers; any one of them is enough.
    #[arg(long, value_delimiter = ',')]
    pub metadata: Vec<String>,
    /// Bytes of disk to use at most; 0 means the whole disk [default: 0]
    #[arg(long)]
    pub capacity: Option<u64>,
    /// Length of a segment file in bytes, 4 MiB to 64 GiB [default: 1 GiB]
    #[arg(long)]
    pub segment_bytes: Option<u64>,
    /// IP:PORT for /metrics in plain HTTP, without a credential [default: none]
    #[arg(long)]
    pub metrics_listen: Option<String>,
    /// A level or directives, such as info or info,h2=warn [default: info]
    #[arg(long)]
    pub log_level: Option<String>,
    /// json or plain [default: json]
    #[arg(long, value_enum)]
    pub log_format: Option<LogFormat>,
    /// Append logs here instead of writing them to standard error.
    #[arg(long)]
    pub log_file: Option<PathBuf>,
    /// Bytes per second that scrubbing reads.
    #[arg(long, hide = true)]
    pub scrub_bytes_per_sec: Option<u64>,
    /// Milliseconds between two scrubs of everything.
    #[arg(long, hide = true)]
    pub scrub_idle_ms: Option<u64>,
    /// Milliseconds between two looks for something to compact.
    #[arg(long, hide = true)]
    pub compact_idle_ms: Option<u64>,
    /// Settings file (TOML).
    #[arg(long)]
    #[serde(skip)]
    pub config: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            id: None,
            data_dir: None,
            listen: Some("0.0.0.0:3001".to_owned()),
            advertise: None,
            domain: None,
            ca: None,
            cert: None,
            key: None,
            metadata: Vec::new(),
            capacity: Some(0),
            segment_bytes: Some(GIB),
            metrics_listen: None,
            log_level: Some("info".to_owned()),
            log_format: Some(LogFormat::Json),
            log_file: None,
            scrub_bytes_per_sec: None,
            scrub_idle_ms: None,
            compact_idle_ms: None,
            config: None,
        }
    }
}

impl Settings {
    /// Certificates and private key.
    pub fn certificates(&self) -> Result<CertificateFiles, ConfigError> {
        Ok(CertificateFiles {
            ca: required(self.ca.clone(), "ca")?,
            cert: required(self.cert.clone(), "cert")?,
            key: required(self.key.clone(), "key")?,
        })
    }

    /// The settings checked, with their defaults filled in.
    ///
    /// # Errors
    /// `invalid_argument` that names the setting.
    pub fn setup(&self) -> Result<Setup, DfsError> {
        let node = NodeId::new(required(self.id.clone(), "id")?)?;
        if self.metadata.is_empty() {
            return Err(ConfigError::Missing("metadata".to_owned()).into());
        }
        for address in &self.metadata {
            check_address("metadata", address)?;
        }
        let listen = required(self.listen.clone(), "listen")?;
        let bind: SocketAddr =
            listen.parse().map_err(|_| wrong(format!("listen: {listen:?} is not IP:PORT")))?;
        match &self.advertise {
            Some(address) => check_address("advertise", address)?,
            None if bind.ip().is_unspecified() => {
                return Err(wrong(format!("advertise is required, for nobody can call {listen}")));
            }
            None => {}
        }
        let domain = self.domain.clone().unwrap_or_else(|| node.to_string());
        if domain.is_empty() || domain.len() > MAX_DOMAIN_BYTES {
            return Err(wrong(format!("domain: 1 to {MAX_DOMAIN_BYTES} bytes are allowed")));
        }
        if let Some(bytes) = self.segment_bytes
            && !(MIN_SEGMENT_BYTES..=MAX_SEGMENT_BYTES).contains(&bytes)
        {
            return Err(wrong(format!(
                "segment_bytes: {bytes} is not from {MIN_SEGMENT_BYTES} (4 MiB) to {MAX_SEGMENT_BYTES} (64 GiB)"
            )));
        }
        Ok(Setup {
            node,
            data_dir: required(self.data_dir.clone(), "data_dir")?,
            listen,
            advertise: self.advertise.clone(),
            domain,
            metadata: self.metadata.clone(),
            metrics_listen: self.metrics_listen.clone(),
            pace: self.pace(),
        })
    }

    /// This node's identity, from its files.
    ///
    /// # Errors
    /// What is wrong with a file; a certificate of another server.
    pub fn load_tls(&self) -> Result<Tls, DfsError> {
        let pem = self.certificates()?.read()?;
        Ok(Tls::server(&pem.ca, &pem.cert, &pem.key)?)
    }

    fn pace(&self) -> Pace {
        let default = Pace::default();
        Pace {
            scrub_bytes_per_sec: self.scrub_bytes_per_sec.unwrap_or(default.scrub_bytes_per_sec),
            scrub_idle: self.scrub_idle_ms.map_or(default.scrub_idle, Duration::from_millis),
            compact_idle: self.compact_idle_ms.map_or(default.compact_idle, Duration::from_millis),
            ..default
        }
    }
}

impl ServerSettings for Settings {
    const METRICS: &'static [Metric] = crate::telemetry::METRICS;

    fn logs(&self) -> LogSettings {
        LogSettings {
            format: self.log_format.unwrap_or_default(),
            level: self.log_level.clone().unwrap_or_else(|| "info".to_owned()),
            file: self.log_file.clone(),
            server: format!("chunk-server/{}", self.id.as_deref().unwrap_or("?")),
        }
    }

    fn check(&self) -> Result<(), DfsError> {
        let setup = self.setup()?;
        Ok(self.load_tls()?.must_be(Role::ChunkServer, setup.node.as_str())?)
    }

    async fn ask(&self, path: &str) -> Result<(Option<u16>, String), DfsError> {
        let ca = required(self.ca.clone(), "ca")?;
        let listen = required(self.listen.clone(), "listen")?;
        let id = NodeId::new(required(self.id.clone(), "id")?)?;
        let answer = transport::probe::probe_own(&ca, Role::ChunkServer, id, &listen, path).await?;
        Ok((answer.status, answer.body))
    }
}

fn check_address(name: &str, address: &str) -> Result<(), DfsError> {
    let fits = address.len() <= MAX_ADDRESS_BYTES
        && address
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0));
    if fits { Ok(()) } else { Err(wrong(format!("{name}: {address:?} is not HOST:PORT"))) }
}

fn wrong(message: String) -> DfsError {
    DfsError::new(ErrorCode::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str) -> Result<Setup, DfsError> {
        let arguments = std::iter::once("chunk-server").chain(line.split_whitespace()).map(Into::into);
        server_kit::config::load_from::<Settings, Settings>(arguments, &|_| None)?.setup()
    }

    #[test]
    fn defaults_are_filled_in() {
        let setup = check("--id n1 --data-dir /d --advertise n1:3001 --metadata m1:1,m2:2 --scrub-idle-ms 5")
            .unwrap();
        assert_eq!((setup.domain.as_str(), setup.listen.as_str()), ("n1", "0.0.0.0:3001"));
        assert_eq!(setup.metadata, ["m1:1", "m2:2"]);
        assert_eq!(setup.pace.scrub_idle, Duration::from_millis(5));
    }

    #[test]
    fn the_settings_file_of_the_documents_will_do() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/systemd/chunk-server.toml");
        assert_eq!(check(&format!("--config {file}")).unwrap().domain, "rack-a");
    }

    #[test]
    fn each_wrong_setting_is_named() {
        check("--data-dir /d --id n1 --listen 127.0.0.1:0 --metadata m1:1").unwrap();
        for (line, name) in [
            ("--data-dir /d --metadata m1:1", "id"),
            ("--data-dir /d --metadata m1:1 --id N", "node id"),
            ("--data-dir /d --id n1 --listen 127.0.0.1:0", "metadata"),
            ("--data-dir /d --id n1 --listen 127.0.0.1:0 --metadata m1", "metadata"),
            ("--data-dir /d --id n1 --listen here --metadata m1:1", "listen"),
            ("--data-dir /d --id n1 --listen 0.0.0.0:1 --metadata m1:1", "advertise"),
            ("--data-dir /d --id n1 --advertise :1 --metadata m1:1", "advertise"),
            ("--id n1 --listen 127.0.0.1:0 --metadata m1:1", "data_dir"),
        ] {
            let error = check(line).err().map(|error| error.message).unwrap_or_default();
            assert!(error.contains(name), "{line}: {error:?}");
        }
    }
}
