//! Ports: chosen once for each server, free at that moment, kept over restarts.
//!
//! They lie below the range from which the kernel takes the ports of outgoing connections: a port in
//! there may be somebody's when a stopped server wants it back.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::RangeInclusive;

use dfs_types::{Entropy, OsEntropy};

use crate::cli::CliError;

/// Where the default cluster's ports begin.
const FIRST: u16 = 7401;
/// Other clusters begin at random in here, so that several side by side rarely meet, stopped ones
/// included.
const OTHERS: RangeInclusive<u16> = 10_000..=30_000;
const OUTGOING_BEGINS: u16 = 32_768;

/// `count` free ports that are not in `taken`.
pub(super) fn choose(count: usize, taken: &BTreeSet<u16>, default: bool) -> Result<Vec<u16>, CliError> {
    let start = match (taken.last(), default) {
        (Some(last), _) => last.saturating_add(1),
        (None, true) => FIRST,
        (None, false) => random_start(),
    };
    choose_from(start, count, taken)
}

fn choose_from(start: u16, count: usize, taken: &BTreeSet<u16>) -> Result<Vec<u16>, CliError> {
    let end = outgoing_begins();
    let mut ports = Vec::with_capacity(count);
    // Held until all are found: no port twice, and none that another `up` finds at the same time.
    let mut held = Vec::with_capacity(count);
    for port in (start.min(end)..end).chain(FIRST..start.min(end)) {
        if ports.len() == count {
            break;
        }
        if let (false, Ok(listener)) = (taken.contains(&port), listen(port)) {
            held.push(listener);
            ports.push(port);
        }
    }
    if ports.len() == count {
        Ok(ports)
    } else {
        Err(CliError::failed(format!("fewer than {count} ports between {FIRST} and {end} are free")))
    }
}

/// Whether a server could listen there now.
pub(super) fn is_free(ip: Ipv4Addr, port: u16) -> bool {
    TcpListener::bind((ip, port)).is_ok()
}

fn listen(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

fn random_start() -> u16 {
    let random = u16::from_be_bytes(OsEntropy.array());
    OTHERS.start() + random % (OTHERS.end() - OTHERS.start())
}

fn outgoing_begins() -> u16 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first = range.split_whitespace().next().and_then(|first| first.parse().ok());
    // A machine that gives out nearly all ports leaves us none of our own: then any will do.
    first.filter(|first| *first > *OTHERS.end()).unwrap_or(OUTGOING_BEGINS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_free_and_distinct() {
        let ports = choose(5, &BTreeSet::new(), false).unwrap();
        let distinct: BTreeSet<u16> = ports.iter().copied().collect();
        assert_eq!(distinct.len(), 5);
        let held: Vec<TcpListener> = ports.iter().map(|port| listen(*port).unwrap()).collect();
        assert!(ports.iter().all(|port| !is_free(Ipv4Addr::LOCALHOST, *port)));
        // Neither what others hold nor what the plan has is chosen again.
        let more = choose_from(ports[0], 3, &BTreeSet::from([ports[4] + 1])).unwrap();
        assert!(more.iter().all(|port| !distinct.contains(port) && *port != ports[4] + 1));
        drop(held);
    }

    #[test]
    fn running_out_is_an_error() {
        let taken: BTreeSet<u16> = (0..u16::MAX).collect();
        assert!(choose_from(FIRST, 1, &taken).is_err());
        assert_eq!(choose_from(FIRST, 0, &taken).unwrap(), [0u16; 0]);
    }
}
