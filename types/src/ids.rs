//! Ids. Each is a newtype, so that none can be taken for another; all are opaque to users and
//! printed as lower-case hex (16-byte ids as a UUID) on every face of the system.

use std::fmt;
use std::str::FromStr;

use crate::doors::{Clock, Entropy};
use crate::error::{DfsError, ErrorCode};
use crate::limits::MAX_NODE_ID_BYTES;

/// Writes `bytes` as lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)] as char);
        text.push(DIGITS[usize::from(byte & 15)] as char);
    }
    text
}

/// Reads exactly `N` bytes of hex, either case.
pub fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != N * 2 {
        return None;
    }
    let mut out = [0u8; N];
    for (place, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let high = (pair[0] as char).to_digit(16)?;
        let low = (pair[1] as char).to_digit(16)?;
        *place = (high * 16 + low) as u8;
    }
    Some(out)
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $word:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// The id from its 16 bytes, or an `invalid_argument` error for any other length.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, DfsError> {
                bytes.try_into().map(Self).map_err(|_| {
                    DfsError::new(ErrorCode::InvalidArgument, concat!($word, " must be 16 bytes"))
                })
            }

            /// A new id: UUIDv7 by the given wall clock, so that ids sort roughly by age.
            pub fn generate(clock: &dyn Clock, entropy: &dyn Entropy) -> Self {
                let mut random = [0u8; 10];
                entropy.fill(&mut random);
                Self(*uuid::Builder::from_unix_timestamp_millis(clock.unix_millis(), &random).into_uuid().as_bytes())
            }

            pub fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            pub fn to_vec(self) -> Vec<u8> {
                self.0.to_vec()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                uuid::Uuid::from_bytes(self.0).hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = DfsError;
            fn from_str(text: &str) -> Result<Self, DfsError> {
                uuid::Uuid::parse_str(text).map(|id| Self(*id.as_bytes())).map_err(|_| {
                    DfsError::new(ErrorCode::InvalidArgument, format!(concat!("{:?} is not a ", $word), text))
                })
            }
        }
    };
}

uuid_id!(
    /// One cluster, drawn when it is bootstrapped.
    ClusterId, "cluster id");
uuid_id!(
    /// A bucket; its name may change, its id never does.
    BucketId, "bucket id");
uuid_id!(
    /// What a key names; stays through versions and renames.
    FileId, "file id");
uuid_id!(
    /// A session from init to commit.
    UploadId, "upload id");
uuid_id!(
    /// Somebody who may call: a user or the built-in admin.
    PrincipalId, "principal id");
uuid_id!(
    /// Deduplication and encryption domain: a chunk's identity is (realm, chunk id) everywhere.
    RealmId, "realm id");
uuid_id!(
    /// One formatted data directory of a chunk server.
    Incarnation, "incarnation");
uuid_id!(
    /// An order from the metadata leader to a chunk server.
    TaskId, "task id");
uuid_id!(
    /// Drawn by the caller once per mutation and kept over its retries: the at-most-once handle.
    RequestId, "request id");

/// BLAKE3-256 of a chunk's sealed bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ChunkId(pub [u8; 32]);

impl ChunkId {
    pub fn from_slice(bytes: &[u8]) -> Result<Self, DfsError> {
        bytes
            .try_into()
            .map(Self)
            .map_err(|_| DfsError::new(ErrorCode::InvalidArgument, "chunk id must be 32 bytes"))
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub fn to_vec(self) -> Vec<u8> {
        self.0.to_vec()
    }
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChunkId({self})")
    }
}

impl FromStr for ChunkId {
    type Err = DfsError;
    fn from_str(text: &str) -> Result<Self, DfsError> {
        from_hex(text).map(Self).ok_or_else(|| {
            DfsError::new(ErrorCode::InvalidArgument, format!("{text:?} is not a chunk id (64 hex digits)"))
        })
    }
}

/// The name of a chunk server, chosen by its operator: 1-63 bytes of `a-z 0-9 . -`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(String);

impl NodeId {
    pub fn new(text: impl Into<String>) -> Result<Self, DfsError> {
        let text = text.into();
        let fits = !text.is_empty() && text.len() <= MAX_NODE_ID_BYTES;
        if fits
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-')
        {
            Ok(Self(text))
        } else {
            Err(DfsError::new(
                ErrorCode::InvalidArgument,
                format!("{text:?} is not a node id (1-63 of a-z 0-9 . -)"),
            ))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({})", self.0)
    }
}

impl FromStr for NodeId {
    type Err = DfsError;
    fn from_str(text: &str) -> Result<Self, DfsError> {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_what_they_print() {
        let file = FileId([7; 16]);
        assert_eq!(file.to_string().parse::<FileId>().unwrap(), file);
        let chunk = ChunkId([0xab; 32]);
        assert_eq!(chunk.to_string().parse::<ChunkId>().unwrap(), chunk);
        assert!("zz".parse::<ChunkId>().is_err());
        assert!(FileId::from_slice(&[0; 15]).is_err());
    }

    #[test]
    fn node_ids_are_plain_names() {
        for good in ["n1", "rack-2.node-10"] {
            assert_eq!(NodeId::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "N1", "n/1", "n\0", &"n".repeat(64)] {
            assert!(NodeId::new(bad).is_err(), "{bad:?}");
        }
    }
}
