//! `/init_upload`, `/commit_upload` and `/uploads`: an upload by curl, with `dfsctl chunk put` for the bytes.
//!
//! The plan is made before the chunks exist, so it names places, not contents: per index a primary
//! and replicas, with grants. Secrets come from PlanChunks, by the hash of each chunk.

use std::collections::BTreeMap;

use axum::Json;
use dfs_proto::v1;
use dfs_types::limits::{MAX_PAGE_CHUNKS, MAX_PLAN_CHUNKS, MAX_VERSION_BYTES, chunk_bytes_at};
use dfs_types::{ChunkId, DfsError, DfsPath, ErrorCode, UploadId};
use http::{HeaderMap, StatusCode};
use server_kit::Problem;

use super::asked::{Asked, Body, InPath, Plain};
use super::conditional::Conditions;
use super::files::{by_path, current_version};
use super::input::{base64_decode, base64_encode, invalid};
use super::problems::{OfUploadAbort, OfUploadBegin, OfUploadCommit, OfUploadLook};
use super::shapes::{
    self, CommitUpload, Committed, InitUpload, PlannedChunk, Policy, SentChunk, Upload, UploadAborted,
    UploadState,
};
use super::{Answer, Tagged, tagged};

/// Chunks one commit over REST may name: what fits its body many times over.
const MAX_COMMIT_CHUNKS: usize = 16 * MAX_PAGE_CHUNKS;

/// The chunks of a file of `size` bytes from index `first` on, at most one plan's worth: index,
/// offset, length; and whether there are more behind them.
fn chunk_list(size: u64, first: u32) -> (Vec<(u32, u64, u64)>, bool) {
    let (mut index, mut offset) = (0u32, 0u64);
    let mut list = Vec::new();
    while offset < size {
        let length = chunk_bytes_at(offset).min(size - offset);
        if index >= first {
            if list.len() == MAX_PLAN_CHUNKS {
                return (list, true);
            }
            list.push((index, offset, length));
        }
        offset += length;
        index += 1;
    }
    (list, false)
}

/// Begin an upload, or plan its next chunks
///
/// The answer says for each chunk where it goes, with the grants that the nodes want to see.
/// `dfsctl chunk put --plan PLAN.json --index N FILE` seals and sends one, and prints what
/// `POST /commit_upload` wants to hear of it.
#[utoipa::path(post, path = "/init_upload", tag = "uploads", operation_id = "init_upload", request_body = InitUpload,
    responses((status = 201, description = "The upload and a plan.", body = Upload), OfUploadBegin))]
pub async fn init_upload(
    Plain(asked): Plain,
    Body(wanted): Body<InitUpload>,
) -> Result<(StatusCode, Json<Upload>), Problem> {
    let size = wanted.size.ok_or_else(|| invalid("size is needed, in bytes"))?;
    if size > MAX_VERSION_BYTES {
        return Err(Problem::new(
            ErrorCode::LimitExceeded,
            format!("a file may have at most {MAX_VERSION_BYTES} bytes"),
        ));
    }
    let begins = wanted.upload_id.is_none();
    let (upload_id, file_id, realm_id, policy, position) = match (wanted.path, wanted.upload_id) {
        (Some(path), None) => {
            if wanted.first_chunk.unwrap_or(0) != 0 {
                return Err(invalid("first_chunk goes with upload_id"));
            }
            let path: DfsPath = path.parse()?;
            let policy =
                wanted.policy.map(|policy| v1::Policy { target: policy.target, min_ack: policy.min_ack });
            let request = v1::InitUploadRequest {
                mutation: asked.new_mutation(),
                path: path.to_string(),
                size: Some(size),
                policy,
            };
            let begun = asked.call(request).await?;
            (begun.upload_id, begun.file_id, begun.realm_id, begun.policy, begun.position)
        }
        (None, Some(id)) => {
            if wanted.policy.is_some() {
                return Err(invalid("the policy was decided when the upload began"));
            }
            let id: UploadId = id.parse()?;
            let request = v1::GetUploadRequest { upload_id: id.to_vec().into() };
            let upload = asked.call(request).await?;
            if upload.size.is_some_and(|begun| begun != size) {
                return Err(invalid("size is another than when the upload began"));
            }
            (upload.upload_id, upload.file_id, upload.realm_id, upload.policy, upload.position)
        }
        _ => return Err(invalid("give path to begin an upload, or upload_id to go on with one")),
    };
    let (list, more) = chunk_list(size, wanted.first_chunk.unwrap_or(0));
    let chunks = match plan(&asked, &upload_id, &list).await {
        Ok(chunks) => chunks,
        Err(error) => {
            // Nobody was told of this upload, so nobody could end it; that it ends by itself takes a day.
            if begins {
                let request = v1::AbortUploadRequest { mutation: asked.new_mutation(), upload_id };
                if let Err(left) = asked.call(request).await {
                    tracing::info!(error = %left, "an upload without a plan is left to expire");
                }
            }
            return Err(error.into());
        }
    };
    let policy = policy.unwrap_or_default();
    let next_chunk = more.then(|| chunks.last().map_or(0, |chunk| chunk.index + 1));
    let answer = Upload {
        upload_id: shapes::upload_id(&upload_id),
        file_id: shapes::file_id(&file_id),
        realm_id: shapes::realm_id(&realm_id),
        chunk_size: chunk_bytes_at(0),
        policy: Policy { target: policy.target, min_ack: policy.min_ack },
        position,
        chunks,
        next_chunk,
    };
    Ok((StatusCode::CREATED, Json(answer)))
}

