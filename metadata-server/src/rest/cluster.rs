//! `/nodes`, `/chunks`, `/cluster` and `/whoami`.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use dfs_proto::v1;
use dfs_proto::v1::file_selector::By;
use dfs_types::{ChunkId, FileId, NodeId};
use http::{HeaderMap, Uri};
use server_kit::Problem;

use super::input::{self, Query, invalid};
use super::problems::{OfChunkLook, OfLocationPut, OfLook, OfNodeLook};
use super::shapes::{Caller, ClusterStatus, Locations, Member, MemberList, Node, NodeList, PutLocation};
use super::{Answer, Rest};
use crate::service::Call;

/// List nodes
#[utoipa::path(get, path = "/nodes", tag = "cluster", operation_id = "list_nodes",
    responses((status = 200, description = "All nodes.", body = NodeList), OfLook))]
pub async fn list_nodes(
    State(rest): State<Rest>,
    Extension(call): Extension<Call>,
    uri: Uri,
) -> Answer<NodeList> {
    Query::read(uri.query(), &[])?;
    let list = rest.operations.call(&call, v1::ListNodesRequest {}).await?;
    Ok(Json(NodeList { nodes: list.nodes.into_iter().map(Node::from).collect(), position: list.position }))
}

/// Show a node
#[utoipa::path(get, path = "/nodes/{id}", tag = "cluster", operation_id = "get_node",
    params(("id" = String, Path, description = "node id", example = "n1")),
    responses((status = 200, description = "The node.", body = Node), OfNodeLook))]
pub async fn get_node(
    State(rest): State<Rest>,
    Extension(call): Extension<Call>,
    id: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Answer<Node> {
    Query::read(uri.query(), &[])?;
    let id: NodeId = input::id(id)?;
    let node = rest.operations.call(&call, v1::GetNodeRequest { node_id: id.to_string() }).await?;
    Ok(Json(node.into()))
}

fn selector(
    file_id: Option<&str>,
    path: Option<&str>,
    version: Option<u64>,
) -> Result<Option<v1::FileSelector>, Problem> {
    let by = match (file_id, path) {
        (Some(_), Some(_)) => return Err(invalid("name the file by file_id or path, not both")),
        (Some(id), None) => By::FileId(id.parse::<FileId>()?.to_vec().into()),
        (None, Some(path)) => By::Path(path.to_owned()),
        (None, None) if version.is_some() => return Err(invalid("a version of which file?")),
        (None, None) => return Ok(None),
    };
    Ok(Some(v1::FileSelector { by: Some(by), version }))
}

/// Show where a chunk is
///
/// The caller's own chunks; name a file to ask for a chunk that is known by several users' files.
#[utoipa::path(get, path = "/chunks/{id}/locations", tag = "chunks", operation_id = "get_locations",
    params(
        ("id" = String, Path, description = "chunk id: 64 hexadecimal digits"),
        ("file_id" = Option<String>, Query, description = "a file that has the chunk"),
        ("path" = Option<String>, Query, description = "the same, by path; not with `file_id`"),
        ("version" = Option<u64>, Query, description = "of that file; absent: the current one"),
    ),
    responses((status = 200, description = "The locations.", body = Locations), OfChunkLook))]
pub async fn get_locations(
    State(rest): State<Rest>,
    Extension(call): Extension<Call>,
    id: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Answer<Locations> {
    let id: ChunkId = input::id(id)?;
    let query = Query::read(uri.query(), &["file_id", "path", "version"])?;
    let file = selector(query.text("file_id"), query.text("path"), query.parse("version")?)?;
    let request = v1::GetChunkLocationsRequest { chunk_id: id.to_vec().into(), file };
    Ok(Json(rest.operations.call(&call, request).await?.into()))
}

/// Add a location
///
/// For administrators: the leader asks the node to touch the chunk and adds the location only if the
/// node has it.
#[utoipa::path(put, path = "/chunks/{id}/locations", tag = "chunks", operation_id = "put_location", request_body = PutLocation,
    params(("id" = String, Path, description = "chunk id: 64 hexadecimal digits")),
    responses((status = 200, description = "The locations as they are now.", body = Locations), OfLocationPut))]
pub async fn put_location(
    State(rest): State<Rest>,
    Extension(call): Extension<Call>,
    id: Result<Path<String>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Answer<Locations> {
    let id: ChunkId = input::id(id)?;
    Query::read(uri.query(), &[])?;
    let wanted: PutLocation = input::json(&headers, body).await?;
    let node: NodeId = wanted.node_id.parse()?;
    let request = v1::PutChunkLocationRequest {
        mutation: Some(rest.operations.new_mutation()),
        chunk_id: id.to_vec().into(),
        file: selector(wanted.file_id.as_deref(), None, wanted.version)?,
        node_id: node.to_string(),
    };
    Ok(Json(rest.operations.call(&call, request).await?.into()))
}

/// Show the cluster
#[utoipa::path(get, path = "/cluster", tag = "cluster", operation_id = "cluster_status",
    responses((status = 200, description = "The cluster at a glance.", body = ClusterStatus), OfLook))]
pub async fn cluster_status(
    State(rest): State<Rest>,
    Extension(call): Extension<Call>,
    uri: Uri,
) -> Answer<ClusterStatus> {
    Query::read(uri.query(), &[])?;
    Ok(Json(rest.operations.call(&call, v1::ClusterStatusRequest {}).await?.into()))
}

/// List the metadata servers
#[utoipa::path(get, path = "/cluster/members", tag = "cluster", operation_id = "list_members",
    responses((status = 200, description = "All members.", body = MemberList), OfLook))]
pub async fn list_members(
    State(rest): State<Rest>,
    Extension(call): Extension<Call>,
    uri: Uri,
) -> Answer<MemberList> {
    Query::read(uri.query(), &[])?;
    let list = rest.operations.call(&call, v1::ListMembersRequest {}).await?;
    Ok(Json(MemberList {
        members: list.members.into_iter().map(Member::from).collect(),
        position: list.position,
    }))
}

/// Show the caller
#[utoipa::path(get, path = "/whoami", tag = "cluster", operation_id = "whoami",
    responses((status = 200, description = "Whom the cluster takes the caller for.", body = Caller), OfLook))]
pub async fn whoami(State(rest): State<Rest>, Extension(call): Extension<Call>, uri: Uri) -> Answer<Caller> {
    Query::read(uri.query(), &[])?;
    Ok(Json(rest.operations.call(&call, v1::WhoAmIRequest {}).await?.into()))
}
