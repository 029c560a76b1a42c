//! What the servers export against what the code's tables, the alerts and the dashboard say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{Context, Scenario};
use crate::cluster::{Cluster, ClusterOptions, Process, binaries, checked};
use crate::faults::needs;
use crate::{content, wait};

pub const WALK: Scenario = Scenario {
    name: "metrics-walk",
    about: "every server exports what its table says and no more; alerts and dashboard name what is exported",
    run: walk,
};

/// On every server, with these types.
const EVERYWHERE: [(&str, &str); 8] = [
    ("fs_upload_duration_seconds", "histogram"),
    ("fs_download_duration_seconds", "histogram"),
    ("fs_replication_latency_seconds", "histogram"),
    ("fs_storage_used_bytes", "gauge"),
    ("fs_replication_factor", "gauge"),
    ("fs_node_health_status", "gauge"),
    ("fs_cache_hits_total", "counter"),
    ("fs_cache_misses_total", "counter"),
];
const LIMIT: Duration = Duration::from_secs(20);

/// What one server exports.
struct Scrape {
    id: String,
    text: String,
    /// Name -> type.
    types: BTreeMap<String, String>,
}

impl Scrape {
    fn of(cluster: &Cluster, process: &Process) -> Result<Self> {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--fail-with-body", "--max-time", "10", "--cacert"]).arg(cluster.ca()?);
        if process.role == "chunk-server" {
            // It knows no API keys: a server's certificate reads its metrics.
            let own = cluster.data_dir().join(&process.id);
            curl.arg("--cert").arg(own.join("cert.pem")).arg("--key").arg(own.join("key.pem"));
        } else {
            curl.args(["-H", &format!("authorization: Bearer {}", cluster.admin_key()?)]);
        }
        curl.arg(format!("https://{}/metrics", process.addresses["api"]));
        let text = String::from_utf8(checked(&format!("metrics of {}", process.id), curl.output()?)?)?;
        let types = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .filter_map(|line| line.split_once(' '))
            .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
            .collect();
        Ok(Self { id: process.id.clone(), text, types })
    }

    /// The value of the first series that begins so.
    fn value(&self, series: &str) -> Option<f64> {
        let line = self.text.lines().find(|line| line.starts_with(series))?;
        line.rsplit_once(' ')?.1.parse().ok()
    }
}

/// Type and labels of a metric.
type Kind = (String, BTreeSet<String>);

/// Metrics by name, from the tables that a program prints.
fn table(program: &str) -> Result<BTreeMap<String, Kind>> {
    let output = Command::new(binaries()?.join(program)).arg("--print-metrics").output()?;
    let text = String::from_utf8(checked(&format!("{program} --print-metrics"), output)?)?;
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split("` | ");
        let (name, rest) = (cells.next()?, cells.next()?);
        let labels = rest.split(" | ").nth(1)?.split(", ").map(|label| label.trim_matches('`').to_owned());
        let labels = labels.filter(|label| !label.is_empty()).collect();
        Some((name.to_owned(), (rest.split(' ').next()?.to_owned(), labels)))
    });
    let table: BTreeMap<_, _> = rows.collect();
    ensure!(table.len() > 10, "{program} --print-metrics: {text}");
    Ok(table)
}

