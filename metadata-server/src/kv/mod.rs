//! RocksDB behind metadata_core's key-value door.

/// How sorted tables and inline content are compressed on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Compression {
    /// For tests that grep the files, and for disks that compress.
    None,
    Lz4,
    #[default]
    Zstd,
}
