//! One proxy in front of one server: takes what comes for it, learns who calls, and passes the bytes on
//! as the rules say. It sees sealed bytes only.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::rules::{LinkName, OUTSIDE, Rules};
use super::who;

const READ_BYTES: usize = 64 * 1024;
/// Reads that may be under way on a slow link: 16 MiB, a second of a fast network.
const QUEUE: usize = 256;

/// The server behind a proxy.
#[derive(Clone)]
pub struct Behind {
    pub name: String,
    pub listen: SocketAddr,
    /// Folder of the cluster.
    pub root: PathBuf,
}

/// Serves until it is aborted.
pub async fn serve(listener: TcpListener, behind: Behind, rules: Rules) {
    loop {
        let Ok((inbound, caller)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let Ok(own) = inbound.local_addr() else { continue };
        let (behind, rules) = (behind.clone(), rules.clone());
        tokio::spawn(async move {
            let root = behind.root.clone();
            let name = tokio::task::spawn_blocking(move || who::caller(&root, caller, own)).await;
            let name = name.ok().flatten().unwrap_or_else(|| OUTSIDE.to_owned());
            rules.called(&name);
            carry(inbound, (name, behind.name), behind.listen, rules).await;
        });
    }
}

async fn carry(inbound: TcpStream, there: LinkName, listen: SocketAddr, rules: Rules) {
    let back = (there.1.clone(), there.0.clone());
    // No connection comes about unless packets pass both ways.
    rules.passable(&there).await;
    rules.passable(&back).await;
    let _ = inbound.set_nodelay(true);
    let Ok(outbound) = TcpStream::connect(listen).await else {
        // Refused, as by the machine itself.
        let _ = inbound.set_zero_linger();
        return;
    };
    let _ = outbound.set_nodelay(true);
    let (in_read, in_write) = inbound.into_split();
    let (out_read, out_write) = outbound.into_split();
    let both = async {
        tokio::try_join!(pump(&rules, &there, in_read, out_write), pump(&rules, &back, out_read, in_write))
    };
    let ended = tokio::select! {
        ended = both => ended.map(drop),
        () = rules.until_reset(&there) => Err(io::ErrorKind::ConnectionReset.into()),
        () = rules.until_reset(&back) => Err(io::ErrorKind::ConnectionReset.into()),
    };
    // The halves are gone, and the sockets with them: one that broke is closed on both sides.
    drop(ended);
}

async fn pump(
    rules: &Rules,
    link: &LinkName,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
) -> io::Result<()> {
    let (queue, mut due) = mpsc::channel::<(Instant, Vec<u8>)>(QUEUE);
    let reading = async move {
        loop {
            rules.passable(link).await;
            let mut bytes = Vec::with_capacity(READ_BYTES);
            let count = from.read_buf(&mut bytes).await;
            let trouble = rules.on(link);
            if trouble.cut {
                rules.passable(link).await;
            }
            if count? == 0 {
                return Ok(());
            }
            if let Some(mean) = trouble.flip {
                rules.flip(&mut bytes, mean);
            }
            if queue.send((Instant::now() + trouble.delay, bytes)).await.is_err() {
                return Ok(());
            }
        }
    };
    let writing = async move {
        while let Some((at, bytes)) = due.recv().await {
            sleep_until(at).await;
            rules.passable(link).await;
            to.write_all(&bytes).await?;
        }
        to.shutdown().await
    };
    tokio::try_join!(reading, writing).map(drop)
}
