//! A network between the servers of a cluster that can be broken: each server listens apart from where
//! the others reach it, and between the two stands a proxy of this process (`dfsctl dev up --listen-ip`).
//!
//! A proxy learns through /proc which server calls, so every link between two processes can be troubled
//! alone and in one direction alone: cut, slowed, with bits turned, its connections reset. Faults are
//! guards: dropped, the network is well again. Servers hide what they hold from other processes of their user, so
//! telling them apart needs root, and nothing else here does.

mod proxy;
mod rules;
mod who;

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::runtime::Runtime;

use crate::cluster::{Cluster, ClusterOptions, Process, checked};
use crate::wait::ended;
use proxy::Behind;
pub use rules::{LinkName, OUTSIDE, Trouble};

/// All of 127.0.0.0/8 is this machine's loopback.
const LISTEN_IP: &str = "127.0.0.2";

/// The proxies of one cluster.
pub struct Net {
    runtime: Runtime,
    rules: rules::Rules,
    servers: BTreeSet<String>,
}

/// A fault that lasts as long as this value.
#[must_use = "the network is well again as soon as this is dropped"]
pub struct Fault {
    rules: rules::Rules,
    number: u64,
}

impl Drop for Fault {
    fn drop(&mut self) {
        self.rules.remove(self.number);
    }
}

impl Net {
    /// Starts a new cluster whose servers reach each other through proxies, and waits until it is ready.
    pub fn start(options: &ClusterOptions, seed: u64) -> Result<(Cluster, Self)> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let mut net = Self { runtime, rules: rules::Rules::new(seed), servers: BTreeSet::new() };
        let cluster = Cluster::prepare(options)?;
        let mut up = cluster.up_command(options);
        up.args(["--listen-ip", LISTEN_IP]);
        up.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut up = up.spawn()?;
        // Servers appear in cluster.json as they are started; until its proxy stands, one is unreachable.
        while ended(&mut up, Duration::from_millis(5))?.is_none() {
            net.stand_before(&cluster)?;
        }
        checked("dev up", up.wait_with_output()?)?;
        net.stand_before(&cluster)?;
        // A network that takes everybody for a client would make no fault at all.
        let callers = net.rules.callers();
        ensure!(
            net.servers.iter().any(|id| callers.contains(id)),
            "no server's call was recognised: faults between servers need root, to see in /proc who calls"
        );
        Ok((cluster, net))
    }

    /// Puts a proxy before every server that has none.
    fn stand_before(&mut self, cluster: &Cluster) -> Result<()> {
        for process in cluster.processes().unwrap_or_default() {
            if !self.servers.contains(&process.id) {
                self.add(cluster, &process)?;
                self.servers.insert(process.id);
            }
        }
        Ok(())
    }

    fn add(&self, cluster: &Cluster, process: &Process) -> Result<()> {
        let address = |name: &str| -> Result<SocketAddr> {
            let text =
                process.addresses.get(name).with_context(|| format!("{} has no {name}", process.id))?;
            Ok(text.parse()?)
        };
        let known_as = address("api")?;
        let listener = TcpListener::bind(known_as).with_context(|| format!("before {}", process.id))?;
        listener.set_nonblocking(true)?;
        // The path as the servers have it in their arguments.
        let root = cluster.data_dir().canonicalize()?;
        let behind = Behind { name: process.id.clone(), listen: address("listen")?, root };
        let _inside = self.runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        self.runtime.spawn(proxy::serve(listener, behind, self.rules.clone()));
        Ok(())
    }

    /// Troubles the links named, until the fault is dropped.
    pub fn trouble(&self, links: impl IntoIterator<Item = LinkName>, trouble: Trouble) -> Fault {
        Fault { rules: self.rules.clone(), number: self.rules.add(links, trouble) }
    }

    /// Nothing passes from the ones to the others; what these say still arrives.
    pub fn cut_one_way(&self, from: &[&str], to: &[&str]) -> Fault {
        self.trouble(links(from, to), Trouble { cut: true, ..Trouble::default() })
    }

    /// Nothing passes between the two sides.
    pub fn cut(&self, one: &[&str], other: &[&str]) -> Fault {
        self.trouble(both_ways(one, other), Trouble { cut: true, ..Trouble::default() })
    }

    /// Cuts servers off from all other servers; clients still reach them.
    pub fn isolate(&self, servers: &[&str]) -> Fault {
        let others: Vec<&str> =
            self.servers.iter().map(String::as_str).filter(|id| !servers.contains(id)).collect();
        self.cut(servers, &others)
    }

    /// Every byte from and to a server takes so much longer, each way.
    pub fn slow(&self, server: &str, delay: Duration) -> Fault {
        self.trouble(self.all_links(server), Trouble { delay, ..Trouble::default() })
    }

    /// Connections to and from a server are made, and then nothing comes.
    pub fn silence(&self, server: &str) -> Fault {
        self.trouble(self.all_links(server), Trouble { cut: true, ..Trouble::default() })
    }

    /// Breaks every connection to and from a server.
    pub fn reset(&self, server: &str) {
        self.rules.reset(self.all_links(server));
    }

    /// Bits turned so far.
    pub fn flipped(&self) -> u64 {
        self.rules.flipped()
    }

    fn all_links(&self, server: &str) -> Vec<LinkName> {
        let others: Vec<&str> = self.servers.iter().map(String::as_str).chain([OUTSIDE]).collect();
        both_ways(&[server], &others)
    }

    /// Fails unless names are servers of the cluster: a fault on a misspelt link would be none.
    pub fn check(&self, names: &[&str]) -> Result<()> {
        match names.iter().find(|name| !self.servers.contains(**name)) {
            Some(name) => bail!("there is no server {name}"),
            None => Ok(()),
        }
    }
}

