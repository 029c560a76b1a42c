//! Nodes over real TLS on free ports of loopback, with a metadata service that only registers them.
//! The stores are in memory, for what a disk adds is tested where the disk is; `disk` joins the two.

mod cluster;
mod control;
mod describe;
mod directories;
mod disk;
mod get;
mod membership;
mod metadata;
mod put;
mod rebuild;
