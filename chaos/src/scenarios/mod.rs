//! The scenarios: name, what is checked, how to run. One file per family of faults.

use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::faults::needs::{ALLOW_SKIP, Missing};

mod alerts;
mod clocks;
mod combined;
mod command_line;
mod containers;
mod damaged;
mod full;
mod identical;
mod index;
mod interrupted;
mod keys;
mod kills;
mod late;
mod ledger;
mod members;
mod memory;
mod metadata_disk;
mod metadata_rot;
mod metrics;
mod nodes;
mod object_store;
mod openapi;
mod partitions;
mod paused;
mod power;
mod rest;
mod rolled_back;
mod rolling;
mod rot;
mod sdk;
mod secrecy;
mod snapshots;
mod start_order;
mod store_once;
mod syncs;
mod traced;
mod wire;

pub use secrecy::files_below;

/// What a scenario gets: its seed.
pub struct Context {
    pub seed: u64,
}

impl Context {
    /// With the seed given, or `CHAOS_SEED`, or a drawn one.
    pub fn new(seed: Option<u64>) -> Self {
        let drawn = || {
            let mut raw = [0u8; 8];
            getrandom::fill(&mut raw).expect("the kernel's random number generator failed");
            u64::from_be_bytes(raw) % 1_000_000
        };
        let given = || std::env::var("CHAOS_SEED").ok().and_then(|text| text.parse().ok());
        Self { seed: seed.or_else(given).unwrap_or_else(drawn) }
    }
}

/// A number of rounds or steps: that many, or what the environment says for longer runs.
fn rounds(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

pub struct Scenario {
    pub name: &'static str,
    pub about: &'static str,
    pub run: fn(&Context) -> Result<()>,
}

/// Every scenario: what `chaos run` and `chaos test` know.
pub const SCENARIOS: &[Scenario] = &[
    alerts::ALERTS_WALK,
    combined::COMBINED,
    command_line::COMMAND_LINE,
    containers::COMPOSE_WALK,
    containers::KUBERNETES_WALK,
    interrupted::INTERRUPTED_SCENARIO,
    interrupted::INTERRUPTED_WALKS,
    identical::LARGE_FILE,
    identical::SMALL_FILES,
    identical::PIPES_AND_RANGES,
    kills::CHUNK_SERVER_MID_PUT,
    kills::LEADER_MID_PUT,
    kills::EVERYTHING_MID_PUT,
    kills::READS_WITH_ONE_DEAD,
    kills::SPARE_TAKES_OVER,
    members::MEMBERS_CHANGE,
    members::WIPED_MEMBER,
    members::CUT_LOG,
    damaged::ALL_COPIES_DAMAGED,
    index::FLIPPED_INDEX,
    full::CHUNK_DISK_FULL,
    full::READ_ONLY_DISK,
    metadata_rot::FLIPPED_METADATA,
    rolled_back::ROLLED_BACK_MEMBER,
    power::POWER_LOSS,
    syncs::FSYNC_FAILS,
    syncs::CRASH_AT_EACH_SYNC,
    clocks::CLOCK_JUMPS,
    late::LATE_DELETE_TICKETS,
    memory::BOUNDED_MEMORY,
    openapi::WALK,
    partitions::FIVE_VOTERS,
    partitions::ISOLATED_MEMBER_RETURNS,
    partitions::LEADER_CUT_OFF,
    partitions::ONE_WAY_PARTITION,
    nodes::ORPHANS_COLLECTED,
    nodes::DRAIN_AND_REMOVE,
    nodes::REMOVE_DEAD_NODE,
    metadata_disk::METADATA_DISK_FULL,
    metrics::WALK,
    paused::PAUSED_LEADER,
    rest::WALK,
    rolling::ROLLING_RESTART,
    rot::FLIPPED_BYTES,
    object_store::BEHAVIOUR,
    sdk::EXAMPLES,
    sdk::PYTHON_CLIENT,
    secrecy::NOTHING_IN_THE_CLEAR,
    snapshots::SNAPSHOT_INSTALL_KILLED,
    start_order::START_ORDER,
    store_once::SAME_CONTENT_TWICE,
    traced::ONE_TRACE,
    wire::BIT_FLIPS_ON_THE_WIRE,
    wire::SILENT_PEER,
    wire::SLOW_NODE,
];

/// Runs one scenario, printing its seed so that a failure can be run again.
pub fn run(scenario: &Scenario, context: &Context) -> Result<()> {
    let start = Instant::now();
    println!("{} --seed {}", scenario.name, context.seed);
    let mut result = (scenario.run)(context);
    crate::ended::give_way();
    let mut verdict = if result.is_ok() { "held" } else { "BROKEN" };
    // Passed over only where somebody said so: a green run means that it ran.
    if let Err(error) = &result
        && error.downcast_ref::<Missing>().is_some()
        && std::env::var(ALLOW_SKIP).is_ok_and(|text| text == "1")
    {
        println!("  SKIPPED: {error:#}");
        (result, verdict) = (Ok(()), "skipped");
    }
    println!(
        "{} --seed {}: {verdict} after {:.1} s",
        scenario.name,
        context.seed,
        start.elapsed().as_secs_f64()
    );
    result.with_context(|| format!("run again: chaos run {} --seed {}", scenario.name, context.seed))
}
