//! Is this process alive, and may it be sent requests? `/health` and `/ready`, the only routes without
//! a credential, so they say words of ours and nothing of what is stored.
//!
//! Ready means that no component names a reason against it. A component is not ready until it says
//! so; a server that drains is never ready again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::watch;

/// The component that stands for the server as a whole.
const SERVER: &str = "server";

/// A cheap handle, shared by all parts of a server.
#[derive(Clone)]
pub struct Health {
    shared: Arc<Shared>,
}

struct Shared {
    version: &'static str,
    role: &'static str,
    id: String,
    reasons: Mutex<Reasons>,
    ready: watch::Sender<bool>,
    /// Counts changes of the reasons.
    changes: watch::Sender<u64>,
}

impl Shared {
    /// With a label of its own, as a leader tells of others, and so that several servers of one process differ.
    fn tell(&self, ready: bool) {
        metrics::gauge!("fs_node_health_status", "node" => self.id.clone()).set(f64::from(u8::from(ready)));
    }
}

#[derive(Default)]
struct Reasons {
    failed: Option<&'static str>,
    not_ready: BTreeMap<&'static str, &'static str>,
}

impl Health {
    /// All `components` start as not ready, for the reason `starting`.
    pub fn new(
        role: &'static str,
        id: impl Into<String>,
        version: &'static str,
        components: &[&'static str],
    ) -> Self {
        let not_ready: BTreeMap<_, _> = components.iter().map(|name| (*name, "starting")).collect();
        let (ready, _) = watch::channel(not_ready.is_empty());
        let reasons = Mutex::new(Reasons { failed: None, not_ready });
        let changes = watch::Sender::new(0);
        let shared = Shared { version, role, id: id.into(), reasons, ready, changes };
        shared.tell(*shared.ready.borrow());
        Self { shared: Arc::new(shared) }
    }

    pub fn ready(&self, component: &'static str) {
        self.change(|reasons| {
            reasons.not_ready.remove(component);
        });
    }

    /// `reason` is a fixed word or phrase: callers without a credential can read it.
    pub fn not_ready(&self, component: &'static str, reason: &'static str) {
        self.change(|reasons| {
            reasons.not_ready.insert(component, reason);
        });
    }

    /// The server stops: not ready from here on, though alive.
    pub fn draining(&self) {
        self.not_ready(SERVER, "draining");
    }

    /// Only a restart can help: `/health` answers 503 so that a supervisor does that.
    pub fn failed(&self, reason: &'static str) {
        self.change(|reasons| reasons.failed = Some(reason));
    }

    pub fn is_ready(&self) -> bool {
        *self.shared.ready.borrow()
    }

    /// Whether a service that needs these components can be asked now.
    pub(crate) fn has(&self, components: &[&str]) -> bool {
        let reasons = self.reasons();
        let missing = |name: &str| reasons.not_ready.contains_key(name);
        reasons.failed.is_none() && !missing(SERVER) && !components.iter().any(|name| missing(name))
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.reasons().not_ready.contains_key(SERVER)
    }

    /// Wakes at every change of a reason.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Waits until everything is ready.
    pub async fn until_ready(&self) {
        // An error would mean that the sender is gone, and `self` holds it.
        let _ = self.shared.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// `GET /health` and `GET /ready`.
    pub fn routes(&self) -> Router {
        Router::new().route("/health", get(health)).route("/ready", get(ready)).with_state(self.clone())
    }

    fn change(&self, change: impl FnOnce(&mut Reasons)) {
        let mut reasons = self.reasons();
        change(&mut reasons);
        let now = reasons.failed.is_none() && reasons.not_ready.is_empty();
        self.shared.ready.send_if_modified(|was| std::mem::replace(was, now) != now);
        self.shared.tell(now);
        drop(reasons);
        self.shared.changes.send_modify(|count| *count += 1);
    }

    fn reasons(&self) -> MutexGuard<'_, Reasons> {
        self.shared.reasons.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, status: StatusCode, word: &str, reasons: Value) -> Response {
        let build = crate::build::info();
        let mut body = json!({
            "status": word,
            "version": self.shared.version,
            "role": self.shared.role,
            "id": self.shared.id,
            "build": { "commit": build.commit, "rustc": build.rustc, "profile": build.profile },
        });
        if !reasons.is_null() {
            body["reasons"] = reasons;
        }
        (status, Json(body)).into_response()
    }
}

async fn health(State(health): State<Health>) -> Response {
    let failed = health.reasons().failed;
    match failed {
        None => health.answer(StatusCode::OK, "ok", Value::Null),
        Some(reason) => health.answer(StatusCode::SERVICE_UNAVAILABLE, "failed", json!({"server": reason})),
    }
}

async fn ready(State(health): State<Health>) -> Response {
    let reasons = {
        let reasons = health.reasons();
        let mut all = reasons.not_ready.clone();
        if let Some(reason) = reasons.failed {
            all.insert(SERVER, reason);
        }
        all
    };
    if reasons.is_empty() {
        health.answer(StatusCode::OK, "ready", Value::Null)
    } else {
        health.answer(StatusCode::SERVICE_UNAVAILABLE, "not_ready", json!(reasons))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::extract::Request;
    use tower::ServiceExt;

    async fn get(health: &Health, path: &str) -> (u16, Value) {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let response = health.routes().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn ready_when_every_component_is() {
        let health = Health::new("chunk-server", "n1", "1.2.3", &["store", "cluster"]);
        let (status, body) = get(&health, "/health").await;
        assert_eq!((status, &body["version"]), (200, &json!("1.2.3")));
        assert_eq!(body["build"]["profile"], if cfg!(debug_assertions) { "debug" } else { "release" });
        assert!(body["build"]["rustc"].as_str().unwrap().starts_with("1."), "{body}");
        let (status, body) = get(&health, "/ready").await;
        assert_eq!((status, &body["reasons"]["store"]), (503, &json!("starting")));
        health.ready("store");
        assert!(!health.is_ready());
        health.ready("cluster");
        health.until_ready().await;
        let (status, body) = get(&health, "/ready").await;
        assert_eq!((status, &body["status"], &body["version"]), (200, &json!("ready"), &json!("1.2.3")));
        health.draining();
        assert_eq!(get(&health, "/ready").await.0, 503);
        assert_eq!(get(&health, "/health").await.0, 200);
        health.failed("disk");
        assert_eq!(get(&health, "/health").await.0, 503);
    }
}
