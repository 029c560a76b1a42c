//! Servers as the command line names them: `m1=m1.example:8080`.

use dfs_types::{DfsError, NodeId};
use transport::Role;

use crate::cli::CliError;

/// The port of a metadata server when none is given.
const METADATA_PORT: u16 = 8080;

/// Names that the folder itself uses.
const TAKEN: &[&str] = &["authority", "client"];

#[derive(Debug)]
pub(super) struct ServerName {
    pub role: Role,
    pub id: NodeId,
    pub host: String,
    port: u16,
}

impl ServerName {
    pub fn is_metadata(&self) -> bool {
        self.role == Role::MetadataServer
    }

    /// `host:port`, an IPv6 address in brackets.
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// Reads both lists. A name stands for one server.
pub(super) fn parse(metadata: &[String], chunk_servers: &[String]) -> Result<Vec<ServerName>, CliError> {
    let mut all: Vec<ServerName> = Vec::new();
    let roles = [(Role::MetadataServer, metadata), (Role::ChunkServer, chunk_servers)];
    for (role, texts) in roles {
        for text in texts {
            let server = one(role, text)?;
            if all.iter().any(|other| other.id == server.id) {
                return Err(CliError::usage(format!("{} is named twice", server.id)));
            }
            all.push(server);
        }
    }
    Ok(all)
}

fn one(role: Role, text: &str) -> Result<ServerName, CliError> {
    let wrong = |reason: String| CliError::usage(format!("{text:?}: {reason}"));
    let (id, place) = text.split_once('=').ok_or_else(|| wrong("is not NAME=HOST".into()))?;
    let id = NodeId::new(id).map_err(|error: DfsError| wrong(error.message))?;
    if TAKEN.contains(&id.as_str()) {
        return Err(wrong(format!("{id} is a folder of its own here; choose another name")));
    }
    let (host, port) = split(place).ok_or_else(|| wrong("is not NAME=HOST[:PORT]".into()))?;
    Ok(ServerName { role, id, host, port })
}

/// `host`, `host:port`, `[v6]`, `[v6]:port`, a bare IPv6 address.
fn split(place: &str) -> Option<(String, u16)> {
    let (host, port) = if let Some(rest) = place.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
    } else if place.matches(':').count() > 1 {
        (place, None)
    } else {
        match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        }
    };
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port > 0)?,
        None => METADATA_PORT,
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    (!host.is_empty() && host.len() <= 253 && host.chars().all(plain)).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<String> {
        one(Role::MetadataServer, text).ok().map(|server| server.address())
    }

    #[test]
    fn places_are_read_as_people_write_them() {
        assert_eq!(address("m1=m1.example:7000").as_deref(), Some("m1.example:7000"));
        assert_eq!(address("m1=m1").as_deref(), Some("m1:8080"));
        assert_eq!(address("m1=10.0.0.1").as_deref(), Some("10.0.0.1:8080"));
        assert_eq!(address("m1=[fd00::1]:7000").as_deref(), Some("[fd00::1]:7000"));
        assert_eq!(address("m1=fd00::1").as_deref(), Some("[fd00::1]:8080"));
        for text in [
            "m1",
            "m1=",
            "=host",
            "M1=host",
            "m1=host:0",
            "m1=host:x",
            "m1=ho st",
            "m1=[x",
            "m1=a/b",
            "client=h",
        ] {
            assert_eq!(address(text), None, "{text}");
        }
    }

    #[test]
    fn a_name_is_one_server() {
        let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert!(parse(&list(&["a=h"]), &list(&["b=h"])).is_ok());
        assert!(parse(&list(&["a=h"]), &list(&["a=h"])).is_err());
    }
}
