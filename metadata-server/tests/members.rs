//! Three members: calls to a follower, and a leader that goes.

mod support;

use chunk_format::seal::sealed_length;
use dfs_proto::v1;
use support::{TestCluster, code, eventually, mutation};

#[tokio::test(flavor = "multi_thread")]
async fn any_member_answers_and_a_lost_leader_is_replaced() {
    let mut cluster = TestCluster::start(3).await;
    let request =
        v1::CreateBucketRequest { mutation: mutation(), name: "photos".into(), ..Default::default() };
    cluster.servers[0].admin().create_bucket(request).await.unwrap();
    // Every member answers what was acknowledged by another, keys included that are younger than
    // what a follower has applied.
    for (place, server) in cluster.servers.iter().enumerate() {
        let key = server.principal(&format!("user{place}"), v1::Role::User).await;
        for other in &cluster.servers {
            let who =
                other.client_with(Some(&key)).who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner();
            assert_eq!(who.name, format!("user{place}"));
        }
        let put = v1::PutInlineRequest {
            mutation: mutation(),
            path: format!("/photos/{place}"),
            content: "hello".into(),
            ..Default::default()
        };
        server.admin().put_inline(put).await.unwrap();
    }
    let status =
        cluster.servers[0].admin().cluster_status(v1::ClusterStatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.members.len(), status.files), (3, 3));
    let leader: usize = status.leader.strip_prefix('m').unwrap().parse::<usize>().unwrap() - 1;
    let gone = cluster.servers.remove(leader);
    gone.stop().await;

    // The call waits for the next leader; a repeated mutation is done once.
    let put = v1::PutInlineRequest {
        mutation: mutation(),
        path: "/photos/after".into(),
        content: "x".into(),
        ..Default::default()
    };
    let first = cluster.servers[0].admin().put_inline(put.clone()).await.unwrap().into_inner();
    let second = cluster.servers[1].admin().put_inline(put).await.unwrap().into_inner();
    assert_eq!(first.version, second.version);
    let list = v1::ListRequest { bucket: "photos".into(), ..Default::default() };
    assert_eq!(cluster.servers[1].admin().list(list).await.unwrap().into_inner().entries.len(), 4);

    // Without a majority nothing is answered, and nothing hangs.
    let last = cluster.servers.pop().unwrap();
    cluster.servers.pop().unwrap().stop().await;
    let mut admin = last.admin();
    let mut request = tonic::Request::new(v1::ListNodesRequest {});
    request.set_timeout(std::time::Duration::from_secs(1));
    let answer = admin.list_nodes(request).await;
    assert!(code(answer).http_status() >= 500);
    eventually("not ready without a leader", || {
        let ready = last.health.is_ready();
        async move { (!ready).then_some(()) }
    })
    .await;
    last.stop().await;
}

/// A new leader has heard no chunk server yet; those that are up must be planned with all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_places_on_nodes_it_has_not_heard_yet() {
    let mut cluster = TestCluster::start(3).await;
    let mut admin = cluster.servers[0].admin();
    let request = v1::CreateBucketRequest { mutation: mutation(), name: "data".into(), ..Default::default() };
    admin.create_bucket(request).await.unwrap();
    let begin =
        v1::InitUploadRequest { mutation: mutation(), path: "/data/file".into(), ..Default::default() };
    let upload = admin.init_upload(begin).await.unwrap().into_inner();
    let status = admin.cluster_status(v1::ClusterStatusRequest {}).await.unwrap().into_inner();
    let leader: usize = status.leader.strip_prefix('m').unwrap().parse::<usize>().unwrap() - 1;
    let mut gone = cluster.servers.remove(leader);
    for name in ["n1", "n2", "n3"] {
        gone.add_node(name, name).await;
    }
    // Their heartbeats end with the leader: the next one never hears them.
    gone.stop().await;
    let sealed = v1::SealedChunk {
        chunk_id: vec![7; 32].into(),
        sealed_length: sealed_length(1000),
        ..Default::default()
    };
    let plan =
        v1::PlanChunksRequest { upload_id: upload.upload_id, sealed: vec![sealed], ..Default::default() };
    let planned = cluster.servers[0].admin().plan_chunks(plan).await.unwrap().into_inner();
    assert_eq!(planned.plans[0].nodes.len(), 3);
    for server in cluster.servers {
        server.stop().await;
    }
}
