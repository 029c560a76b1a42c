//! Forms and bounds of fields, checked before a command is proposed and once more when it applies.

use dfs_proto::v1;
use dfs_types::limits::{
    MAX_ADDRESS_BYTES, MAX_CHUNKS_PER_BACKGROUND_COMMAND, MAX_DOMAIN_BYTES, MAX_PRINCIPAL_NAME_BYTES,
    MAX_SEALED_ROOT_BYTES, MAX_TARGET, MAX_WRAPPED_BYTES,
};
use dfs_types::{BucketName, DfsError, ErrorCode, Key, NodeId};

pub(crate) type Check = Result<(), DfsError>;

pub(crate) fn invalid(message: impl Into<String>) -> DfsError {
    DfsError::new(ErrorCode::InvalidArgument, message)
}

fn too_many(what: &str, found: usize, most: usize) -> DfsError {
    DfsError::new(ErrorCode::LimitExceeded, format!("{what}: {found}, at most {most} are allowed"))
}

pub(crate) fn id(bytes: &[u8], what: &str) -> Check {
    exactly(bytes, 16, what)
}

pub(crate) fn hash(bytes: &[u8], what: &str) -> Check {
    exactly(bytes, 32, what)
}

fn exactly(bytes: &[u8], length: usize, what: &str) -> Check {
    if bytes.len() == length {
        Ok(())
    } else {
        Err(invalid(format!("{what} must be {length} bytes, not {}", bytes.len())))
    }
}

pub(crate) fn at_most(bytes: &[u8], most: usize, what: &str) -> Check {
    if bytes.len() <= most { Ok(()) } else { Err(too_many(what, bytes.len(), most)) }
}

pub(crate) fn wrapped(bytes: &[u8], what: &str) -> Check {
    if bytes.is_empty() {
        return Err(invalid(format!("{what} is missing")));
    }
    at_most(bytes, MAX_WRAPPED_BYTES, what)
}

pub(crate) fn root(bytes: &[u8]) -> Check {
    if bytes.is_empty() {
        return Err(invalid("the sealed root is missing"));
    }
    at_most(bytes, MAX_SEALED_ROOT_BYTES, "sealed root")
}

pub(crate) fn key(text: &str) -> Check {
    Key::new(text).map(drop)
}

pub(crate) fn bucket_name(text: &str) -> Check {
    BucketName::new(text).map(drop)
}

pub(crate) fn node_id(text: &str) -> Check {
    NodeId::new(text).map(drop)
}

pub(crate) fn principal_name(text: &str) -> Check {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-@".contains(&b);
    if text.is_empty() || text.len() > MAX_PRINCIPAL_NAME_BYTES || !text.bytes().all(plain) {
        let message = format!("{text:?} is not a principal's name (1-63 of a-z 0-9 . _ - @)");
        return Err(DfsError::new(ErrorCode::InvalidName, message));
    }
    Ok(())
}

pub(crate) fn address(text: &str) -> Check {
    let port = text.rsplit_once(':').map(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if port != Some(true) || text.len() > MAX_ADDRESS_BYTES || text.contains(char::is_whitespace) {
        return Err(invalid(format!("{text:?} is not an address (host:port)")));
    }
    Ok(())
}

pub(crate) fn domain(text: &str) -> Check {
    if text.is_empty() || text.len() > MAX_DOMAIN_BYTES || text.contains(char::is_control) {
        return Err(invalid(format!("{text:?} is not a domain (1-255 bytes, no control characters)")));
    }
    Ok(())
}

/// A policy with nothing left to default.
pub(crate) fn complete_policy(policy: Option<&v1::Policy>) -> Check {
    let Some(policy) = policy else { return Err(invalid("the policy is missing")) };
    if policy.target == 0 || policy.target > MAX_TARGET {
        return Err(invalid(format!("target is {}, 1 to {MAX_TARGET} are allowed", policy.target)));
    }
    if policy.min_ack == 0 || policy.min_ack > policy.target {
        return Err(invalid(format!("min_ack is {}, 1 to target are allowed", policy.min_ack)));
    }
    Ok(())
}

pub(crate) fn batch(length: usize, what: &str) -> Check {
    match length {
        0 => Err(invalid(format!("{what}: none given"))),
        n if n > MAX_CHUNKS_PER_BACKGROUND_COMMAND => {
            Err(too_many(what, n, MAX_CHUNKS_PER_BACKGROUND_COMMAND))
        }
        _ => Ok(()),
    }
}

pub(crate) fn chunk(chunk: Option<&v1::ChunkRef>) -> Check {
    let Some(chunk) = chunk else { return Err(invalid("the chunk is missing")) };
    id(&chunk.realm_id, "realm id")?;
    hash(&chunk.chunk_id, "chunk id")
}

pub(crate) fn stored(stored: &v1::StoredAt) -> Check {
    node_id(&stored.node_id)?;
    id(&stored.incarnation, "incarnation")
}

pub(crate) fn changes(changes: &[v1::LocationChange]) -> Check {
    batch(changes.len(), "changes")?;
    for change in changes {
        chunk(change.chunk.as_ref())?;
        stored(change.stored.as_ref().ok_or_else(|| invalid("the location is missing"))?)?;
    }
    Ok(())
}
