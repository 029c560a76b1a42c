//! gRPC health and reflection on a chunk server: it knows no API keys, so reflection is for servers.

use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use transport::{Role, Tls};

use super::cluster::{TestCluster, TestNode, dead_address};

async fn status(cluster: &TestCluster, node: &TestNode, service: &str) -> Result<ServingStatus, Code> {
    let mut client = HealthClient::new(cluster.channel(cluster.client_tls(), node));
    let answer = client.check(HealthCheckRequest { service: service.into() }).await;
    answer.map(|answer| answer.into_inner().status()).map_err(|status| status.code())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_says_which_service_waits_for_what() {
    // No metadata server: the store is open, the node is not registered.
    let late = dead_address();
    let mut cluster = TestCluster::without_metadata(late.clone());
    let node = cluster.starting_node("n1").await;
    // The store opens in a task of its own.
    while status(&cluster, &node, "dfs.v1.ChunkControl").await != Ok(ServingStatus::Serving) {
        tokio::task::yield_now().await;
    }
    for service in ["", "dfs.v1.ChunkData"] {
        assert_eq!(status(&cluster, &node, service).await, Ok(ServingStatus::NotServing), "{service}");
    }
    assert_eq!(status(&cluster, &node, "dfs.v1.Metadata").await, Err(Code::NotFound));
    cluster.metadata_address = late;
    cluster.start_metadata().await;
    node.server.health().until_ready().await;
    for service in ["", "dfs.v1.ChunkData", "dfs.v1.ChunkControl"] {
        assert_eq!(status(&cluster, &node, service).await, Ok(ServingStatus::Serving), "{service}");
    }
}

async fn services(cluster: &TestCluster, tls: Tls, node: &TestNode) -> Result<Vec<String>, Code> {
    let mut client = ServerReflectionClient::new(cluster.channel(tls, node));
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answers = client.server_reflection_info(futures::stream::iter([request])).await;
    let answer = answers.map_err(|status| status.code())?.into_inner().message().await;
    match answer.map_err(|status| status.code())?.and_then(|answer| answer.message_response) {
        Some(MessageResponse::ListServicesResponse(list)) => {
            Ok(list.service.into_iter().map(|service| service.name).collect())
        }
        other => panic!("not a list: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reflection_is_for_servers_of_the_cluster() {
    let cluster = TestCluster::start().await;
    let node = cluster.starting_node("n1").await;
    node.server.health().until_ready().await;
    assert_eq!(services(&cluster, cluster.client_tls(), &node).await, Err(Code::Unauthenticated));
    let own = cluster.tls(Role::MetadataServer, "m1");
    let names = services(&cluster, own, &node).await.unwrap();
    assert!(names.iter().any(|name| name == "dfs.v1.ChunkData"), "{names:?}");
}
