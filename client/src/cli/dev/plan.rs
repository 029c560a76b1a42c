//! plan.json, the servers of a cluster as dev means them; and cluster.json, the same for other programs.
//!
//! plan.json is written before a server is started, so that a port once chosen stays, and again after,
//! with the process. If dfsctl dies between, the process is found by its arguments.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::layout::{Layout, write_private};
use crate::cli::CliError;

const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Plan {
    pub format: u32,
    pub cluster_id: String,
    /// The metadata servers the cluster began with.
    pub initial_members: Vec<String>,
    /// Where the servers listen, if something stands at the addresses by which they are known, such as a
    /// proxy that makes faults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_ip: Option<Ipv4Addr>,
    pub servers: Vec<Server>,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Server {
    pub role: Role,
    pub id: String,
    pub port: u16,
    /// Failure domain, chunk servers only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Its last process, dead or alive.
    pub process: Option<ProcessRecord>,
}

#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Role {
    MetadataServer,
    ChunkServer,
}

/// Enough to know a process again: a pid alone may be somebody else's by now.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct ProcessRecord {
    pub pid: i32,
    /// Clock ticks from boot to its start, as in /proc/PID/stat.
    pub start_ticks: u64,
    pub boot_id: String,
    /// RFC 3339, for people.
    pub started: String,
}

impl Role {
    /// As in cluster.json; also the name of the program.
    pub fn word(self) -> &'static str {
        match self {
            Role::MetadataServer => "metadata-server",
            Role::ChunkServer => "chunk-server",
        }
    }

    fn letter(self) -> char {
        match self {
            Role::MetadataServer => 'm',
            Role::ChunkServer => 'n',
        }
    }
}

impl Server {
    /// Where others reach it.
    pub fn address(&self) -> String {
        format!("{}:{}", Ipv4Addr::LOCALHOST, self.port)
    }
}

impl Plan {
    pub fn new(cluster_id: String) -> Self {
        Self { format: FORMAT, cluster_id, initial_members: Vec::new(), listen_ip: None, servers: Vec::new() }
    }

