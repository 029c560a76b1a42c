//! What the machine does beside us: CPU time of processes, one disk write, one TCP stream.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Deserialize;

/// Linux counts process times in hundredths of a second for every program.
const TICKS_PER_SECOND: f64 = 100.0;
const STEP: usize = 256 << 10;

#[derive(Deserialize)]
struct Cluster {
    processes: Vec<Process>,
}

#[derive(Deserialize)]
struct Process {
    pid: u32,
}

/// The servers of the dev cluster described by `path`; none if there is no such file.
pub(super) fn pids(path: &Path) -> Vec<u32> {
    let cluster = std::fs::read(path).ok().and_then(|text| serde_json::from_slice::<Cluster>(&text).ok());
    cluster.map_or_else(Vec::new, |cluster| cluster.processes.iter().map(|process| process.pid).collect())
}

/// CPU seconds spent between start and stop.
pub(super) struct CpuMeter {
    client: f64,
    servers: Vec<(u32, f64)>,
}

pub(super) struct CpuSeconds {
    pub client: f64,
    /// With the servers'; `None` when they are not known or one ended meanwhile.
    pub total: Option<f64>,
}

impl CpuMeter {
    pub fn start(servers: &[u32]) -> Self {
        let servers = servers.iter().map(|pid| (*pid, cpu_seconds(*pid).unwrap_or(f64::NAN))).collect();
        Self { client: cpu_seconds(std::process::id()).unwrap_or(0.0), servers }
    }

    pub fn stop(self) -> CpuSeconds {
        let client = cpu_seconds(std::process::id()).unwrap_or(0.0) - self.client;
        let spent = self.servers.iter().map(|(pid, before)| cpu_seconds(*pid).unwrap_or(f64::NAN) - before);
        let total = client + spent.sum::<f64>();
        CpuSeconds { client, total: (!self.servers.is_empty() && total.is_finite()).then_some(total) }
    }
}

/// User and system time of a process, from /proc.
fn cpu_seconds(pid: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, parentheses too: the fields begin behind its last one.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks as f64 / TICKS_PER_SECOND)
}

/// Time to write `bytes` to one new file and fsync it. In `dir`, or the working directory.
pub(super) fn raw_disk(dir: Option<&Path>, bytes: u64) -> io::Result<Duration> {
    let dir = dir.unwrap_or(Path::new("."));
    let path = dir.join(format!(".dfs-bench-{}", std::process::id()));
    let block: Vec<u8> = (0..STEP).map(|i| (i * 31 % 251) as u8).collect();
    let result = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        let start = Instant::now();
        let mut left = bytes;
        while left > 0 {
            let step = left.min(STEP as u64) as usize;
            file.write_all(&block[..step])?;
            left -= step as u64;
        }
        file.sync_all()?;
        Ok(start.elapsed())
    })();
    // The measurement stands even if the file stays behind.
    let _ = std::fs::remove_file(&path);
    result
}

/// Time to move `bytes` through one TCP connection on loopback.
pub(super) fn raw_tcp(bytes: u64) -> io::Result<Duration> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let sender = std::thread::spawn(move || -> io::Result<()> {
        let mut stream = TcpStream::connect(address)?;
        let block = vec![7u8; STEP];
        let mut left = bytes;
        while left > 0 {
            let step = left.min(STEP as u64) as usize;
            stream.write_all(&block[..step])?;
            left -= step as u64;
        }
        Ok(())
    });
    let (mut stream, _) = listener.accept()?;
    let mut block = vec![0u8; STEP];
    let start = Instant::now();
    while stream.read(&mut block)? > 0 {}
    let time = start.elapsed();
    sender.join().map_err(|_| io::Error::other("the sender died"))??;
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_can_be_measured() {
        assert!(cpu_seconds(std::process::id()).is_some());
        assert!(raw_tcp(1 << 20).unwrap() > Duration::ZERO);
        let dir = tempfile::tempdir().unwrap();
        assert!(raw_disk(Some(dir.path()), 1 << 20).unwrap() > Duration::ZERO);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let path = dir.path().join("cluster.json");
        std::fs::write(&path, r#"{"format":1,"processes":[{"role":"x","pid":7}]}"#).unwrap();
        assert_eq!(pids(&path), [7]);
    }
}
