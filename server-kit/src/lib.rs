//! What every server needs once, so that no server writes it twice: settings, logs, metrics, health,
//! request ids, shutdown, background workers, problem documents, credentials, hardening.
//!
//! Knows nothing of what a server does, and of no other crate of the project but `dfs-types`.

pub mod blocking;
pub mod build;
pub mod certificates;
pub mod config;
pub mod credentials;
pub mod grpc_health;
pub mod grpc_reflection;
pub mod hardening;
pub mod health;
pub mod http_metrics;
pub mod logging;
pub mod metrics;
pub mod probe;
pub mod problem;
pub mod program;
pub mod request_id;
pub mod secret_file;
pub mod shutdown;
pub mod worker;

pub use blocking::BlockingPool;
pub use config::ConfigError;
pub use credentials::{ApiKey, bearer};
pub use grpc_health::{GrpcHealth, ServiceHealth};
pub use hardening::open_files;
pub use health::Health;
pub use logging::{LogFormat, LogSettings};
pub use probe::Probe;
pub use problem::Problem;
pub use program::{Life, ServerSettings};
pub use shutdown::Shutdown;
pub use worker::{Next, Work, WorkerStatus, Workers};
