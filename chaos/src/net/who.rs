//! Which server of the cluster is at the calling end of a connection: found through /proc, since all
//! servers call from 127.0.0.1 and what they say is sealed.

use std::net::{SocketAddr, SocketAddrV4};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// The name of the server below `root` (its folder there) whose socket is bound to `local` and connected
/// to `remote`. None: it is no server's, or is closed already.
pub fn caller(root: &Path, local: SocketAddr, remote: SocketAddr) -> Option<String> {
    let inode = socket_inode(&std::fs::read_to_string("/proc/net/tcp").ok()?, local, remote)?;
    let wanted = format!("socket:[{inode}]");
    servers(root).find(|(pid, _)| holds(*pid, &wanted)).map(|(_, name)| name)
}

/// Looks through the text of /proc/net/tcp.
fn socket_inode(table: &str, local: SocketAddr, remote: SocketAddr) -> Option<u64> {
    let (local, remote) = (in_table(local)?, in_table(remote)?);
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let ours = fields.next() == Some(&local) && fields.next() == Some(&remote);
        // State, queues, timer, retransmits, uid and timeout lie between.
        if ours { fields.nth(6)?.parse().ok() } else { None }
    })
}

/// An address as /proc/net/tcp has it: the bytes of the IP in the machine's order, then the port.
fn in_table(address: SocketAddr) -> Option<String> {
    let SocketAddr::V4(address) = address else { return None };
    let (ip, port) = (SocketAddrV4::ip(&address).octets(), address.port());
    Some(format!("{:08X}:{port:04X}", u32::from_ne_bytes(ip)))
}

/// Live servers with a data directory below `root`.
fn servers(root: &Path) -> impl Iterator<Item = (u32, String)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(move |pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let mut words = line.split(|byte| *byte == 0).map(std::ffi::OsStr::from_bytes);
        words.find(|word| *word == "--data-dir")?;
        let below = Path::new(words.next()?).strip_prefix(root).ok()?;
        Some((pid, below.iter().next()?.to_str()?.to_owned()))
    })
}

fn holds(pid: u32, wanted: &str) -> bool {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    entries.filter_map(|entry| std::fs::read_link(entry.path()).ok()).any(|link| link.as_os_str() == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_connection_of_this_process_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (local, remote) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let inode = socket_inode(&table, local, remote).unwrap();
        assert!(holds(std::process::id(), &format!("socket:[{inode}]")));
        assert_eq!(socket_inode(&table, local, local), None);
        // This process is no server.
        assert_eq!(caller(Path::new("/nowhere"), local, remote), None);
    }
}