/// Every link from the ones to the others.
pub fn links(from: &[&str], to: &[&str]) -> Vec<LinkName> {
    let pairs = from.iter().flat_map(|a| to.iter().map(move |b| (*a, *b)));
    pairs.filter(|(a, b)| a != b).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
}

pub fn both_ways(one: &[&str], other: &[&str]) -> Vec<LinkName> {
    [links(one, other), links(other, one)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;

    /// A server that echoes, behind a proxy.
    fn echo() -> (Net, SocketAddr) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let net = Net { runtime: runtime.unwrap(), rules: rules::Rules::new(1), servers: BTreeSet::new() };
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = server.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in server.incoming().flatten() {
                std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
            }
        });
        let proxied = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = proxied.local_addr().unwrap();
        proxied.set_nonblocking(true).unwrap();
        let behind = Behind { name: "n1".into(), listen, root: "/nowhere".into() };
        let _inside = net.runtime.enter();
        let proxied = tokio::net::TcpListener::from_std(proxied).unwrap();
        net.runtime.spawn(proxy::serve(proxied, behind, net.rules.clone()));
        drop(_inside);
        (net, address)
    }

    fn said_back(stream: &mut TcpStream, text: &[u8]) -> std::io::Result<Vec<u8>> {
        stream.set_read_timeout(Some(Duration::from_millis(300)))?;
        stream.write_all(text)?;
        let mut back = vec![0; text.len()];
        stream.read_exact(&mut back)?;
        Ok(back)
    }

    #[test]
    fn a_cut_link_is_silent_until_it_is_healed() {
        let (net, address) = echo();
        let mut stream = TcpStream::connect(address).unwrap();
        assert_eq!(said_back(&mut stream, b"one").unwrap(), b"one");
        for (from, to) in [(OUTSIDE, "n1"), ("n1", OUTSIDE)] {
            let cut = net.cut_one_way(&[from], &[to]);
            assert!(said_back(&mut stream, b"two").is_err(), "{from} -> {to}");
            // A new connection is taken, and silent.
            let mut another = TcpStream::connect(address).unwrap();
            assert!(said_back(&mut another, b"new").is_err());
            drop(cut);
            let mut late = [0; 3];
            stream.read_exact(&mut late).unwrap();
            assert_eq!(&late, b"two");
        }
    }

    #[test]
    fn slow_flipped_and_reset() {
        let (net, address) = echo();
        let mut stream = TcpStream::connect(address).unwrap();
        let slow = net.slow("n1", Duration::from_millis(60));
        let start = std::time::Instant::now();
        assert_eq!(said_back(&mut stream, b"one").unwrap(), b"one");
        assert!(start.elapsed() >= Duration::from_millis(120));
        drop(slow);
        let wrong =
            net.trouble(both_ways(&["n1"], &[OUTSIDE]), Trouble { flip: Some(1), ..Trouble::default() });
        assert_ne!(said_back(&mut stream, b"abcdefgh").unwrap(), b"abcdefgh");
        assert!(net.flipped() > 0);
        drop(wrong);
        net.reset("n1");
        assert!(said_back(&mut stream, b"two").is_err());
        let mut anew = TcpStream::connect(address).unwrap();
        assert_eq!(said_back(&mut anew, b"new").unwrap(), b"new");
    }
}
