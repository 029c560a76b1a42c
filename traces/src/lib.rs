//! Traces: one request as spans over all processes it goes through, sent by OTLP to a collector.
//!
//! On only where the variable [`ENDPOINT`] names a collector when the process starts. Else nothing of it is
//! built: no thread, no layer, no connection, and every function here is one load of a word.
//!
//! Traces are for looking, never for working: what cannot be sent is dropped (the queue is bounded), an
//! unreachable collector is told once in the log, and no call waits for either. A crash loses the spans
//! of the last seconds and nothing else.

mod context;
mod export;
mod sampler;
mod tls;

pub use context::{Parent, adopt, current, inject, trace_id};
pub use export::{ENDPOINT, flush, layer, on};
pub use tls::{CERTIFICATE, CLIENT_CERTIFICATE, CLIENT_KEY};
