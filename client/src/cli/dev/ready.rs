//! Asking servers whether they are ready, over TLS and with their identity checked, as every caller
//! of theirs does.

use std::time::Duration;

use dfs_types::NodeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use transport::{Dialer, Expect, Tls};

use super::layout::Layout;
use super::plan::{Plan, Role, Server};
use crate::cli::CliError;

const PROBE_DEADLINE: Duration = Duration::from_secs(2);
const MAX_ANSWER_BYTES: u64 = 16 * 1024;

/// What a server says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Readiness {
    Ready,
    /// It answers, and says why it is not ready.
    NotReady(String),
    /// It does not answer.
    Silent(String),
}

impl Readiness {
    /// Why not, for people.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Readiness::Ready => None,
            Readiness::NotReady(reason) | Readiness::Silent(reason) => Some(reason),
        }
    }
}

pub(super) struct Prober(Dialer);

impl Prober {
    pub fn new(layout: &Layout, plan: &Plan) -> Result<Self, CliError> {
        let path = layout.ca();
        let ca = std::fs::read(&path)
            .map_err(|error| CliError::io(format!("reading {}", path.display()), error))?;
        let cluster = plan.cluster_id.parse()?;
        let tls = Tls::client(&ca, Some(cluster)).map_err(|error| CliError::failed(error.to_string()))?;
        Ok(Self(Dialer::new(tls).with_deadline(PROBE_DEADLINE)))
    }

    /// Asks one server, within two seconds.
    pub async fn ask(&self, server: &Server) -> Readiness {
        match tokio::time::timeout(PROBE_DEADLINE, self.get_ready(server)).await {
            Ok(Ok(answer)) => read_answer(&answer),
            Ok(Err(reason)) => Readiness::Silent(reason),
            Err(_) => Readiness::Silent("does not answer".into()),
        }
    }

    async fn get_ready(&self, server: &Server) -> Result<Vec<u8>, String> {
        let role = match server.role {
            Role::MetadataServer => transport::Role::MetadataServer,
            Role::ChunkServer => transport::Role::ChunkServer,
        };
        let id = NodeId::new(server.id.as_str()).map_err(|error| error.to_string())?;
        let address = server.address();
        let expect = Expect::server(role, id);
        let mut stream =
            self.0.open(&address, &expect, &[b"http/1.1"]).await.map_err(|error| error.to_string())?;
        let request = format!("GET /ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
        let mut answer = Vec::new();
        // The end may come as a reset or without TLS's goodbye: what came before it is the answer.
        let _ = stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer).await;
        Ok(answer)
    }
}

/// Reads `{"status":..,"reasons":{component: reason}}` behind a status line.
fn read_answer(answer: &[u8]) -> Readiness {
    let text = String::from_utf8_lossy(answer);
    let status = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).unwrap_or("");
    if status == "200" {
        return Readiness::Ready;
    }
    let json = text.find('{').zip(text.rfind('}')).and_then(|(from, to)| text.get(from..=to));
    let body: serde_json::Value = json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
    let reasons = body["reasons"].as_object().into_iter().flatten();
    let reasons: Vec<String> = reasons
        .filter_map(|(component, reason)| Some(format!("{component}: {}", reason.as_str()?)))
        .collect();
    match (reasons.is_empty(), status) {
        (false, _) => Readiness::NotReady(reasons.join(", ")),
        (true, "") => Readiness::Silent("closed the connection without an answer".into()),
        (true, status) => Readiness::NotReady(format!("answers {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let answer = |status: &str, body: &str| {
            read_answer(format!("HTTP/1.1 {status} X\r\ncontent-length: 1\r\n\r\n{body}").as_bytes())
        };
        assert_eq!(answer("200", "{}"), Readiness::Ready);
        let body = r#"{"status":"not_ready","reasons":{"raft":"no leader","state":"starting"}}"#;
        assert_eq!(answer("503", body), Readiness::NotReady("raft: no leader, state: starting".into()));
        assert_eq!(answer("404", "nothing"), Readiness::NotReady("answers 404".into()));
        for garbage in [&b""[..], b"\x15\x03\x03", b"HTTP/1.1 \xff\xff\xff", b"}{"] {
            assert!(!matches!(read_answer(garbage), Readiness::Ready));
        }
    }
}