/// Nodes and grants for chunks of these indexes, offsets and lengths.
async fn plan(
    asked: &Asked,
    upload_id: &bytes::Bytes,
    list: &[(u32, u64, u64)],
) -> Result<Vec<PlannedChunk>, DfsError> {
    if list.is_empty() {
        return Ok(Vec::new());
    }
    // Stands for the chunk that does not exist yet: an id nobody has, so that nothing is a hit.
    let sealed = |(index, _, length): &(u32, u64, u64)| v1::SealedChunk {
        index: *index,
        chunk_id: placeholder(upload_id, *index),
        sealed_length: chunk_format::seal::sealed_length(*length),
        must_send: true,
    };
    let request = v1::PlanChunksRequest {
        upload_id: upload_id.clone(),
        hashes: Vec::new(),
        sealed: list.iter().map(sealed).collect(),
        exclude_nodes: Vec::new(),
    };
    let planned = asked.call(request).await?;
    Ok(list.iter().zip(planned.plans).map(|(place, planned)| planned_chunk(*place, planned)).collect())
}

fn planned_chunk((index, offset, size): (u32, u64, u64), planned: v1::ChunkPlan) -> PlannedChunk {
    let mut names = Vec::new();
    let (mut addresses, mut grants) = (BTreeMap::new(), BTreeMap::new());
    for node in planned.nodes {
        let Some(at) = node.node else { continue };
        addresses.insert(at.node_id.clone(), at.address);
        grants.insert(at.node_id.clone(), base64_encode(&node.grant));
        names.push(at.node_id);
    }
    let mut names = names.into_iter();
    let primary = names.next().unwrap_or_default();
    PlannedChunk { index, offset, size, primary, replicas: names.collect(), addresses, grants }
}

fn placeholder(upload: &[u8], index: u32) -> bytes::Bytes {
    let mut hasher = blake3::Hasher::new_derive_key("dfs rest plan placeholder v1");
    hasher.update(upload).update(&index.to_be_bytes());
    bytes::Bytes::copy_from_slice(hasher.finalize().as_bytes())
}

/// Commit an upload
///
/// Makes the version visible, once enough copies of every chunk are confirmed. May be called again: a commit that was made is
/// answered as it was.
#[utoipa::path(post, path = "/commit_upload", tag = "uploads", operation_id = "commit_upload", request_body = CommitUpload,
    params(
        ("if-match" = Option<String>, Header, description = "answer 412 unless the path has one of these versions; `*`: any"),
        ("if-none-match" = Option<String>, Header, description = "answer 412 if the path has one of these versions; `*`: any"),
    ),
    responses((status = 200, description = "Committed.", body = Committed, headers(("etag" = String, description = "the version, quoted"))), OfUploadCommit))]
