//! `/files` and `/stat`.

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use dfs_proto::v1;
use dfs_proto::v1::file_selector::By;
use dfs_types::path::split_path;
use dfs_types::{DfsError, DfsPath, ErrorCode, FileId};
use http::{HeaderMap, StatusCode};
use server_kit::Problem;

use super::asked::{Asked, Body, InPath, Plain};
use super::conditional::{Conditions, etag};
use super::input::{Query, invalid};
use super::problems::{OfBucketLook, OfFileCreate, OfFileDelete, OfFileLook, OfFileRename};
use super::shapes::{Chunk, CreateFile, Deleted, File, FileList, RenameFile, VersionList};
use super::{Answer, Tagged, created, next_cursor, tagged};

/// Chunks listed in the answer about one file.
const MAX_CHUNKS: usize = 1024;
/// A rename by id looks for the name first; somebody who writes in between makes it look again.
const RENAME_TRIES: usize = 3;

pub(super) fn by_id(id: FileId, version: Option<u64>) -> Option<v1::FileSelector> {
    Some(v1::FileSelector { by: Some(By::FileId(id.to_vec().into())), version })
}

pub(super) fn by_path(path: String, version: Option<u64>) -> Option<v1::FileSelector> {
    Some(v1::FileSelector { by: Some(By::Path(path)), version })
}

/// List files
///
/// The files of one bucket whose paths begin with `prefix`, in byte order, a page at a time. A page may
/// have fewer entries than `limit`, none even, and a `next_cursor` all the same: go on until it is null.
/// `owner`, times and sizes are there; what is kept sealed and the chunks are in `GET /files/{id}`.
#[utoipa::path(get, path = "/files", tag = "files", operation_id = "list_files",
    params(
        ("prefix" = String, Query, description = "`/BUCKET/` and the beginning of keys", example = "/photos/2026/", max_length = 1100),
        ("delimiter" = Option<String>, Query, description = "fold paths that go on behind this text into `common_prefixes`", example = "/"),
        ("limit" = Option<u32>, Query, description = "entries of a page, 1 to 1,000; default 1,000", minimum = 1, maximum = 1000),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
        ("include_deleted" = Option<bool>, Query, description = "also files that were deleted and are kept"),
    ),
    responses((status = 200, description = "A page.", body = FileList), OfBucketLook))]
pub async fn list_files(asked: Asked) -> Answer<FileList> {
    let query = asked.query(&["prefix", "delimiter", "limit", "cursor", "include_deleted"])?;
    let prefix = query.text("prefix").ok_or_else(|| invalid("prefix=/BUCKET/.. is needed"))?;
    let (bucket, key_prefix) = split_path(prefix)?;
    let request = v1::ListRequest {
        bucket: bucket.to_string(),
        prefix: key_prefix.to_owned(),
        delimiter: query.text("delimiter").unwrap_or_default().to_owned(),
        cursor: query.cursor(),
        limit: query.limit()?,
        include_deleted: query.parse("include_deleted")?.unwrap_or(false),
        start_after: String::new(),
    };
    let page = asked.call(request).await?;
    let (mut files, mut common_prefixes) = (Vec::with_capacity(page.entries.len()), Vec::new());
    for entry in page.entries {
        match entry.kind {
            Some(v1::list_entry::Kind::File(info)) => files.push(File::from(info)),
            Some(v1::list_entry::Kind::CommonPrefix(prefix)) => {
                common_prefixes.push(format!("/{bucket}/{prefix}"))
            }
            None => {}
        }
    }
    let next_cursor = next_cursor(page.next_cursor);
    Ok(Json(FileList { files, common_prefixes, next_cursor, position: page.position }))
}

/// Show a file
///
/// With its chunks and the nodes that have them. The etag is the version: it tells whether the content
/// is another, not whether copies have moved since.
#[utoipa::path(get, path = "/files/{id}", tag = "files", operation_id = "get_file",
    params(
        ("id" = String, Path, description = "file id"),
        ("version" = Option<u64>, Query, description = "an older version that is kept"),
        ("first_chunk" = Option<u32>, Query, description = "list chunks from this index on: `next_chunk` of the answer before"),
        ("if-match" = Option<String>, Header, description = "answer 412 unless it is one of these versions"),
        ("if-none-match" = Option<String>, Header, description = "answer 304 if it is one of these versions"),
    ),
    responses(
        (status = 200, description = "The file.", body = File, headers(("etag" = String, description = "the version, quoted"))),
        (status = 304, description = "`If-None-Match` names this version.", headers(("etag" = String, description = "the version, quoted"))),
        OfFileLook))]
pub async fn get_file(
    asked: Asked,
    InPath(id): InPath<FileId>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let query = asked.query(&["version", "first_chunk"])?;
    let version = query.parse("version")?;
    show(&asked, by_id(id, version), version.is_none(), &headers, &query).await
}

