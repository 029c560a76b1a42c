//! Which errors each kind of route can answer, for the OpenAPI document: by error code, so that the
//! statuses follow from the codes and a new code shows up where it belongs.

use std::collections::BTreeMap;

use dfs_types::ErrorCode;
use serde::Serialize;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

/// The media type of every error.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// An error (RFC 9457).
#[derive(Serialize, ToSchema)]
#[allow(dead_code)] // only its schema is used; `Problem::document` writes it
pub struct ProblemDocument {
    /// A path on this server: what the code means and what to do.
    #[schema(example = "/docs/errors/not_found")]
    r#type: String,
    /// The code in words.
    title: String,
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What happened, for a person.
    detail: String,
    /// For programs: see the list of codes.
    #[schema(example = "not_found")]
    code: String,
    /// As in the header `x-request-id`, and in the logs of every server the request went through.
    request_id: Option<String>,
    /// The request id as a URI.
    instance: Option<String>,
    /// With `chunks_missing`: what to do with which chunk.
    chunks: Option<Vec<ChunkNeed>>,
}

/// A chunk that a commit could not count.
#[derive(Serialize, ToSchema)]
#[allow(dead_code)]
pub struct ChunkNeed {
    index: u32,
    /// `send`: its bytes again, under a new plan; `touch`: the same put again.
    #[schema(pattern = "^(send|touch)$")]
    need: String,
}

/// What any route with a credential may answer.
const ALWAYS: &[ErrorCode] = &[
    ErrorCode::InvalidArgument,
    ErrorCode::Unauthenticated,
    ErrorCode::PermissionDenied,
    ErrorCode::Overloaded,
    ErrorCode::Internal,
    ErrorCode::Io,
    ErrorCode::Integrity,
    ErrorCode::Unavailable,
    ErrorCode::Timeout,
];

/// And any that changes something.
const CHANGES: &[ErrorCode] =
    &[ErrorCode::UnknownOutcome, ErrorCode::RequestTooOld, ErrorCode::NoSpace, ErrorCode::LimitExceeded];

/// Refusals of HTTP's own, all with the code `invalid_argument` or `limit_exceeded`.
const OF_HTTP: &[(&str, &str)] = &[
    ("406", "`accept` takes nothing that this route answers."),
    ("414", "The URL is too long."),
    ("431", "The headers are too long."),
];

fn answer(description: String) -> RefOr<Response> {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("ProblemDocument"))).build();
    RefOr::T(ResponseBuilder::new().description(description).content(MEDIA_TYPE, content).build())
}

fn problems(lists: &[&[ErrorCode]], body: bool) -> BTreeMap<String, RefOr<Response>> {
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for code in ErrorCode::ALL.iter().filter(|code| lists.iter().any(|list| list.contains(code))) {
        let text = format!("`{code}`: {}", code.meaning());
        texts.entry(code.http_status().to_string()).or_default().push(text);
    }
    for (status, text) in OF_HTTP {
        texts.entry((*status).to_owned()).or_default().push((*text).to_owned());
    }
    if body {
        let entry = texts.entry("413".to_owned()).or_default();
        entry.push("The body is longer than 4 MiB.".to_owned());
        texts.entry("415".to_owned()).or_default().push("The body is not JSON, or is compressed.".to_owned());
    }
    texts.into_iter().map(|(status, texts)| (status, answer(texts.join(" ")))).collect()
}

macro_rules! sets {
    ($($(#[$doc:meta])* $name:ident: $body:literal, $base:expr, [$($code:ident),*];)*) => {$(
        $(#[$doc])*
        pub struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                problems(&[ALWAYS, $base, &[$(ErrorCode::$code),*]], $body)
            }
        }
    )*};
}

sets! {
    /// Looks at what is always there.
    OfLook: false, &[], [];
    /// Looks at a bucket.
    OfBucketLook: false, &[], [InvalidName, BucketNotFound];
    /// Looks at a file.
    OfFileLook: false, &[], [InvalidName, NotFound, BucketNotFound, VersionMismatch];
    OfNodeLook: false, &[], [NodeNotFound];
    OfChunkLook: false, &[], [InvalidName, ChunkNotFound, NotFound, BucketNotFound];
    OfUploadLook: false, &[], [UploadNotFound];
    OfUploadAbort: false, CHANGES, [UploadNotFound];
    OfBucketCreate: true, CHANGES, [InvalidName, AlreadyExists];
    OfBucketChange: true, CHANGES, [InvalidName, BucketNotFound];
    OfBucketDelete: false, CHANGES, [InvalidName, BucketNotFound, BucketNotEmpty];
    OfFileCreate: true, CHANGES, [InvalidName, BucketNotFound, NotFound, VersionMismatch, FailedPrecondition, NotEnoughNodes];
    OfFileDelete: false, CHANGES, [NotFound, BucketNotFound, VersionMismatch, FailedPrecondition];
    OfFileRename: true, CHANGES, [InvalidName, NotFound, BucketNotFound, VersionMismatch, AlreadyExists, FailedPrecondition];
    OfUploadBegin: true, CHANGES, [InvalidName, BucketNotFound, UploadNotFound, NotEnoughNodes, FailedPrecondition];
    OfUploadCommit: true, CHANGES, [InvalidName, BucketNotFound, NotFound, UploadNotFound, VersionMismatch, ChunksMissing, ReceiptRefused,
        ManifestMismatch, NodeConflict, FailedPrecondition];
    OfLocationPut: true, CHANGES, [ChunkNotFound, NotFound, BucketNotFound, NodeNotFound, NodeConflict, ReceiptRefused, FailedPrecondition];
}
