use chunk_format::seal::SealedChunk;
use dfs_proto::status::from_status;
use dfs_proto::v1::{
    ChunkKey, CopyChunkRequest, DeleteChunksRequest, DeleteOutcome, DeleteTicket, ForwardTo,
    InventoryRequest, ProbeRequest, ProbeState, TouchRequest,
};
use dfs_types::{ErrorCode, Position};
use tonic::Status;
use transport::Role;

use super::cluster::{REALM, TestCluster, TestNode, chunk};

const TASK: [u8; 16] = [4; 16];

pub fn wire_key(chunk: &SealedChunk) -> ChunkKey {
    ChunkKey { realm_id: REALM.to_vec().into(), chunk_id: chunk.id.to_vec().into() }
}

fn copy_of(chunk: &SealedChunk, epoch: u64, sources: Vec<ForwardTo>) -> CopyChunkRequest {
    CopyChunkRequest {
        task_id: TASK.to_vec().into(),
        realm_id: REALM.to_vec().into(),
        chunk_id: chunk.id.to_vec().into(),
        sealed_length: chunk.bytes.len() as u64,
        epoch,
        sources,
        term: 3,
    }
}

fn delete_of(node: &TestNode, chunk: &SealedChunk, position: u64) -> DeleteChunksRequest {
    let ticket =
        DeleteTicket { realm_id: REALM.to_vec().into(), chunk_id: chunk.id.to_vec().into(), position };
    DeleteChunksRequest { incarnation: node.incarnation.to_vec().into(), tickets: vec![ticket], term: 3 }
}

fn probe_of(node: &TestNode, chunks: &[&SealedChunk], verify: bool) -> ProbeRequest {
    let chunks = chunks.iter().map(|chunk| wire_key(chunk)).collect();
    ProbeRequest { incarnation: node.incarnation.to_vec().into(), chunks, verify }
}

