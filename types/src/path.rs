//! Bucket names, keys, and paths. Keys are compared and listed as bytes and never normalised.

use std::fmt;
use std::str::FromStr;

use crate::error::{DfsError, ErrorCode};
use crate::limits::{MAX_BUCKET_NAME_BYTES, MAX_KEY_BYTES, MIN_BUCKET_NAME_BYTES};

/// A bucket's name: 3-63 bytes of `a-z 0-9 . -`, first and last a letter or digit, no `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BucketName(String);

impl BucketName {
    pub fn new(text: impl Into<String>) -> Result<Self, DfsError> {
        let text = text.into();
        let bytes = text.as_bytes();
        let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let fits = (MIN_BUCKET_NAME_BYTES..=MAX_BUCKET_NAME_BYTES).contains(&bytes.len())
            && bytes.iter().all(|b| plain(b) || *b == b'.' || *b == b'-')
            && bytes.first().is_some_and(plain)
            && bytes.last().is_some_and(plain)
            && !text.contains("..");
        if fits {
            Ok(Self(text))
        } else {
            Err(DfsError::new(
                ErrorCode::InvalidName,
                format!(
                    "{text:?} is not a bucket name: 3-63 of a-z 0-9 . -, beginning and ending with a letter or digit"
                ),
            ))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BucketName {
    type Err = DfsError;
    fn from_str(text: &str) -> Result<Self, DfsError> {
        Self::new(text)
    }
}

impl fmt::Display for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A key inside a bucket: UTF-8, 1-1,024 bytes, no NUL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key(String);

impl Key {
    pub fn new(text: impl Into<String>) -> Result<Self, DfsError> {
        let text = text.into();
        if text.is_empty() {
            return Err(DfsError::new(ErrorCode::InvalidName, "a key must not be empty"));
        }
        if text.len() > MAX_KEY_BYTES {
            return Err(DfsError::new(
                ErrorCode::InvalidName,
                format!("the key has {} bytes, at most {MAX_KEY_BYTES} are allowed", text.len()),
            ));
        }
        if text.contains('\0') {
            return Err(DfsError::new(ErrorCode::InvalidName, "a key must not contain a NUL byte"));
        }
        Ok(Self(text))
    }

    pub fn from_utf8(bytes: Vec<u8>) -> Result<Self, DfsError> {
        String::from_utf8(bytes)
            .map_err(|_| DfsError::new(ErrorCode::InvalidName, "a key must be valid UTF-8"))
            .and_then(Self::new)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a file is: `/bucket/key` in the API, `dfs://bucket/key` in dfsctl. Everything behind the
/// bucket's slash is the key, byte for byte.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DfsPath {
    pub bucket: BucketName,
    pub key: Key,
}

impl DfsPath {
    pub fn new(bucket: BucketName, key: Key) -> Self {
        Self { bucket, key }
    }
}

/// Cuts `/bucket/rest` or `dfs://bucket/rest` into bucket and rest, which may be empty.
pub fn split_path(text: &str) -> Result<(BucketName, &str), DfsError> {
    let inner = text.strip_prefix("dfs://").or_else(|| text.strip_prefix('/')).ok_or_else(|| {
        DfsError::new(
            ErrorCode::InvalidName,
            format!("{text:?} is not a path: write /bucket/key or dfs://bucket/key"),
        )
    })?;
    let (bucket, rest) = inner.split_once('/').unwrap_or((inner, ""));
    Ok((BucketName::new(bucket)?, rest))
}

impl FromStr for DfsPath {
    type Err = DfsError;
    fn from_str(text: &str) -> Result<Self, DfsError> {
        let (bucket, rest) = split_path(text)?;
        Ok(Self { bucket, key: Key::new(rest)? })
    }
}

impl fmt::Display for DfsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/{}", self.bucket, self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_names() {
        for good in ["abc", "a-b", "a.b.c", "0ab", &"a".repeat(63)] {
            assert!(BucketName::new(good).is_ok(), "{good:?}");
        }
        for bad in ["", "ab", "Abc", "-ab", "ab-", "a..b", "a_b", "a/b", "äbc", &"a".repeat(64)] {
            assert!(BucketName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn keys_are_bytes_kept_as_they_are() {
        for good in ["a", "-rf", "a//b", "..", " x ", "ä/ö", &"k".repeat(1024)] {
            assert_eq!(Key::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "a\0b", &"k".repeat(1025)] {
            assert!(Key::new(bad).is_err(), "{bad:?}");
        }
        assert!(Key::from_utf8(vec![0xff, 0xfe]).is_err());
    }

    #[test]
    fn paths_in_both_spellings() {
        let path: DfsPath = "/photos/2026//a b".parse().unwrap();
        assert_eq!(path, "dfs://photos/2026//a b".parse().unwrap());
        assert_eq!(path.to_string(), "/photos/2026//a b");
        for bad in ["photos/a", "/photos", "/photos/", "//a", "dfs://", "/PH/a"] {
            assert!(bad.parse::<DfsPath>().is_err(), "{bad:?}");
        }
    }
}
