//! Settings of a metadata server: flags before `DFS_*` environment before the settings file.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dfs_types::{DfsError, ErrorCode, NodeId, OsEntropy, limits};
use serde::{Deserialize, Serialize};
use server_kit::certificates::CertificateFiles;
use server_kit::config::required;
use server_kit::metrics::Metric;
use server_kit::{LogFormat, LogSettings, ServerSettings};
use transport::{Role, Tls};

use crate::keyring::Keyring;
use crate::kv::Compression;
use crate::leader::Timing;
use crate::leader::book::LivenessTimes;
use crate::space::SpaceSettings;

/// Most copies under way at once.
const MAX_REPAIR_PARALLEL: usize = 64;

/// One server of the replicated metadata service: the namespace, the planner, REST and gRPC.
#[derive(clap::Parser, Serialize, Deserialize, Clone, Debug)]
#[command(name = "metadata-server", version)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// This member's name (1-63 of a-z 0-9 . -); the id in its certificate
    #[arg(long)]
    pub id: Option<String>,
    /// Directory of log and state; owned by this server alone
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address to listen at [default: 0.0.0.0:8080]
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<String>,
    /// Address at which others reach this server; default: the one it listens at
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// Certificate of the cluster's authority (PEM)
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// This server's certificate (PEM)
    #[arg(long, value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Master keys, lines of GENERATION:64-hex; for its owner alone
    #[arg(long, value_name = "FILE")]
    pub master_key_file: Option<PathBuf>,
    /// API key of the first admin; read when the cluster is made
    #[arg(long, value_name = "FILE")]
    pub admin_key_file: Option<PathBuf>,
    /// The members with which a new cluster begins, as m1=HOST:PORT,m2=HOST:PORT,..
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub initial_members: Vec<String>,
    /// Serve /metrics without a credential at this address as well (plain HTTP)
    #[arg(long, value_name = "IP:PORT")]
    pub metrics_listen: Option<String>,
    /// When the disk of this server's log and state has less room than this, the cluster takes no new
    /// data; 0: it does. Default: 1 GiB, or 2 % of a smaller disk
    #[arg(long, value_name = "BYTES")]
    pub reserve_bytes: Option<u64>,
    /// Length of the file `ballast` in the data directory, which is given back when the disk is nearly
    /// full; 0: none. Default: 64 MiB, or a sixteenth of a smaller disk
    #[arg(long, value_name = "BYTES")]
    pub ballast_bytes: Option<u64>,
    /// Bytes a second that copies of the cluster's own may move to and from one chunk server; 0: no
    /// limit. Default: 64 MiB
    #[arg(long, value_name = "BYTES")]
    pub repair_bytes_per_second: Option<u64>,
    /// error, warn, info, debug or trace, or a tracing filter
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// json or plain
    #[arg(long, value_enum)]
    pub log_format: Option<LogFormat>,
    /// Append logs to this file instead of standard error
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
    /// Settings file (TOML) with the same names
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,

    /// none, lz4 or zstd
    #[arg(long, hide = true)]
    pub state_compression: Option<String>,
    #[arg(long, hide = true)]
    pub heartbeat_ms: Option<u64>,
    #[arg(long, hide = true)]
    pub election_min_ms: Option<u64>,
    #[arg(long, hide = true)]
    pub election_max_ms: Option<u64>,
    #[arg(long, hide = true)]
    pub node_heartbeat_ms: Option<u64>,
    #[arg(long, hide = true)]
    pub node_suspect_ms: Option<u64>,
    #[arg(long, hide = true)]
    pub node_down_ms: Option<u64>,
    #[arg(long, hide = true)]
    pub repair_delay_ms: Option<u64>,
    #[arg(long, hide = true)]
    pub trash_period_ms: Option<u64>,
    #[arg(long, hide = true)]
    pub floor_lag_ms: Option<u64>,
    #[arg(long, hide = true)]
    pub upload_expiry_ms: Option<u64>,
    #[arg(long, hide = true)]
    pub tick_ms: Option<u64>,
    /// Pause of a background worker that found nothing to do
    #[arg(long, hide = true)]
    pub background_ms: Option<u64>,
    #[arg(long, hide = true)]
    pub repair_parallel: Option<usize>,
    #[arg(long, hide = true)]
    pub repair_per_node: Option<usize>,
    /// Between two looks at all that a chunk server has
    #[arg(long, hide = true)]
    pub inventory_interval_ms: Option<u64>,
    /// Tests: delete tickets are held back while this file exists
    #[arg(long, hide = true)]
    pub ticket_gate: Option<PathBuf>,
    #[arg(long, hide = true)]
    pub snapshot_entries: Option<u64>,
    #[arg(long, hide = true)]
    pub keep_entries: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            id: None,
            data_dir: None,
            listen: Some("0.0.0.0:8080".to_owned()),
            advertise: None,
            ca: None,
            cert: None,
            key: None,
            master_key_file: None,
            admin_key_file: None,
            initial_members: Vec::new(),
            metrics_listen: None,
            reserve_bytes: None,
            ballast_bytes: None,
            log_level: Some("info".to_owned()),
            log_format: Some(LogFormat::Json),
            log_file: None,
            config: None,
            state_compression: None,
            heartbeat_ms: Some(limits::RAFT_HEARTBEAT_MS),
            election_min_ms: Some(limits::ELECTION_MIN_MS),
            election_max_ms: Some(limits::ELECTION_MAX_MS),
            node_heartbeat_ms: Some(limits::NODE_HEARTBEAT_MS),
            node_suspect_ms: Some(limits::NODE_SUSPECT_MS),
            node_down_ms: Some(limits::NODE_DOWN_MS),
            repair_delay_ms: Some(limits::REPAIR_DELAY_MS),
            trash_period_ms: Some(limits::TRASH_PERIOD_MS),
            floor_lag_ms: Some(limits::EPOCH_FLOOR_LAG_MS),
            upload_expiry_ms: Some(limits::UPLOAD_EXPIRY_MS),
            tick_ms: Some(limits::TICK_MS),
            background_ms: None,
            repair_parallel: None,
            repair_per_node: None,
            repair_bytes_per_second: Some(limits::REPAIR_BYTES_PER_SECOND),
            inventory_interval_ms: Some(limits::INVENTORY_INTERVAL_MS),
            ticket_gate: None,
            snapshot_entries: None,
            keep_entries: None,
        }
    }
}

