//! A chunk server: keeps sealed chunks it cannot read, hands them on to other nodes, and proves with
//! receipts what it holds. It decides nothing about the cluster; it obeys grants and the leader.
//!
//! - [`data`]: puts and gets, under grants.
//! - [`control`]: the leader's orders, under its certificate.
//! - [`node`]: identity, membership, cluster time.
//! - [`store`]: where chunks live on disk.
//! - [`upkeep`]: compaction and scrub.
//! - [`server`]: wiring; [`settings`]: what an operator can set.

pub mod blocking;
pub mod control;
pub mod data;
pub mod node;
pub mod peers;
pub mod server;
pub mod settings;
pub mod store;
pub mod telemetry;
pub mod upkeep;

#[cfg(test)]
mod tests;
