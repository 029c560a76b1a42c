//! Nodes over real TLS on free ports of loopback, with a metadata service that only registers them.
//! The stores are in memory: what a disk adds is tested where the disk is.

mod cluster;
mod control;
mod get;
mod membership;
mod metadata;
mod put;
