//! What is sealed where, and how it is proved: chunks, hash trees, ranges, keys, manifest pages,
//! version roots, grants, receipts and segment records.
//!
//! Pure: bytes in, bytes out; no I/O, no clock, no async; randomness comes in through a door. Every
//! integer on disk and wire is big-endian and every format begins with a version. docs/formats.md has
//! the text to implement from, with the vectors that the tests hold this crate to.

mod aead;
pub mod error;
pub mod grant;
pub mod keys;
mod mac;
pub mod merge;
pub mod page;
pub mod range;
pub mod receipt;
pub mod record;
pub mod root;
pub mod seal;
pub mod tree;
mod wire;

#[cfg(test)]
mod negatives;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod vectors;

pub use error::FormatError;