/// Checked settings.
#[derive(Clone, Debug)]
pub struct Setup {
    pub name: NodeId,
    pub data_dir: PathBuf,
    pub listen: String,
    pub advertise: String,
    pub admin_key_file: Option<PathBuf>,
    /// Name -> address; empty: wait to be added to a cluster.
    pub initial_members: BTreeMap<String, String>,
    pub metrics_listen: Option<String>,
    pub space: SpaceSettings,
    pub compression: Compression,
    pub heartbeat: Duration,
    pub election_min: Duration,
    pub election_max: Duration,
    pub snapshot_entries: Option<u64>,
    pub keep_entries: Option<u64>,
    pub node_heartbeat_ms: u64,
    pub liveness: LivenessTimes,
    pub timing: Timing,
    /// Delete tickets wait while this file exists.
    pub ticket_gate: Option<PathBuf>,
}

impl Setup {
    /// Port 0 stands for the one the system picked: in the advertised address, and among the initial
    /// members for this server.
    pub fn use_port(&mut self, address: SocketAddr) {
        let picked = |text: &mut String| {
            if text.ends_with(":0") {
                *text = address.to_string();
            }
        };
        picked(&mut self.advertise);
        if let Some(own) = self.initial_members.get_mut(self.name.as_str()) {
            picked(own);
        }
    }
}

impl ServerSettings for Settings {
    const METRICS: &'static [Metric] = crate::telemetry::METRICS;

    fn logs(&self) -> LogSettings {
        LogSettings {
            format: self.log_format.unwrap_or_default(),
            level: log_level(self.log_level.as_deref()),
            file: self.log_file.clone(),
            server: format!("metadata-server/{}", self.id.as_deref().unwrap_or("?")),
        }
    }

    fn check(&self) -> Result<(), DfsError> {
        let setup = self.setup()?;
        let (tls, _) = self.load_keys()?;
        Ok(tls.must_be(Role::MetadataServer, setup.name.as_str())?)
    }

    async fn ask(&self, path: &str) -> Result<(Option<u16>, String), DfsError> {
        let ca = required(self.ca.clone(), "ca")?;
        let listen = required(self.listen.clone(), "listen")?;
        let id = NodeId::new(required(self.id.clone(), "id")?)?;
        let answer = transport::probe::probe_own(&ca, Role::MetadataServer, id, &listen, path).await?;
        Ok((answer.status, answer.body))
    }
}

