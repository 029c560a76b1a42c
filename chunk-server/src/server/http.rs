//! Reflection and `/metrics`: on the main port for servers of the cluster, by certificate, for a chunk server knows
//! no API keys; on a port of its own, if the operator opens one, for scrapers without a credential.

use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use dfs_proto::status::to_status;
use dfs_types::{DfsError, ErrorCode};
use server_kit::{Next, Problem, ServiceHealth, Shutdown, Work};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use transport::PeerIdentity;

pub(super) fn metrics_for_servers() -> Router {
    Router::new().route(
        "/metrics",
        get(async |request: Request| match request.extensions().get::<PeerIdentity>() {
            Some(PeerIdentity(Some(_))) => metrics(),
            _ => {
                Problem::new(ErrorCode::Unauthenticated, "only servers of the cluster may read metrics here")
                    .into_response()
            }
        }),
    )
}

/// What this server can be asked, told to servers of the cluster.
pub(super) fn reflection_for_servers(services: &'static [ServiceHealth]) -> Result<Router, DfsError> {
    let routes = server_kit::grpc_reflection::routes(dfs_proto::DESCRIPTORS, services)?;
    Ok(routes.layer(axum::middleware::from_fn(
        async |request: Request, next: middleware::Next| match request.extensions().get::<PeerIdentity>() {
            Some(PeerIdentity(Some(_))) => next.run(request).await,
            _ => {
                let message = "only servers of the cluster may use reflection here; ask a metadata server";
                to_status(&DfsError::new(ErrorCode::Unauthenticated, message)).into_http()
            }
        },
    )))
}

/// Serves `/metrics` alone, in plain HTTP, until shutdown.
pub(super) async fn serve_metrics(address: &str, shutdown: Shutdown) -> Result<JoinHandle<()>, DfsError> {
    let failed = |error| DfsError::new(ErrorCode::Io, format!("metrics on {address}: {error}"));
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    tracing::info!(address = %listener.local_addr().map_err(failed)?, "serving metrics");
    let router = Router::new().route("/metrics", get(async || metrics()));
    Ok(tokio::spawn(async move {
        let serving =
            axum::serve(listener, router).with_graceful_shutdown(async move { shutdown.wait().await });
        if let Err(error) = serving.await {
            tracing::error!(%error, "metrics are not served any more");
        }
    }))
}

fn metrics() -> Response {
    match server_kit::metrics::installed() {
        Some(metrics) => metrics.response(),
        None => Problem::new(ErrorCode::Internal, "there are no metrics in this process").into_response(),
    }
}

/// Keeps the memory of histograms small on a server that nobody scrapes.
pub(super) struct MetricsUpkeep;

impl Work for MetricsUpkeep {
    async fn step(&mut self) -> Result<Next, DfsError> {
        if let Some(metrics) = server_kit::metrics::installed() {
            metrics.upkeep();
        }
        Ok(Next::After(Duration::from_secs(60)))
    }
}
