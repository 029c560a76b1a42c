//! The metrics registry of the process and its text form for Prometheus. Servers record with the
//! macros of the `metrics` crate; nothing is served before [`install`].
//!
//! Beside what is recorded, every rendering has the process' own figures: resident memory, CPU
//! seconds, open files. The caller decides who may read `/metrics`.

use std::fmt::Write;
use std::sync::OnceLock;

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Upper bounds of histograms whose name ends in `_seconds`.
const SECONDS: &[f64] =
    &[0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];

static INSTALLED: OnceLock<Result<Metrics, MetricsError>> = OnceLock::new();

/// The installed registry. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

#[derive(Clone, Debug, thiserror::Error)]
#[error("metrics: {0}")]
pub struct MetricsError(String);

/// Installs the registry, or gives the one this process has already. Threads that come first at the
/// same moment get the same one.
///
/// # Errors
/// If something else installed a recorder: then, and ever after.
pub fn install() -> Result<Metrics, MetricsError> {
    let install = || {
        PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
            .and_then(PrometheusBuilder::install_recorder)
            .map(Metrics)
            .map_err(|error| MetricsError(error.to_string()))
    };
    INSTALLED.get_or_init(install).clone()
}

impl Metrics {
    /// The exposition text. Also does the upkeep of histograms, so a server that is never scraped
    /// should call [`Metrics::upkeep`] now and then.
    pub fn render(&self) -> String {
        self.0.run_upkeep();
        let mut text = self.0.render();
        process_figures(&mut text);
        text
    }

    /// Folds the samples that wait in histograms; every minute or so keeps their memory small.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }

    /// Answer for `GET /metrics`.
    pub fn response(&self) -> Response {
        ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], self.render()).into_response()
    }
}

/// Figures of `/proc/self`; those that cannot be read are left out.
fn process_figures(text: &mut String) {
    let mut put = |name: &str, kind: &str, value: f64| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# TYPE {name} {kind}\n{name} {value}");
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

    #[test]
    fn what_is_recorded_is_rendered() {
        let first = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(install)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Result<Vec<_>, _>>()
        });
        let metrics = first.expect("whoever comes first at the same moment gets the registry").remove(0);
        install().expect("a second install gives the first registry");
        metrics::counter!("dfs_test_total", "kind" => "a").increment(3);
        metrics::histogram!("dfs_test_seconds").record(0.003);
        let text = metrics.render();
        for want in
            ["dfs_test_total{kind=\"a\"} 3", "dfs_test_seconds_bucket{le=\"0.005\"} 1", "process_open_fds "]
        {
            assert!(text.contains(want), "{want} not in {text}");
        }
    }
}
