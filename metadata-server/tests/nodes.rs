//! The life of chunk servers as operators and the leader's workers see it: what nobody refers to is
//! deleted, a wrong disk is not believed, nodes are drained and removed, dead ones too, refused copies
//! go elsewhere, crowded chunks are spread.

mod support;

use dfs_proto::v1;
use dfs_types::{ChunkId, ErrorCode, NodeId, RealmId};
use metadata_server::config::Settings;
use support::uploads::{begin, bucket, commit, page, plan, seal_chunk, stored_file};
use support::{TestServer, code, eventually, mutation};

fn name(text: &str) -> NodeId {
    NodeId::new(text).unwrap()
}

fn quick(settings: &mut Settings) {
    settings.node_heartbeat_ms = Some(50);
    settings.node_suspect_ms = Some(400);
    settings.node_down_ms = Some(800);
    settings.repair_delay_ms = Some(100);
    settings.inventory_interval_ms = Some(50);
}

async fn with_nodes(count: usize, change: impl FnOnce(&mut Settings)) -> TestServer {
    let mut server = TestServer::start_with(change).await;
    for n in 1..=count {
        server.add_node(&format!("n{n}"), &format!("d{n}")).await;
    }
    bucket(&mut server.admin(), "data").await;
    server
}

async fn node(server: &TestServer, name: &str) -> v1::NodeInfo {
    let request = v1::GetNodeRequest { node_id: name.into() };
    server.admin().get_node(request).await.unwrap().into_inner()
}

async fn remove(server: &TestServer, name: &str) -> Result<(), tonic::Status> {
    let request = v1::RemoveNodeRequest { mutation: mutation(), node_id: name.into() };
    server.admin().remove_node(request).await.map(drop)
}

async fn drain(server: &TestServer, name: &str) -> v1::NodeInfo {
    let request = v1::DrainNodeRequest { mutation: mutation(), node_id: name.into() };
    server.admin().drain_node(request).await.unwrap().into_inner()
}

/// An upload that sleeps over the floor: its bytes are collected as orphans, what is listed stays; when
/// it goes on, its receipts are refused, it sends again, and what it sent again stays.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_nobody_refers_to_are_deleted_and_a_late_upload_sends_again() {
    let server = with_nodes(3, |settings| {
        quick(settings);
        settings.floor_lag_ms = Some(400);
    })
    .await;
    let kept = stored_file(&server, "/data/kept", b"kept", &["n1", "n2", "n3"]).await;
    let mut admin = server.admin();
    let upload = begin(&mut admin, "/data/late").await;
    let chunk = seal_chunk(&mut admin, &upload, b"late").await;
    let realm = RealmId::from_slice(&upload.realm_id).unwrap();
    let scope: [u8; 16] = upload.upload_id.as_ref().try_into().unwrap();
    let receipts = |epoch: u64| {
        ["n1", "n2", "n3"]
            .map(|node| server.fleet.receipt(node, realm, scope, epoch, chunk.id, chunk.bytes.len() as u64))
            .to_vec()
    };
    let planned = plan(&mut admin, &upload, &chunk).await.unwrap();
    let old = receipts(planned.position);
    let on_disks = |id: ChunkId| {
        let nodes = server.fleet.nodes.lock().unwrap();
        nodes.values().filter(|node| node.chunks.contains_key(&(realm, id))).count()
    };
    assert_eq!(on_disks(chunk.id), 3);
    eventually("the orphans are gone from three nodes", || async { (on_disks(chunk.id) == 0).then_some(()) })
        .await;
    assert_eq!(on_disks(kept.chunk.id), 3, "what is listed is older than the floor as well, and stays");
    assert_eq!(code(admin.append_page(page(&upload, &chunk, old)).await), ErrorCode::ChunksMissing);
    let planned = plan(&mut admin, &upload, &chunk).await.unwrap();
    admin.append_page(page(&upload, &chunk, receipts(planned.position))).await.unwrap();
    admin.commit_upload(commit(&upload, 4)).await.unwrap();
    // The floor passes it again; it is listed now.
    let floor = |mut admin: support::Client| async move {
        admin.cluster_status(v1::ClusterStatusRequest {}).await.unwrap().into_inner().epoch_floor
    };
    eventually("the floor is above its epoch", || async {
        (floor(server.admin()).await > planned.position).then_some(())
    })
    .await;
    let deletes = server.fleet.deletes.lock().unwrap().len();
    let passes = node_walks(&server).await;
    eventually("more walks", || async { (node_walks(&server).await > passes + 3).then_some(()) }).await;
    assert_eq!((on_disks(chunk.id), server.fleet.deletes.lock().unwrap().len()), (3, deletes));
    server.stop().await;
}

