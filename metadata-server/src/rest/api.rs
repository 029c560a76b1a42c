//! The route table, and the OpenAPI 3.1 document that says the same: both come from one list of
//! handlers, so neither can have a path that the other lacks.

use axum::{Router, middleware};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, SecurityRequirement,
    ServerBuilder,
};
use utoipa::{OpenApi as _, PartialSchema as _, ToSchema as _};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problems::{ChunkNeed, ProblemDocument};
use super::{Rest, buckets, cluster, docs, files, guard, uploads};

const INTRODUCTION: &str = "\
Metadata of a Distribute cluster over REST: names, versions, uploads, nodes. Content goes between clients and chunk servers, \
sealed; `dfsctl` and the SDK do that part.

Every metadata server answers every call; one that does not lead passes it on. Reads are linearizable: they show everything that was \
answered before they began.";

const TAGS: &[(&str, &str)] = &[
    ("files", "Names and versions."),
    ("buckets", "What files live in."),
    ("uploads", "Writing a file of any size, chunk by chunk."),
    ("chunks", "Where chunks are."),
    ("cluster", "Nodes, metadata servers, and who the caller is."),
    ("server", "This one server. No call is passed on."),
];

/// `/health` and `/ready`, whose handlers every server shares.
#[derive(utoipa::OpenApi)]
#[openapi(paths(health, ready))]
struct Shared;

/// Is the server alive?
///
/// No credential needed. 503: only a restart can help.
#[utoipa::path(get, path = "/health", tag = "server", operation_id = "health", security(()),
    responses((status = 200, description = "Alive.", body = docs::HealthAnswer), (status = 503, description = "Failed.", body = docs::HealthAnswer), docs::OfOpen))]
#[allow(dead_code)]
fn health() {}

/// May the server be sent requests?
///
/// No credential needed. 503 while it starts, drains, or has no leader; `reasons` says which.
#[utoipa::path(get, path = "/ready", tag = "server", operation_id = "ready", security(()),
    responses((status = 200, description = "Ready.", body = docs::HealthAnswer), (status = 503, description = "Not ready.", body = docs::HealthAnswer), docs::OfOpen))]
#[allow(dead_code)]
fn ready() {}

/// The routes behind the credential check, those that need none, and the document about all.
pub(super) fn parts() -> (Router<Rest>, Router, OpenApi) {
    let json = OpenApiRouter::with_openapi(base())
        .routes(routes!(files::list_files, files::create_file))
        .routes(routes!(files::get_file, files::delete_file))
        .routes(routes!(files::list_versions))
        .routes(routes!(files::rename_file))
        .routes(routes!(files::stat))
        .routes(routes!(buckets::list_buckets, buckets::create_bucket))
        .routes(routes!(buckets::get_bucket, buckets::set_bucket, buckets::delete_bucket))
        .routes(routes!(uploads::init_upload))
        .routes(routes!(uploads::commit_upload))
        .routes(routes!(uploads::get_upload, uploads::abort_upload))
        .routes(routes!(cluster::get_locations, cluster::put_location))
        .routes(routes!(cluster::list_nodes))
        .routes(routes!(cluster::get_node))
        .routes(routes!(cluster::cluster_status))
        .routes(routes!(cluster::list_members))
        .routes(routes!(cluster::whoami))
        .layer(middleware::from_fn(guard::json_is_acceptable));
    let metrics = OpenApiRouter::default().routes(routes!(super::metrics));
    let (with_credential, mut document) = json.merge(metrics).split_for_parts();
    let open = OpenApiRouter::default()
        .routes(routes!(docs::openapi))
        .routes(routes!(docs::page))
        .routes(routes!(docs::errors))
        .routes(routes!(docs::error));
    let (open, open_document) = open.split_for_parts();
    document.merge(open_document);
    document.merge(Shared::openapi());
    (with_credential, open, document)
}

/// The document served at `/openapi.json`.
pub fn document() -> OpenApi {
    parts().2
}

fn base() -> OpenApi {
    let bearer = {
        let mut bearer = Http::new(HttpAuthScheme::Bearer);
        bearer.description = Some("An API key: `dfs_..._...`, the content of a key file.".to_owned());
        SecurityScheme::Http(bearer)
    };
    let components = ComponentsBuilder::new()
        .security_scheme("bearer", bearer)
        .schema(ProblemDocument::name(), ProblemDocument::schema())
        .schema(ChunkNeed::name(), ChunkNeed::schema())
        .build();
    let info = InfoBuilder::new()
        .title("Distribute")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(INTRODUCTION))
        .license(Some(LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build()))
        .build();
    OpenApiBuilder::new()
        .info(info)
        .servers(Some([ServerBuilder::new().url("/").description(Some("the server that answered")).build()]))
        .components(Some(components))
        .security(Some([SecurityRequirement::new("bearer", Vec::<String>::new())]))
        .tags(Some(
            TAGS.iter().map(|(name, about)| TagBuilder::new().name(*name).description(Some(*about)).build()),
        ))
        .build()
}
