//! The alerts that the project ships, in a real Prometheus that scrapes a real cluster: silent while all is well, and
//! each loss told by the alert that is about it.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{Context, Scenario};
use crate::cluster::{Cluster, ClusterOptions, checked};
use crate::content;
use crate::faults::needs;
use crate::wait::{throughout, until};

pub const ALERTS_WALK: Scenario = Scenario {
    name: "alerts-walk",
    about: "a real Prometheus with our rules: silent in a healthy cluster; a dead member and a dead node are told",
    run: alerts_walk,
};

const PATIENCE: Duration = Duration::from_secs(60);
const QUIET: Duration = Duration::from_secs(10);
/// What is true of the machine's disk and not of the cluster.
const OF_THE_DISK: [&str; 2] = ["DfsChunkServerFull", "DfsMetadataDiskLow"];

struct Prometheus {
    child: Child,
    promtool: PathBuf,
    url: String,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    /// Scrapes all servers of the cluster and looks at the rules every second.
    fn start(cluster: &Cluster) -> Result<Self> {
        let program = needs::file(&["/usr/bin/prometheus", "/usr/local/bin/prometheus"], "prometheus")?;
        let promtool = needs::file(&["/usr/bin/promtool", "/usr/local/bin/promtool"], "prometheus")?;
        let folder = cluster.scratch();
        let key = folder.join("admin.key");
        std::fs::write(&key, cluster.admin_key()?)?;
        let settings = folder.join("prometheus.yml");
        std::fs::write(&settings, configuration(cluster, &key)?.to_string())?;
        // Free a moment ago: somebody else's Prometheus would be found out by its targets.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let log = std::fs::File::create(folder.join("prometheus.log"))?;
        let child = Command::new(program)
            .arg(format!("--config.file={}", settings.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("prometheus").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        Ok(Self { child, promtool, url: format!("http://{address}") })
    }

    /// What a query gives, a line for each series.
    fn query(&self, query: &str) -> Result<String> {
        let output = Command::new(&self.promtool).args(["query", "instant", &self.url, query]).output()?;
        Ok(String::from_utf8(checked(query, output)?)?)
    }

    /// Names of the alerts that are firing, or will be if nothing changes.
    fn alerts(&self) -> Result<BTreeSet<String>> {
        let said = self.query("ALERTS")?;
        let names = said.split("alertname=\"").skip(1).filter_map(|rest| rest.split('"').next());
        Ok(names.filter(|name| !OF_THE_DISK.contains(name)).map(str::to_owned).collect())
    }

    /// Waits for just these alerts. Others may come and go before.
    fn says(&self, wanted: &[&str]) -> Result<()> {
        let wanted: BTreeSet<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
        until(&format!("the alerts {wanted:?}"), PATIENCE, || {
            let alerts = self.alerts()?;
            ensure!(alerts == wanted, "{alerts:?}");
            Ok(())
        })
    }
}

/// As docs/operations.md says: metadata servers by an API key, chunk servers by a server's certificate.
fn configuration(cluster: &Cluster, key: &Path) -> Result<Value> {
    let targets = |role: &str| -> Result<Vec<String>> {
        Ok(cluster.role(role)?.into_iter().map(|process| process.addresses["api"].clone()).collect())
    };
    let ca = cluster.ca()?;
    let own = cluster.data_dir().join("m1");
    Ok(json!({
        "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
        "rule_files": [Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/alerts.yml")],
        "scrape_configs": [
            {
                "job_name": "metadata-server",
                "scheme": "https",
                "authorization": { "credentials_file": key },
                "tls_config": { "ca_file": ca },
                "static_configs": [{ "targets": targets("metadata-server")? }],
            },
            {
                "job_name": "chunk-server",
                "scheme": "https",
                "tls_config": { "ca_file": ca, "cert_file": own.join("cert.pem"), "key_file": own.join("key.pem") },
                "static_configs": [{ "targets": targets("chunk-server")? }],
            },
        ],
    }))
}

/// Every panel of the dashboard shows something, but those of what only goes wrong.
fn panels(prometheus: &Prometheus) -> Result<()> {
    const OF_FAILURES: [&str; 2] = ["Refused and failed", "gRPC errors"];
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/grafana-dashboard.json");
    let dashboard: Value = serde_json::from_slice(&std::fs::read(path)?)?;
    let panels = dashboard["panels"].as_array().context("panels")?;
    ensure!(panels.len() > 20, "{} panels", panels.len());
    for panel in panels {
        let title = panel["title"].as_str().context("a panel has a title")?;
        for target in panel["targets"].as_array().context(title.to_owned())? {
            let query = target["expr"].as_str().context(title.to_owned())?;
            let query = query.replace("$__rate_interval", "1m");
            let shown = prometheus.query(&query).with_context(|| title.to_owned())?;
            let failures = OF_FAILURES.contains(&title);
            ensure!(failures || shown.contains("=>"), "the panel {title} shows nothing: {query}");
        }
    }
    Ok(())
}

fn alerts_walk(context: &Context) -> Result<()> {
    let cluster = Cluster::start(&ClusterOptions::default())?;
    cluster.dfsctl(["bucket", "create", "alerts"])?;
    let source = cluster.scratch().join("file");
    content::write_file(&source, context.seed, "file", 6 << 20)?;
    cluster.dfsctl([Path::new("put"), &source, Path::new("dfs://alerts/")])?;

    let prometheus = Prometheus::start(&cluster)?;
    until("six servers to be scraped", PATIENCE, || {
        let up = prometheus.query("count(up == 1)")?;
        ensure!(up.contains("=> 6 "), "{up}");
        Ok(())
    })?;
    let silence = || {
        prometheus.says(&[]).context("all is well")?;
        throughout("all is well", QUIET, || {
            let alerts = prometheus.alerts()?;
            ensure!(alerts.is_empty(), "{alerts:?}");
            Ok(())
        })
    };
    silence()?;
    panels(&prometheus)?;

    let leader = cluster.leader()?;
    let members = cluster.names("metadata-server")?;
    let dead = members.iter().find(|name| **name != leader).context("a follower")?;
    cluster.kill_and_wait(dead)?;
    prometheus.says(&["DfsMemberMissing"])?;
    cluster.start_process(dead)?;
    prometheus.says(&[])?;

    cluster.kill_and_wait("n1")?;
    prometheus.says(&["DfsChunksUnderTarget", "DfsServerNotReady"])?;
    cluster.start_process("n1")?;
    silence()
}
