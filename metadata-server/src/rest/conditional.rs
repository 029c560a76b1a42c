//! Conditional requests (RFC 9110, section 13): the etag of a file is its version, quoted.
//!
//! A condition on a change becomes the operation's own `if_version`, which apply checks, so nothing
//! can come between the look and the change.

use std::future::Future;

use axum::http::header::{HeaderName, IF_MATCH, IF_NONE_MATCH};
use dfs_types::ErrorCode;
use http::{HeaderMap, HeaderValue};
use server_kit::Problem;

use super::input::invalid;

/// The tags one header may list.
const MAX_TAGS: usize = 64;

/// A tag: its version, if it is one of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Tag {
    weak: bool,
    version: Option<u64>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Tags {
    Any,
    List(Vec<Tag>),
}

/// What a request's `If-Match` and `If-None-Match` ask.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Conditions {
    matches: Option<Tags>,
    none: Option<Tags>,
}

/// The etag of a version.
pub fn etag(version: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{version}\"")).expect("digits and quotes are header characters")
}

fn failed(detail: &str) -> Problem {
    Problem::new(ErrorCode::VersionMismatch, detail)
}

impl Conditions {
    /// Reads both headers.
    ///
    /// # Errors
    /// `invalid_argument` for what is neither `*` nor a list of tags.
    pub fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        Ok(Self { matches: read(headers, &IF_MATCH)?, none: read(headers, &IF_NONE_MATCH)? })
    }

    /// For a look at `version`: whether the caller has it already.
    ///
    /// # Errors
    /// `version_mismatch` if `If-Match` names others.
    pub fn unchanged(&self, version: u64) -> Result<bool, Problem> {
        if !self.matches_hold(Some(version)) {
            return Err(failed("If-Match names another version than this one"));
        }
        Ok(!self.none_hold(Some(version)))
    }

    /// For a change: the version it must find, `given` being the caller's `if_version`. `current` is
    /// asked, at most once, only for conditions that `if_version` cannot say by itself.
    ///
    /// # Errors
    /// `version_mismatch` if the conditions do not hold now, `invalid_argument` if they contradict
    /// `given`.
    pub async fn if_version<F>(
        &self,
        given: Option<u64>,
        current: impl FnOnce() -> F,
    ) -> Result<Option<u64>, Problem>
    where
        F: Future<Output = Result<Option<u64>, Problem>>,
    {
        let wanted = match (&self.matches, &self.none) {
            (None, None) => return Ok(given),
            (None, Some(Tags::Any)) => 0,
            (Some(Tags::List(list)), None) if list.len() == 1 && list[0].is_exact() => {
                list[0].version.unwrap_or_default()
            }
            _ => {
                let current = current().await?;
                if !self.matches_hold(current) {
                    return Err(failed("If-Match does not name the current version"));
                }
                if !self.none_hold(current) {
                    return Err(failed("If-None-Match names the current version"));
                }
                current.unwrap_or(0)
            }
        };
        match given {
            Some(given) if given != wanted => {
                Err(invalid("if_version and the headers If-Match or If-None-Match contradict each other"))
            }
            _ => Ok(Some(wanted)),
        }
    }

    /// `If-Match` compares strongly: a weak tag matches nothing.
    fn matches_hold(&self, current: Option<u64>) -> bool {
        match (&self.matches, current) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(Tags::Any), Some(_)) => true,
            (Some(Tags::List(list)), Some(current)) => {
                list.iter().any(|tag| !tag.weak && tag.version == Some(current))
            }
        }
    }

    fn none_hold(&self, current: Option<u64>) -> bool {
        match (&self.none, current) {
            (None, _) | (Some(_), None) => true,
            (Some(Tags::Any), Some(_)) => false,
            (Some(Tags::List(list)), Some(current)) => list.iter().all(|tag| tag.version != Some(current)),
        }
    }
}

impl Tag {
    fn is_exact(self) -> bool {
        !self.weak && self.version.is_some_and(|version| version > 0)
    }
}

