//! Rows of the state: one persisted kind per file, with its key encoding and a golden row.
//!
//! A key is one kind byte and its parts: integers big-endian, ids raw, a text only at the end. A value
//! is one format byte and one message of state.proto. Kind bytes are never reused.

pub mod buckets;
pub mod chunks;
mod codec;
pub mod deficits;
pub mod dropping;
pub mod expiry;
pub mod files;
pub mod heads;
pub mod inline;
pub mod manifests;
pub mod marks;
pub mod meta;
pub mod node_chunks;
pub mod nodes;
pub mod pages;
pub mod principals;
pub mod purged;
pub mod requests;
pub mod seats;
pub mod trash;
pub mod uploads;
pub mod versions;

pub use codec::{
    ChunkKey, FORMAT, Pair, Part, Row, RowError, Tail, decode, delete, encode, exists, first, get, key_bytes,
    must_get, prefix_range, put, scan, scan_range, successor,
};

/// Every kind of row, in key order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Kind {
    Meta = 0x01,
    Mark = 0x02,
    Principal = 0x10,
    PrincipalByKey = 0x11,
    PrincipalByName = 0x12,
    Bucket = 0x20,
    BucketByName = 0x21,
    Head = 0x30,
    File = 0x31,
    Version = 0x32,
    Expiry = 0x33,
    Manifest = 0x40,
    Page = 0x41,
    PageStart = 0x42,
    Inline = 0x43,
    Dropping = 0x44,
    Upload = 0x48,
    UploadByActivity = 0x49,
    UploadTombstone = 0x4a,
    Chunk = 0x50,
    NodeChunk = 0x51,
    Deficit = 0x52,
    Trash = 0x53,
    Purged = 0x54,
    PurgedByPosition = 0x55,
    PendingPurge = 0x56,
    Node = 0x60,
    Seat = 0x61,
    SeatByIncarnation = 0x62,
    Request = 0x70,
    RequestByPosition = 0x71,
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use std::fmt::Debug;

    /// The row reads back as written, and its bytes are those of format 1: never change a golden
    /// row, add a format.
    pub fn golden<R: Row>(key: R::Key, value: R::Value, key_hex: &str, value_hex: &str)
    where
        R::Key: PartialEq + Debug,
        R::Value: PartialEq + Debug,
    {
        let (k, v) = (key_bytes::<R>(&key), encode(&value));
        let (found_key, found_value) = (dfs_types::ids::hex(&k), dfs_types::ids::hex(&v));
        assert_eq!((found_key.as_str(), found_value.as_str()), (key_hex, value_hex), "{:?}", R::KIND);
        assert_eq!(decode::<R>(&k, &v).unwrap(), (key, value));
        let other_kind: Vec<u8> = std::iter::once(0xfe).chain(k[1..].iter().copied()).collect();
        assert!(decode::<R>(&other_kind, &v).is_err(), "a key of another kind is refused");
        assert!(decode::<R>(&k, &[2]).is_err(), "an unknown format is refused");
    }
}
