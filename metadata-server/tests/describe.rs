//! gRPC health and reflection, as a load balancer and as grpcurl see them.

mod support;

use futures::StreamExt;
use support::{Bearer, TestServer};
use tonic::Code;
use tonic::codegen::InterceptedService;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

fn asks(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_needs_no_key_and_a_watch_ends_with_the_server() {
    let server = TestServer::start().await;
    let mut client = HealthClient::new(server.channel(server.anonymous()));
    for service in ["", "dfs.v1.Metadata", "dfs.v1.Cluster", "dfs.v1.Raft"] {
        let answer = client.check(asks(service)).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    assert_eq!(client.check(asks("dfs.v1.ChunkData")).await.unwrap_err().code(), Code::NotFound);
    let mut watch = client.watch(asks("dfs.v1.Metadata")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let rest = tokio::spawn(async move {
        let told: Vec<_> = watch.by_ref().collect().await;
        told.into_iter().map(|answer| answer.map(|answer| answer.status())).collect::<Vec<_>>()
    });
    server.stop().await;
    let told = rest.await.unwrap();
    assert!(matches!(told.as_slice(), [Ok(ServingStatus::NotServing)]), "{told:?}");
}

type Reflection = ServerReflectionClient<InterceptedService<Channel, Bearer>>;

async fn ask(client: &mut Reflection, message: MessageRequest) -> Result<MessageResponse, Code> {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(message) };
    let answers = client.server_reflection_info(futures::stream::iter([request])).await;
    let mut answers = answers.map_err(|status| status.code())?.into_inner();
    let answer: ServerReflectionResponse = answers.message().await.map_err(|status| status.code())?.unwrap();
    Ok(answer.message_response.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_describes_the_services_to_callers_with_a_key() {
    let server = TestServer::start().await;
    let reflection = |key: Option<&str>| {
        let bearer = Bearer(key.map(str::to_owned));
        ServerReflectionClient::with_interceptor(server.channel(server.anonymous()), bearer)
    };
    let list = || MessageRequest::ListServices(String::new());
    let stranger = format!("dfs_{}_{}", "00".repeat(16), "00".repeat(32));
    for bad in [None, Some(stranger.as_str())] {
        assert_eq!(ask(&mut reflection(bad), list()).await.err(), Some(Code::Unauthenticated), "{bad:?}");
    }
    let readonly = server.principal("eve", dfs_proto::v1::Role::Readonly).await;
    let mut client = reflection(Some(&readonly));
    let MessageResponse::ListServicesResponse(services) = ask(&mut client, list()).await.unwrap() else {
        panic!("not a list")
    };
    let mut names: Vec<_> = services.service.into_iter().map(|service| service.name).collect();
    names.sort();
    assert_eq!(
        names,
        [
            "dfs.v1.Cluster",
            "dfs.v1.Metadata",
            "dfs.v1.Raft",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection"
        ]
    );
    let symbol = MessageRequest::FileContainingSymbol("dfs.v1.Metadata.Stat".into());
    let MessageResponse::FileDescriptorResponse(files) = ask(&mut client, symbol).await.unwrap() else {
        panic!("no descriptor")
    };
    let text = String::from_utf8_lossy(&files.file_descriptor_proto[0]).into_owned();
    assert!(text.contains("dfs/v1/metadata.proto") && text.contains("StatRequest"));
    let unknown = MessageRequest::FileContainingSymbol("dfs.v1.Nothing".into());
    assert_eq!(ask(&mut client, unknown).await.err(), Some(Code::NotFound));
    server.stop().await;
}
