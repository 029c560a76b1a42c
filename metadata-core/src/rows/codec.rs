//! How a row becomes bytes and back, and typed reads and writes over the key-value door.

use bytes::{BufMut, Bytes, BytesMut};
use dfs_types::{
    BucketId, ChunkId, DfsError, ErrorCode, FileId, Incarnation, PrincipalId, RealmId, RequestId, UploadId,
};
use prost::Message;

use super::Kind;
use crate::kv::{KvError, KvRead, Overlay, Space};

/// First byte of every value.
pub const FORMAT: u8 = 1;

/// The store failed, or what it holds is not what we wrote.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RowError {
    #[error(transparent)]
    Kv(#[from] KvError),
    #[error("damaged row of kind {kind:?}: {what}")]
    Corrupt { kind: Kind, what: String },
}

impl RowError {
    pub fn corrupt(kind: Kind, what: impl Into<String>) -> Self {
        Self::Corrupt { kind, what: what.into() }
    }
}

impl From<RowError> for DfsError {
    fn from(error: RowError) -> Self {
        let code = match &error {
            RowError::Kv(_) => ErrorCode::Io,
            RowError::Corrupt { .. } => ErrorCode::Internal,
        };
        DfsError::new(code, error.to_string())
    }
}

/// One persisted kind.
pub trait Row {
    const KIND: Kind;
    const SPACE: Space = Space::State;
    type Key: Part;
    type Value: Message + Default;
}

/// A whole row.
pub type Pair<R> = (<R as Row>::Key, <R as Row>::Value);

/// Declares a kind: `row!(/// doc  Name: Kind, key type => value type)`.
macro_rules! row {
    ($(#[$doc:meta])* $name:ident: $kind:ident, $key:ty => $value:ty $(, $space:ident)?) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name;
        impl $crate::rows::Row for $name {
            const KIND: $crate::rows::Kind = $crate::rows::Kind::$kind;
            $(const SPACE: $crate::kv::Space = $crate::kv::Space::$space;)?
            type Key = $key;
            type Value = $value;
        }
    };
}
pub(super) use row;

/// A piece of a key, written so that byte order is value order.
pub trait Part: Sized {
    fn write(&self, out: &mut Vec<u8>);
    /// Takes the piece off the front of `bytes`; None if it is not there.
    fn read(bytes: &mut &[u8]) -> Option<Self>;
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl Part for $type {
            fn write(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_be_bytes());
            }
            fn read(bytes: &mut &[u8]) -> Option<Self> {
                take(bytes).map(<$type>::from_be_bytes)
            }
        }
    )*};
}
integers!(u8, u32, u64);

macro_rules! ids {
    ($($type:ident),*) => {$(
        impl Part for $type {
            fn write(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.0);
            }
            fn read(bytes: &mut &[u8]) -> Option<Self> {
                take(bytes).map($type)
            }
        }
    )*};
}
ids!(BucketId, ChunkId, FileId, Incarnation, PrincipalId, RealmId, RequestId, UploadId);

impl Part for () {
    fn write(&self, _: &mut Vec<u8>) {}
    fn read(_: &mut &[u8]) -> Option<Self> {
        Some(())
    }
}

impl<const N: usize> Part for [u8; N] {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
    fn read(bytes: &mut &[u8]) -> Option<Self> {
        take(bytes)
    }
}

/// A text of any length: only as the last part of a key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Tail(pub String);

impl Part for Tail {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0.as_bytes());
    }
    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?.to_owned();
        *bytes = &[];
        Some(Self(text))
    }
}

/// A chunk's identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ChunkKey {
    pub realm: RealmId,
    pub chunk: ChunkId,
}

impl Part for ChunkKey {
    fn write(&self, out: &mut Vec<u8>) {
        self.realm.write(out);
        self.chunk.write(out);
    }
    fn read(bytes: &mut &[u8]) -> Option<Self> {
        Some(Self { realm: RealmId::read(bytes)?, chunk: ChunkId::read(bytes)? })
    }
}

impl<A: Part, B: Part> Part for (A, B) {
    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
        self.1.write(out);
    }
    fn read(bytes: &mut &[u8]) -> Option<Self> {
        Some((A::read(bytes)?, B::read(bytes)?))
    }
}

impl<A: Part, B: Part, C: Part> Part for (A, B, C) {
    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
        self.1.write(out);
        self.2.write(out);
    }
    fn read(bytes: &mut &[u8]) -> Option<Self> {
        Some((A::read(bytes)?, B::read(bytes)?, C::read(bytes)?))
    }
}

pub fn key_bytes<R: Row>(key: &R::Key) -> Vec<u8> {
    let mut out = vec![R::KIND as u8];
    key.write(&mut out);
    out
}

