//! Every test with real processes and injected faults.
//!
//! A scenario is a function of a [`Context`]: it starts a cluster of real servers through `dfsctl dev`,
//! does what a user would with `dfsctl`, breaks something, and checks a promise. Each runs in
//! `make test-integration` and by hand: `chaos run NAME --seed N`; `chaos list` names them.
//!
//! Only processes that the scenario's own cluster started are ever signalled, by pid, after the
//! pid was checked against the start time that was recorded with it.

pub mod book;
pub mod census;
pub mod cluster;
pub mod collector;
mod content;
pub mod disks;
pub mod ended;
pub mod faults;
pub mod history;
pub mod load;
pub mod net;
pub mod scenarios;
mod shapes;
pub mod wait;

pub use cluster::{Cluster, ClusterOptions, Process};
pub use scenarios::{Context, SCENARIOS, Scenario, run};
