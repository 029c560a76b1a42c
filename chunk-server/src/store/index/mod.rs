//! The index: what is where, so that a start does not read every segment. It holds nothing that
//! cannot be had again by scanning the segments, and it may lag behind them: a row is written only
//! after what it speaks of is durable, and rows written without `durable` may be lost from the end.
//!
//! An index that contradicts itself (`Damaged`) is set aside and made anew from the segments, at a start
//! or while the node runs. A disk that does not answer (`Disk`) says nothing about the rows: it may
//! answer later, so nothing is thrown away for it.
//!
//! Crash promise asked of an implementation: after a crash the rows are those of some prefix of the
//! batches written, which holds at least everything up to the last `durable` one.

pub mod memory;
pub mod rocks;
pub mod rows;

use super::StoreError;

/// Puts and removals that happen together.
#[derive(Clone, Default, Debug)]
pub struct IndexBatch {
    pub rows: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl IndexBatch {
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.rows.push((key, Some(value)));
    }

    pub fn remove(&mut self, key: Vec<u8>) {
        self.rows.push((key, None));
    }

    pub fn extend(&mut self, other: IndexBatch) {
        self.rows.extend(other.rows);
    }
}

/// A row: its key and its value.
pub type IndexRow = (Vec<u8>, Vec<u8>);

/// An ordered map of rows.
pub trait Index: Send + Sync {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError>;
    /// At most `limit` rows with `from <= key < to`, in order.
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<IndexRow>, IndexError>;
    /// With `durable`, this batch and all before it are on disk when it returns.
    fn write(&self, batch: &IndexBatch, durable: bool) -> Result<(), IndexError>;
    /// Hits and misses of its cache since it was opened.
    fn block_cache(&self) -> (u64, u64) {
        (0, 0)
    }
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IndexError {
    /// Files are missing or not as they were written, or a row does not decode.
    #[error("chunk index: {0}")]
    Damaged(String),
    /// The disk failed, or refused.
    #[error("chunk index: {0}")]
    Disk(String),
}

impl From<IndexError> for StoreError {
    fn from(error: IndexError) -> Self {
        match error {
            IndexError::Damaged(_) => StoreError::IndexDamaged(error.to_string()),
            IndexError::Disk(_) => StoreError::IndexUnreadable(error.to_string()),
        }
    }
}

#[cfg(test)]
pub mod suite {
    //! What every index must do.

    use super::*;

    pub fn behaves_as_an_ordered_map(index: &dyn Index) {
        let mut batch = IndexBatch::default();
        for key in [b"b".as_slice(), b"a", b"ab", b"c"] {
            batch.put(key.to_vec(), key.to_vec());
        }
        index.write(&batch, false).unwrap();
        assert_eq!(index.get(b"ab").unwrap(), Some(b"ab".to_vec()));
        assert_eq!(index.get(b"abc").unwrap(), None);
        let keys = |from: &[u8], to: &[u8], limit| {
            index.scan(from, to, limit).unwrap().into_iter().map(|row| row.0).collect::<Vec<_>>()
        };
        assert_eq!(keys(b"a", b"c", 10), [b"a".to_vec(), b"ab".to_vec(), b"b".to_vec()]);
        assert_eq!(keys(b"aa", b"z", 2), [b"ab".to_vec(), b"b".to_vec()]);
        let mut batch = IndexBatch::default();
        batch.remove(b"a".to_vec());
        batch.put(b"ab".to_vec(), b"new".to_vec());
        index.write(&batch, true).unwrap();
        assert_eq!(index.get(b"a").unwrap(), None);
        assert_eq!(index.get(b"ab").unwrap(), Some(b"new".to_vec()));
    }
}