/// Find a file by its path
///
/// The same answer as `GET /files/{id}`.
#[utoipa::path(get, path = "/stat", tag = "files", operation_id = "stat",
    params(
        ("path" = String, Query, description = "`/BUCKET/KEY`", example = "/photos/2026/cat.jpg", max_length = 1100),
        ("version" = Option<u64>, Query, description = "an older version that is kept"),
        ("first_chunk" = Option<u32>, Query, description = "list chunks from this index on: `next_chunk` of the answer before"),
        ("if-match" = Option<String>, Header, description = "answer 412 unless it is one of these versions"),
        ("if-none-match" = Option<String>, Header, description = "answer 304 if it is one of these versions"),
    ),
    responses(
        (status = 200, description = "The file.", body = File, headers(("etag" = String, description = "the version, quoted"))),
        (status = 304, description = "`If-None-Match` names this version.", headers(("etag" = String, description = "the version, quoted"))),
        OfFileLook))]
pub async fn stat(asked: Asked, headers: HeaderMap) -> Result<Response, Problem> {
    let query = asked.query(&["path", "version", "first_chunk"])?;
    let path: DfsPath = query.text("path").ok_or_else(|| invalid("path=/BUCKET/KEY is needed"))?.parse()?;
    let version = query.parse("version")?;
    show(&asked, by_path(path.to_string(), version), version.is_none(), &headers, &query).await
}

async fn show(
    asked: &Asked,
    file: Option<v1::FileSelector>,
    current: bool,
    headers: &HeaderMap,
    query: &Query,
) -> Result<Response, Problem> {
    let conditions = Conditions::read(headers)?;
    let first: u32 = query.parse("first_chunk")?.unwrap_or(0);
    let info = asked.call(v1::StatRequest { file, with_copies: false }).await?;
    if info.deleted && current {
        return Err(deleted());
    }
    if conditions.unchanged(info.version)? {
        return Ok((StatusCode::NOT_MODIFIED, [(http::header::ETAG, etag(info.version))]).into_response());
    }
    let id = FileId::from_slice(&info.file_id)?;
    let (version, size, inline) = (info.version, info.size, info.inline || info.deleted);
    let mut file = File::from(info);
    let mut chunks = Vec::new();
    let mut offset = 0;
    // Reads by offset, pinned to the version found; what stands before `first_chunk` is passed over.
    let mut passed = 0u32;
    while !inline && offset < size {
        let request =
            v1::OpenReadRequest { file: by_id(id, Some(version)), offset, length: 0, max_chunks: 0 };
        let window = asked.call(request).await?;
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
    Ok(tagged(version, file).into_response())
}

fn deleted() -> Problem {
    DfsError::new(ErrorCode::NotFound, "the file is deleted; its kept versions can be asked for").into()
}

/// List a file's versions
///
/// Newest first, delete markers among them.
#[utoipa::path(get, path = "/files/{id}/versions", tag = "files", operation_id = "list_versions",
    params(
        ("id" = String, Path, description = "file id"),
        ("limit" = Option<u32>, Query, description = "entries of a page, 1 to 1,000; default 1,000", minimum = 1, maximum = 1000),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, description = "A page.", body = VersionList), OfFileLook))]
pub async fn list_versions(asked: Asked, InPath(id): InPath<FileId>) -> Answer<VersionList> {
    let query = asked.query(&["limit", "cursor"])?;
    let request =
        v1::ListVersionsRequest { file: by_id(id, None), cursor: query.cursor(), limit: query.limit()? };
    let page = asked.call(request).await?;
    Ok(Json(VersionList {
        versions: page.versions.into_iter().map(File::from).collect(),
        next_cursor: next_cursor(page.next_cursor),
        position: page.position,
    }))
}

/// Delete a file
///
/// It and its older versions are kept as long as the bucket says, unless `purge` is set. With `version`
/// that version alone goes, at once.
#[utoipa::path(delete, path = "/files/{id}", tag = "files", operation_id = "delete_file",
    params(
        ("id" = String, Path, description = "file id"),
        ("version" = Option<u64>, Query, description = "drop this version alone"),
        ("if_version" = Option<u64>, Query, description = "the version that the file must have, as `if-match`"),
        ("purge" = Option<bool>, Query, description = "drop every version at once"),
        ("if-match" = Option<String>, Header, description = "answer 412 unless the file has one of these versions"),
        ("if-none-match" = Option<String>, Header, description = "answer 412 if the file has one of these versions"),
    ),
    responses((status = 200, description = "Deleted.", body = Deleted), OfFileDelete))]
