//! The way of spans out of the process: a bounded queue, one thread that sends, and a small runtime of
//! its own for the connection, so that neither a busy nor an ended runtime of the program matters.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dfs_types::limits::{TRACE_BATCH_SPANS, TRACE_QUEUE_SPANS, TRACE_TIMEOUT_MS};
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{RetryPolicy, SpanExporter as Otlp, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, SpanData, SpanExporter,
};
use tokio::runtime::Runtime;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use crate::sampler::{Asked, share};
use crate::tls::Tls;

/// Names the collector: `http://127.0.0.1:4317` (OTLP over gRPC), or `https://` with [`crate::CERTIFICATE`].
pub const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// Whose spans are sent: ours. Those of libraries, the exporter's own connection first, are not.
const OURS: [&str; 4] = ["dfs_client", "metadata_server", "chunk_server", "server_kit"];

/// Of the connection; what it does is small.
const THREADS: usize = 1;

static STARTED: OnceLock<Started> = OnceLock::new();

struct Started {
    provider: SdkTracerProvider,
    /// Lives as long as the process: the connection runs on it.
    _runtime: Runtime,
}

/// Whether this process sends traces.
pub fn on() -> bool {
    STARTED.get().is_some()
}

/// Starts sending and gives the layer that gathers spans; `None` unless [`ENDPOINT`] is set and not empty.
/// Once for a process. `service` is the program, `instance` which of its processes.
///
/// # Errors
/// Why the variable's value will not do, or the system gave no thread. The program goes on without traces.
pub fn layer<S>(service: &str, instance: &str) -> Result<Option<impl Layer<S> + Send + Sync>, String>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    let Some(endpoint) = std::env::var_os(ENDPOINT).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let endpoint = endpoint.into_string().unwrap_or_default();
    let tls = match endpoint.split_once("://") {
        Some(("http", _)) => None,
        Some(("https", _)) => Some(Tls::from_environment().map_err(|error| format!("no traces: {error}"))?),
        _ => return Err(format!("no traces: {ENDPOINT} must begin with http:// or https://")),
    };
    let started =
        start(service, instance, endpoint, tls).map_err(|error| format!("no traces: {ENDPOINT}: {error}"))?;
    let tracer = started.provider.tracer("distribute");
    if STARTED.set(started).is_err() {
        return Err("no traces: they were started twice".to_owned());
    }
    let ours = filter_fn(|of| {
        let (name, _) = of.target().split_once("::").unwrap_or((of.target(), ""));
        of.is_span() && OURS.contains(&name)
    });
    let spans = tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_target(false)
        .with_level(false);
    Ok(Some(spans.with_filter(ours)))
}

fn start(service: &str, instance: &str, endpoint: String, tls: Option<Tls>) -> Result<Started, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("traces")
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let exporter = {
        let _here = runtime.enter();
        // Trying again would only keep the end of a program waiting for a collector that is not there.
        let once = RetryPolicy::disabled();
        // Headers, the time limit and the like are read from the environment by the builder.
        let mut builder = Otlp::builder().with_tonic().with_endpoint(&endpoint).with_retry_policy(once);
        if let Some(tls) = tls {
            let limit = time_limit();
            builder = builder.with_channel(tls.channel(&endpoint, limit)?).with_timeout(limit);
        }
        builder.build().map_err(|error| error.to_string())?
    };
    let queue = BatchConfigBuilder::default()
        .with_max_queue_size(TRACE_QUEUE_SPANS)
        .with_max_export_batch_size(TRACE_BATCH_SPANS)
        .build();
    let processor = BatchSpanProcessor::builder(Told { to: exporter, failing: AtomicBool::new(false) })
        .with_batch_config(queue)
        .build();
    let resource = Resource::builder()
        .with_service_name(service.to_owned())
        .with_attribute(KeyValue::new("service.instance.id", instance.to_owned()))
        .build();
    let provider = SdkTracerProvider::builder()
        .with_sampler(Asked { share: share() })
        .with_resource(resource)
        .with_span_processor(processor)
        .build();
    Ok(Started { provider, _runtime: runtime })
}

/// How long one call to the collector may take, by the usual variable.
fn time_limit() -> Duration {
    let given = std::env::var("OTEL_EXPORTER_OTLP_TIMEOUT").ok().and_then(|text| text.parse().ok());
    Duration::from_millis(given.unwrap_or(TRACE_TIMEOUT_MS))
}

/// Sends what is queued, for at most `limit`; afterwards nothing is sent any more. At the end of a
/// program, whatever its result was.
pub fn flush(limit: Duration) {
    if let Some(started) = STARTED.get() {
        // Why it failed was told; what is left is lost, as promised.
        let _ = started.provider.shutdown_with_timeout(limit);
    }
}

/// Tells the log when sending begins to fail, and when it works again: not every time.
#[derive(Debug)]
struct Told {
    to: Otlp,
    failing: AtomicBool,
}

impl SpanExporter for Told {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let result = self.to.export(batch).await;
        let failed = result.is_err();
        match (&result, self.failing.swap(failed, Ordering::Relaxed)) {
            (Err(error), false) => tracing::warn!(%error, "traces cannot be sent and are dropped"),
            (Ok(()), true) => tracing::info!("traces are sent again"),
            _ => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, limit: Duration) -> OTelSdkResult {
        self.to.shutdown_with_timeout(limit)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.to.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.to.set_resource(resource);
    }
}
