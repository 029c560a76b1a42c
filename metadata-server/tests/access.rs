//! Who may call: keys, roles, other tenants, certificates.

mod support;

use std::time::Duration;

use dfs_proto::v1;
use dfs_proto::v1::file_selector::By;
use dfs_types::ErrorCode;
use support::{Client, TestServer, code, mutation};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;
use transport::Role;

async fn bucket(client: &mut Client, name: &str) -> Result<tonic::Response<v1::Bucket>, tonic::Status> {
    client
        .create_bucket(v1::CreateBucketRequest {
            mutation: mutation(),
            name: name.into(),
            ..Default::default()
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_of_this_cluster_nothing_is_answered() {
    let server = TestServer::start().await;
    let key = &server.admin_key;
    let mut forged = key.clone().into_bytes();
    let last = forged.last_mut().unwrap();
    *last = if *last == b'0' { b'1' } else { b'0' };
    let forged = String::from_utf8(forged).unwrap();
    let stranger = format!("dfs_{}_{}", "00".repeat(16), "00".repeat(32));
    for bad in [
        None,
        Some(""),
        Some("admin"),
        Some(&key[..key.len() - 1]),
        Some(forged.as_str()),
        Some(stranger.as_str()),
    ] {
        let mut client = server.client_with(bad);
        let answer = client.who_am_i(v1::WhoAmIRequest {}).await;
        assert_eq!(code(answer), ErrorCode::Unauthenticated, "{bad:?}");
        assert_eq!(server.rest("GET", "/nodes", bad, "").await.status, 401, "{bad:?}");
        assert_eq!(server.rest("GET", "/metrics", bad, "").await.status, 401, "{bad:?}");
    }
    for open in ["/health", "/ready"] {
        assert_eq!(server.rest("GET", open, None, "").await.status, 200, "{open}");
    }
    assert_eq!(server.admin().who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner().name, "admin");
    server.stop().await;
}

/// On the address without a credential the gauges of Raft stood at 0, unless somebody asked the main port
/// too: every leader scraped there alone looked like no leader.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_without_a_credential_are_the_same() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let server = TestServer::start_with(|settings| settings.metrics_listen = Some(address.clone())).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let leads = |line: &str| line.starts_with("fs_raft_is_leader{") && line.ends_with(" 1");
        if answer.lines().any(leads) {
            break;
        }
        assert!(Instant::now() < deadline, "{answer}");
        tokio::task::yield_now().await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_and_tenants() {
    let server = TestServer::start().await;
    let mut admin = server.admin();
    let mut users = Vec::new();
    for (name, role) in [("ann", v1::Role::User), ("bob", v1::Role::User), ("eve", v1::Role::Readonly)] {
        let key = server.principal(name, role).await;
        users.push(server.client_with(Some(&key)));
    }
    let [mut ann, mut bob, mut eve] = <[Client; 3]>::try_from(users).unwrap();
    bucket(&mut ann, "anns").await.unwrap();
    assert_eq!(code(bucket(&mut eve, "eves").await), ErrorCode::PermissionDenied);
    assert_eq!(code(bucket(&mut bob, "anns").await), ErrorCode::AlreadyExists);
    let put = v1::PutInlineRequest {
        mutation: mutation(),
        path: "/anns/x".into(),
        content: "hi".into(),
        ..Default::default()
    };
    ann.put_inline(put.clone()).await.unwrap();
    let file = Some(v1::FileSelector { by: Some(By::Path("/anns/x".into())), version: None });
    let info =
        ann.stat(v1::StatRequest { file: file.clone(), with_copies: false }).await.unwrap().into_inner();
    let by_id = Some(v1::FileSelector { by: Some(By::FileId(info.file_id)), version: None });

    // What is another's answers like what is not there.
    for client in [&mut bob, &mut eve] {
        let stat = client.stat(v1::StatRequest { file: file.clone(), with_copies: false }).await;
        assert_eq!(code(stat), ErrorCode::BucketNotFound);
        let stat = client.stat(v1::StatRequest { file: by_id.clone(), with_copies: false }).await;
        assert_eq!(code(stat), ErrorCode::NotFound);
        let read = client.open_read(v1::OpenReadRequest { file: by_id.clone(), ..Default::default() }).await;
        assert_eq!(code(read), ErrorCode::NotFound);
        let list = client.list(v1::ListRequest { bucket: "anns".into(), ..Default::default() }).await;
        assert_eq!(code(list), ErrorCode::BucketNotFound);
        let buckets = client.list_buckets(v1::ListBucketsRequest::default()).await.unwrap().into_inner();
        assert!(buckets.buckets.is_empty());
    }
    let stolen = v1::PutInlineRequest { mutation: mutation(), ..put };
    assert_eq!(code(bob.put_inline(stolen).await), ErrorCode::BucketNotFound);
    let delete = v1::DeleteBucketRequest { mutation: mutation(), name: "anns".into() };
    assert_eq!(code(bob.delete_bucket(delete).await), ErrorCode::BucketNotFound);

    // What is the administrator's alone.
    for client in [&mut ann, &mut eve] {
        let create = v1::CreatePrincipalRequest {
            mutation: mutation(),
            name: "x".into(),
            role: v1::Role::Admin.into(),
        };
        assert_eq!(code(client.create_principal(create).await), ErrorCode::PermissionDenied);
        let list = client.list_principals(v1::ListPrincipalsRequest::default()).await;
        assert_eq!(code(list.map(|_| ())), ErrorCode::PermissionDenied);
        let remove = v1::RemoveNodeRequest { mutation: mutation(), node_id: "n1".into() };
        assert_eq!(code(client.remove_node(remove).await), ErrorCode::PermissionDenied);
        let remove = v1::RemoveMemberRequest { mutation: mutation(), name: "m1".into() };
        assert_eq!(code(client.remove_member(remove).await), ErrorCode::PermissionDenied);
        client.list_nodes(v1::ListNodesRequest {}).await.unwrap();
    }
    let principals = admin.list_principals(v1::ListPrincipalsRequest::default()).await.unwrap().into_inner();
    assert_eq!(principals.principals.len(), 4);
    assert!(principals.principals.iter().all(|principal| principal.api_key.is_empty()));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_speak_for_themselves_alone() {
    let mut server = TestServer::start().await;
    server.add_node("n1", "a").await;
    let register = v1::RegisterNodeRequest {
        node_id: "n1".into(),
        incarnation: vec![9; 16].into(),
        address: "evil:1".into(),
        capacity: 1,
        ..Default::default()
    };
    for (mut client, expected) in [
        (server.as_nobody(), ErrorCode::Unauthenticated),
        (server.as_server(Role::ChunkServer, "n2"), ErrorCode::PermissionDenied),
        (server.as_server(Role::MetadataServer, "m2"), ErrorCode::PermissionDenied),
    ] {
        let answer = client.register_node(register.clone()).await;
        assert_eq!(code(answer.map(|_| ())), expected);
        let beat = v1::HeartbeatRequest {
            node_id: "n1".into(),
            incarnation: vec![9; 16].into(),
            ..Default::default()
        };
        assert_eq!(code(client.heartbeat(beat).await), expected);
    }
    let mut own = server.as_server(Role::ChunkServer, "n1");
    let foreign = v1::RegisterNodeRequest { cluster_id: vec![1; 16].into(), ..register };
    assert_eq!(code(own.register_node(foreign).await.map(|_| ())), ErrorCode::NodeConflict);
    // A leader that does not know an incarnation asks it to register.
    let beat =
        v1::HeartbeatRequest { node_id: "n1".into(), incarnation: vec![8; 16].into(), ..Default::default() };
    assert!(own.heartbeat(beat).await.unwrap().into_inner().register_again);
    server.stop().await;
}
