//! The replicated state machine and the planners: pure and synchronous, no clock, no disk, no network.
//!
//! - [`kv`]: the key-value door and write sets
//! - [`rows`]: what is persisted, one kind per file
//! - [`apply`]: log entries to write sets; [`ops`] has one file per command, [`rules`] what they share
//! - [`query`]: read-only answers over any view of the state
//! - [`rights`]: which operation needs which right
//! - [`placement`], [`repair`], [`inventory`]: planners, pure functions of state to bounded lists
//! - [`invariants`]: what must hold after every entry, as a checker

pub mod apply;
pub mod invariants;
pub mod inventory;
pub mod kv;
pub mod kv_suite;
#[cfg(test)]
mod model;
mod ops;
pub mod placement;
pub mod policy;
pub mod query;
pub mod repair;
pub mod rights;
pub mod rows;
mod rules;
#[cfg(test)]
mod testing;

pub use apply::{Applied, ApplyError, apply_entry, validate};
pub use kv::{KvError, KvRead, MemoryKv, Overlay, Space, WriteSet};
pub use ops::name as command_name;
