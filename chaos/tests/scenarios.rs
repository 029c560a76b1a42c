//! Each scenario as a test. They share two cores and real timeouts, so they run one at a time.

use std::sync::Mutex;

use chaos::{Context, SCENARIOS};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn scenario(name: &str) {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let scenario = SCENARIOS.iter().find(|s| s.name == name).expect("the test names a scenario");
    if let Err(error) = chaos::run(scenario, &Context::new(None)) {
        panic!("{error:#}");
    }
}

macro_rules! scenarios {
    ($($test:ident = $name:literal;)*) => {
        $(#[test] fn $test() { scenario($name); })*

        #[test]
        fn every_scenario_has_a_test() {
            let tested = [$($name),*];
            for scenario in SCENARIOS {
                assert!(tested.contains(&scenario.name), "{} has no test", scenario.name);
            }
        }
    };
}

scenarios! {
    bit_flips_on_the_wire = "bit-flips-on-the-wire";
    combined = "combined";
    one_trace = "one-trace";
    silent_peer = "silent-peer";
    slow_node = "slow-node";
    command_line = "command-line";
    object_store = "object-store";
    examples = "examples";
    python_client = "python-client";
    large_file = "large-file";
    small_files = "small-files";
    pipes = "pipes";
    kill_chunk_server_mid_put = "kill-chunk-server-mid-put";
    kill_leader_mid_put = "kill-leader-mid-put";
    kill_everything_mid_put = "kill-everything-mid-put";
    reads_with_one_dead = "reads-with-one-dead";
    spare_takes_over = "spare-takes-over";
    chunk_disk_full = "chunk-disk-full";
    read_only_disk = "read-only-disk";
    wiped_member = "wiped-member";
    cut_log = "cut-log";
    flipped_metadata = "flipped-metadata";
    rolled_back_member = "rolled-back-member";
    power_loss = "power-loss";
    fsync_fails = "fsync-fails";
    crash_at_each_sync = "crash-at-each-sync";
    clock_jumps = "clock-jumps";
    late_delete_tickets = "late-delete-tickets";
    bounded_memory = "bounded-memory";
    five_voters = "five-voters";
    isolated_member_returns = "isolated-member-returns";
    leader_cut_off = "leader-cut-off";
    one_way_partition = "one-way-partition";
    orphans_collected = "orphans-collected";
    drain_and_remove = "drain-and-remove";
    remove_dead_node = "remove-dead-node";
    metadata_disk_full = "metadata-disk-full";
    metrics_walk = "metrics-walk";
    paused_leader = "paused-leader";
    openapi_walk = "openapi-walk";
    rest_walk = "rest-walk";
    all_copies_damaged = "all-copies-damaged";
    flipped_index = "flipped-index";
    rolling_restart = "rolling-restart";
    flipped_bytes = "flipped-bytes";
    nothing_in_the_clear = "nothing-in-the-clear";
    snapshot_install_killed = "snapshot-install-killed";
    same_content_twice = "same-content-twice";
}