pub async fn delete_file(asked: Asked, InPath(id): InPath<FileId>, headers: HeaderMap) -> Answer<Deleted> {
    let query = asked.query(&["version", "if_version", "purge"])?;
    let current = || current_version(&asked, by_id(id, None));
    let if_version = Conditions::read(&headers)?.if_version(query.parse("if_version")?, current).await?;
    let request = v1::DeleteRequest {
        mutation: asked.new_mutation(),
        file: by_id(id, query.parse("version")?),
        if_version,
        purge: query.parse("purge")?.unwrap_or(false),
    };
    let done = asked.call(request).await?;
    Ok(Json(Deleted { file_id: id.to_string(), version: done.version, position: done.position }))
}

/// Make an empty file, or copy one
///
/// A copy is by reference: it moves no content, whatever its size.
#[utoipa::path(post, path = "/files", tag = "files", operation_id = "create_file", request_body = CreateFile,
    params(
        ("if-match" = Option<String>, Header, description = "answer 412 unless the path has one of these versions; `*`: any"),
        ("if-none-match" = Option<String>, Header, description = "answer 412 if the path has one of these versions; `*`: any"),
    ),
    responses((status = 201, description = "Made.", body = File, headers(("etag" = String, description = "the version, quoted"))), OfFileCreate))]
pub async fn create_file(
    Plain(asked): Plain,
    headers: HeaderMap,
    Body(wanted): Body<CreateFile>,
) -> Result<(StatusCode, Tagged<File>), Problem> {
    let path: DfsPath = wanted.path.parse()?;
    let current = || current_version(&asked, by_path(path.to_string(), None));
    let if_version = Conditions::read(&headers)?.if_version(wanted.if_version, current).await?;
    let mutation = asked.new_mutation();
    let (file_id, version) = match wanted.source {
        Some(source) => {
            let request = v1::CopyRequest {
                mutation,
                from: by_id(source.file_id.parse()?, source.version),
                to: path.to_string(),
                if_version,
            };
            let info = asked.call(request).await?;
            (info.file_id, info.version)
        }
        None => {
            let request = v1::PutInlineRequest {
                mutation,
                path: path.to_string(),
                content: bytes::Bytes::new(),
                if_version,
                content_type: String::new(),
                user_metadata: Default::default(),
            };
            let done = asked.call(request).await?;
            (done.file_id, done.version)
        }
    };
    let id = FileId::from_slice(&file_id)?;
    let request = v1::StatRequest { file: by_id(id, Some(version)), with_copies: false };
    let info = asked.call(request).await?;
    Ok(created(version, File::from(info)))
}

/// Rename a file
///
/// Within its bucket. To move to another: copy, then delete.
#[utoipa::path(post, path = "/files/{id}/rename", tag = "files", operation_id = "rename_file", request_body = RenameFile,
    params(
        ("id" = String, Path, description = "file id"),
        ("if-match" = Option<String>, Header, description = "answer 412 unless the file has one of these versions"),
        ("if-none-match" = Option<String>, Header, description = "answer 412 if the file has one of these versions"),
    ),
    responses((status = 200, description = "Renamed.", body = File, headers(("etag" = String, description = "the version, quoted"))), OfFileRename))]
pub async fn rename_file(
    Plain(asked): Plain,
    InPath(id): InPath<FileId>,
    headers: HeaderMap,
    Body(wanted): Body<RenameFile>,
) -> Result<Tagged<File>, Problem> {
    let to: DfsPath = wanted.path.parse()?;
    let conditions = Conditions::read(&headers)?;
    let mut tries = 0;
    loop {
        tries += 1;
        let request = v1::StatRequest { file: by_id(id, None), with_copies: false };
        let info = asked.call(request).await?;
        if info.deleted {
            return Err(deleted());
        }
        let if_version =
            conditions.if_version(wanted.if_version, || async { Ok(Some(info.version)) }).await?;
        let request = v1::RenameRequest {
            mutation: asked.new_mutation(),
            from: info.path,
            to: to.to_string(),
            // The name may stand for another file by now; a version is of one file alone.
            if_version: if_version.or(Some(info.version)),
            if_to_version: wanted.if_target_version,
        };
        match asked.call(request).await {
            Ok(renamed) => return Ok(tagged(renamed.version, File::from(renamed))),
            Err(error)
                if matches!(error.code, ErrorCode::VersionMismatch | ErrorCode::NotFound)
                    && if_version.is_none()
                    && wanted.if_target_version.is_none()
                    && tries < RENAME_TRIES => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The current version of a file, if there is one.
pub(super) async fn current_version(
    asked: &Asked,
    file: Option<v1::FileSelector>,
) -> Result<Option<u64>, Problem> {
    match asked.call(v1::StatRequest { file, with_copies: false }).await {
        Ok(info) => Ok((!info.deleted).then_some(info.version)),
        Err(error) if error.code == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}