/// Inventories asked for until now.
async fn node_walks(server: &TestServer) -> usize {
    *server.fleet.inventories.lock().unwrap()
}

/// A node that lost everything at once has the wrong disk, most likely: nothing is struck off, until an
/// operator says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_misses_too_much_is_not_believed_until_an_operator_accepts_it() {
    let server = with_nodes(3, quick).await;
    let mut files = Vec::new();
    for n in 0..4 {
        let content = format!("content {n}");
        files
            .push(stored_file(&server, &format!("/data/{n}"), content.as_bytes(), &["n1", "n2", "n3"]).await);
    }
    let saved = std::mem::take(&mut server.fleet.nodes.lock().unwrap().get_mut(&name("n2")).unwrap().chunks);
    let held = || async {
        let info = node(&server, "n2").await;
        (info.absence_held && info.absent_chunks == 4).then_some(())
    };
    eventually("the loss is held", held).await;
    // A reader's report does not get around it.
    let report = v1::ReportReplicaRequest {
        realm_id: files[0].realm.to_vec().into(),
        chunk_id: files[0].chunk.id.to_vec().into(),
        node_id: "n2".into(),
        problem: v1::report_replica_request::Problem::Missing.into(),
    };
    server.admin().report_replica(report).await.unwrap();
    assert_eq!(files[0].copies(&server).await.locations.len(), 3, "doubted, and listed");
    let user = server.principal("ann", v1::Role::User).await;
    let confirm = || v1::ConfirmLossRequest { node_id: "n2".into() };
    assert_eq!(
        code(server.client_with(Some(&user)).confirm_loss(confirm()).await),
        ErrorCode::PermissionDenied
    );
    // The right disk is mounted again.
    server.fleet.nodes.lock().unwrap().get_mut(&name("n2")).unwrap().chunks = saved;
    eventually("all is well again", || async {
        let info = node(&server, "n2").await;
        let present = files[0].copies(&server).await.present;
        (!info.absence_held && info.absent_chunks == 0 && present == 3).then_some(())
    })
    .await;
    assert_eq!(code(server.admin().confirm_loss(confirm()).await), ErrorCode::FailedPrecondition);

    // Lost for good this time: accepted, struck off, made again.
    server.fleet.nodes.lock().unwrap().get_mut(&name("n2")).unwrap().chunks.clear();
    eventually("the loss is held again", held).await;
    server.admin().confirm_loss(confirm()).await.unwrap();
    for file in &files {
        eventually("three copies again", || async {
            let copies = file.copies(&server).await;
            (copies.present == 3 && file.is_at(&server, "n2")).then_some(())
        })
        .await;
    }
    server.stop().await;
}

