//! Asking servers whether they are ready, over TLS and with their identity checked, as every caller
//! of theirs does.

use dfs_types::NodeId;
use transport::probe::Answer;
use transport::{Dialer, Expect, Tls};

use super::layout::Layout;
use super::plan::{Plan, Role, Server};
use crate::cli::CliError;

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

/// Asks servers at the addresses at which they listen.
pub(super) struct Prober {
    dialer: Dialer,
    ip: std::net::Ipv4Addr,
}

impl Prober {
    pub fn new(layout: &Layout, plan: &Plan) -> Result<Self, CliError> {
        let path = layout.ca();
        let ca = std::fs::read(&path)
            .map_err(|error| CliError::io(format!("reading {}", path.display()), error))?;
        let cluster = plan.cluster_id.parse()?;
        let tls = Tls::client(&ca, Some(cluster)).map_err(|error| CliError::failed(error.to_string()))?;
        Ok(Self { dialer: Dialer::new(tls), ip: plan.listen_ip() })
    }

    /// Asks one server, within two seconds.
    pub async fn ask(&self, server: &Server) -> Readiness {
        let role = match server.role {
            Role::MetadataServer => transport::Role::MetadataServer,
            Role::ChunkServer => transport::Role::ChunkServer,
        };
        let id = match NodeId::new(server.id.as_str()) {
            Ok(id) => id,
            Err(error) => return Readiness::Silent(error.to_string()),
        };
        let address = format!("{}:{}", self.ip, server.port);
        match transport::probe(&self.dialer, &address, &Expect::server(role, id), "/ready").await {
            Ok(answer) => read_answer(&answer),
            Err(error) => Readiness::Silent(error.to_string()),
        }
    }
}

/// Reads `{"status":..,"reasons":{component: reason}}` behind a status.
fn read_answer(answer: &Answer) -> Readiness {
    let Some(status) = answer.status else {
        return Readiness::Silent("closed the connection without an answer".into());
    };
    if status == 200 {
        return Readiness::Ready;
    }
    let text = &answer.body;
    let json = text.find('{').zip(text.rfind('}')).and_then(|(from, to)| text.get(from..=to));
    let body: serde_json::Value = json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
    let reasons = body["reasons"].as_object().into_iter().flatten();
    let reasons: Vec<String> = reasons
        .filter_map(|(component, reason)| Some(format!("{component}: {}", reason.as_str()?)))
        .collect();
    Readiness::NotReady(if reasons.is_empty() { format!("answers {status}") } else { reasons.join(", ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let answer = |status: &str, body: &str| {
            read_answer(&Answer { status: status.parse().ok(), body: body.to_owned() })
        };
        assert_eq!(answer("200", "{}"), Readiness::Ready);
        let body = r#"{"status":"not_ready","reasons":{"raft":"no leader","state":"starting"}}"#;
        assert_eq!(answer("503", body), Readiness::NotReady("raft: no leader, state: starting".into()));
        assert_eq!(answer("404", "nothing"), Readiness::NotReady("answers 404".into()));
        assert_eq!(answer("503", "}{"), Readiness::NotReady("answers 503".into()));
        assert!(matches!(answer("", ""), Readiness::Silent(_)));
    }
}
