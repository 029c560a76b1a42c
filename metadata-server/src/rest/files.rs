//! `/files`.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use dfs_proto::v1;
use dfs_proto::v1::file_selector::By;
use dfs_types::path::split_path;
use dfs_types::{DfsError, DfsPath, ErrorCode, FileId};
use http::{HeaderMap, StatusCode, Uri};
use server_kit::Problem;

use super::input::{self, Query, invalid};
use super::shapes::{Chunk, CreateFile, Deleted, File, FileList};
use super::{Answer, Rest, created};
use crate::service::Call;

/// Chunks listed in the answer about one file.
const MAX_CHUNKS: usize = 1024;

fn by_id(id: FileId, version: Option<u64>) -> Option<v1::FileSelector> {
    Some(v1::FileSelector { by: Some(By::FileId(id.to_vec().into())), version })
}

pub async fn list(State(rest): State<Rest>, Extension(call): Extension<Call>, uri: Uri) -> Answer<FileList> {
    let query = Query::read(uri.query(), &["prefix", "delimiter", "limit", "cursor", "include_deleted"])?;
    let prefix = query.text("prefix").ok_or_else(|| invalid("prefix=/BUCKET/.. is needed"))?;
    let (bucket, key_prefix) = split_path(prefix)?;
    let limit = query.parse::<u32>("limit")?;
    if limit == Some(0) {
        return Err(invalid("limit must be at least 1"));
    }
    let request = v1::ListRequest {
        bucket: bucket.to_string(),
        prefix: key_prefix.to_owned(),
        delimiter: query.text("delimiter").unwrap_or_default().to_owned(),
        cursor: query.text("cursor").unwrap_or_default().to_owned(),
        limit: limit.unwrap_or(0),
        include_deleted: query.parse("include_deleted")?.unwrap_or(false),
    };
    let page = rest.operations.call(&call, request).await?;
    let (mut files, mut common_prefixes) = (Vec::new(), Vec::new());
    for entry in page.entries {
        match entry.kind {
            Some(v1::list_entry::Kind::File(info)) => files.push(File::from(info)),
            Some(v1::list_entry::Kind::CommonPrefix(prefix)) => {
                common_prefixes.push(format!("/{bucket}/{prefix}"))
            }
            None => {}
        }
    }
    let next_cursor = (!page.next_cursor.is_empty()).then_some(page.next_cursor);
    Ok(Json(FileList { files, common_prefixes, next_cursor, position: page.position }))
}

pub async fn get(
    State(rest): State<Rest>,
    Extension(call): Extension<Call>,
    id: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Answer<File> {
    let id: FileId = input::id(id)?;
    let query = Query::read(uri.query(), &["version", "first_chunk"])?;
    let version = query.parse("version")?;
    let first: u32 = query.parse("first_chunk")?.unwrap_or(0);
    let info =
        rest.operations.call(&call, v1::StatRequest { file: by_id(id, version), with_copies: false }).await?;
    if info.deleted && version.is_none() {
        return Err(DfsError::new(
            ErrorCode::NotFound,
            "the file is deleted; its kept versions can be asked for",
        )
        .into());
    }
    let (version, size, inline) = (info.version, info.size, info.inline || info.deleted);
    let mut file = File::from(info);
    let mut chunks = Vec::new();
    let mut offset = 0;
    // Reads by offset, pinned to the version found; what stands before `first_chunk` is passed over.
    let mut passed = 0u32;
    while !inline && offset < size {
        let request =
            v1::OpenReadRequest { file: by_id(id, Some(version)), offset, length: 0, max_chunks: 0 };
        let window = rest.operations.call(&call, request).await?;
        let Some(last) = window.chunks.last() else { break };
        offset = last.offset + last.size;
        for chunk in window.chunks.iter().filter(|chunk| chunk.index >= first) {
            if chunks.len() < MAX_CHUNKS {
                chunks.push(Chunk::of(chunk, version));
            }
        }
        passed += window.chunks.len() as u32;
        if chunks.len() >= MAX_CHUNKS {
            break;
        }
    }
    let next = chunks.last().map_or(passed, |chunk| chunk.index + 1);
    file.next_chunk = (!inline && next < file.chunk_count).then_some(next);
    file.chunks = Some(chunks);
    Ok(Json(file))
}

pub async fn delete(
    State(rest): State<Rest>,
    Extension(call): Extension<Call>,
    id: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Answer<Deleted> {
    let id: FileId = input::id(id)?;
    let query = Query::read(uri.query(), &["version", "if_version", "purge"])?;
    let request = v1::DeleteRequest {
        mutation: Some(rest.operations.new_mutation()),
        file: by_id(id, query.parse("version")?),
        if_version: query.parse("if_version")?,
        purge: query.parse("purge")?.unwrap_or(false),
    };
    let done = rest.operations.call(&call, request).await?;
    Ok(Json(Deleted { file_id: id.to_string(), version: done.version, position: done.position }))
}

/// An empty file, or a copy by reference.
pub async fn create(
    State(rest): State<Rest>,
    Extension(call): Extension<Call>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<File>), Problem> {
    Query::read(uri.query(), &[])?;
    let wanted: CreateFile = input::json(&headers, body).await?;
    let path: DfsPath = wanted.path.parse()?;
    let mutation = Some(rest.operations.new_mutation());
    let file_id = match wanted.source {
        Some(source) => {
            let request = v1::CopyRequest {
                mutation,
                from: by_id(source.file_id.parse()?, source.version),
                to: path.to_string(),
                if_version: wanted.if_version,
            };
            let info = rest.operations.call(&call, request).await?;
            (info.file_id, info.version)
        }
        None => {
            let request = v1::PutInlineRequest {
                mutation,
                path: path.to_string(),
                content: bytes::Bytes::new(),
                if_version: wanted.if_version,
                content_type: String::new(),
                user_metadata: Default::default(),
            };
            let done = rest.operations.call(&call, request).await?;
            (done.file_id, done.version)
        }
    };
    let (id, version) = (FileId::from_slice(&file_id.0)?, file_id.1);
    let request = v1::StatRequest { file: by_id(id, Some(version)), with_copies: false };
    let info = rest.operations.call(&call, request).await?;
    Ok(created(File::from(info)))
}
