//! The version root: what is true of a whole version, sealed under its key. Content hash, content type
//! and user metadata are at rest nowhere else.
//!
//! The key binds bucket, file and upload, so there is no associated data, and wrapping V again under
//! another KEK leaves the root as it is.

use std::collections::BTreeMap;

use dfs_types::limits::{MAX_CONTENT_TYPE_BYTES, MAX_USER_METADATA_BYTES};
use dfs_types::{Entropy, Secret, UploadId};
use zeroize::Zeroizing;

use crate::aead::{expand, open_message, seal_message};
use crate::error::FormatError;
use crate::keys::VersionBinding;
use crate::wire::Reader;

const ROOT_VERSION: u8 = 1;
// Optional fields, in ascending order of their tag. Tags are never reused.
const TAG_CONTENT_HASH: u8 = 1;
const TAG_CONTENT_TYPE: u8 = 2;
/// One user metadata entry: u16 length of the name, name, value. Names ascend.
const TAG_USER_METADATA: u8 = 3;

/// No Debug outside tests: the fields are at rest only sealed, and logs are at rest.
#[derive(Clone, PartialEq, Eq, Default)]
#[cfg_attr(test, derive(Debug))]
pub struct Root {
    /// Plaintext bytes of the version.
    pub size: u64,
    pub chunks: u32,
    pub pages: u32,
    /// The upload the pages are sealed for; a copy by reference keeps the original's.
    pub pages_upload: UploadId,
    /// [`crate::page::PagesHasher`] over all pages.
    pub pages_hash: [u8; 32],
    /// BLAKE3-256 of the whole plaintext, when the writer gave it.
    pub content_hash: Option<[u8; 32]>,
    /// At most 255 bytes; empty when none was given.
    pub content_type: String,
    /// Names and values together at most 8 KiB.
    pub user_metadata: BTreeMap<String, String>,
}

/// Seals a root for its version.
pub fn seal_root(
    version_key: &Secret<32>,
    bound: &VersionBinding,
    root: &Root,
    entropy: &dyn Entropy,
) -> Result<Vec<u8>, FormatError> {
    let plain = root.encode()?;
    Ok(seal_message(&root_key(version_key, bound), &[], &plain, entropy))
}

/// Opens the root of a version.
pub fn open_root(version_key: &Secret<32>, bound: &VersionBinding, blob: &[u8]) -> Result<Root, FormatError> {
    let plain = open_message(&root_key(version_key, bound), &[], blob).ok_or(FormatError::RootForged)?;
    Root::decode(&plain)
}

fn root_key(version_key: &Secret<32>, bound: &VersionBinding) -> Secret<32> {
    expand(version_key, &bound.info(b"dfs version v1 root\0"))
}

impl Root {
    fn encode(&self) -> Result<Zeroizing<Vec<u8>>, FormatError> {
        self.check_limits()?;
        // Room from the start: a buffer that grows leaves copies behind that nobody overwrites.
        let entry_bytes = |(name, value): (&String, &String)| name.len() + value.len() + 7;
        let metadata: usize = self.user_metadata.iter().map(entry_bytes).sum();
        let mut out = Zeroizing::new(Vec::with_capacity(128 + self.content_type.len() + metadata));
        out.push(ROOT_VERSION);
        out.extend_from_slice(&self.size.to_be_bytes());
        out.extend_from_slice(&self.chunks.to_be_bytes());
        out.extend_from_slice(&self.pages.to_be_bytes());
        out.extend_from_slice(self.pages_upload.as_bytes());
        out.extend_from_slice(&self.pages_hash);
        if let Some(hash) = &self.content_hash {
            put_field(&mut out, TAG_CONTENT_HASH, &[hash]);
        }
        if !self.content_type.is_empty() {
            put_field(&mut out, TAG_CONTENT_TYPE, &[self.content_type.as_bytes()]);
        }
        for (name, value) in &self.user_metadata {
            let name_length = (name.len() as u16).to_be_bytes();
            put_field(&mut out, TAG_USER_METADATA, &[&name_length, name.as_bytes(), value.as_bytes()]);
        }
        Ok(out)
    }

    fn check_limits(&self) -> Result<(), FormatError> {
        let metadata: usize = self.user_metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
        // An entry takes room even when its name and value are empty.
        let entries = self.user_metadata.len();
        if self.content_type.len() > MAX_CONTENT_TYPE_BYTES || metadata + entries > MAX_USER_METADATA_BYTES {
            return Err(FormatError::RootTooLarge);
        }
        Ok(())
    }

