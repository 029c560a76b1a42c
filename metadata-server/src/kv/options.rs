//! How both databases are tuned: small write buffers, one shared block cache, few files. Together
//! they stay below 150 MiB whatever their size on disk.

use rocksdb::statistics::{StatsLevel, Ticker};
use rocksdb::{BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode, Options};

use super::damage::Damage;

/// How sorted tables and inline content are compressed on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Compression {
    /// For tests that grep the files, and for disks that compress.
    None,
    Lz4,
    #[default]
    Zstd,
}

impl Compression {
    fn rocks(self) -> DBCompressionType {
        match self {
            Compression::None => DBCompressionType::None,
            Compression::Lz4 => DBCompressionType::Lz4,
            Compression::Zstd => DBCompressionType::Zstd,
        }
    }
}

impl std::str::FromStr for Compression {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Compression::None),
            "lz4" => Ok(Compression::Lz4),
            "zstd" => Ok(Compression::Zstd),
            _ => Err(format!("{text:?} is not a compression (none, lz4, zstd)")),
        }
    }
}

/// What the databases of one process share. Cheap to clone.
#[derive(Clone)]
pub struct StoreOptions {
    pub(super) compression: Compression,
    cache: Cache,
    pub(crate) damage: Damage,
    /// What all databases begin with. Copies share its counters.
    base: Options,
}

impl StoreOptions {
    pub fn new(compression: Compression, block_cache_bytes: usize) -> Self {
        let mut base = Options::default();
        base.enable_statistics();
        base.set_statistics_level(StatsLevel::ExceptHistogramOrTimers);
        Self { compression, cache: Cache::new_lru_cache(block_cache_bytes), damage: Damage::default(), base }
    }

    /// How often a block was in the cache, and how often not, since the process started.
    pub fn block_cache(&self) -> (u64, u64) {
        (
            self.base.get_ticker_count(Ticker::BlockCacheHit),
            self.base.get_ticker_count(Ticker::BlockCacheMiss),
        )
    }
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// Values of the inline space from this size on go to blob files, which compaction does not rewrite.
const MIN_BLOB_BYTES: u64 = 512;

fn table(options: &StoreOptions) -> BlockBasedOptions {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&options.cache);
    table.set_block_size(8 * KIB);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_bloom_filter(10.0, false);
    table.set_format_version(5);
    table
}

fn database(options: &StoreOptions, create: bool) -> Options {
    let mut db = options.base.clone();
    db.create_if_missing(create);
    db.create_missing_column_families(create);
    db.set_max_open_files(256);
    db.set_max_background_jobs(2);
    db.set_keep_log_file_num(2);
    db.set_max_log_file_size(MIB);
    db.set_max_manifest_file_size(4 * MIB);
    db.set_paranoid_checks(true);
    // A torn tail is what a crash leaves; anything damaged before it ends recovery at that point,
    // and the double-slot file beside the log tells whether acknowledged entries are missing.
    db.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    db
}

/// The state database: its WAL is written but synced only before the log is purged. Column families
/// stay consistent with each other after a power loss: one WAL serves all, recovery stops at its
/// first damage for all of them, and a flush of one family first syncs the WALs it leaves behind.
pub(super) fn state_options(options: &StoreOptions, create: bool) -> Options {
    let mut db = database(options, create);
    db.set_db_write_buffer_size(48 * MIB);
    db.set_max_total_wal_size(128 * MIB as u64);
    // All families reach disk together: fewer leftovers of old WALs, simpler checkpoints.
    db.set_atomic_flush(true);
    db
}

pub(super) fn state_families(options: &StoreOptions) -> Vec<ColumnFamilyDescriptor> {
    let mut small = Options::default();
    small.set_block_based_table_factory(&table(options));
    small.set_write_buffer_size(MIB);
    let mut state = Options::default();
    state.set_block_based_table_factory(&table(options));
    state.set_write_buffer_size(16 * MIB);
    state.set_compression_type(options.compression.rocks());
    state.set_level_compaction_dynamic_level_bytes(true);
    let mut inline = Options::default();
    inline.set_block_based_table_factory(&table(options));
    inline.set_write_buffer_size(8 * MIB);
    inline.set_compression_type(options.compression.rocks());
    inline.set_enable_blob_files(true);
    inline.set_min_blob_size(MIN_BLOB_BYTES);
    inline.set_blob_file_size(64 * MIB as u64);
    // Sealed content does not compress; what surrounds it is in the tables.
    inline.set_blob_compression_type(DBCompressionType::None);
    inline.set_enable_blob_gc(true);
    inline.set_blob_gc_age_cutoff(0.25);
    vec![
        ColumnFamilyDescriptor::new("default", small),
        ColumnFamilyDescriptor::new("state", state),
        ColumnFamilyDescriptor::new("inline", inline),
    ]
}

/// The log database: every write is synced, so its WAL is the log; tables only hold what has not
/// been purged yet. `default` has the vote and bounds, `entries` the entries.
pub(crate) fn log_options(options: &StoreOptions, create: bool) -> (Options, Vec<ColumnFamilyDescriptor>) {
    let mut db = database(options, create);
    db.set_db_write_buffer_size(32 * MIB);
    db.set_max_total_wal_size(64 * MIB as u64);
    db.set_track_and_verify_wals_in_manifest(true);
    let mut small = Options::default();
    small.set_block_based_table_factory(&table(options));
    small.set_write_buffer_size(MIB);
    let mut entries = Options::default();
    entries.set_block_based_table_factory(&table(options));
    entries.set_write_buffer_size(16 * MIB);
    entries.set_compression_type(match options.compression {
        Compression::None => DBCompressionType::None,
        _ => DBCompressionType::Lz4,
    });
    let families =
        vec![ColumnFamilyDescriptor::new("default", small), ColumnFamilyDescriptor::new("entries", entries)];
    (db, families)
}
