//! The JSON shapes of the REST API, and how the messages of the service become them. Sizes in
//! bytes, times RFC 3339 UTC, ids opaque strings, secrets, grants and receipts base64. Their schemas
//! are part of the OpenAPI document: comments on fields are what users read there.

mod buckets;
mod cluster;
mod files;
mod uploads;

pub use buckets::*;
pub use cluster::*;
pub use files::*;
pub use uploads::*;

use std::collections::BTreeMap;
use std::fmt;

use dfs_types::{
    BucketId, ChunkId, ClusterId, DfsError, FileId, Incarnation, PrincipalId, RealmId, UploadId,
};
use serde::Deserializer;
use serde::de::{Error, MapAccess, Visitor};

macro_rules! id_text {
    ($($function:ident, $id:ident;)*) => {
        $(
            /// The id as REST prints it; empty where the message has none.
            pub fn $function(bytes: &[u8]) -> String {
                $id::from_slice(bytes).map_or_else(|_: DfsError| String::new(), |id| id.to_string())
            }
        )*
    };
}
id_text! {
    file_id, FileId;
    upload_id, UploadId;
    realm_id, RealmId;
    principal_id, PrincipalId;
    incarnation, Incarnation;
    chunk_id, ChunkId;
    bucket_id, BucketId;
    cluster_id, ClusterId;
}

/// An object of texts in which no name stands twice: which of the two would count?
fn unique_texts<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<BTreeMap<String, String>>, D::Error> {
    struct Texts;

    impl<'de> Visitor<'de> for Texts {
        type Value = Option<BTreeMap<String, String>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of texts")
        }

        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
            let mut texts = BTreeMap::new();
            while let Some((name, value)) = access.next_entry::<String, String>()? {
                if texts.contains_key(&name) {
                    return Err(A::Error::custom(format_args!("duplicate field {name:?}")));
                }
                texts.insert(name, value);
            }
            Ok(Some(texts))
        }
    }

    deserializer.deserialize_any(Texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_user_metadata_stand_once() {
        let read = |metadata: &str| {
            let text = format!(r#"{{"upload_id":"x","chunks":[],"user_metadata":{metadata}}}"#);
            serde_json::from_str::<CommitUpload>(&text)
                .map(|commit| commit.user_metadata.unwrap_or_default().len())
        };
        assert_eq!(read(r#"{"a":"1","b":"2"}"#).unwrap(), 2);
        assert_eq!(read("null").unwrap(), 0);
        for bad in [r#"{"a":"1","a":"2"}"#, r#"{"a":1}"#, "[]", "\"a\"", "7"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
