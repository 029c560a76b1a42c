//! Attributes as content type and user metadata, and back. The standard ones but the content type are
//! user metadata under their header's name behind a colon; a name of a user that begins with a colon
//! gets one more, so that neither is taken for the other.

use std::collections::BTreeMap;

use dfs_client::v1::FileInfo;
use object_store::{Attribute, AttributeValue, Attributes, Error, Result};

const STANDARD: &[(&str, Attribute)] = &[
    (":cache-control", Attribute::CacheControl),
    (":content-disposition", Attribute::ContentDisposition),
    (":content-encoding", Attribute::ContentEncoding),
    (":content-language", Attribute::ContentLanguage),
    (":storage-class", Attribute::StorageClass),
];

/// Content type and user metadata.
pub(crate) fn stored(attributes: &Attributes) -> Result<(String, BTreeMap<String, String>)> {
    let mut content_type = String::new();
    let mut metadata = BTreeMap::new();
    for (attribute, value) in attributes {
        let value = value.to_string();
        let name = match attribute {
            Attribute::ContentType => {
                content_type = value;
                continue;
            }
            Attribute::Metadata(name) if name.starts_with(':') => format!(":{name}"),
            Attribute::Metadata(name) => name.to_string(),
            other => match STANDARD.iter().find(|(_, standard)| standard == other) {
                Some((name, _)) => (*name).to_owned(),
                None => {
                    return Err(Error::NotSupported { source: format!("attribute {other:?}").into() });
                }
            },
        };
        metadata.insert(name, value);
    }
    Ok((content_type, metadata))
}

pub(crate) fn shown(info: &FileInfo) -> Attributes {
    let mut attributes = Attributes::new();
    if !info.content_type.is_empty() {
        attributes.insert(Attribute::ContentType, AttributeValue::from(info.content_type.clone()));
    }
    for (name, value) in &info.user_metadata {
        let attribute = match STANDARD.iter().find(|(standard, _)| standard == name) {
            Some((_, standard)) => standard.clone(),
            None if name.starts_with("::") => Attribute::Metadata(name[1..].to_owned().into()),
            None => Attribute::Metadata(name.clone().into()),
        };
        attributes.insert(attribute, AttributeValue::from(value.clone()));
    }
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let attributes = Attributes::from_iter([
            (Attribute::ContentType, "text/html; charset=utf-8"),
            (Attribute::CacheControl, "max-age=604800"),
            (Attribute::ContentDisposition, "attachment"),
            (Attribute::ContentEncoding, "gzip"),
            (Attribute::ContentLanguage, "en-US"),
            (Attribute::StorageClass, "cold"),
            (Attribute::Metadata("plain".into()), "1"),
            (Attribute::Metadata(":cache-control".into()), "a user's own"),
            (Attribute::Metadata("::x".into()), "2"),
        ]);
        let (content_type, metadata) = stored(&attributes).unwrap();
        assert_eq!(metadata.len(), 8);
        let info =
            FileInfo { content_type, user_metadata: metadata.into_iter().collect(), ..Default::default() };
        assert_eq!(shown(&info), attributes);
    }
}
