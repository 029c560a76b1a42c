//! RocksDB behind metadata_core's key-value door, with bounded memory.

mod damage;
mod fronts;
mod options;
mod rocks;
#[cfg(test)]
mod suite;

pub use damage::Damage;
pub(crate) use options::log_options;
pub use options::{Compression, StoreOptions};
pub use rocks::{StateDb, StateView};
