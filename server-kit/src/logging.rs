//! Logs: one JSON object a line (or plain text on request) to standard error or a file. The fields of
//! the spans around an event are on its line, so the `request_id` of a request is on all of its
//! lines, in every process it goes through, and its `trace_id` where traces are sent.
//!
//! Nothing here filters secrets: key types have no Debug and no Display, so that they cannot get in.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormattedFields};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Json,
    /// For people at a terminal.
    Plain,
}

#[derive(Clone, Debug)]
pub struct LogSettings {
    pub format: LogFormat,
    /// A level (`info`) or directives (`info,openraft=warn`).
    pub level: String,
    /// Appended to, created with mode 0600; standard error if `None`.
    pub file: Option<PathBuf>,
    /// On every line as `server`, such as `chunk-server/n1`.
    pub server: String,
}

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("log level {level:?}: {reason}")]
    Level { level: String, reason: String },
    #[error("log file {}: {source}", file.display())]
    File { file: PathBuf, source: io::Error },
    #[error("logging was set up twice")]
    Twice,
}

/// Changes the level of a process that logs already.
#[derive(Clone)]
pub struct LogLevel(Arc<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>);

impl LogLevel {
    /// From the next event on. What does not read as a level or directives changes nothing.
    pub fn set(&self, level: &str) -> Result<(), LogError> {
        (self.0)(filter(level)?).map_err(|reason| LogError::Level { level: level.to_owned(), reason })
    }
}

fn filter(level: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::try_new(level).map_err(|e| LogError::Level { level: level.to_owned(), reason: e.to_string() })
}

/// Whether the level would do.
pub fn check_level(level: &str) -> Result<(), LogError> {
    filter(level).map(|_| ())
}

/// Sets up logging for the process; once. Panics are logged too, as ERROR.
pub fn init(settings: &LogSettings) -> Result<LogLevel, LogError> {
    let filter = filter(&settings.level)?;
    let writer = match &settings.file {
        None => BoxMakeWriter::new(io::stderr),
        Some(path) => {
            let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
            BoxMakeWriter::new(Mutex::new(
                opened.map_err(|source| LogError::File { file: path.clone(), source })?,
            ))
        }
    };
    let twice = |_| LogError::Twice;
    let (filter, handle) = reload::Layer::new(filter);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match settings.format {
        LogFormat::Json => fmt::layer()
            .fmt_fields(JsonFields::new())
            .event_format(JsonLine { server: settings.server.clone() })
            .with_writer(writer)
            .boxed(),
        LogFormat::Plain => fmt::layer().with_ansi(false).with_writer(writer).boxed(),
    };
    let logs = tracing_subscriber::registry().with(lines.with_filter(filter));
    let (service, instance) = settings.server.split_once('/').unwrap_or((&settings.server, ""));
    let no_traces = match traces::layer(service, instance) {
        Ok(None) => logs.try_init().map(|()| None),
        Ok(Some(spans)) => logs.with(spans).try_init().map(|()| None),
        Err(reason) => logs.try_init().map(|()| Some(reason)),
    };
    if let Some(reason) = no_traces.map_err(twice)? {
        tracing::warn!("{reason}");
    }
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(String::new, ToString::to_string);
        tracing::error!(place, "panic: {}", panic.payload_as_str().unwrap_or("not a text"));
    }));
    Ok(LogLevel(Arc::new(move |new| handle.reload(new).map_err(|error| error.to_string()))))
}

/// Formats an event as one flat JSON object: timestamp, level, server, target, message, then the
/// fields of the spans from the outermost in, then its own. A later field of a name wins, but none hides
/// when, how grave and where: it gets an underscore.
struct JsonLine {
    server: String,
}

impl<S> FormatEvent<S, JsonFields> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let mut line = Map::new();
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<JsonFields>>();
            if let Some(Ok(Value::Object(fields))) = fields.map(|f| serde_json::from_str(&f.fields)) {
                // How collectors name a span is of no use here.
                line.extend(fields.into_iter().filter(|(name, _)| !name.starts_with("otel.")));
            }
        }
        event.record(&mut IntoMap(&mut line));
        for (name, value) in [
            ("timestamp", time.as_str()),
            ("level", event.metadata().level().as_str()),
            ("server", &self.server),
            ("target", event.metadata().target()),
        ] {
            if let Some(field) = line.insert(name.to_owned(), value.into()) {
                line.insert(format!("{name}_"), field);
            }
        }
        writeln!(writer, "{}", Value::Object(line))
    }
}

struct IntoMap<'a>(&'a mut Map<String, Value>);

impl IntoMap<'_> {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for IntoMap<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_carries_the_fields_of_all_its_spans() {
        let lines = Lines::default();
        let sink = lines.clone();
        let subscriber = fmt()
            .fmt_fields(JsonFields::new())
            .event_format(JsonLine { server: "chunk-server/n1".into() })
            .with_writer(move || sink.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let outer = tracing::info_span!("request", request_id = "r-1", path = "/x\n\"y").entered();
            let inner = tracing::info_span!("store", chunk = 7, otel.name = "x").entered();
            tracing::info!(bytes = 12, full = false, level = "debug", target = %"n3", "stored");
            drop((inner, outer));
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: Value = serde_json::from_str(&text).unwrap();
        for (name, want) in [
            ("level", Value::from("INFO")),
            ("level_", "debug".into()),
            ("target_", "n3".into()),
            ("server", "chunk-server/n1".into()),
            ("message", "stored".into()),
            ("request_id", "r-1".into()),
            ("path", "/x\n\"y".into()),
            ("chunk", 7.into()),
            ("bytes", 12.into()),
            ("full", false.into()),
        ] {
            assert_eq!(line[name], want, "{name} in {text}");
        }
        assert!(line.get("otel.name").is_none(), "{text}");
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
    }
}