/// openraft reports every unreachable member at once as ERROR, and that it stopped through us as well: it
/// is silent unless asked for.
fn log_level(given: Option<&str>) -> String {
    match given.unwrap_or("info") {
        directives if directives.contains("openraft") => directives.to_owned(),
        level => format!("{level},openraft=off"),
    }
}

fn wrong(what: impl Into<String>) -> DfsError {
    DfsError::new(ErrorCode::InvalidArgument, what)
}

fn ensure(holds: bool, what: &str) -> Result<(), DfsError> {
    if holds { Ok(()) } else { Err(wrong(what)) }
}

fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

impl Settings {
    /// # Errors
    /// `invalid_argument` for what is missing or contradicts itself, before anything is touched.
    pub fn setup(&self) -> Result<Setup, DfsError> {
        let name = NodeId::new(required(self.id.clone(), "id")?)?;
        let listen = required(self.listen.clone(), "listen")?;
        let unspecified = listen.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_unspecified());
        ensure(
            self.advertise.is_some() || !unspecified,
            "advertise is required, for nobody can call the address to listen at",
        )?;
        let advertise = self.advertise.clone().unwrap_or_else(|| listen.clone());
        ensure(is_address(&advertise), "advertise must be HOST:PORT")?;
        let ms = |given: Option<u64>, default: u64| given.unwrap_or(default);
        let heartbeat = ms(self.heartbeat_ms, limits::RAFT_HEARTBEAT_MS);
        let election_min = ms(self.election_min_ms, limits::ELECTION_MIN_MS);
        let election_max = ms(self.election_max_ms, limits::ELECTION_MAX_MS);
        ensure(
            0 < heartbeat && heartbeat * 2 < election_min && election_min < election_max,
            "election times must be ordered: 2 * heartbeat_ms < election_min_ms < election_max_ms",
        )?;
        let node_heartbeat_ms = ms(self.node_heartbeat_ms, limits::NODE_HEARTBEAT_MS);
        let liveness = LivenessTimes {
            suspect_ms: ms(self.node_suspect_ms, limits::NODE_SUSPECT_MS),
            down_ms: ms(self.node_down_ms, limits::NODE_DOWN_MS),
        };
        ensure(
            0 < node_heartbeat_ms
                && node_heartbeat_ms < liveness.suspect_ms
                && liveness.suspect_ms < liveness.down_ms,
            "node times must be ordered: node_heartbeat_ms < node_suspect_ms < node_down_ms",
        )?;
        let timing = Timing {
            tick_ms: ms(self.tick_ms, limits::TICK_MS),
            background_ms: ms(self.background_ms, 1_000),
            repair_delay_ms: ms(self.repair_delay_ms, limits::REPAIR_DELAY_MS),
            trash_period_ms: ms(self.trash_period_ms, limits::TRASH_PERIOD_MS),
            floor_lag_ms: ms(self.floor_lag_ms, limits::EPOCH_FLOOR_LAG_MS),
            upload_expiry_ms: ms(self.upload_expiry_ms, limits::UPLOAD_EXPIRY_MS),
            repair_parallel: self.repair_parallel.unwrap_or(4),
            repair_per_node: self.repair_per_node.unwrap_or(4),
            repair_bytes_per_second: self.repair_bytes_per_second.unwrap_or(limits::REPAIR_BYTES_PER_SECOND),
            inventory_interval_ms: ms(self.inventory_interval_ms, limits::INVENTORY_INTERVAL_MS),
        };
        ensure((1..=limits::MAX_TICK_MS).contains(&timing.tick_ms), "tick_ms must be 1 to 5000")?;
        ensure(
            self.ballast_bytes.is_none_or(|bytes| bytes <= limits::MAX_BALLAST_BYTES),
            "ballast_bytes must be at most 16 GiB",
        )?;
        ensure(timing.background_ms >= 10, "background_ms must be at least 10")?;
        ensure(
            (1..=MAX_REPAIR_PARALLEL).contains(&timing.repair_parallel),
            "repair_parallel must be 1 to 64",
        )?;
        ensure((1..=limits::MAX_COPIES).contains(&timing.repair_per_node), "repair_per_node must be 1 to 8")?;
        ensure(timing.inventory_interval_ms >= 10, "inventory_interval_ms must be at least 10")?;
        Ok(Setup {
            data_dir: required(self.data_dir.clone(), "data_dir")?,
            advertise,
            admin_key_file: self.admin_key_file.clone(),
            initial_members: self.members(&name)?,
            metrics_listen: self.metrics_listen.clone(),
            space: SpaceSettings { reserve_bytes: self.reserve_bytes, ballast_bytes: self.ballast_bytes },
            compression: self.compression()?,
            heartbeat: Duration::from_millis(heartbeat),
            election_min: Duration::from_millis(election_min),
            election_max: Duration::from_millis(election_max),
            snapshot_entries: self.snapshot_entries,
            keep_entries: self.keep_entries,
            node_heartbeat_ms,
            liveness,
            timing,
            ticket_gate: self.ticket_gate.clone(),
            name,
            listen,
        })
    }

    /// Certificates and private key.
    pub fn certificates(&self) -> Result<CertificateFiles, DfsError> {
        Ok(CertificateFiles {
            ca: required(self.ca.clone(), "ca")?,
            cert: required(self.cert.clone(), "cert")?,
            key: required(self.key.clone(), "key")?,
        })
    }

    /// This server's identity and the cluster's keys, from their files.
    ///
    /// # Errors
    /// What is wrong with a file; a certificate of another server.
    pub fn load_keys(&self) -> Result<(Tls, Keyring), DfsError> {
        let pem = self.certificates()?.read()?;
        let tls = Tls::server(&pem.ca, &pem.cert, &pem.key)?;
        let master = required(self.master_key_file.clone(), "master_key_file")?;
        Ok((tls, Keyring::load(&master, Arc::new(OsEntropy))?))
    }

    fn compression(&self) -> Result<Compression, DfsError> {
        match self.state_compression.as_deref() {
            None => Ok(Compression::default()),
            Some("none") => Ok(Compression::None),
            Some("lz4") => Ok(Compression::Lz4),
            Some("zstd") => Ok(Compression::Zstd),
            Some(other) => Err(wrong(format!("state_compression {other:?} is not none, lz4 or zstd"))),
        }
    }

    fn members(&self, own: &NodeId) -> Result<BTreeMap<String, String>, DfsError> {
        let mut members = BTreeMap::new();
        for part in self.initial_members.iter().map(|part| part.trim()).filter(|part| !part.is_empty()) {
            let (name, address) = part
                .split_once('=')
                .filter(|(_, address)| is_address(address))
                .ok_or_else(|| wrong(format!("initial_members: {part:?} is not NAME=HOST:PORT")))?;
            let name = NodeId::new(name)?;
            if members.insert(name.to_string(), address.to_owned()).is_some() {
                return Err(wrong(format!("initial_members names {name} twice")));
            }
        }
        if members.is_empty() || members.contains_key(own.as_str()) {
            Ok(members)
        } else {
            Err(wrong(format!("initial_members does not name this server, {own}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(change: impl FnOnce(&mut Settings)) -> Result<Setup, DfsError> {
        let mut settings = Settings {
            id: Some("m1".into()),
            data_dir: Some("/data".into()),
            listen: Some("127.0.0.1:8080".into()),
            initial_members: vec!["m1=a:1".into(), "m2=b:2".into()],
            ..Default::default()
        };
        change(&mut settings);
        settings.setup()
    }

    #[test]
    fn the_settings_file_of_the_documents_will_do() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/systemd/metadata-server.toml");
        let line = ["metadata-server", "--config", file].map(Into::into);
        let settings = server_kit::config::load_from::<Settings, Settings>(line, &|_| None).unwrap();
        assert_eq!(settings.setup().unwrap().initial_members.len(), 3);
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let setup = settings(|_| {}).unwrap();
        assert_eq!(setup.initial_members["m2"], "b:2");
        assert_eq!(setup.advertise, "127.0.0.1:8080");
        let bad: [fn(&mut Settings); 11] = [
            |s| s.listen = Some("0.0.0.0:8080".into()),
            |s| s.id = None,
            |s| s.id = Some("M 1".into()),
            |s| s.data_dir = None,
            |s| s.advertise = Some("nowhere".into()),
            |s| s.initial_members = vec!["m2=b:2".into()],
            |s| s.initial_members = vec!["m1=a:1".into(), "m1=b:1".into()],
            |s| s.state_compression = Some("gzip".into()),
            |s| s.node_down_ms = Some(1),
            |s| s.heartbeat_ms = Some(5_000),
            |s| s.ballast_bytes = Some(limits::MAX_BALLAST_BYTES + 1),
        ];
        for (place, change) in bad.into_iter().enumerate() {
            assert!(settings(change).is_err(), "case {place}");
        }
    }
}