    fn decode(plain: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader(plain);
        match reader.u8() {
            Some(ROOT_VERSION) => {}
            Some(version) => return Err(FormatError::RootVersion { version }),
            None => return Err(FormatError::RootMalformed),
        }
        let root = Self::decode_fields(&mut reader).ok_or(FormatError::RootMalformed)?;
        root.check_limits()?;
        Ok(root)
    }

    fn decode_fields(reader: &mut Reader<'_>) -> Option<Self> {
        let mut root = Root {
            size: reader.u64()?,
            chunks: reader.u32()?,
            pages: reader.u32()?,
            pages_upload: UploadId(reader.array()?),
            pages_hash: reader.array()?,
            ..Root::default()
        };
        let mut last_tag = 0;
        while !reader.is_empty() {
            let tag = reader.u8()?;
            let length = reader.u32()? as usize;
            let mut value = Reader(reader.bytes(length)?);
            if tag < last_tag || (tag == last_tag && tag != TAG_USER_METADATA) {
                return None;
            }
            last_tag = tag;
            match tag {
                TAG_CONTENT_HASH => root.content_hash = Some(value.array()?),
                TAG_CONTENT_TYPE if length > 0 => root.content_type = text(value.bytes(length)?)?,
                TAG_USER_METADATA => {
                    let name_length = value.u16()?;
                    let name = text(value.bytes(name_length.into())?)?;
                    let entry = text(value.bytes(value.0.len())?)?;
                    if root.user_metadata.last_key_value().is_some_and(|(last, _)| *last >= name) {
                        return None;
                    }
                    root.user_metadata.insert(name, entry);
                }
                _ => return None,
            }
            if !value.is_empty() {
                return None;
            }
        }
        Some(root)
    }
}

/// `tag | u32 length | parts`.
fn put_field(out: &mut Vec<u8>, tag: u8, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    out.push(tag);
    out.extend_from_slice(&(length as u32).to_be_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
}

fn text(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

const _: () = assert!(MAX_USER_METADATA_BYTES <= u16::MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn roots() -> impl Strategy<Value = Root> {
        let text = || prop::collection::vec(any::<char>(), 0..12).prop_map(String::from_iter);
        (
            any::<(u64, u32, u32, [u8; 16], [u8; 32], Option<[u8; 32]>)>(),
            text(),
            prop::collection::btree_map(text(), text(), 0..20),
        )
            .prop_map(|(fixed, content_type, user_metadata)| Root {
                size: fixed.0,
                chunks: fixed.1,
                pages: fixed.2,
                pages_upload: UploadId(fixed.3),
                pages_hash: fixed.4,
                content_hash: fixed.5,
                content_type,
                user_metadata,
            })
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(root in roots()) {
            let plain = root.encode().unwrap();
            prop_assert!(Root::decode(&plain).unwrap() == root);
            // Every cut is refused, or (between optional fields) another, shorter root: what is whole
            // is the message's business.
            for cut in 0..plain.len() {
                if let Ok(shorter) = Root::decode(&plain[..cut]) {
                    prop_assert!(cut >= 65 && shorter.encode().unwrap()[..] == plain[..cut]);
                }
            }
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            for head in [vec![], [vec![1], vec![0; 64]].concat()] {
                let bytes = [head, bytes.clone()].concat();
                if let Ok(root) = Root::decode(&bytes) {
                    prop_assert_eq!(&root.encode().unwrap()[..], &bytes[..]);
                }
            }
        }
    }

    #[test]
    fn limits() {
        let mut root = Root { content_type: "t".repeat(256), ..Root::default() };
        assert!(root.encode().err() == Some(FormatError::RootTooLarge));
        root.content_type.pop();
        root.user_metadata.insert("n".into(), "v".repeat(8190));
        assert!(Root::decode(&root.encode().unwrap()).unwrap() == root);
        root.user_metadata.insert(String::new(), String::new());
        assert!(root.encode().err() == Some(FormatError::RootTooLarge));
        assert!(Root::decode(&[2]).err() == Some(FormatError::RootVersion { version: 2 }));
        assert!(Root::decode(&[]).err() == Some(FormatError::RootMalformed));
    }
}
