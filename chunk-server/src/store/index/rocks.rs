//! The index in RocksDB, with little memory: one chunk server stays under 300 MiB in all.
//! Its log is synced only for durable batches; that the rest may be lost is in the contract.

use std::collections::BTreeSet;
use std::path::Path;

use rocksdb::statistics::{StatsLevel, Ticker};
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DBRecoveryMode, IteratorMode, Options, ReadOptions,
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
    /// Those it was opened with: they hold the counters.
    options: Options,
}

impl RocksIndex {
    /// Opens or creates.
    ///
    /// # Errors
    /// `Damaged` if files are missing or wrong: whoever owns the directory sets it aside. `Disk` for
    /// anything that may be otherwise tomorrow.
    pub fn open(path: &Path) -> Result<Self, IndexError> {
        if lost_its_root(path) {
            // RocksDB would make a new database and replay what logs are left into it.
            return Err(IndexError::Damaged("there are files, and CURRENT is not among them".to_owned()));
        }
        let tables = tables(path);
        // Until they are compared, no table may go because it was compacted.
        let mut options = options();
        options.set_disable_auto_compactions(true);
        let db = DB::open(&options, path).map_err(failed)?;
        let known: BTreeSet<String> =
            db.live_files().map_err(failed)?.into_iter().map(|file| file.name).collect();
        if let Some(stray) = tables.iter().find(|name| !known.contains(&format!("/{name}"))) {
            return Err(IndexError::Damaged(format!("the table {stray} is in no manifest")));
        }
        db.set_options(&[("disable_auto_compactions", "false")]).map_err(failed)?;
        Ok(Self { db, options })
    }
}

/// The tables in the directory. One that the manifest does not name was being made when the process was
/// killed, or the manifest lost its end, which RocksDB takes for an older state: the logs of that table
/// are gone, and rows with them. The two cannot be told apart, so it is damage.
fn tables(path: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.ends_with(".sst")).collect()
}

/// Whether a database was here and the file everything begins with is gone.
fn lost_its_root(path: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(path) else { return false };
    let (mut files, mut root) = (false, false);
    for name in entries.flatten().map(|entry| entry.file_name()) {
        let name = name.to_string_lossy();
        root |= name == "CURRENT";
        files |= name.starts_with("MANIFEST-") || name.ends_with(".sst") || name.ends_with(".log");
    }
    files && !root
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
    options.enable_statistics();
    options.set_statistics_level(StatsLevel::ExceptHistogramOrTimers);
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
    // The default ends a replay silently at the first wrong byte. A record that was cut off at the end is a
    // crash; a wrong one before it is damage, and what stood behind it must not be forgotten in silence.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    options
}

fn failed(error: rocksdb::Error) -> IndexError {
    judged(error.into_string())
}

/// What the system says when it is the system that fails, whatever RocksDB makes of it.
const NOT_THE_FILES: [&str; 7] = [
    "Input/output error",
    "Too many open files",
    "Permission denied",
    "Read-only file system",
    "No space left",
    "Cannot allocate memory",
    "Stale file handle",
];

/// Tells damage from a disk that fails: RocksDB calls a missing file I/O, and one that cannot be opened
/// corruption. An index thrown away for nothing costs a scan, so what is neither is taken for damage if it
/// speaks of the content.
fn judged(text: String) -> IndexError {
    const OF_THE_CONTENT: [&str; 4] = ["Corruption:", "Invalid argument:", "Not implemented:", "NotFound:"];
    let content = OF_THE_CONTENT.iter().any(|kind| text.starts_with(kind));
    let missing = text.contains("No such file or directory");
    if (content || missing) && !NOT_THE_FILES.iter().any(|words| text.contains(words)) {
        IndexError::Damaged(text)
    } else {
        IndexError::Disk(text)
    }
}

impl Index for RocksIndex {
    fn block_cache(&self) -> (u64, u64) {
        (
            self.options.get_ticker_count(Ticker::BlockCacheHit),
            self.options.get_ticker_count(Ticker::BlockCacheMiss),
        )
    }

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

    /// RocksDB itself makes an empty database where CURRENT is missing.
    #[test]
    fn missing_or_wrong_roots_are_damage() {
        for content in [None, Some("MANIFEST-none\n"), Some("MANIFEST-000099\n"), Some("")] {
            let folder = tempfile::tempdir().unwrap();
            drop(RocksIndex::open(folder.path()).unwrap());
            let current = folder.path().join("CURRENT");
            match content {
                None => std::fs::remove_file(current).unwrap(),
                Some(content) => std::fs::write(current, content).unwrap(),
            }
            let error = RocksIndex::open(folder.path()).err();
            assert!(matches!(error, Some(IndexError::Damaged(_))), "{content:?}: {error:?}");
        }
    }

    #[test]
    fn a_disk_that_fails_is_not_damage() {
        for (error, damaged) in [
            ("IO error: While pread offset 0 len 4096: /d/000012.sst: Input/output error", false),
            ("IO error: No space left on device: While appending to file: /d/000013.log", false),
            ("IO error: While lock file: /d/LOCK: Resource temporarily unavailable", false),
            ("Corruption: Can't access /000012.sst: IO error: While stat: Input/output error", false),
            ("Corruption: Can't access /000012.sst: IO error: While open: Too many open files", false),
            ("Corruption: block checksum mismatch: stored = 1, computed = 2", true),
            ("IO error: No such file or directory: While open a file for random read: /d/000012.sst", true),
        ] {
            assert_eq!(matches!(judged(error.to_owned()), IndexError::Damaged(_)), damaged, "{error}");
        }
    }
}
