use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use chunk_format::grant::{Allows, Grant};
use dfs_proto::v1::{ForwardTo, NodeAddress, PutRequest};
use dfs_types::limits::{GIB, MAX_SEALED_BYTES};
use dfs_types::{ClusterId, ErrorCode, Incarnation, NodeId, Position, RealmId};
use futures::StreamExt;
use tokio::net::TcpListener;

use super::cluster::{TestCluster, UPLOAD, chunk, dead_address, messages, sign};
use super::metadata::{CLUSTER_MS, node_keys};
use crate::store::memory::MemoryStore;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_goes_along_the_row_and_every_node_gives_its_receipt() {
    let cluster = TestCluster::start().await;
    let nodes = [cluster.node("n1").await, cluster.node("n2").await, cluster.node("n3").await];
    let row: Vec<_> = nodes.iter().collect();
    for (length, tag) in [(1, 1), (65_536, 2), (3_000_000, 3)] {
        let chunk = chunk(length, tag);
        let answer = cluster.put(&row, &chunk, 77).await;
        assert!(answer.failures.is_empty() && !answer.already_had, "{:?}", answer.failures);
        assert_eq!(answer.receipts.len(), 3);
        for (node, receipt) in nodes.iter().zip(&answer.receipts) {
            node.check_receipt(receipt, &chunk, UPLOAD, 77);
            let held = node.held(&chunk).unwrap();
            assert_eq!((held.epoch, held.sealed_len), (Position(77), chunk.bytes.len() as u64));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_fail_behind_are_named_and_the_put_goes_on() {
    let cluster = TestCluster::start().await;
    let (n1, n3) = (cluster.node("n1").await, cluster.node("n3").await);
    let chunk = chunk(6_000_000, 1);
    // Nobody listens; another node is there; a grant of somebody else's.
    let gone = NodeAddress { node_id: "n2".to_owned(), address: dead_address() };
    let other = NodeAddress { node_id: "n2".to_owned(), address: n3.address.clone() };
    let foreign = ForwardTo { node: Some(n3.named()), grant: cluster.put_grant(&n1, 5) };
    for (next, code) in [
        (ForwardTo { node: Some(gone), grant: Bytes::new() }, ErrorCode::Unavailable),
        (ForwardTo { node: Some(other), grant: Bytes::new() }, ErrorCode::Unavailable),
        (foreign, ErrorCode::GrantRefused),
    ] {
        let mut header = cluster.put_header(&[&n1], &chunk, 5);
        let behind = NodeAddress { node_id: "n4".to_owned(), address: dead_address() };
        header.forward = vec![next, ForwardTo { node: Some(behind), grant: Bytes::new() }];
        let first = header.forward[0].node.clone().unwrap().node_id;
        let answer = cluster.send(&n1, header, &chunk.bytes).await.unwrap();
        assert_eq!(answer.receipts.len(), 1);
        n1.check_receipt(&answer.receipts[0], &chunk, UPLOAD, 5);
        let failures: Vec<_> = answer.failures.iter().map(|f| (f.node_id.as_str(), f.code)).collect();
        assert_eq!(failures, [(&*first, code as u32), ("n4", ErrorCode::Unavailable as u32)]);
    }
}

/// A node that takes the connection and then says nothing must not hold the put beyond its stall.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_is_given_up() {
    let cluster = TestCluster::start().await;
    let n1 = cluster.node("n1").await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let chunk = chunk(8_000_000, 1);
    let mut header = cluster.put_header(&[&n1], &chunk, 5);
    let node = NodeAddress { node_id: "n2".to_owned(), address: silent.local_addr().unwrap().to_string() };
    header.forward = vec![ForwardTo { node: Some(node), grant: Bytes::new() }];
    let answer = cluster.send(&n1, header, &chunk.bytes).await.unwrap();
    assert_eq!((answer.receipts.len(), answer.failures.len()), (1, 1));
    assert_eq!(answer.failures[0].code, ErrorCode::Timeout as u32, "{:?}", answer.failures);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_do_not_hash_to_the_chunk_are_kept_nowhere() {
    let cluster = TestCluster::start().await;
    let (n1, n2) = (cluster.node("n1").await, cluster.node("n2").await);
    for length in [100, 2_000_000] {
        let chunk = chunk(length, 1);
        let mut bytes = BytesMut::from(&chunk.bytes[..]);
        bytes[length / 2] ^= 1;
        let header = cluster.put_header(&[&n1, &n2], &chunk, 5);
        let error = cluster.send(&n1, header, &bytes.freeze()).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Integrity, "{error}");
        assert_eq!((n1.held(&chunk), n2.held(&chunk)), (None, None));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_ends_early_or_runs_over_leaves_nothing() {
    let cluster = TestCluster::start().await;
    let (n1, n2) = (cluster.node("n1").await, cluster.node("n2").await);
    let chunk = chunk(3_000_000, 1);
    let header = || cluster.put_header(&[&n1, &n2], &chunk, 5);
    let short = chunk.bytes.slice(..2_000_000);
    let long: Bytes = [&chunk.bytes[..], b"more"].concat().into();
    for bytes in [Bytes::new(), short, long] {
        let error = cluster.send(&n1, header(), &bytes).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArgument, "{error}");
        assert_eq!((n1.held(&chunk), n2.held(&chunk)), (None, None));
    }
    // Out of form: no header, two of them, an empty message.
    let good = messages(header(), &chunk.bytes);
    let twice = vec![good[0].clone(), good[0].clone()];
    let empty = vec![good[0].clone(), PutRequest { part: None }];
    for wrong in [good[1..].to_vec(), twice, empty, Vec::new()] {
        let error = cluster.send_stream(&n1, futures::stream::iter(wrong)).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArgument, "{error}");
    }
    // A caller that goes away in the middle.
    let half: Vec<_> = good.into_iter().take(6).collect();
    let endless = futures::stream::iter(half).chain(futures::stream::pending());
    let call = cluster.send_stream(&n1, endless);
    assert!(tokio::time::timeout(std::time::Duration::from_millis(300), call).await.is_err());
    assert_eq!((n1.held(&chunk), n2.held(&chunk)), (None, None));
    // Nothing is left that would be in the way.
    assert_eq!(cluster.put(&[&n1, &n2], &chunk, 6).await.receipts.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grants_that_are_forged_foreign_expired_or_used_up_are_refused() {
    let cluster = TestCluster::start().await;
    let n1 = cluster.node("n1").await;
    let chunk = chunk(100, 1);
    let good = cluster.grant(&n1, 5, Allows::Put { max_chunks: 1, max_bytes: GIB, serial: 1 });
    let as_other = |change: &dyn Fn(&mut Grant)| {
        let mut grant = good.clone();
        change(&mut grant);
        // Signed with this node's own key: what it says must be wrong, not its MAC.
        Bytes::from(grant.encode(&node_keys("n1").grant).unwrap())
    };
    let mut flipped = sign(&good).to_vec();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    let bad: Vec<Bytes> = vec![
        Bytes::new(),
        flipped.into(),
        good.encode(&node_keys("n2").grant).unwrap().into(),
        as_other(&|grant| grant.cluster = ClusterId([1; 16])),
        as_other(&|grant| grant.node = NodeId::new("n2").unwrap()),
        as_other(&|grant| grant.incarnation = Incarnation([1; 16])),
        as_other(&|grant| grant.realm = RealmId([1; 16])),
        as_other(&|grant| grant.expires_ms = CLUSTER_MS - 1),
        as_other(&|grant| grant.epoch = Position(0)),
        as_other(&|grant| grant.allows = Allows::Get(vec![chunk.id])),
        as_other(&|grant| grant.allows = Allows::Put { max_chunks: 1, max_bytes: 10, serial: 1 }),
    ];
    for grant in bad {
        let mut header = cluster.put_header(&[&n1], &chunk, 5);
        header.grant = grant.clone();
        let error = cluster.send(&n1, header, &chunk.bytes).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::GrantRefused, "{error} {grant:?}");
        assert_eq!(n1.held(&chunk), None);
    }
    // What a grant allows is counted: chunks, however often each is sent.
    for tag in [1, 1, 2] {
        let chunk = super::cluster::chunk(100, tag);
        let mut header = cluster.put_header(&[&n1], &chunk, 5);
        header.grant = sign(&good);
        let answer = cluster.send(&n1, header, &chunk.bytes).await;
        assert_eq!(answer.is_ok(), tag == 1, "chunk {tag}");
    }
    // Another grant for the same things counts by itself.
    let mut header = cluster.put_header(&[&n1], &super::cluster::chunk(100, 2), 5);
    header.grant = as_other(&|grant| grant.allows = Allows::Put { max_chunks: 1, max_bytes: GIB, serial: 2 });
    cluster.send(&n1, header, &super::cluster::chunk(100, 2).bytes).await.unwrap();
    // A length that no chunk has is refused before any grant is looked at.
    let mut header = cluster.put_header(&[&n1], &chunk, 5);
    header.sealed_length = MAX_SEALED_BYTES + 1;
    let error = cluster.send(&n1, header, &chunk.bytes).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidArgument);
}

/// The caller sends no byte at all: the node has them, raises the epoch, and feeds the next itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_already_held_is_touched_and_forwarded_from_the_store() {
    let cluster = TestCluster::start().await;
    let (n1, n2) = (cluster.node("n1").await, cluster.node("n2").await);
    let chunk = chunk(3_000_000, 1);
    cluster.put(&[&n1], &chunk, 5).await;
    for epoch in [9, 10] {
        // The second time the node behind has it too, and answers before it is fed.
        let header = messages(cluster.put_header(&[&n1, &n2], &chunk, epoch), &Bytes::new());
        let silent = futures::stream::iter(header).chain(futures::stream::pending());
        let answer = cluster.send_stream(&n1, silent).await.unwrap();
        assert!(answer.already_had && answer.failures.is_empty(), "{:?}", answer.failures);
        for (node, receipt) in [&n1, &n2].into_iter().zip(&answer.receipts) {
            node.check_receipt(receipt, &chunk, UPLOAD, epoch);
            assert_eq!(node.held(&chunk).unwrap().epoch, Position(epoch));
        }
    }
    // An older grant does not lower it.
    cluster.put(&[&n1], &chunk, 6).await;
    assert_eq!(n1.held(&chunk).unwrap().epoch, Position(10));
}

/// The first node lacks the chunk, the one behind has it and answers in mid-stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_behind_that_has_the_chunk_does_not_end_the_put() {
    let cluster = TestCluster::start().await;
    let (n1, n2) = (cluster.node("n1").await, cluster.node("n2").await);
    let chunk = chunk(6_000_000, 1);
    cluster.put(&[&n2], &chunk, 5).await;
    let answer = cluster.put(&[&n1, &n2], &chunk, 9).await;
    assert!(!answer.already_had && answer.failures.is_empty(), "{:?}", answer.failures);
    assert_eq!(answer.receipts.len(), 2);
    assert_eq!(n2.held(&chunk).unwrap().epoch, Position(9));
}

