use std::sync::{Arc, Mutex};
use std::time::Duration;

use dfs_types::ErrorCode;
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use transport::{Dialer, Expect, Role, Tls};

use super::cluster::{TestCluster, TestNode, UPLOAD, chunk, dead_address, key, messages, opened_as};
use super::metadata::Told;
use crate::store::ChunkStore;
use crate::store::memory::MemoryStore;
use crate::upkeep::Pace;

/// The status line's number and the body of an HTTP/1.1 answer.
async fn http(tls: Tls, node: &TestNode, path: &str) -> (u16, String) {
    let expect = Expect::server(Role::ChunkServer, node.id.clone());
    let mut stream = Dialer::new(tls).open(&node.address, &expect, &[b"http/1.1"]).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_may_start_before_the_metadata_service() {
    // The first address stays dead, the second comes up late.
    let late = dead_address();
    let mut cluster = TestCluster::without_metadata(format!("{},{late}", dead_address()));
    let n1 = cluster.starting_node("n1").await;
    let chunk = chunk(100, 1);
    let header = cluster.put_header(&[&n1], &chunk, 5);
    let error = cluster.send(&n1, header, &chunk.bytes).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unavailable, "{error}");
    let (status, body) = http(cluster.client_tls(), &n1, "/ready").await;
    assert!(status == 503 && body.contains("registration"), "{body}");
    assert_eq!(http(cluster.client_tls(), &n1, "/health").await.0, 200);

    cluster.metadata_address = late;
    cluster.start_metadata().await;
    n1.server.health().until_ready().await;
    assert_eq!(http(cluster.client_tls(), &n1, "/ready").await.0, 200);
    let told = cluster.metadata.until(|told| told.registered.get("n1").cloned()).await;
    assert_eq!((told.address, told.domain.as_str()), (n1.address.clone(), "rack-n1"));
    assert!(told.cluster_id.is_empty(), "registered for the first time");
    let beat = cluster.metadata.until(|told| told.heartbeats.get("n1").cloned()).await;
    assert!(beat.free > 0 && !beat.index_rebuilding);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forgotten_node_registers_again() {
    let cluster = TestCluster::start().await;
    let _n1 = cluster.node("n1").await;
    let before = cluster.metadata.until(|told| Some(told.registrations)).await;
    cluster.metadata.forget("n1");
    let again =
        cluster.metadata.until(|told| (told.registrations > before).then(|| told.registered["n1"].clone()));
    assert_eq!(again.await.cluster_id[..], cluster.id.0, "now it says where it belongs");
}

/// A node that registers while its store is being opened tells no capacity, and the state kept that: a leader elected
/// before it heard the node again took it for one without room, and refused puts (scenario `kill-leader-mid-put`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_tells_its_capacity_once_its_store_is_open() {
    let cluster = TestCluster::start().await;
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn ChunkStore> = Arc::new(MemoryStore::new(1 << 20));
    let (go, may_open) = std::sync::mpsc::channel::<()>();
    let (may_open, opened) = (Mutex::new(may_open), store.clone());
    let open = opened_as(move || {
        may_open.lock().unwrap().recv().unwrap();
        opened.clone()
    });
    let (server, shutdown) = cluster.server("n1", &dir, open, Pace::default()).await;
    let told = cluster.metadata.until(|told| told.registered.get("n1").cloned()).await;
    assert_eq!(told.capacity, 0);
    let rebuilding = |told: &Told| told.heartbeats.get("n1").filter(|beat| beat.index_rebuilding).cloned();
    cluster.metadata.until(rebuilding).await;
    go.send(()).unwrap();
    let n1 = TestNode::new(server, shutdown, dir, store);
    n1.server.health().until_ready().await;
    let told = cluster.metadata.until(|told| Some(told.registered["n1"].clone())).await;
    assert_eq!(told.capacity, 1 << 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_for_servers() {
    let cluster = TestCluster::start().await;
    let n1 = cluster.node("n1").await;
    assert_eq!(http(cluster.client_tls(), &n1, "/metrics").await.0, 401);
    let (status, body) = http(cluster.tls(Role::MetadataServer, "m1"), &n1, "/metrics").await;
    assert!(status == 200 && body.contains("process_open_fds"), "{body}");
}

/// A node used to tell the copies of the last put as its replication factor: 1 on the last node of every
/// chain, whatever the cluster had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_replication_factor_is_the_leaders_word() {
    let cluster = TestCluster::start().await;
    let n1 = cluster.node("n1").await;
    cluster.put(&[&n1], &chunk(100, 1), 5).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let (_, body) = http(cluster.tls(Role::MetadataServer, "m1"), &n1, "/metrics").await;
        let says = |kind: &str, value: &str| {
            let (label, end) = (format!("kind=\"{kind}\""), format!(" {value}"));
            let mut lines = body.lines().filter(|line| line.starts_with("fs_replication_factor{"));
            lines.any(|line| line.contains(&label) && line.ends_with(&end))
        };
        if says("actual", "2.5") && says("target", "3") {
            return;
        }
        assert!(Instant::now() < deadline, "{body}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_node_finishes_what_it_began() {
    let cluster = TestCluster::start().await;
    let n1 = cluster.node("n1").await;
    let chunk = chunk(20_000_000, 1);
    let all = messages(cluster.put_header(&[&n1], &chunk, 5), &chunk.bytes);
    let (sender, receiver) = mpsc::channel(1);
    let put = cluster.send_stream(&n1, ReceiverStream::new(receiver).boxed());
    let feed = async {
        // More than a stream's window: the node has begun to take it in.
        for message in all.iter().take(48) {
            sender.send(message.clone()).await.unwrap();
        }
        n1.shutdown.trigger();
        while n1.server.health().is_ready() {
            tokio::task::yield_now().await;
        }
        for message in all.iter().skip(48) {
            sender.send(message.clone()).await.unwrap();
        }
        drop(sender);
    };
    let (answer, ()) = tokio::join!(put, feed);
    n1.check_receipt(&answer.unwrap().receipts[0], &chunk, UPLOAD, 5);
    let (store, address) = (n1.store.clone(), n1.address.clone());
    n1.server.finished().await.unwrap();
    assert!(tokio::net::TcpStream::connect(&address).await.is_err(), "the port is closed");
    assert!(store.get(&key(&chunk)).unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_node_is_the_same_incarnation() {
    let cluster = TestCluster::start().await;
    let n1 = cluster.node("n1").await;
    let chunk = chunk(100, 1);
    cluster.put(&[&n1], &chunk, 5).await;
    let incarnation = n1.incarnation;
    let (dir, store) = n1.stop().await;
    let n1 = cluster.node_in("n1", dir, store).await;
    assert_eq!(n1.incarnation, incarnation);
    n1.server.health().until_ready().await;
    cluster.get(&n1, cluster.get_grant(&n1, &chunk), &chunk, 0, 0).await.unwrap();
}