pub fn encode<M: Message>(value: &M) -> Bytes {
    let mut out = BytesMut::with_capacity(1 + value.encoded_len());
    out.put_u8(FORMAT);
    value.encode(&mut out).expect("BytesMut grows");
    out.freeze()
}

fn decode_value<R: Row>(bytes: &[u8]) -> Result<R::Value, RowError> {
    match bytes.split_first() {
        Some((&FORMAT, message)) => {
            R::Value::decode(message).map_err(|error| RowError::corrupt(R::KIND, error.to_string()))
        }
        Some((other, _)) => Err(RowError::corrupt(R::KIND, format!("format {other}"))),
        None => Err(RowError::corrupt(R::KIND, "empty")),
    }
}

/// A whole row from its bytes.
pub fn decode<R: Row>(key: &[u8], value: &[u8]) -> Result<Pair<R>, RowError> {
    let mut rest = match key.split_first() {
        Some((kind, rest)) if *kind == R::KIND as u8 => rest,
        _ => return Err(RowError::corrupt(R::KIND, "key of another kind")),
    };
    match R::Key::read(&mut rest) {
        Some(parts) if rest.is_empty() => Ok((parts, decode_value::<R>(value)?)),
        _ => Err(RowError::corrupt(R::KIND, "malformed key")),
    }
}

pub fn get<R: Row>(kv: &dyn KvRead, key: &R::Key) -> Result<Option<R::Value>, RowError> {
    match kv.get(R::SPACE, &key_bytes::<R>(key))? {
        Some(bytes) => decode_value::<R>(&bytes).map(Some),
        None => Ok(None),
    }
}

/// A row that another row promises: its absence is damage.
pub fn must_get<R: Row>(kv: &dyn KvRead, key: &R::Key) -> Result<R::Value, RowError> {
    get::<R>(kv, key)?.ok_or_else(|| {
        RowError::corrupt(R::KIND, format!("missing, key {}", dfs_types::ids::hex(&key_bytes::<R>(key))))
    })
}

pub fn exists<R: Row>(kv: &dyn KvRead, key: &R::Key) -> Result<bool, RowError> {
    Ok(kv.get(R::SPACE, &key_bytes::<R>(key))?.is_some())
}

pub fn put<R: Row>(tx: &mut Overlay<'_>, key: &R::Key, value: &R::Value) {
    tx.put(R::SPACE, key_bytes::<R>(key), encode(value));
}

pub fn delete<R: Row>(tx: &mut Overlay<'_>, key: &R::Key) {
    tx.delete(R::SPACE, key_bytes::<R>(key));
}

/// The least byte string above every string that begins with `prefix` (which has a byte below 0xff:
/// kind bytes are).
pub fn successor(prefix: &[u8]) -> Vec<u8> {
    let mut out = prefix.to_vec();
    while let Some(last) = out.pop() {
        if last < 0xff {
            out.push(last + 1);
            return out;
        }
    }
    out
}

/// The range of all rows of `R` whose key begins with `prefix` (`&()`: all rows).
pub fn prefix_range<R: Row>(prefix: &impl Part) -> (Vec<u8>, Vec<u8>) {
    let mut from = vec![R::KIND as u8];
    prefix.write(&mut from);
    let to = successor(&from);
    (from, to)
}

/// Rows with `from <= key bytes < to`, at most `limit`.
pub fn scan_range<R: Row>(
    kv: &dyn KvRead,
    from: &[u8],
    to: &[u8],
    limit: usize,
) -> Result<Vec<Pair<R>>, RowError> {
    kv.scan(R::SPACE, from, to, limit)?.iter().map(|(key, value)| decode::<R>(key, value)).collect()
}

/// Rows whose key begins with `prefix`, those behind `after` if given, at most `limit`.
pub fn scan<R: Row>(
    kv: &dyn KvRead,
    prefix: &impl Part,
    after: Option<&R::Key>,
    limit: usize,
) -> Result<Vec<Pair<R>>, RowError> {
    let (mut from, to) = prefix_range::<R>(prefix);
    if let Some(after) = after {
        from = key_bytes::<R>(after);
        from.push(0);
    }
    scan_range::<R>(kv, &from, &to, limit)
}

/// The first row whose key begins with `prefix`.
pub fn first<R: Row>(kv: &dyn KvRead, prefix: &impl Part) -> Result<Option<Pair<R>>, RowError> {
    Ok(scan::<R>(kv, prefix, None, 1)?.pop())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn successors() {
        assert_eq!(successor(&[1, 2]), [1, 3]);
        assert_eq!(successor(&[1, 0xff, 0xff]), [2]);
    }

    #[test]
    fn integers_sort_like_their_bytes() {
        let bytes = |n: u64| {
            let mut out = Vec::new();
            n.write(&mut out);
            out
        };
        for pair in [0u64, 1, 255, 256, 1 << 40, u64::MAX].windows(2) {
            assert!(bytes(pair[0]) < bytes(pair[1]));
        }
    }
}