/// Each row waits for memory and answers of the other's nodes, in opposite directions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_rows_in_both_directions_do_not_block_each_other() {
    let cluster = TestCluster::start().await;
    let nodes = [cluster.node("n1").await, cluster.node("n2").await, cluster.node("n3").await];
    let there: Vec<_> = nodes.iter().collect();
    let back: Vec<_> = nodes.iter().rev().collect();
    let puts = (0..40u8).map(|tag| {
        let (cluster, row) = (&cluster, if tag % 2 == 0 { &there } else { &back });
        async move { cluster.put(row, &chunk(1_500_000, tag), 5 + u64::from(tag)).await }
    });
    for answer in futures::future::join_all(puts).await {
        assert!(answer.failures.is_empty() && answer.receipts.len() == 3, "{:?}", answer.failures);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_node_refuses_new_chunks_and_serves_those_it_has() {
    let cluster = TestCluster::start().await;
    let small = Arc::new(MemoryStore::new(1_000_000));
    let n1 = cluster.node_in("n1", tempfile::tempdir().unwrap(), small).await;
    n1.server.health().until_ready().await;
    let (held, more) = (chunk(700_000, 1), chunk(3_000_000, 2));
    cluster.put(&[&n1], &held, 5).await;
    let header = cluster.put_header(&[&n1], &more, 5);
    let error = cluster.send(&n1, header, &more.bytes).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::NoSpace, "{error}");
    cluster.get(&n1, cluster.get_grant(&n1, &held), &held, 0, 0).await.unwrap();
    assert!(cluster.put(&[&n1], &held, 6).await.already_had);
}
