//! `/nodes`, `/chunks`, `/cluster` and `/whoami`.

use axum::Json;
use dfs_proto::v1;
use dfs_proto::v1::file_selector::By;
use dfs_types::{ChunkId, FileId, NodeId};
use server_kit::Problem;

use super::Answer;
use super::asked::{Asked, Body, InPath, Plain};
use super::input::invalid;
use super::problems::{OfChunkLook, OfLocationPut, OfLook, OfNodeLook};
use super::shapes::{Caller, ClusterStatus, Locations, Member, MemberList, Node, NodeList, PutLocation};

/// List nodes
#[utoipa::path(get, path = "/nodes", tag = "cluster", operation_id = "list_nodes",
    responses((status = 200, description = "All nodes.", body = NodeList), OfLook))]
pub async fn list_nodes(Plain(asked): Plain) -> Answer<NodeList> {
    let list = asked.call(v1::ListNodesRequest {}).await?;
    Ok(Json(NodeList { nodes: list.nodes.into_iter().map(Node::from).collect(), position: list.position }))
}

/// Show a node
#[utoipa::path(get, path = "/nodes/{id}", tag = "cluster", operation_id = "get_node",
    params(("id" = String, Path, description = "node id", example = "n1")),
    responses((status = 200, description = "The node.", body = Node), OfNodeLook))]
pub async fn get_node(Plain(asked): Plain, InPath(id): InPath<NodeId>) -> Answer<Node> {
    let node = asked.call(v1::GetNodeRequest { node_id: id.to_string() }).await?;
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
pub async fn get_locations(asked: Asked, InPath(id): InPath<ChunkId>) -> Answer<Locations> {
    let query = asked.query(&["file_id", "path", "version"])?;
    let file = selector(query.text("file_id"), query.text("path"), query.parse("version")?)?;
    let request = v1::GetChunkLocationsRequest { chunk_id: id.to_vec().into(), file };
    Ok(Json(asked.call(request).await?.into()))
}

/// Add a location
///
/// For administrators: the leader asks the node to touch the chunk and adds the location only if the
/// node has it.
#[utoipa::path(put, path = "/chunks/{id}/locations", tag = "chunks", operation_id = "put_location", request_body = PutLocation,
    params(("id" = String, Path, description = "chunk id: 64 hexadecimal digits")),
    responses((status = 200, description = "The locations as they are now.", body = Locations), OfLocationPut))]
pub async fn put_location(
    Plain(asked): Plain,
    InPath(id): InPath<ChunkId>,
    Body(wanted): Body<PutLocation>,
) -> Answer<Locations> {
    let node: NodeId = wanted.node_id.parse()?;
    let request = v1::PutChunkLocationRequest {
        mutation: asked.new_mutation(),
        chunk_id: id.to_vec().into(),
        file: selector(wanted.file_id.as_deref(), None, wanted.version)?,
        node_id: node.to_string(),
    };
    Ok(Json(asked.call(request).await?.into()))
}

/// Show the cluster
#[utoipa::path(get, path = "/cluster", tag = "cluster", operation_id = "cluster_status",
    responses((status = 200, description = "The cluster at a glance.", body = ClusterStatus), OfLook))]
pub async fn cluster_status(Plain(asked): Plain) -> Answer<ClusterStatus> {
    Ok(Json(asked.call(v1::ClusterStatusRequest {}).await?.into()))
}

/// List the metadata servers
#[utoipa::path(get, path = "/cluster/members", tag = "cluster", operation_id = "list_members",
    responses((status = 200, description = "All members.", body = MemberList), OfLook))]
pub async fn list_members(Plain(asked): Plain) -> Answer<MemberList> {
    let list = asked.call(v1::ListMembersRequest {}).await?;
    Ok(Json(MemberList {
        members: list.members.into_iter().map(Member::from).collect(),
        position: list.position,
    }))
}

/// Show the caller
#[utoipa::path(get, path = "/whoami", tag = "cluster", operation_id = "whoami",
    responses((status = 200, description = "Whom the cluster takes the caller for.", body = Caller), OfLook))]
pub async fn whoami(Plain(asked): Plain) -> Answer<Caller> {
    Ok(Json(asked.call(v1::WhoAmIRequest {}).await?.into()))
}
