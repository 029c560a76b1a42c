//! What comes in over REST: query strings and JSON bodies, each read strictly.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dfs_types::ErrorCode;
use dfs_types::limits::MAX_HTTP_BODY_BYTES;
use http_body_util::LengthLimitError;
use serde::Deserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, MapAccess, SeqAccess, Unexpected, Visitor};

use server_kit::Problem;

/// A refusal of what the caller wrote.
pub fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(ErrorCode::InvalidArgument, detail)
}

/// A query string's parameters: each at most once, and only those that are allowed. Its length was
/// bounded before (`guard`).
#[derive(Debug)]
pub struct Query(BTreeMap<String, String>);

impl Query {
    /// Reads `query`, in which only `allowed` names may stand.
    pub fn read(query: Option<&str>, allowed: &[&str]) -> Result<Self, Problem> {
        let mut found = BTreeMap::new();
        let query = query.unwrap_or("");
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

    /// `cursor`; empty if it is not given, which is the first page.
    pub fn cursor(&self) -> String {
        self.text("cursor").unwrap_or_default().to_owned()
    }

    /// `limit`, from 1 on; 0 if it is not given.
    pub fn limit(&self) -> Result<u32, Problem> {
        match self.parse::<u32>("limit")? {
            Some(0) => Err(invalid("limit must be at least 1")),
            limit => Ok(limit.unwrap_or(0)),
        }
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

/// The body as JSON; unknown and repeated fields are refused by the types.
pub async fn json<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> Result<T, Problem> {
    if let Some(kind) = headers.get(header::CONTENT_TYPE)
        && !is_json(kind)
    {
        return Err(invalid("the body must be application/json")
            .with_status(axum::http::StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
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
    let bytes = axum::body::to_bytes(body, MAX_HTTP_BODY_BYTES).await.map_err(|error| {
        let too_long = std::error::Error::source(&error).is_some_and(|cause| cause.is::<LengthLimitError>());
        if too_long { too_large() } else { invalid("the body broke off, or its framing is wrong") }
    })?;
    read_json(&bytes)
}

fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let refused = |error| invalid(format!("the body is not the JSON expected: {error}"));
    let body = serde_json::from_slice(bytes).map_err(refused)?;
    Objects { list: false }.deserialize(&mut serde_json::Deserializer::from_slice(bytes)).map_err(refused)?;
    Ok(body)
}

/// Fields whose values are lists.
const LISTS: [&str; 2] = ["chunks", "receipts"];

/// Refuses a list where an object is meant: the derived readers would take `["/b/k", null]` for the
/// fields in their order. (Found by the generated requests of the scenario `openapi-walk`.)
#[derive(Clone, Copy)]
struct Objects {
    list: bool,
}

impl<'de> DeserializeSeed<'de> for Objects {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Objects {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.list { "a list" } else { "no list" })
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        if !self.list {
            return Err(A::Error::invalid_type(Unexpected::Seq, &self));
        }
        while access.next_element_seed(Self { list: false })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        while let Some(name) = access.next_key::<String>()? {
            access.next_value_seed(Self { list: LISTS.contains(&name.as_str()) })?;
        }
        Ok(())
    }
}

/// `curl -d` calls everything a form unless told otherwise, and many callers say nothing: both are read
/// as the JSON that the route wants. Credentials are never sent by a browser on its own, so this opens
/// nothing to forms of other origins.
fn is_json(kind: &axum::http::HeaderValue) -> bool {
    let kind = kind.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    [&b"application/json"[..], b"application/x-www-form-urlencoded"]
        .iter()
        .any(|known| kind.eq_ignore_ascii_case(known))
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

    #[test]
    fn a_list_is_no_object() {
        use crate::rest::shapes::{CommitUpload, CreateFile};
        assert!(read_json::<CreateFile>(br#"{"path":"/b/k","source":{"file_id":"x"}}"#).is_ok());
        for bad in [r#"["/b/k",null,null]"#, r#"{"path":"/b/k","source":["x",null]}"#] {
            assert!(read_json::<CreateFile>(bad.as_bytes()).is_err(), "{bad}");
        }
        let commit = |chunk: &str| {
            read_json::<CommitUpload>(format!(r#"{{"upload_id":"u","chunks":[{chunk}]}}"#).as_bytes())
        };
        let chunk = r#"{"index":0,"chunk_id":"c","size":1,"secret":"s","receipts":["r"]}"#;
        assert!(commit(chunk).is_ok());
        assert!(commit(r#"[0,"c",1,"s",["r"]]"#).is_err());
    }
}
