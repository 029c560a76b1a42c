//! The metrics registry of the process and its text form for Prometheus. Servers record with the
//! macros of the `metrics` crate; nothing is served before [`install`].
//!
//! Each crate that records has a table of what it records ([`Metric`]); the tables are what
//! `--print-metrics` prints and what `docs/metrics.md` is made of. A name outside the tables of its
//! server is found by the scenario `metrics-walk`.
//!
//! Beside what is recorded, every rendering has the process' own figures: resident memory, CPU
//! seconds, open files. The caller decides who may read `/metrics`.

use std::fmt::Write;
use std::sync::{Arc, OnceLock};

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Upper bounds of histograms whose name ends in `_seconds`.
const SECONDS: &[f64] =
    &[0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];

/// Upper bounds of histograms whose name ends in `_bytes`.
const BYTES: &[f64] = &[256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0];

/// Upper bounds of all other histograms: counts.
const COUNTS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// What a server exports under one name. Every series also has the label `node`: the server's own
/// name, where the metric does not say another's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    /// Beside `node`.
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

impl Metric {
    pub const fn new(
        name: &'static str,
        kind: Kind,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self { name, kind, labels, help }
    }
}

use Kind::{Counter, Gauge, Histogram};

/// What every server exports.
pub const COMMON: &[Metric] = &[
    Metric::new(
        "fs_build_info",
        Gauge,
        &["role", "version", "commit", "rustc", "profile"],
        "Always 1: what the server was built from",
    ),
    Metric::new(
        "fs_node_health_status",
        Gauge,
        &["node"],
        "1 ready, 0 not. A server's own; the leader also tells each chunk server's as it sees it: 1 up or draining, 0.5 suspect, 0 down",
    ),
    Metric::new("fs_http_requests_total", Counter, &["route", "method", "status"], "REST requests answered"),
    Metric::new(
        "fs_http_request_duration_seconds",
        Histogram,
        &["route", "method", "status"],
        "Time from a REST request to the head of its answer",
    ),
    Metric::new(
        "fs_grpc_requests_total",
        Counter,
        &["method", "code"],
        "gRPC calls answered; a stream that fails after its head counts as OK here",
    ),
    Metric::new(
        "fs_grpc_request_duration_seconds",
        Histogram,
        &["method", "code"],
        "Time from a gRPC call to the head of its answer",
    ),
    Metric::new("fs_requests_in_flight", Gauge, &[], "REST and gRPC requests whose answer has not begun"),
    Metric::new("process_resident_memory_bytes", Gauge, &[], "Resident memory of the process"),
    Metric::new("process_cpu_seconds_total", Counter, &[], "User and system CPU time of the process"),
    Metric::new("process_open_fds", Gauge, &[], "Open files, sockets among them"),
];

static INSTALLED: OnceLock<Result<Metrics, MetricsError>> = OnceLock::new();

/// The installed registry. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
    node: Arc<str>,
}

#[derive(Clone, Debug, thiserror::Error)]
#[error("metrics: {0}")]
pub struct MetricsError(String);

/// Installs the registry for the server `node` that records `table` beside [`COMMON`], or gives the
/// one this process has already (several servers in one process, as in tests, share the first's).
/// Threads that come first at the same moment get the same one.
///
/// # Errors
/// If something else installed a recorder: then, and ever after.
pub fn install(node: &str, table: &[Metric]) -> Result<Metrics, MetricsError> {
    let wrong = |error: metrics_exporter_prometheus::BuildError| MetricsError(error.to_string());
    let install = || {
        let handle = PrometheusBuilder::new()
            .set_buckets(COUNTS)
            .and_then(|builder| {
                builder.set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
            })
            .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_bytes".to_owned()), BYTES))
            .map_err(wrong)?
            .add_global_label("node", node)
            .install_recorder()
            .map_err(wrong)?;
        for metric in COMMON.iter().chain(table) {
            describe(metric);
        }
        Ok(Metrics { handle, node: node.into() })
    };
    INSTALLED.get_or_init(install).clone()
}

/// The registry of this process, once there is one.
pub fn installed() -> Option<Metrics> {
    INSTALLED.get().and_then(|installed| installed.clone().ok())
}

