//! What the cluster says of a file, as `object_store` wants to hear it: versions, ETags, times.

use chrono::DateTime;
use dfs_client::v1::FileInfo;
use object_store::path::Path;
use object_store::{Error, ObjectMeta, PutResult, Result, UpdateVersion};

use crate::error::generic;

/// A version as an ETag: the one of the REST interface.
pub(crate) fn e_tag(version: u64) -> String {
    format!("\"{version}\"")
}

pub(crate) fn object_meta(location: Path, info: &FileInfo) -> Result<ObjectMeta> {
    let unix_ms = i64::try_from(info.updated_unix_ms).ok().and_then(DateTime::from_timestamp_millis);
    Ok(ObjectMeta {
        location,
        last_modified: unix_ms.ok_or_else(|| generic("the file's time is beyond all calendars"))?,
        size: info.size,
        e_tag: Some(e_tag(info.version)),
        version: Some(info.version.to_string()),
    })
}

pub(crate) fn put_result(version: u64) -> PutResult {
    PutResult {
        e_tag: Some(e_tag(version)),
        version: Some(version.to_string()),
        extensions: Default::default(),
    }
}

/// The version that must be current for an update. What cannot be a version of ours never is.
pub(crate) fn wanted(update: &UpdateVersion, path: &str) -> Result<u64> {
    let never = |said: &str| Error::Precondition {
        path: path.to_owned(),
        source: format!("{said} is no version of this store").into(),
    };
    let parse = |text: &str| {
        let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
        bare.parse::<u64>().ok().filter(|version| *version > 0).ok_or_else(|| never(text))
    };
    match (update.version.as_deref().map(parse).transpose()?, update.e_tag.as_deref().map(parse).transpose()?)
    {
        (Some(version), Some(tag)) if version != tag => {
            Err(never("a version and an ETag that differ: neither"))
        }
        (Some(version), _) | (None, Some(version)) => Ok(version),
        (None, None) => Err(generic("an update needs the version or the ETag that it replaces")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_tags_of_ours_are_read_and_others_are_not_current() {
        let update = |version: Option<&str>, e_tag: Option<&str>| {
            let update =
                UpdateVersion { version: version.map(str::to_owned), e_tag: e_tag.map(str::to_owned) };
            wanted(&update, "a")
        };
        let tag = e_tag(65_536);
        assert_eq!(update(Some("65536"), Some(&tag)).unwrap(), 65_536);
        assert_eq!(update(None, Some(&tag)).unwrap(), 65_536);
        for (version, tag) in [(Some("x"), None), (Some("0"), None), (Some("1"), Some("\"2\""))] {
            assert!(matches!(update(version, tag), Err(Error::Precondition { .. })), "{version:?}");
        }
        assert!(matches!(update(None, None), Err(Error::Generic { .. })));
    }
}
