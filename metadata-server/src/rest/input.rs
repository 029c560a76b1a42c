//! What comes in over REST: query strings, ids and JSON bodies, each read strictly.

use std::collections::BTreeMap;
use std::str::FromStr;

use axum::body::Body;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dfs_types::ErrorCode;
use dfs_types::limits::MAX_HTTP_BODY_BYTES;
use serde::de::DeserializeOwned;

use server_kit::Problem;

/// A refusal of what the caller wrote.
pub fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(ErrorCode::InvalidArgument, detail)
}

/// Longest query string that is read.
const MAX_QUERY_BYTES: usize = 16 * 1024;

/// A query string's parameters: each at most once, and only those that are allowed.
#[derive(Debug)]
pub struct Query(BTreeMap<String, String>);

impl Query {
    /// Reads `query`, in which only `allowed` names may stand.
    pub fn read(query: Option<&str>, allowed: &[&str]) -> Result<Self, Problem> {
        let mut found = BTreeMap::new();
        let query = query.unwrap_or("");
        if query.len() > MAX_QUERY_BYTES {
            return Err(Problem::new(ErrorCode::LimitExceeded, "the query string is too long"));
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if !allowed.contains(&name.as_str()) {
                let list = allowed.join(", ");
                let known =
                    if allowed.is_empty() { "none are taken here".into() } else { format!("known: {list}") };
                return Err(invalid(format!("unknown parameter {name:?}; {known}")));
            }
            if found.insert(name.clone(), value).is_some() {
                return Err(invalid(format!("parameter {name:?} is given twice")));
            }
        }
        Ok(Self(found))
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub fn parse<T: FromStr>(&self, name: &str) -> Result<Option<T>, Problem> {
        self.text(name)
            .map(|text| {
                text.parse().map_err(|_| invalid(format!("parameter {name:?}: {text:?} is not valid")))
            })
            .transpose()
    }
}

/// Undoes percent encoding and `+`; what comes out must be UTF-8.
fn decode(text: &str) -> Result<String, Problem> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |b: Option<u8>| b.and_then(|b| (b as char).to_digit(16));
                match (digit(rest.next()), digit(rest.next())) {
                    (Some(high), Some(low)) => (high * 16 + low) as u8,
                    _ => return Err(invalid("the query string has a broken percent escape")),
                }
            }
            other => other,
        });
    }
    String::from_utf8(bytes).map_err(|_| invalid("the query string is not valid UTF-8"))
}

/// The id in the path.
pub fn id<T>(path: Result<Path<String>, PathRejection>) -> Result<T, Problem>
where
    T: FromStr<Err = dfs_types::DfsError>,
{
    let Path(text) = path.map_err(|_| invalid("the path is not valid UTF-8"))?;
    Ok(text.parse::<T>()?)
}

/// The body as JSON; unknown and repeated fields are refused by the types.
pub async fn json<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> Result<T, Problem> {
    if headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(invalid("compressed bodies are not taken")
            .with_status(axum::http::StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    let too_large = || {
        Problem::new(ErrorCode::LimitExceeded, format!("the body has more than {MAX_HTTP_BODY_BYTES} bytes"))
    };
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    if declared.and_then(|length| length.parse::<u64>().ok()).is_some_and(|n| n > MAX_HTTP_BODY_BYTES as u64)
    {
        return Err(too_large());
    }
    // A body that ends early fails here as well; its sender is gone, so the sentence reaches nobody.
    let bytes = axum::body::to_bytes(body, MAX_HTTP_BODY_BYTES).await.map_err(|_| too_large())?;
    serde_json::from_slice(&bytes)
        .map_err(|error| invalid(format!("the body is not the JSON expected: {error}")))
}

pub fn base64_decode(field: &str, text: &str) -> Result<Vec<u8>, Problem> {
    STANDARD.decode(text).map_err(|_| invalid(format!("{field} is not base64")))
}

pub fn base64_encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_strictly() {
        let read = |text| Query::read(Some(text), &["prefix", "limit"]);
        let query = read("prefix=%2Fb%2Fa+b&limit=7").unwrap();
        assert_eq!(query.text("prefix"), Some("/b/a b"));
        assert_eq!(query.parse::<u32>("limit").unwrap(), Some(7));
        for bad in
            ["other=1", "limit=1&limit=2", "prefix=%", "prefix=%f", "prefix=%zz", "prefix=%ff", "prefix=%+1"]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
        for bad in ["limit=-1", "limit=4294967296", "limit=", "limit=x"] {
            assert!(read(bad).unwrap().parse::<u32>("limit").is_err(), "{bad}");
        }
    }
}
