//! The index in RocksDB, with little memory: one chunk server stays under 300 MiB in all.
//! Its log is synced only for durable batches; that the rest may be lost is in the contract.

use std::path::Path;

use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, ErrorKind, IteratorMode, Options, ReadOptions,
    WriteBatch, WriteOptions,
};

use super::{Index, IndexBatch, IndexError, IndexRow};

const BLOCK_CACHE_BYTES: usize = 16 << 20;
const WRITE_BUFFER_BYTES: usize = 8 << 20;
const WRITE_BUFFERS: i32 = 2;
const WAL_BYTES: u64 = 32 << 20;
const OPEN_FILES: i32 = 64;

pub struct RocksIndex {
    db: DB,
}

impl RocksIndex {
    /// Opens or creates. An index that does not open because it is damaged is thrown away: the
    /// segments have everything, and the store rebuilds when it finds no rows.
    pub fn open(path: &Path) -> Result<Self, IndexError> {
        let options = options();
        match DB::open(&options, path) {
            Ok(db) => Ok(Self { db }),
            Err(error) if error.kind() == ErrorKind::Corruption => {
                tracing::error!(path = %path.display(), %error, "chunk index is damaged, rebuilding it");
                DB::destroy(&options, path).map_err(failed)?;
                DB::open(&options, path).map(|db| Self { db }).map_err(failed)
            }
            Err(error) => Err(failed(error)),
        }
    }
}

fn options() -> Options {
    let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES);
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&cache);
    table.set_cache_index_and_filter_blocks(true);
    table.set_bloom_filter(10.0, false);
    table.set_format_version(5);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_write_buffer_number(WRITE_BUFFERS);
    options.set_max_total_wal_size(WAL_BYTES);
    options.set_max_open_files(OPEN_FILES);
    options.set_max_background_jobs(2);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_keep_log_file_num(4);
    options.set_max_log_file_size(1 << 20);
    options.set_paranoid_checks(true);
    options
}

fn failed(error: rocksdb::Error) -> IndexError {
    IndexError(error.into_string())
}

impl Index for RocksIndex {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.db.get(key).map_err(failed)
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<IndexRow>, IndexError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let mut range = ReadOptions::default();
        range.set_iterate_lower_bound(from);
        range.set_iterate_upper_bound(to);
        let mut rows = Vec::new();
        for row in self.db.iterator_opt(IteratorMode::Start, range).take(limit) {
            let (key, value) = row.map_err(failed)?;
            rows.push((key.into_vec(), value.into_vec()));
        }
        Ok(rows)
    }

    fn write(&self, batch: &IndexBatch, durable: bool) -> Result<(), IndexError> {
        let mut writes = WriteBatch::default();
        for (key, value) in &batch.rows {
            match value {
                Some(value) => writes.put(key, value),
                None => writes.delete(key),
            }
        }
        if writes.is_empty() {
            return if durable { self.db.flush_wal(true).map_err(failed) } else { Ok(()) };
        }
        let mut how = WriteOptions::default();
        how.set_sync(durable);
        self.db.write_opt(writes, &how).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaves() {
        let folder = tempfile::tempdir().unwrap();
        let index = RocksIndex::open(folder.path()).unwrap();
        super::super::suite::behaves_as_an_ordered_map(&index);
        drop(index);
        let index = RocksIndex::open(folder.path()).unwrap();
        assert_eq!(index.get(b"c").unwrap(), Some(b"c".to_vec()));
    }

    #[test]
    fn a_damaged_index_is_thrown_away() {
        let folder = tempfile::tempdir().unwrap();
        let index = RocksIndex::open(folder.path()).unwrap();
        super::super::suite::behaves_as_an_ordered_map(&index);
        drop(index);
        std::fs::write(folder.path().join("CURRENT"), "MANIFEST-none\n").unwrap();
        let opened = RocksIndex::open(folder.path());
        if let Ok(index) = opened {
            assert_eq!(index.get(b"c").unwrap(), None);
        }
    }
}