fn walk(context: &Context) -> Result<()> {
    let cluster = Cluster::start(&ClusterOptions::default())?;
    cluster.dfsctl(["bucket", "create", "metrics"])?;
    for (name, length) in [("large", 6 << 20), ("small", 5_000)] {
        let source = cluster.scratch().join(name);
        content::write_file(&source, context.seed, name, length)?;
        cluster.dfsctl([Path::new("put"), &source, Path::new("dfs://metrics/")])?;
        cluster.dfsctl(["cat", &format!("dfs://metrics/{name}")])?;
    }
    cluster.dfsctl(["node", "ls"])?;

    let leader = cluster.leader()?;
    wait::until("the leader tells of its nodes and chunks", LIMIT, || {
        let scrape = Scrape::of(&cluster, &cluster.process(&leader)?)?;
        let actual = format!("fs_replication_factor{{node=\"{leader}\",kind=\"actual\"}}");
        let seen = scrape.value(&actual) == Some(3.0)
            && scrape.value("fs_node_health_status{node=\"n3\"}") == Some(1.0)
            && scrape.value(&format!("fs_files{{node=\"{leader}\"}}")) == Some(2.0);
        ensure!(seen, "{}", scrape.text);
        Ok(())
    })?;

    // What is deleted has copies too until it is purged, and nobody wants them: once they made the factor
    // grow with every deletion.
    cluster.dfsctl(["rm", "--purge", "dfs://metrics/large"])?;
    let source = cluster.scratch().join("other");
    content::write_file(&source, context.seed, "other", 3 << 20)?;
    cluster.dfsctl([Path::new("put"), &source, Path::new("dfs://metrics/")])?;
    wait::until("copies of chunks in trash do not count, and every chunk server says so", LIMIT, || {
        let scrape = Scrape::of(&cluster, &cluster.process(&leader)?)?;
        let trash = scrape.value(&format!("fs_chunks_in_trash{{node=\"{leader}\"}}"));
        ensure!(trash > Some(0.0), "{}", scrape.text);
        for id in [leader.as_str(), "n1", "n2", "n3"] {
            let scrape = Scrape::of(&cluster, &cluster.process(id)?)?;
            for kind in ["actual", "target"] {
                let factor = scrape.value(&format!("fs_replication_factor{{node=\"{id}\",kind=\"{kind}\"}}"));
                ensure!(factor == Some(3.0), "{id}: {kind} {factor:?}");
            }
        }
        Ok(())
    })?;
    wait::until("the others have the whole log", LIMIT, || {
        let scrape = Scrape::of(&cluster, &cluster.process(&leader)?)?;
        let lags: Vec<_> = (scrape.text.lines())
            .filter(|line| line.starts_with("fs_raft_replication_lag_entries{"))
            .filter_map(|line| line.rsplit_once(' '))
            .collect();
        ensure!(lags.len() == 2 && lags.iter().all(|(_, lag)| *lag == "0"), "{lags:?}");
        Ok(())
    })?;

    let tables: BTreeMap<_, _> = ["metadata-server", "chunk-server"]
        .map(|role| table(role).map(|table| (role.to_owned(), table)))
        .into_iter()
        .collect::<Result<_>>()?;
    let mut exported: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for process in cluster.processes()? {
        let scrape = Scrape::of(&cluster, &process)?;
        let table = &tables[&process.role];
        for (name, kind) in &scrape.types {
            ensure!(
                table.get(name).is_some_and(|(said, _)| said == kind),
                "{}: {name} of type {kind} is not in the table",
                scrape.id
            );
            exported.entry(process.role.clone()).or_default().insert(name.clone());
        }
        for (name, kind) in EVERYWHERE {
            let found = scrape.types.get(name).map(String::as_str);
            ensure!(found == Some(kind), "{}: no {kind} {name}, but {found:?}", scrape.id);
        }
        let own = format!("fs_node_health_status{{node=\"{}\"}}", scrape.id);
        ensure!(scrape.value(&own) == Some(1.0), "{} is ready and says {:?}", scrape.id, scrape.value(&own));
        let mut series = BTreeSet::new();
        for line in scrape.text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            ensure!(line.contains("node=\""), "{}: a series without node: {line}", scrape.id);
            let name = line.rsplit_once(' ').map_or(line, |(name, _)| name);
            ensure!(series.insert(name), "{}: a series twice: {line}", scrape.id);
            // With another set of labels one metric would be several, which may come out as one series.
            let (metric, labels) = name.split_once('{').context("a series has labels")?;
            let metric = base(metric);
            let labels: BTreeSet<&str> =
                labels.split("\",").filter_map(|pair| pair.split('=').next()).collect();
            let documented = table[metric].1.iter().map(String::as_str).chain(["node", "le"]);
            let documented: BTreeSet<&str> =
                documented.filter(|label| *label != "le" || labels.contains("le")).collect();
            ensure!(labels == documented, "{}: {line}: labels {documented:?} are documented", scrape.id);
        }
    }
    let never: Vec<_> = tables
        .iter()
        .flat_map(|(role, table)| table.keys().map(move |name| (role, name)))
        .filter(|(role, name)| !exported[*role].contains(*name))
        .map(|(role, name)| format!("{role}: {name}"))
        .collect();
    // What only goes wrong, and what has labels, is not there before it happens.
    let allowed = [
        "fs_chunk_forward_failures_total",
        "fs_storage_faults_total",
        "fs_node_absent_chunks",
        "fs_node_absence_held",
    ];
    let missing: Vec<_> =
        never.iter().filter(|line| !allowed.iter().any(|name| line.ends_with(name))).collect();
    ensure!(missing.is_empty(), "never exported: {missing:?}");

    let known: BTreeSet<&String> = tables.values().flat_map(BTreeMap::keys).collect();
    for document in ["alerts.yml", "grafana-dashboard.json"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(document);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let named = names_in(&text);
        ensure!(named.len() > 10, "{document} names {named:?}");
        for name in named {
            ensure!(known.contains(&name), "{document} names {name}, which no server exports");
        }
    }
    let promtool = needs::file(&["/usr/bin/promtool", "/usr/local/bin/promtool"], "prometheus")?;
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/alerts.yml");
    checked("promtool check rules", Command::new(&promtool).args(["check", "rules"]).arg(rules).output()?)?;
    let scrape = cluster.scratch().join("scrape");
    for process in cluster.processes()? {
        std::fs::write(&scrape, Scrape::of(&cluster, &process)?.text)?;
        let mut check = Command::new(&promtool);
        check.args(["check", "metrics"]).stdin(std::fs::File::open(&scrape)?);
        let output = check.output()?;
        // 3: only matters of taste, said on standard error.
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(matches!(output.status.code(), Some(0 | 3)), "promtool on {}: {said}", process.id);
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/metrics-doc.sh");
    let output = Command::new(script).env("DFS_BIN_DIR", binaries()?).output()?;
    let should = checked("metrics-doc.sh", output)?;
    let is = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md"))?;
    ensure!(is == should, "docs/metrics.md is not what the programs say: make docs");
    Ok(())
}

/// Names of ours in a text, without the suffixes that Prometheus gives histograms.
fn names_in(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !word(c))
        .filter(|name| name.starts_with("fs_"))
        .map(|name| base(name).to_owned())
        .collect()
}

fn base(name: &str) -> &str {
    ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
}