/// Its help text; and, without labels, its first value, so that it is there before anything happens.
fn describe(metric: &Metric) {
    let first = metric.labels.is_empty() && !metric.name.starts_with("process_");
    match metric.kind {
        Kind::Counter => {
            metrics::describe_counter!(metric.name, metric.help);
            if first {
                metrics::counter!(metric.name).absolute(0);
            }
        }
        Kind::Gauge => {
            metrics::describe_gauge!(metric.name, metric.help);
            if first {
                metrics::gauge!(metric.name).set(0.0);
            }
        }
        Kind::Histogram => {
            metrics::describe_histogram!(metric.name, metric.help);
            if first {
                // Known from here on, without a sample.
                let _ = metrics::histogram!(metric.name);
            }
        }
    }
}

/// The rows of a table as Markdown, by name.
pub fn markdown(table: &[Metric]) -> String {
    let mut rows: Vec<&Metric> = table.iter().collect();
    rows.sort_by_key(|metric| metric.name);
    let mut text = String::from("| name | type | labels | what it says |\n|---|---|---|---|\n");
    for metric in rows {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} |",
            metric.name,
            metric.kind.as_str(),
            labels.join(", "),
            metric.help
        );
    }
    text
}

impl Metrics {
    /// The exposition text. Also does the upkeep of histograms, so a server that is never scraped
    /// should call [`Metrics::upkeep`] now and then.
    pub fn render(&self) -> String {
        self.handle.run_upkeep();
        let mut text = self.handle.render();
        process_figures(&self.node, &mut text);
        text
    }

    /// Folds the samples that wait in histograms; every minute or so keeps their memory small.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// Answer for `GET /metrics`.
    pub fn response(&self) -> Response {
        ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], self.render()).into_response()
    }
}

/// Figures of `/proc/self`; those that cannot be read are left out.
fn process_figures(node: &str, text: &mut String) {
    let mut put = |name: &str, kind: &str, value: f64| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# TYPE {name} {kind}\n{name}{{node=\"{node}\"}} {value}");
    };
    if let Some(bytes) = resident_bytes() {
        put("process_resident_memory_bytes", "gauge", bytes as f64);
    }
    if let Some(seconds) = cpu_seconds() {
        put("process_cpu_seconds_total", "counter", seconds);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        put("process_open_fds", "gauge", open.count() as f64);
    }
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

/// User and system time of all threads, from fields 14 and 15 of `stat`, in ticks of 10 ms (the
/// kernel's USER_HZ is 100 on every Linux).
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in parentheses and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Metric] = &[
        Metric::new("fs_test_total", Counter, &["kind"], "A test's"),
        Metric::new("fs_test_idle", Gauge, &[], "Never set"),
        Metric::new("fs_test_seconds", Histogram, &[], "A test's"),
    ];

    #[test]
    fn what_is_recorded_is_rendered() {
        let first = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| install("n1", TABLE))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Result<Vec<_>, _>>()
        });
        let metrics = first.expect("whoever comes first at the same moment gets the registry").remove(0);
        install("n2", &[]).expect("a second install gives the first registry");
        metrics::counter!("fs_test_total", "kind" => "a").increment(3);
        metrics::counter!("fs_test_total", "kind" => "b", "node" => "n7").increment(1);
        metrics::histogram!("fs_test_seconds").record(0.003);
        let text = metrics.render();
        for want in [
            "# HELP fs_test_total A test's",
            "fs_test_total{node=\"n1\",kind=\"a\"} 3",
            "fs_test_total{node=\"n7\",kind=\"b\"} 1",
            "fs_test_idle{node=\"n1\"} 0",
            "fs_test_seconds_bucket{node=\"n1\",le=\"0.005\"} 1",
            "process_open_fds{node=\"n1\"} ",
        ] {
            assert!(text.contains(want), "{want} not in {text}");
        }
        // A gauge without the label beside one with it would be the same series, with either value.
        let health = crate::health::Health::new("chunk-server", "n1", "1.2.3", &["store"]);
        let told = || -> Vec<String> {
            let text = metrics.render();
            let lines = text.lines().filter(|line| line.starts_with("fs_node_health_status{node=\"n1\"}"));
            lines.map(str::to_owned).collect()
        };
        assert_eq!(told(), ["fs_node_health_status{node=\"n1\"} 0"]);
        health.ready("store");
        assert_eq!(told(), ["fs_node_health_status{node=\"n1\"} 1"]);
    }
}