/// One chunk lost of many heals by itself: nobody has to report it.
#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_vanished_is_found_by_inventory_and_made_again() {
    let server = with_nodes(3, quick).await;
    let file = stored_file(&server, "/data/a", b"content", &["n1", "n2", "n3"]).await;
    server.fleet.nodes.lock().unwrap().get_mut(&name("n3")).unwrap().chunks.clear();
    eventually("it is there again", || async {
        (file.is_at(&server, "n3") && file.copies(&server).await.present == 3).then_some(())
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_drained_resumed_and_removed() {
    let server = with_nodes(4, quick).await;
    let mut files = Vec::new();
    for n in 0..3 {
        files.push(
            stored_file(&server, &format!("/data/{n}"), format!("c{n}").as_bytes(), &["n1", "n2", "n3"])
                .await,
        );
    }
    let status = remove(&server, "n2").await.unwrap_err();
    assert!(status.message().contains("node n2 still holds 3 chunks; empty it first"), "{status}");
    let status = remove(&server, "n4").await.unwrap_err();
    assert!(status.message().contains("node n4 still takes chunks; empty it first"), "{status}");
    let user = server.principal("ann", v1::Role::User).await;
    let ask = v1::DrainNodeRequest { mutation: mutation(), node_id: "n2".into() };
    assert_eq!(code(server.client_with(Some(&user)).drain_node(ask).await), ErrorCode::PermissionDenied);

    assert_eq!(drain(&server, "n2").await.state(), v1::NodeState::Draining);
    let shown = server.rest("GET", "/nodes/n2", Some(&server.admin_key), "").await;
    assert_eq!(shown.json["state"], "draining", "{}", shown.text);
    eventually("n2 holds nothing", || async { (node(&server, "n2").await.chunks == 0).then_some(()) }).await;
    for file in &files {
        let copies = file.copies(&server).await;
        assert_eq!((copies.present, copies.locations.len()), (3, 3));
        assert!(file.is_at(&server, "n4"));
        eventually("the bytes are gone", || async { (!file.is_at(&server, "n2")).then_some(()) }).await;
    }
    // Back in, and out for good.
    let resume = v1::ResumeNodeRequest { mutation: mutation(), node_id: "n2".into() };
    let resumed = server.admin().resume_node(resume).await.unwrap().into_inner();
    assert_eq!((resumed.state(), resumed.is_alive), (v1::NodeState::Up, true));
    drain(&server, "n2").await;
    remove(&server, "n2").await.unwrap();
    assert_eq!(code(remove(&server, "n2").await), ErrorCode::NodeNotFound);
    server.stop().await;
}

/// A dead node kept its rows for ever, and could not be removed because it had some.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_is_removed_once_its_chunks_are_elsewhere() {
    let server = with_nodes(4, quick).await;
    let wide = stored_file(&server, "/data/wide", b"wide", &["n1", "n2", "n3"]).await;
    server.silence(1);
    eventually("n2 is down and its chunk copied", || async {
        let down = node(&server, "n2").await.state() == v1::NodeState::Down;
        (down && wide.is_at(&server, "n4")).then_some(())
    })
    .await;
    let info = node(&server, "n2").await;
    assert_eq!((info.chunks, info.chunks_only_here), (1, 0), "kept: it may come back");
    drain(&server, "n2").await;
    eventually("n2 can be removed", || async { remove(&server, "n2").await.ok() }).await;
    assert_eq!(node(&server, "n2").await.state(), v1::NodeState::Removed);
    assert_eq!(wide.copies(&server).await.present, 3);
    let status = server.admin().cluster_status(v1::ClusterStatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.deficits, 0);
    server.stop().await;
}

/// What only a dead node has keeps it from being removed, and the answer says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_with_the_last_copy_stays() {
    let server = with_nodes(2, quick).await;
    let narrow = v1::CreateBucketRequest {
        mutation: mutation(),
        name: "narrow".into(),
        policy: Some(v1::Policy { target: 1, min_ack: 1 }),
        ..Default::default()
    };
    server.admin().create_bucket(narrow).await.unwrap();
    let only = stored_file(&server, "/narrow/only", b"only", &["n1"]).await;
    server.silence(0);
    eventually("n1 is down", || async {
        (node(&server, "n1").await.state() == v1::NodeState::Down).then_some(())
    })
    .await;
    drain(&server, "n1").await;
    let info = node(&server, "n1").await;
    assert_eq!((info.chunks, info.chunks_only_here), (1, 1));
    let refused = remove(&server, "n1").await.unwrap_err();
    let expected = "node n1 still holds 1 chunks, 1 of them with no other copy; start n1";
    assert!(refused.message().contains(expected), "{refused}");
    let resume = v1::ResumeNodeRequest { mutation: mutation(), node_id: "n1".into() };
    assert_eq!(code(server.admin().resume_node(resume).await), ErrorCode::NodeConflict);
    assert_eq!(only.copies(&server).await.locations.len(), 1);
    server.stop().await;
}

/// Placement is deterministic: a target that refused was asked again until the end of time.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_copy_goes_to_another_node() {
    let server = with_nodes(5, quick).await;
    for node in ["n4", "n5"] {
        server.fleet.refusing.lock().unwrap().insert(name(node), 0);
    }
    let file = stored_file(&server, "/data/a", b"content", &["n1", "n2"]).await;
    // Below target from the start: n3, n4 or n5 get the third copy, and two of them refuse.
    eventually("the copy is on n3", || async { file.is_at(&server, "n3").then_some(()) }).await;
    assert!(server.fleet.refusing.lock().unwrap().values().all(|count| *count <= 1), "each was asked once");
    server.stop().await;
}

/// Written while two domains were up; a third comes, and the copies are spread over all three.
#[tokio::test(flavor = "multi_thread")]
async fn crowded_copies_are_spread_when_a_domain_joins() {
    let mut server = TestServer::start_with(quick).await;
    for (node, domain) in [("n1", "a"), ("n2", "b"), ("n3", "b")] {
        server.add_node(node, domain).await;
    }
    bucket(&mut server.admin(), "data").await;
    let file = stored_file(&server, "/data/a", b"content", &["n1", "n2", "n3"]).await;
    server.add_node("n4", "c").await;
    eventually("three copies in three domains", || async {
        let copies = file.copies(&server).await;
        let domains: std::collections::BTreeSet<_> = copies.locations.iter().map(|at| &at.domain).collect();
        (copies.present == 3 && copies.locations.len() == 3 && domains.len() == 3).then_some(())
    })
    .await;
    assert!(file.is_at(&server, "n4") && file.is_at(&server, "n1"));
    server.stop().await;
}
