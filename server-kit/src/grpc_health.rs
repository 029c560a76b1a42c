//! `grpc.health.v1.Health` over the same components as `/ready`: open like that, because load
//! balancers and orchestrators hold no credential, and saying as little.
//!
//! Owner: the server's [`Health`]; nothing is kept here but the count of watches. A watch ends when the
//! server drains, so that it never holds up a shutdown.

use std::pin::Pin;
use std::sync::Arc;

use dfs_types::limits::MAX_HEALTH_WATCHES;
use futures::{Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health as Service, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::Health;

/// A gRPC service and the components it cannot do without.
#[derive(Clone, Copy, Debug)]
pub struct ServiceHealth {
    /// Full name, such as `dfs.v1.Metadata`.
    pub name: &'static str,
    pub needs: &'static [&'static str],
}

/// Answers for the server as a whole (the empty name: as `/ready`) and for each of its services.
#[derive(Clone)]
pub struct GrpcHealth {
    health: Health,
    services: &'static [ServiceHealth],
    watches: Arc<Semaphore>,
}

impl GrpcHealth {
    pub fn service(health: Health, services: &'static [ServiceHealth]) -> HealthServer<Self> {
        let watches = Arc::new(Semaphore::new(MAX_HEALTH_WATCHES));
        HealthServer::new(Self { health, services, watches }).max_decoding_message_size(1024)
    }

    fn status(&self, service: &str) -> Option<ServingStatus> {
        let serves = if service.is_empty() {
            self.health.is_ready()
        } else {
            let known = self.services.iter().find(|known| known.name == service)?;
            self.health.has(known.needs)
        };
        Some(if serves { ServingStatus::Serving } else { ServingStatus::NotServing })
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status as i32 }
}

#[tonic::async_trait]
impl Service for GrpcHealth {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let status = self.status(&request.get_ref().service);
        status.map(answer).map(Response::new).ok_or_else(|| Status::not_found("no such service here"))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    /// The status now, then each change of it; a service that is not known is said to be so.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let permit = Arc::clone(&self.watches)
            .try_acquire_owned()
            .map_err(|_| Status::resource_exhausted("too many watches of health; use Check"))?;
        let watch = Watch {
            of: self.clone(),
            service: request.into_inner().service,
            changes: self.health.changes(),
            told: None,
            _permit: permit,
        };
        Ok(Response::new(futures::stream::unfold(Some(watch), next).boxed()))
    }
}

struct Watch {
    of: GrpcHealth,
    service: String,
    changes: tokio::sync::watch::Receiver<u64>,
    told: Option<ServingStatus>,
    _permit: OwnedSemaphorePermit,
}

/// The next answer of a watch, and the watch if it goes on.
async fn next(watch: Option<Watch>) -> Option<(Result<HealthCheckResponse, Status>, Option<Watch>)> {
    let mut watch = watch?;
    loop {
        // Before looking: a change that comes after the look must wake the wait below.
        watch.changes.mark_unchanged();
        let status = watch.of.status(&watch.service).unwrap_or(ServingStatus::ServiceUnknown);
        let ends = watch.of.health.is_draining();
        if watch.told != Some(status) || ends {
            watch.told = Some(status);
            return Some((Ok(answer(status)), (!ends).then_some(watch)));
        }
        // The sender lives as long as the health that this watch holds.
        watch.changes.changed().await.ok()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICES: &[ServiceHealth] = &[
        ServiceHealth { name: "dfs.v1.A", needs: &["store"] },
        ServiceHealth { name: "dfs.v1.B", needs: &["store", "cluster"] },
    ];

    fn parts() -> (Health, GrpcHealth) {
        let health = Health::new("chunk-server", "n1", "1.2.3", &["store", "cluster"]);
        let watches = Arc::new(Semaphore::new(2));
        (health.clone(), GrpcHealth { health, services: SERVICES, watches })
    }

    async fn check(of: &GrpcHealth, service: &str) -> Result<i32, tonic::Code> {
        let request = Request::new(HealthCheckRequest { service: service.into() });
        of.check(request).await.map(|answer| answer.into_inner().status).map_err(|status| status.code())
    }

    #[tokio::test]
    async fn each_service_waits_for_what_it_needs() {
        let (health, of) = parts();
        let (yes, no) = (ServingStatus::Serving as i32, ServingStatus::NotServing as i32);
        assert_eq!(check(&of, "dfs.v1.A").await, Ok(no));
        health.ready("store");
        assert_eq!(check(&of, "dfs.v1.A").await, Ok(yes));
        assert_eq!((check(&of, "dfs.v1.B").await, check(&of, "").await), (Ok(no), Ok(no)));
        health.ready("cluster");
        assert_eq!((check(&of, "dfs.v1.B").await, check(&of, "").await), (Ok(yes), Ok(yes)));
        assert_eq!(check(&of, "dfs.v1.C").await, Err(tonic::Code::NotFound));
        health.draining();
        assert_eq!((check(&of, "dfs.v1.A").await, check(&of, "").await), (Ok(no), Ok(no)));
    }

    #[tokio::test]
    async fn a_failed_server_serves_nothing() {
        let (health, of) = parts();
        health.ready("store");
        health.failed("disk");
        assert_eq!(check(&of, "dfs.v1.A").await, Ok(ServingStatus::NotServing as i32));
    }

    #[tokio::test]
    async fn a_watch_tells_changes_and_ends_with_the_server() {
        let (health, of) = parts();
        let watch = async |service: &str| {
            of.watch(Request::new(HealthCheckRequest { service: service.into() })).await
        };
        let mut a = watch("dfs.v1.A").await.unwrap().into_inner();
        let mut unknown = watch("dfs.v1.C").await.unwrap().into_inner();
        // Two at once are all this one allows.
        assert_eq!(watch("").await.err().unwrap().code(), tonic::Code::ResourceExhausted);
        let mut told = async || a.next().await.map(|answer| answer.unwrap().status);
        assert_eq!(told().await, Some(ServingStatus::NotServing as i32));
        // What does not concern it is not told.
        health.ready("cluster");
        health.ready("store");
        assert_eq!(told().await, Some(ServingStatus::Serving as i32));
        health.draining();
        assert_eq!(told().await, Some(ServingStatus::NotServing as i32));
        assert_eq!(told().await, None);
        let first = unknown.next().await.unwrap().unwrap().status;
        assert_eq!(first, ServingStatus::ServiceUnknown as i32);
        drop((a, unknown));
        assert!(watch("").await.is_ok(), "a watch that ended gives its place back");
    }
}
