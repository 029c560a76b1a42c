//! `chaos list` and `chaos run NAME [--seed N]`: scenarios by hand. `chaos test`: as a suite.

mod suite;

use std::io::Write as _;
use std::process::ExitCode;

use chaos::{Context, SCENARIOS};
use clap::{Parser, Subcommand};
use rustix::process::{Signal, set_parent_process_death_signal};

/// Runs fault scenarios on clusters of real processes.
#[derive(Parser)]
#[command(
    after_help = "Examples:\n  chaos list\n  chaos run kill-leader-mid-put --seed 7\n  chaos test flipped --seed 1"
)]
struct Args {
    #[command(subcommand)]
    command: Commands,
}

#[derive(Subcommand)]
enum Commands {
    /// Name every scenario and what it checks.
    List,
    /// Run scenarios by name, or all of them.
    Run {
        names: Vec<String>,
        /// The same seed gives the same content and choices; drawn and printed if absent.
        #[arg(long)]
        seed: Option<u64>,
        /// End when the process that started this one does.
        #[arg(long, hide = true)]
        end_with_parent: bool,
    },
    /// Run scenarios as tests: all, or those whose name contains a filter; counted at the end.
    Test {
        filters: Vec<String>,
        /// One seed for all; each draws and prints its own if absent.
        #[arg(long)]
        seed: Option<u64>,
    },
}

fn main() -> ExitCode {
    match Args::parse().command {
        Commands::List => {
            let lines: String = SCENARIOS
                .iter()
                .map(|scenario| format!("{:<28} {}\n", scenario.name, scenario.about))
                .collect();
            // Nobody may read all of it (`| head`).
            let _ = std::io::stdout().write_all(lines.as_bytes());
            ExitCode::SUCCESS
        }
        Commands::Test { filters, seed } => suite::run(filters, seed),
        Commands::Run { names, seed, end_with_parent } => {
            if end_with_parent && let Err(error) = set_parent_process_death_signal(Some(Signal::TERM)) {
                eprintln!("cannot end with the parent: {error}");
                return ExitCode::FAILURE;
            }
            if let Err(error) = chaos::ended::watch() {
                eprintln!("{error:#}");
                return ExitCode::FAILURE;
            }
            let unknown: Vec<_> = names.iter().filter(|n| SCENARIOS.iter().all(|s| s.name != **n)).collect();
            if !unknown.is_empty() {
                eprintln!("no scenario {unknown:?}: see `chaos list`");
                return ExitCode::from(2);
            }
            let (mut passed, mut failed) = (0, 0);
            for scenario in SCENARIOS.iter().filter(|s| names.is_empty() || names.iter().any(|n| n == s.name))
            {
                match chaos::run(scenario, &Context::new(seed)) {
                    Ok(()) => passed += 1,
                    Err(error) => {
                        eprintln!("{}: {error:#}", scenario.name);
                        failed += 1;
                    }
                }
            }
            // Whoever started us counts for itself.
            if !end_with_parent {
                println!("{passed} passed, {failed} failed");
            }
            ExitCode::from(u8::from(failed > 0))
        }
    }
}