fn read(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, Problem> {
    let broken = || invalid(format!("{name} is neither * nor a list of quoted tags"));
    let mut values = headers.get_all(name).iter();
    let Some(first) = values.next() else { return Ok(None) };
    if first.as_bytes().trim_ascii() == b"*" {
        return if values.next().is_none() { Ok(Some(Tags::Any)) } else { Err(broken()) };
    }
    let mut tags = Vec::new();
    for value in headers.get_all(name) {
        let mut rest = value.as_bytes().trim_ascii();
        loop {
            let weak = rest.starts_with(b"W/");
            let text = if weak { &rest[2..] } else { rest };
            let text = text.strip_prefix(b"\"").ok_or_else(broken)?;
            let end = text.iter().position(|byte| *byte == b'"').ok_or_else(broken)?;
            if tags.len() == MAX_TAGS {
                return Err(invalid(format!("{name} lists more than {MAX_TAGS} tags")));
            }
            tags.push(Tag { weak, version: version(&text[..end]) });
            rest = text[end + 1..].trim_ascii_start();
            match rest.strip_prefix(b",") {
                Some(next) => rest = next.trim_ascii_start(),
                None if rest.is_empty() => break,
                None => return Err(broken()),
            }
        }
    }
    Ok(Some(Tags::List(tags)))
}

/// Only the one spelling that [`etag`] has.
fn version(tag: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(tag).ok()?;
    text.parse::<u64>().ok().filter(|version| version.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(matches: Option<&str>, none: Option<&str>) -> Result<Conditions, Problem> {
        let mut headers = HeaderMap::new();
        for (name, value) in [(IF_MATCH, matches), (IF_NONE_MATCH, none)] {
            if let Some(value) = value {
                headers.insert(name, value.parse().unwrap());
            }
        }
        Conditions::read(&headers)
    }

    #[test]
    fn looks() {
        let check = |matches, none| {
            let answer = conditions(matches, none).unwrap().unchanged(7);
            answer.map_err(|problem| problem.status().as_u16())
        };
        assert_eq!(check(None, None), Ok(false));
        assert_eq!(check(None, Some("\"7\"")), Ok(true));
        assert_eq!(check(None, Some("\"6\" , W/\"7\"")), Ok(true));
        assert_eq!(check(None, Some("*")), Ok(true));
        assert_eq!(check(None, Some("\"6\", \"07\", \"x,y\", \"+7\"")), Ok(false));
        assert_eq!(check(Some("\"7\""), None), Ok(false));
        assert_eq!(check(Some("*"), Some("\"7\"")), Ok(true));
        for other in ["\"6\"", "W/\"7\"", "\"\"", "\"x\""] {
            assert_eq!(check(Some(other), None), Err(412), "{other}");
        }
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        for bad in ["7", "", "\"7", "\"7\" \"8\"", "\"7\",", "*, \"7\"", ",", "w/\"7\"", "W/7"] {
            assert!(conditions(Some(bad), None).is_err(), "{bad}");
            assert!(conditions(None, Some(bad)).is_err(), "{bad}");
        }
        let many = vec!["\"1\""; MAX_TAGS + 1].join(",");
        assert!(conditions(Some(&many), None).is_err());
    }

    #[tokio::test]
    async fn changes() {
        async fn check(
            matches: Option<&str>,
            none: Option<&str>,
            given: Option<u64>,
            current: Option<u64>,
        ) -> Result<Option<u64>, u16> {
            let conditions = conditions(matches, none).unwrap();
            let answer = conditions.if_version(given, || async move { Ok(current) }).await;
            answer.map_err(|problem| problem.status().as_u16())
        }
        assert_eq!(check(None, None, Some(3), None).await, Ok(Some(3)));
        assert_eq!(check(Some("\"7\""), None, None, None).await, Ok(Some(7)), "left to apply");
        assert_eq!(check(None, Some("*"), None, Some(7)).await, Ok(Some(0)), "left to apply");
        assert_eq!(check(Some("*"), None, None, Some(7)).await, Ok(Some(7)));
        assert_eq!(check(Some("*"), None, None, None).await, Err(412));
        assert_eq!(check(Some("\"6\",\"7\""), None, None, Some(7)).await, Ok(Some(7)));
        assert_eq!(check(Some("\"6\",\"8\""), None, None, Some(7)).await, Err(412));
        assert_eq!(check(Some("\"0\""), None, None, None).await, Err(412), "a tag is never of nothing");
        assert_eq!(check(None, Some("\"7\""), None, Some(7)).await, Err(412));
        assert_eq!(check(None, Some("\"7\""), None, Some(8)).await, Ok(Some(8)));
        assert_eq!(check(None, Some("\"7\""), None, None).await, Ok(Some(0)));
        assert_eq!(check(Some("\"7\""), None, Some(7), None).await, Ok(Some(7)));
        assert_eq!(check(Some("\"7\""), None, Some(8), None).await, Err(400));
    }
}