pub async fn commit_upload(
    Plain(asked): Plain,
    headers: HeaderMap,
    Body(wanted): Body<CommitUpload>,
) -> Result<Tagged<Committed>, Problem> {
    let conditions = Conditions::read(&headers)?;
    let id: UploadId = wanted.upload_id.parse()?;
    let mut chunks = wanted.chunks;
    if chunks.len() > MAX_COMMIT_CHUNKS {
        return Err(Problem::new(
            ErrorCode::LimitExceeded,
            format!(
                "a commit over REST has at most {MAX_COMMIT_CHUNKS} chunks; use the SDK for larger files"
            ),
        ));
    }
    chunks.sort_by_key(|chunk| chunk.index);
    if let Some((place, chunk)) =
        chunks.iter().enumerate().find(|(place, chunk)| chunk.index as usize != *place)
    {
        return Err(Problem::new(
            ErrorCode::ManifestMismatch,
            format!(
                "the chunks must have the indexes 0 to {}: at {place} stands {}",
                chunks.len() - 1,
                chunk.index
            ),
        ));
    }
    let mut size = 0u64;
    for chunk in &chunks {
        size = size.checked_add(chunk.size).filter(|sum| *sum <= MAX_VERSION_BYTES).ok_or_else(|| {
            Problem::new(
                ErrorCode::LimitExceeded,
                format!("a file may have at most {MAX_VERSION_BYTES} bytes"),
            )
        })?;
    }
    // Everything is read before anything is changed.
    let pages: Vec<Vec<v1::PageChunk>> = chunks
        .chunks(MAX_PAGE_CHUNKS)
        .map(|page| page.iter().map(page_chunk).collect::<Result<_, _>>())
        .collect::<Result<_, Problem>>()?;
    let upload = v1::GetUploadRequest { upload_id: id.to_vec().into() };
    let appended = match asked.call(upload).await {
        Ok(upload) => Some(upload),
        // Committed before, perhaps: the commit says which.
        Err(error) if error.code == ErrorCode::UploadNotFound => None,
        Err(error) => return Err(error.into()),
    };
    let path = appended.as_ref().map(|upload| upload.path.clone());
    let current = || async {
        match path {
            Some(path) => current_version(&asked, by_path(path, None)).await,
            None => Ok(None),
        }
    };
    // What was committed before is answered whatever the conditions say now.
    let if_version = match &appended {
        Some(_) => conditions.if_version(wanted.if_version, current).await?,
        None => wanted.if_version,
    };
    if let Some(appended) = appended {
        for (page, list) in pages.into_iter().enumerate() {
            let first_index = (page * MAX_PAGE_CHUNKS) as u32;
            if first_index + list.len() as u32 <= appended.chunks {
                continue;
            }
            let request = v1::AppendPageRequest {
                upload_id: id.to_vec().into(),
                first_index,
                chunks: list,
                mutation: asked.new_mutation(),
            };
            asked.call(request).await?;
        }
    }
    let request = v1::CommitUploadRequest {
        mutation: asked.new_mutation(),
        upload_id: id.to_vec().into(),
        chunks: chunks.len() as u32,
        size,
        content_hash: bytes::Bytes::new(),
        if_version,
        content_type: wanted.content_type.unwrap_or_default(),
        user_metadata: wanted.user_metadata.unwrap_or_default().into_iter().collect(),
    };
    let done = Committed::from(asked.call(request).await?);
    Ok(tagged(done.version, done))
}

/// Show an upload that has not ended
#[utoipa::path(get, path = "/uploads/{id}", tag = "uploads", operation_id = "get_upload",
    params(("id" = String, Path, description = "upload id")),
    responses((status = 200, description = "The upload.", body = UploadState), OfUploadLook))]
pub async fn get_upload(Plain(asked): Plain, InPath(id): InPath<UploadId>) -> Answer<UploadState> {
    let request = v1::GetUploadRequest { upload_id: id.to_vec().into() };
    Ok(Json(asked.call(request).await?.into()))
}

/// Abort an upload
///
/// Its chunks go, unless other files need them. One left lying expires after a day.
#[utoipa::path(delete, path = "/uploads/{id}", tag = "uploads", operation_id = "abort_upload",
    params(("id" = String, Path, description = "upload id")),
    responses((status = 200, description = "Aborted.", body = UploadAborted), OfUploadAbort))]
pub async fn abort_upload(Plain(asked): Plain, InPath(id): InPath<UploadId>) -> Answer<UploadAborted> {
    let request = v1::AbortUploadRequest { mutation: asked.new_mutation(), upload_id: id.to_vec().into() };
    let done = asked.call(request).await?;
    Ok(Json(UploadAborted { upload_id: id.to_string(), position: done.position }))
}

fn page_chunk(chunk: &SentChunk) -> Result<v1::PageChunk, Problem> {
    let secret = base64_decode("secret", &chunk.secret)?;
    let receipts = chunk.receipts.iter().map(|receipt| Ok(base64_decode("receipts", receipt)?.into()));
    Ok(v1::PageChunk {
        chunk_id: chunk.chunk_id.parse::<ChunkId>()?.to_vec().into(),
        size: chunk.size,
        secret: secret.into(),
        receipts: receipts.collect::<Result<_, Problem>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_types::limits::{CHUNK_BYTES_FIRST, GIB};

    #[test]
    fn chunk_lists_go_on_where_the_last_one_ended() {
        assert_eq!(chunk_list(0, 0), (Vec::new(), false));
        assert_eq!(chunk_list(1, 0), (vec![(0, 0, 1)], false));
        let (list, more) = chunk_list(9_000_000, 0);
        assert_eq!((list.len(), more), (3, false));
        assert_eq!(list[2], (2, 2 * CHUNK_BYTES_FIRST, 9_000_000 - 2 * CHUNK_BYTES_FIRST));
        let (list, more) = chunk_list(GIB, 0);
        assert_eq!((list.len(), more), (64, true));
        let (list, more) = chunk_list(GIB, 192);
        assert_eq!((list.len(), more, list[0].0), (64, false, 192));
        assert_eq!(chunk_list(GIB, 1 << 30), (Vec::new(), false));
    }
}
