//! `/nodes` and `/chunks`.

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
use super::shapes::{Locations, Node, NodeList, PutLocation};
use super::{Answer, Rest};
use crate::service::Call;

pub async fn nodes(State(rest): State<Rest>, Extension(call): Extension<Call>, uri: Uri) -> Answer<NodeList> {
    Query::read(uri.query(), &[])?;
    let list = rest.operations.call(&call, v1::ListNodesRequest {}).await?;
    Ok(Json(NodeList { nodes: list.nodes.into_iter().map(Node::from).collect(), position: list.position }))
}

pub async fn node(
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

pub async fn locations(
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