    /// The plan of a folder; none if there is no cluster yet.
    pub fn load(layout: &Layout) -> Result<Option<Self>, CliError> {
        let path = layout.plan();
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CliError::io(format!("reading {}", path.display()), error)),
        };
        let plan: Self = serde_json::from_slice(&text)
            .map_err(|error| CliError::failed(format!("{} does not read: {error}", path.display())))?;
        if plan.format != FORMAT {
            return Err(CliError::failed(format!(
                "{} has the unknown format {}",
                path.display(),
                plan.format
            )));
        }
        Ok(Some(plan))
    }

    /// The plan of a folder that has one.
    pub fn existing(layout: &Layout) -> Result<Self, CliError> {
        Self::load(layout)?.ok_or_else(|| CliError::failed("the cluster's plan.json has gone"))
    }

    /// Writes plan.json, cluster.json and dfsctl.toml. The caller holds the lock.
    pub fn save(&self, layout: &Layout) -> Result<(), CliError> {
        let mut text = serde_json::to_vec_pretty(self).expect("a plan is plain data");
        text.push(b'\n');
        write_private(&layout.plan(), &text)?;
        let mut text = serde_json::to_vec_pretty(&self.cluster_file(layout)).expect("plain data");
        text.push(b'\n');
        write_private(&layout.cluster_file(), &text)?;
        write_private(&layout.config(), self.dfsctl_toml().as_bytes())
    }

    pub fn of(&self, role: Role) -> impl Iterator<Item = &Server> {
        self.servers.iter().filter(move |server| server.role == role)
    }

    pub fn server_mut(&mut self, id: &str) -> Option<&mut Server> {
        self.servers.iter_mut().find(|server| server.id == id)
    }

    pub fn ports(&self) -> BTreeSet<u16> {
        self.servers.iter().map(|server| server.port).collect()
    }

    /// Where all servers listen, each at its port.
    pub fn listen_ip(&self) -> Ipv4Addr {
        self.listen_ip.unwrap_or(Ipv4Addr::LOCALHOST)
    }

    pub fn listen_address(&self, server: &Server) -> String {
        format!("{}:{}", self.listen_ip(), server.port)
    }

    /// Addresses of all metadata servers.
    pub fn metadata_addresses(&self) -> Vec<String> {
        self.of(Role::MetadataServer).map(Server::address).collect()
    }

    /// Adds a server under the next free name.
    pub fn add(&mut self, role: Role, port: u16, domain: Option<String>) -> String {
        let number = |server: &Server| server.id[1..].parse::<u32>().unwrap_or(0);
        let last = self.of(role).map(number).max().unwrap_or(0);
        let id = format!("{}{}", role.letter(), last + 1);
        let domain = match role {
            Role::MetadataServer => None,
            Role::ChunkServer => Some(domain.unwrap_or_else(|| id.clone())),
        };
        self.servers.push(Server { role, id: id.clone(), port, domain, process: None });
        self.servers.sort_by_key(|server| (server.role, number(server)));
        id
    }

    fn cluster_file(&self, layout: &Layout) -> serde_json::Value {
        let process = |server: &Server| {
            let process = server.process.as_ref()?;
            let folder = layout.server(&server.id);
            let mut addresses = serde_json::json!({ "api": server.address() });
            if self.listen_ip.is_some() {
                addresses["listen"] = self.listen_address(server).into();
            }
            Some(serde_json::json!({
                "role": server.role.word(),
                "id": server.id,
                "pid": process.pid,
                "started": process.started,
                "addresses": addresses,
                "data_dir": folder.data,
                "log": folder.log,
            }))
        };
        serde_json::json!({
            "format": 1,
            "processes": self.servers.iter().filter_map(process).collect::<Vec<_>>(),
            "ca": layout.ca(),
            "admin_key_file": layout.admin_key(),
        })
    }

    fn dfsctl_toml(&self) -> String {
        let addresses: Vec<String> =
            self.metadata_addresses().iter().map(|address| format!("{address:?}")).collect();
        format!(
            "# Written by `dfsctl dev`; use it with DFSCTL_CONFIG.\n\
             cluster_id = {:?}\nmetadata = [{}]\nca = \"ca.pem\"\napi_key_file = \"admin.key\"\n",
            self.cluster_id,
            addresses.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let mut plan = Plan::new("01010101-0101-0101-0101-010101010101".into());
        for port in [7401, 7402] {
            plan.add(Role::ChunkServer, port, None);
        }
        plan.add(Role::MetadataServer, 7403, None);
        plan
    }

    #[test]
    fn names_go_on_counting() {
        let mut plan = plan();
        let ids = |plan: &Plan| plan.servers.iter().map(|server| server.id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&plan), ["m1", "n1", "n2"]);
        plan.servers.retain(|server| server.id != "n1");
        assert_eq!(plan.add(Role::ChunkServer, 1, Some("rack".into())), "n3");
        for _ in 4..=10 {
            plan.add(Role::ChunkServer, 1, None);
        }
        assert_eq!(ids(&plan).last().unwrap(), "n10");
    }

    #[test]
    fn the_files_of_a_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::resolve(Some(dir.path().to_owned())).unwrap();
        let mut plan = plan();
        assert_eq!(Plan::load(&layout).unwrap(), None);
        plan.server_mut("n1").unwrap().process = Some(ProcessRecord {
            pid: 77,
            start_ticks: 5,
            boot_id: "b".into(),
            started: "2026-01-02T03:04:05Z".into(),
        });
        plan.save(&layout).unwrap();
        assert_eq!(Plan::load(&layout).unwrap().as_ref(), Some(&plan));

        let text = std::fs::read(layout.cluster_file()).unwrap();
        let file: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let root = layout.root().display();
        assert_eq!(
            file,
            serde_json::json!({
                "format": 1,
                "processes": [{
                    "role": "chunk-server", "id": "n1", "pid": 77, "started": "2026-01-02T03:04:05Z",
                    "addresses": { "api": "127.0.0.1:7401" },
                    "data_dir": format!("{root}/n1/data"), "log": format!("{root}/n1/server.log"),
                }],
                "ca": format!("{root}/ca.pem"),
                "admin_key_file": format!("{root}/admin.key"),
            })
        );
        std::fs::write(layout.ca(), "CA").unwrap();
        std::fs::write(layout.admin_key(), "dfs_x_y\n").unwrap();
        let config = crate::Config::from_file(layout.config()).unwrap();
        assert_eq!(config.metadata, ["127.0.0.1:7403"]);

        plan.listen_ip = Some(Ipv4Addr::new(127, 0, 0, 2));
        plan.save(&layout).unwrap();
        let text = std::fs::read(layout.cluster_file()).unwrap();
        let file: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let addresses = serde_json::json!({ "api": "127.0.0.1:7401", "listen": "127.0.0.2:7401" });
        assert_eq!(file["processes"][0]["addresses"], addresses);

        std::fs::write(layout.plan(), "{\"format\":1}").unwrap();
        assert!(Plan::load(&layout).err().unwrap().message.contains("does not read"));
    }
}
