//! The operations over gRPC, against one server with real databases.

mod support;

use chunk_format::grant::{Grant, GrantCall, GrantOp};
use chunk_format::receipt::NodeKeys;
use chunk_format::seal::{open, plain_hash};
use dfs_proto::v1;
use dfs_types::{ChunkId, ErrorCode, NodeId, RealmId, Secret};
use support::uploads::{begin, bucket, by_path, commit, data_on, page, plan, seal_chunk, stored_file};
use support::{CLUSTER, Client, TestServer, code, eventually, mutation};

fn inline(path: &str, content: &[u8]) -> v1::PutInlineRequest {
    v1::PutInlineRequest {
        mutation: mutation(),
        path: path.into(),
        content: content.to_vec().into(),
        if_version: None,
        content_type: "text/plain".into(),
        user_metadata: [("colour".to_owned(), "green".to_owned())].into(),
    }
}

/// Reads a whole inline file back and opens it.
async fn read_inline(client: &mut Client, path: &str) -> Vec<u8> {
    let request = v1::OpenReadRequest { file: by_path(path), ..Default::default() };
    let read = client.open_read(request).await.unwrap().into_inner();
    let info = read.info.unwrap();
    if info.size == 0 {
        return Vec::new();
    }
    let id = ChunkId(*blake3::hash(&read.inline_sealed).as_bytes());
    let secret = Secret::from_slice(&read.inline_secret).unwrap();
    open(&secret, info.size, &id, &read.inline_sealed).unwrap().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn small_files_there_and_back() {
    let server = TestServer::start().await;
    let mut admin = server.admin();
    bucket(&mut admin, "photos").await;
    for content in [&b""[..], b"x", &[7; 16 * 1024]] {
        let put = admin.put_inline(inline("/photos/a b", content)).await.unwrap().into_inner();
        assert_eq!(read_inline(&mut admin, "/photos/a b").await, content);
        let info = admin
            .stat(v1::StatRequest { file: by_path("/photos/a b"), with_copies: true })
            .await
            .unwrap()
            .into_inner();
        assert_eq!((info.version, info.size), (put.version, content.len() as u64));
        assert_eq!(
            (info.content_type.as_str(), info.user_metadata["colour"].as_str()),
            ("text/plain", "green")
        );
        assert_eq!(info.content_hash, plain_hash(content).to_vec());
    }
    // The same mutation again: the same answer, nothing new.
    let again = inline("/photos/again", b"once");
    let first = admin.put_inline(again.clone()).await.unwrap().into_inner();
    let second = admin.put_inline(again).await.unwrap().into_inner();
    assert_eq!((first.version, &first.file_id), (second.version, &second.file_id));
    // A copy reads the same; the source may go.
    let copy = v1::CopyRequest {
        mutation: mutation(),
        from: by_path("/photos/again"),
        to: "/photos/copy".into(),
        if_version: None,
    };
    admin.copy(copy).await.unwrap();
    let delete = v1::DeleteRequest {
        mutation: mutation(),
        file: by_path("/photos/again"),
        if_version: None,
        purge: true,
    };
    admin.delete(delete).await.unwrap();
    assert_eq!(read_inline(&mut admin, "/photos/copy").await, b"once");
    let moved = v1::RenameRequest {
        mutation: mutation(),
        from: "/photos/copy".into(),
        to: "/photos/moved".into(),
        ..Default::default()
    };
    assert_eq!(admin.rename(moved).await.unwrap().into_inner().path, "/photos/moved");
    assert_eq!(read_inline(&mut admin, "/photos/moved").await, b"once");
    let list = v1::ListRequest { bucket: "photos".into(), ..Default::default() };
    assert_eq!(admin.list(list).await.unwrap().into_inner().entries.len(), 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_by_receipts_and_every_forgery_refused() {
    let mut server = TestServer::start().await;
    let mut admin = server.admin();
    bucket(&mut admin, "data").await;
    let upload = begin(&mut admin, "/data/file").await;
    let chunk = seal_chunk(&mut admin, &upload, &[9; 100_000]).await;
    let lonely = plan(&mut admin, &upload, &chunk).await;
    assert_eq!(code(lonely), ErrorCode::NotEnoughNodes);
    for (name, domain) in [("n1", "a"), ("n2", "b"), ("n3", "c")] {
        server.add_node(name, domain).await;
    }
    let planned = plan(&mut admin, &upload, &chunk).await.unwrap();
    assert!(!planned.plans[0].stored);
    assert_eq!(planned.plans[0].nodes.len(), 3);

    // The grants are what the nodes will accept.
    let realm = RealmId::from_slice(&upload.realm_id).unwrap();
    let scope: [u8; 16] = upload.upload_id.as_ref().try_into().unwrap();
    let sealed = chunk.bytes.len() as u64;
    let mut epoch = 0;
    for planned in &planned.plans[0].nodes {
        let name = NodeId::new(planned.node.as_ref().unwrap().node_id.clone()).unwrap();
        let nodes = server.fleet.nodes.lock().unwrap();
        let node = &nodes[&name];
        let call = GrantCall {
            cluster: CLUSTER,
            node: &name,
            incarnation: node.incarnation,
            realm,
            op: GrantOp::Put { sealed_length: sealed },
            now_ms: 0,
        };
        let grant = Grant::verify(&planned.grant, &NodeKeys::derive(&node.secret).grant, &call).unwrap();
        assert_eq!(grant.scope, scope);
        epoch = grant.epoch.0;
    }

    let fleet = server.fleet.clone();
    let good = |node: &str| fleet.receipt(node, realm, scope, epoch, chunk.id, sealed);
    let refused: Vec<(&str, Vec<u8>)> = vec![
        ("forged", {
            let mut receipt = good("n1");
            *receipt.last_mut().unwrap() ^= 1;
            receipt
        }),
        ("empty", Vec::new()),
        ("of another upload", fleet.receipt("n1", realm, [1; 16], epoch, chunk.id, sealed)),
        ("of another realm", fleet.receipt("n1", RealmId([1; 16]), scope, epoch, chunk.id, sealed)),
        ("of another chunk", fleet.receipt("n1", realm, scope, epoch, ChunkId([1; 32]), sealed)),
        ("of another length", fleet.receipt("n1", realm, scope, epoch, chunk.id, sealed + 1)),
    ];
    for (what, receipt) in refused {
        let answer = admin.append_page(page(&upload, &chunk, vec![receipt, good("n2"), good("n3")])).await;
        assert_eq!(code(answer), ErrorCode::ReceiptRefused, "{what}");
    }
    // Too few, and too old.
    for receipts in [vec![good("n1")], vec![good("n1"), good("n1")], vec![]] {
        assert_eq!(code(admin.append_page(page(&upload, &chunk, receipts)).await), ErrorCode::ChunksMissing);
    }
    assert_eq!(code(admin.commit_upload(commit(&upload, 100_000)).await), ErrorCode::ManifestMismatch);
    admin.append_page(page(&upload, &chunk, vec![good("n1"), good("n2"), good("n3")])).await.unwrap();
    for wrong in [v1::CommitUploadRequest { chunks: 2, ..commit(&upload, 100_000) }, commit(&upload, 99_999)]
    {
        assert_eq!(code(admin.commit_upload(wrong).await), ErrorCode::ManifestMismatch);
    }
    let done = admin.commit_upload(commit(&upload, 100_000)).await.unwrap().into_inner();
    assert_eq!((done.copies, done.target), (3, 3));
    let again = admin.commit_upload(commit(&upload, 100_000)).await.unwrap().into_inner();
    assert_eq!((again.version, again.file_id), (done.version, done.file_id));

    // What is read opens.
    let read = v1::OpenReadRequest { file: by_path("/data/file"), offset: 50_000, length: 1, max_chunks: 0 };
    let read = admin.open_read(read).await.unwrap().into_inner();
    assert_eq!((read.chunks.len(), read.chunks[0].nodes.len()), (1, 3));
    let secret = Secret::from_slice(&read.chunks[0].secret).unwrap();
    assert_eq!(open(&secret, 100_000, &chunk.id, &chunk.bytes).unwrap(), chunk.plain);
    let beyond = v1::OpenReadRequest { file: by_path("/data/file"), offset: 100_001, ..Default::default() };
    assert_eq!(code(admin.open_read(beyond).await), ErrorCode::InvalidArgument);

    // The same content again: no bytes; for another principal: bytes, under another secret.
    let twice = begin(&mut admin, "/data/twice").await;
    let same = seal_chunk(&mut admin, &twice, &[9; 100_000]).await;
    assert_eq!(same.id, chunk.id);
    assert!(plan(&mut admin, &twice, &same).await.unwrap().plans[0].stored);
    admin.append_page(page(&twice, &same, vec![])).await.unwrap();
    admin.commit_upload(commit(&twice, 100_000)).await.unwrap();
    let key = server.principal("bob", v1::Role::User).await;
    let mut bob = server.client_with(Some(&key));
    bucket(&mut bob, "bobs").await;
    let other = begin(&mut bob, "/bobs/file").await;
    let others = seal_chunk(&mut bob, &other, &[9; 100_000]).await;
    assert_ne!(others.id, chunk.id);
    assert!(!plan(&mut bob, &other, &others).await.unwrap().plans[0].stored);
    assert_eq!(code(plan(&mut bob, &upload, &others).await), ErrorCode::UploadNotFound);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_is_called_down_and_its_chunks_get_new_copies() {
    let mut server = TestServer::start_with(|settings| {
        settings.node_heartbeat_ms = Some(50);
        settings.node_suspect_ms = Some(400);
        settings.node_down_ms = Some(800);
        settings.repair_delay_ms = Some(100);
    })
    .await;
    let mut admin = data_on(&mut server, &["n1", "n2", "n3"]).await;
    let file = stored_file(&server, "/data/file", b"precious", &["n1", "n2", "n3"]).await;
    server.add_node("n4", "n4").await;
    server.silence(0);
    let repaired = eventually("three copies without n1", || {
        let worst = file.copies(&server);
        async move {
            let worst = worst.await;
            let on_n4 = worst.locations.iter().any(|location| location.node_id == "n4");
            (worst.present == 3 && on_n4).then_some(worst)
        }
    })
    .await;
    assert_eq!(repaired.wanted, 3);
    assert_eq!(server.fleet.copies.lock().unwrap().as_slice(), [(NodeId::new("n4").unwrap(), file.chunk.id)]);

    // The dead one comes back with its copy: one too many, and one goes, ticket and all.
    server.add_node("n1", "n1").await;
    eventually("the surplus copy is gone", || {
        let (worst, deletes) = (file.copies(&server), server.fleet.deletes.lock().unwrap().len());
        async move {
            let worst = worst.await;
            (worst.locations.len() == 3 && worst.present == 3 && deletes == 1).then_some(())
        }
    })
    .await;

    // A lost copy is struck off on the node's own word alone.
    let report = |node: &str| v1::ReportReplicaRequest {
        realm_id: file.realm.to_vec().into(),
        chunk_id: file.chunk.id.to_vec().into(),
        node_id: node.into(),
        problem: v1::report_replica_request::Problem::Missing.into(),
    };
    let held: Vec<String> = file.copies(&server).await.locations.into_iter().map(|at| at.node_id).collect();
    admin.report_replica(report(&held[0])).await.unwrap();
    assert_eq!(file.copies(&server).await.present, 3);
    server
        .fleet
        .nodes
        .lock()
        .unwrap()
        .get_mut(&NodeId::new(held[0].as_str()).unwrap())
        .unwrap()
        .chunks
        .clear();
    admin.report_replica(report(&held[0])).await.unwrap();
    eventually("three copies again", || {
        let (worst, copies) = (file.copies(&server), server.fleet.copies.lock().unwrap().len());
        async move { (worst.await.present == 3 && copies == 2).then_some(()) }
    })
    .await;
    server.stop().await;
}

/// The wait for a node that may come back is for chunks with two copies left, not for the last one.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_copy_is_copied_at_once_and_others_wait_for_the_repair_delay() {
    let mut server = TestServer::start_with(|settings| {
        settings.node_heartbeat_ms = Some(50);
        settings.node_suspect_ms = Some(400);
        settings.node_down_ms = Some(800);
        settings.repair_delay_ms = Some(24 * 3600 * 1000);
    })
    .await;
    let admin = data_on(&mut server, &["n1", "n2", "n3"]).await;
    let two = stored_file(&server, "/data/two", b"on two", &["n1", "n2"]).await;
    let all = stored_file(&server, "/data/all", b"on all", &["n1", "n2", "n3"]).await;
    // Under its target from the beginning: nothing to wait for.
    eventually("three copies of the first", || {
        let two = two.copies(&server);
        async move { (two.await.present == 3).then_some(()) }
    })
    .await;
    // First n1 goes, then n3, which leaves each chunk with its copy on n2.
    server.add_node("n4", "n4").await;
    server.silence(0);
    eventually("the leader knows that both lack a copy", || {
        let (all, mut admin) = (all.copies(&server), admin.clone());
        async move {
            let status = admin.cluster_status(v1::ClusterStatusRequest {}).await.unwrap().into_inner();
            (all.await.present == 2 && status.deficits == 2).then_some(())
        }
    })
    .await;
    let before = server.fleet.copies.lock().unwrap().len();
    assert_eq!(before, 1, "with two copies left, the delay is waited for");
    server.silence(2);
    eventually("two copies again", || {
        let (two, all) = (two.copies(&server), all.copies(&server));
        let copied = server.fleet.copies.lock().unwrap().len() - before;
        async move { (copied >= 2 && two.await.present == 2 && all.await.present == 2).then_some(()) }
    })
    .await;
    let copies = server.fleet.copies.lock().unwrap()[before..].to_vec();
    let n4 = NodeId::new("n4").unwrap();
    assert_eq!(copies.len(), 2);
    assert!([two, all].iter().all(|file| copies.contains(&(n4.clone(), file.chunk.id))));
    server.stop().await;
}

/// A repeated request gives the key whose first answer was lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_principals_key_is_given_again_to_the_same_request_alone() {
    let server = TestServer::start().await;
    let mut admin = server.admin();
    let request =
        v1::CreatePrincipalRequest { mutation: mutation(), name: "ann".into(), role: v1::Role::User.into() };
    let first = admin.create_principal(request.clone()).await.unwrap().into_inner();
    let again = admin.create_principal(request.clone()).await.unwrap().into_inner();
    assert_eq!((&first.api_key, &first.principal_id), (&again.api_key, &again.principal_id));
    let mut ann = server.client_with(Some(&again.api_key));
    assert_eq!(ann.who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner().name, "ann");
    let other = v1::CreatePrincipalRequest { mutation: mutation(), ..request };
    assert_eq!(code(admin.create_principal(other).await), ErrorCode::AlreadyExists);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn below_the_reserve_nothing_new_is_taken_and_what_frees_space_goes_on() {
    let mut server = TestServer::start_with(|settings| settings.reserve_bytes = Some(u64::MAX)).await;
    let mut admin = server.admin();
    let request = v1::CreateBucketRequest { mutation: mutation(), name: "data".into(), ..Default::default() };
    let refused = admin.create_bucket(request).await.unwrap_err();
    assert!(refused.message().contains("m1"), "{refused}");
    assert_eq!(code(Err::<(), _>(refused)), ErrorCode::NoSpace);
    assert!(admin.list_buckets(v1::ListBucketsRequest::default()).await.is_ok());
    server.add_node("n1", "a").await;
    let remove = v1::RemoveNodeRequest { mutation: mutation(), node_id: "n1".into() };
    let drain = v1::DrainNodeRequest { mutation: mutation(), node_id: "n1".into() };
    admin.drain_node(drain).await.unwrap();
    admin.remove_node(remove).await.unwrap();
    server.stop().await;
}

/// Adding a location by hand asks the node; one that does not answer is no reason to look for a leader.
#[tokio::test(flavor = "multi_thread")]
async fn a_location_on_a_node_that_does_not_answer_is_refused_at_once() {
    let mut server = TestServer::start_with(|settings| {
        settings.node_heartbeat_ms = Some(50);
        settings.node_suspect_ms = Some(300);
    })
    .await;
    let mut admin = data_on(&mut server, &["n1", "n2", "n3"]).await;
    let file = stored_file(&server, "/data/file", b"here", &["n1", "n2"]).await;
    let put = || v1::PutChunkLocationRequest {
        mutation: mutation(),
        chunk_id: file.chunk.id.to_vec().into(),
        node_id: "n1".into(),
        ..Default::default()
    };
    assert!(admin.put_chunk_location(put()).await.is_ok());
    let refused_soon = |mut admin: Client| async move {
        let started = std::time::Instant::now();
        let refused = admin.put_chunk_location(put()).await.err();
        // The deadline of a call is ten seconds.
        assert!(started.elapsed() < std::time::Duration::from_secs(5));
        refused.map(|status| dfs_proto::status::from_status(&status).code)
    };
    // Heard of, but it does not answer.
    server.fleet.unreachable.lock().unwrap().insert(NodeId::new("n1").unwrap());
    assert_eq!(refused_soon(admin.clone()).await, Some(ErrorCode::NodeConflict));
    server.fleet.unreachable.lock().unwrap().clear();
    server.silence(0);
    eventually("n1 is silent", || {
        let refused = refused_soon(admin.clone());
        async move { refused.await.filter(|code| *code == ErrorCode::NodeConflict) }
    })
    .await;
    server.stop().await;
}

/// A node says once that a copy is bad; that it cannot be asked at that moment must not lose it.
#[tokio::test(flavor = "multi_thread")]
async fn a_fault_whose_node_does_not_answer_at_first_is_not_forgotten() {
    let mut server = TestServer::start().await;
    data_on(&mut server, &["n1", "n2", "n3"]).await;
    let file = stored_file(&server, "/data/file", b"rotten", &["n1", "n2", "n3"]).await;
    let n1 = NodeId::new("n1").unwrap();
    let incarnation = {
        let mut nodes = server.fleet.nodes.lock().unwrap();
        let node = nodes.get_mut(&n1).unwrap();
        node.chunks.clear();
        node.incarnation
    };
    server.fleet.unreachable.lock().unwrap().insert(n1.clone());
    let beat = v1::HeartbeatRequest {
        node_id: "n1".into(),
        incarnation: incarnation.to_vec().into(),
        capacity: 1 << 40,
        free: 1 << 39,
        faults: vec![v1::ChunkFault {
            realm_id: file.realm.to_vec().into(),
            chunk_id: file.chunk.id.to_vec().into(),
            corrupt: true,
        }],
        ..Default::default()
    };
    server.as_server(transport::Role::ChunkServer, "n1").heartbeat(beat).await.unwrap();
    eventually("the copy is doubted", || {
        let worst = file.copies(&server);
        async move { worst.await.locations.iter().any(|at| at.doubted).then_some(()) }
    })
    .await;
    server.fleet.unreachable.lock().unwrap().clear();
    eventually("the copy is made again", || {
        let (worst, copies) = (file.copies(&server), server.fleet.copies.lock().unwrap().len());
        async move { (copies == 1 && worst.await.present == 3).then_some(()) }
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_chunks_leave_the_nodes_after_the_trash_period() {
    let mut server = TestServer::start_with(|settings| settings.trash_period_ms = Some(200)).await;
    let mut admin = server.admin();
    let request = v1::CreateBucketRequest {
        mutation: mutation(),
        name: "data".into(),
        policy: Some(v1::Policy { target: 1, min_ack: 1 }),
        ..Default::default()
    };
    admin.create_bucket(request).await.unwrap();
    server.add_node("n1", "a").await;
    let file = stored_file(&server, "/data/file", b"short lived", &["n1"]).await;
    let delete = v1::DeleteRequest {
        mutation: mutation(),
        file: by_path("/data/file"),
        if_version: None,
        purge: true,
    };
    admin.delete(delete).await.unwrap();
    eventually("the node is told to delete", || {
        let deleted = server.fleet.deletes.lock().unwrap().iter().any(|(_, id)| *id == file.chunk.id);
        async move { deleted.then_some(()) }
    })
    .await;
    eventually("the ticket is settled", || {
        let mut admin = admin.clone();
        async move {
            let status = admin.cluster_status(v1::ClusterStatusRequest {}).await.unwrap().into_inner();
            (status.pending_purges == 0 && status.trash_chunks == 0).then_some(())
        }
    })
    .await;
    // The receipt of then is no proof now.
    let later = begin(&mut admin, "/data/later").await;
    let replayed = admin.append_page(page(&later, &file.chunk, file.receipts)).await;
    assert_eq!(code(replayed), ErrorCode::ReceiptRefused);
    server.stop().await;
}