fn code(status: Status) -> ErrorCode {
    from_status(&status).code
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_metadata_servers_give_orders() {
    let cluster = TestCluster::start().await;
    let n1 = cluster.node("n1").await;
    let chunk = chunk(100, 1);
    cluster.put(&[&n1], &chunk, 5).await;
    for (tls, wanted) in [
        (cluster.client_tls(), ErrorCode::Unauthenticated),
        (cluster.tls(Role::ChunkServer, "n2"), ErrorCode::PermissionDenied),
        (cluster.tls(Role::ChunkServer, "n1"), ErrorCode::PermissionDenied),
    ] {
        let mut control = cluster.control_as(tls, &n1);
        let codes = [
            control.copy(copy_of(&chunk, 9, vec![])).await.map_err(code).unwrap_err(),
            control.merge(copy_of(&chunk, 9, vec![])).await.map_err(code).unwrap_err(),
            control.delete(delete_of(&n1, &chunk, 99)).await.map_err(code).unwrap_err(),
            control.probe(probe_of(&n1, &[&chunk], false)).await.map_err(code).unwrap_err(),
            control.touch(TouchRequest::default()).await.map_err(code).unwrap_err(),
            control.inventory(InventoryRequest::default()).await.map_err(code).unwrap_err(),
        ];
        assert_eq!(codes, [wanted; 6]);
    }
    assert_eq!(n1.held(&chunk).unwrap().epoch, Position(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_pulled_checked_and_receipted() {
    let cluster = TestCluster::start().await;
    let (n1, n2, n3) = (cluster.node("n1").await, cluster.node("n2").await, cluster.node("n3").await);
    let chunk = chunk(3_000_000, 1);
    cluster.put(&[&n1, &n2], &chunk, 5).await;
    n1.rot(&chunk, 1_000_000);
    let mut control = cluster.control(&n3);

    // The first source's bytes are wrong: alone it is an error and nothing is kept.
    let bad = cluster.get_from(&n1, &chunk);
    let error = control.copy(copy_of(&chunk, 9, vec![bad.clone()])).await.map_err(code).unwrap_err();
    assert_eq!((error, n3.held(&chunk)), (ErrorCode::Integrity, None));
    // With another behind it, the copy succeeds.
    let sources = vec![bad, cluster.get_from(&n2, &chunk)];
    let receipt = control.copy(copy_of(&chunk, 9, sources)).await.unwrap().into_inner().receipt;
    n3.check_receipt(&receipt, &chunk, TASK, 9);
    assert_eq!(n3.held(&chunk).unwrap().epoch, Position(9));
    // A chunk that is here already needs no source, only its epoch raised.
    let receipt = control.copy(copy_of(&chunk, 11, vec![])).await.unwrap().into_inner().receipt;
    n3.check_receipt(&receipt, &chunk, TASK, 11);
    assert_eq!(n3.held(&chunk).unwrap().epoch, Position(11));
    // Another leader's time is over.
    let late = CopyChunkRequest { term: 2, ..copy_of(&chunk, 12, vec![]) };
    assert_eq!(control.copy(late).await.map_err(code).unwrap_err(), ErrorCode::FailedPrecondition);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delete_takes_only_what_is_older_than_its_ticket() {
    let cluster = TestCluster::start().await;
    let n1 = cluster.node("n1").await;
    let chunk = chunk(100, 1);
    cluster.put(&[&n1], &chunk, 50).await;
    let mut control = cluster.control(&n1);
    for (position, wanted) in [
        (49, DeleteOutcome::KeptNewer),
        (50, DeleteOutcome::KeptNewer),
        (51, DeleteOutcome::Deleted),
        (51, DeleteOutcome::Absent),
    ] {
        let outcomes = control.delete(delete_of(&n1, &chunk, position)).await.unwrap().into_inner().outcomes;
        assert_eq!(outcomes, [wanted as i32], "ticket {position}");
    }
    // Touched after the ticket was written: it stays.
    cluster.put(&[&n1], &chunk, 60).await;
    let kept = control.delete(delete_of(&n1, &chunk, 55)).await.unwrap().into_inner().outcomes;
    assert_eq!(kept, [DeleteOutcome::KeptNewer as i32]);
    // For another formatted directory, or from a deposed leader.
    let other = DeleteChunksRequest { incarnation: vec![1; 16].into(), ..delete_of(&n1, &chunk, 99) };
    assert_eq!(control.delete(other).await.map_err(code).unwrap_err(), ErrorCode::NodeConflict);
    let late = DeleteChunksRequest { term: 2, ..delete_of(&n1, &chunk, 99) };
    assert_eq!(control.delete(late).await.map_err(code).unwrap_err(), ErrorCode::FailedPrecondition);
    assert!(n1.held(&chunk).is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_that_verifies_finds_rot() {
    let cluster = TestCluster::start().await;
    let n1 = cluster.node("n1").await;
    let (good, bad, missing) = (chunk(200_000, 1), chunk(200_000, 2), chunk(100, 3));
    cluster.put(&[&n1], &good, 5).await;
    cluster.put(&[&n1], &bad, 6).await;
    n1.rot(&bad, 100_000);
    let mut control = cluster.control(&n1);
    let all = [&good, &bad, &missing];
    use ProbeState::{Absent, Corrupt, Present};
    for (verify, states) in [
        (false, [Present, Present, Absent]),
        (true, [Present, Corrupt, Absent]),
        (false, [Present, Corrupt, Absent]),
    ] {
        let results = control.probe(probe_of(&n1, &all, verify)).await.unwrap().into_inner().results;
        let found: Vec<_> = results.iter().map(|result| result.state()).collect();
        assert_eq!(found, states);
        assert_eq!((results[0].epoch, results[1].epoch), (5, 6));
    }
    let told = |fault: &dfs_proto::v1::ChunkFault| fault.corrupt && fault.chunk_id[..] == bad.id.0;
    cluster.metadata.until(|state| state.faults.iter().any(told).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_touch_answers_receipts_in_the_order_asked() {
    let cluster = TestCluster::start().await;
    let n1 = cluster.node("n1").await;
    let (here, missing) = (chunk(100, 1), chunk(100, 2));
    cluster.put(&[&n1], &here, 5).await;
    let request = TouchRequest {
        incarnation: n1.incarnation.to_vec().into(),
        task_id: TASK.to_vec().into(),
        epoch: 30,
        chunks: vec![wire_key(&missing), wire_key(&here)],
    };
    let receipts = cluster.control(&n1).touch(request).await.unwrap().into_inner().receipts;
    assert!(receipts[0].is_empty());
    n1.check_receipt(&receipts[1], &here, TASK, 30);
    assert_eq!(n1.held(&here).unwrap().epoch, Position(30));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_inventory_comes_in_pages() {
    let cluster = TestCluster::start().await;
    let n1 = cluster.node("n1").await;
    let mut ids = Vec::new();
    for tag in 0..5 {
        let chunk = chunk(100, tag);
        cluster.put(&[&n1], &chunk, 5).await;
        ids.push(chunk.id.to_vec());
    }
    ids.sort();
    let mut control = cluster.control(&n1);
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let request = InventoryRequest { incarnation: n1.incarnation.to_vec().into(), after, limit: 2 };
        let page = control.inventory(request).await.unwrap().into_inner();
        assert!(page.entries.len() <= 2 && page.entries.iter().all(|entry| entry.epoch == 5));
        found.extend(page.entries.iter().map(|entry| entry.chunk_id.to_vec()));
        if page.end {
            break;
        }
        let last = page.entries.last().unwrap();
        after = Some(ChunkKey { realm_id: last.realm_id.clone(), chunk_id: last.chunk_id.clone() });
    }
    assert_eq!(found, ids);
}

/// All copies are bad, each elsewhere: one node puts the chunk together, and only a chunk server may have the
/// bad bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_is_merged_from_bad_copies() {
    let cluster = TestCluster::start().await;
    let (n1, n2, n3) = (cluster.node("n1").await, cluster.node("n2").await, cluster.node("n3").await);
    let nodes = [&n1, &n2, &n3];
    let good = chunk(1_000_000, 1);
    cluster.put(&nodes, &good, 5).await;
    for (node, groups) in [(&n1, 0..6), (&n2, 4..10), (&n3, 9..16)] {
        groups.for_each(|group| node.rot(&good, group * 65_536 + 100));
        let mut control = cluster.control(node);
        let probed = control.probe(probe_of(node, &[&good], true)).await.unwrap().into_inner();
        assert_eq!(probed.results[0].state(), ProbeState::Corrupt);
    }
    let sources = || nodes.iter().map(|node| cluster.get_from(node, &good)).collect::<Vec<_>>();
    let mut control = cluster.control(&n2);
    // Groups 4 and 5 are bad on two of the nodes; without the third there is no way.
    let two = vec![cluster.get_from(&n1, &good), cluster.get_from(&n2, &good)];
    let error = control.merge(copy_of(&good, 9, two)).await.unwrap_err();
    assert_eq!(code(error), ErrorCode::Integrity);
    assert!(n2.held(&good).unwrap().quarantined);

    let receipt = control.merge(copy_of(&good, 9, sources())).await.unwrap().into_inner().receipt;
    n2.check_receipt(&receipt, &good, TASK, 9);
    assert!(!n2.held(&good).unwrap().quarantined);
    let (_, bytes) = cluster.get(&n2, cluster.get_grant(&n2, &good), &good, 0, 0).await.unwrap();
    assert!(bytes[..] == good.bytes[..]);
    // From it the others are whole again too, and merging what is whole is nothing to do.
    cluster.control(&n1).copy(copy_of(&good, 9, vec![cluster.get_from(&n2, &good)])).await.unwrap();
    assert!(!n1.held(&good).unwrap().quarantined);
    control.merge(copy_of(&good, 12, vec![])).await.unwrap();
    assert_eq!(n2.held(&good).unwrap().epoch, Position(12));

    let request = dfs_proto::v1::GetRequest {
        grant: cluster.get_grant(&n3, &good),
        realm_id: REALM.to_vec().into(),
        chunk_id: good.id.to_vec().into(),
        first_group: 0,
        group_count: 1,
        request_id: String::new(),
        damaged: true,
    };
    let refused = cluster.data(&n3).get(request).await.unwrap_err();
    assert_eq!(
        code(refused),
        ErrorCode::Unauthenticated,
        "a client never gets bytes that are known to be bad"
    );
}
