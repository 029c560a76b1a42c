//! gRPC server reflection, v1 and v1alpha, over the descriptors of the .proto files. The routes check
//! no credential: the server that merges them lays its own check around them.

use axum::Router;
use dfs_types::{DfsError, ErrorCode};
use tonic::service::Routes;
use tonic_reflection::server::Builder;

use crate::ServiceHealth;

/// A symbol or file name is short; nothing larger is read.
const MAX_REQUEST_BYTES: usize = 16 * 1024;

/// Routes that describe `services`, the health service and themselves. `descriptors`: an encoded
/// `FileDescriptorSet`.
///
/// # Errors
/// `internal` when the descriptors are not what the compiler of the .proto files wrote.
pub fn routes(descriptors: &'static [u8], services: &[ServiceHealth]) -> Result<Router, DfsError> {
    let builder = |own: &str| {
        let builder = Builder::configure()
            .register_encoded_file_descriptor_set(descriptors)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name("grpc.health.v1.Health")
            .with_service_name(own);
        services.iter().fold(builder, |builder, service| builder.with_service_name(service.name))
    };
    let broken = |error: tonic_reflection::server::Error| {
        DfsError::new(ErrorCode::Internal, format!("the descriptors of the .proto files: {error}"))
    };
    let v1 = builder("grpc.reflection.v1.ServerReflection").build_v1().map_err(broken)?;
    let v1alpha = builder("grpc.reflection.v1alpha.ServerReflection").build_v1alpha().map_err(broken)?;
    Ok(Routes::from(Router::new())
        .add_service(v1.max_decoding_message_size(MAX_REQUEST_BYTES))
        .add_service(v1alpha.max_decoding_message_size(MAX_REQUEST_BYTES))
        .into_axum_router())
}
