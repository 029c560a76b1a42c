//! `dfsctl dev`: a cluster of processes on this machine, each server its own process on loopback with
//! TLS, keys and a data directory of its own.
//!
//! Everything of a cluster is in one folder (see [`layout`]). Nothing of it lives in this process:
//! after kill -9 of everything, dfsctl included, `up` finds what is there and starts the rest.
//!
//! These commands watch SIGINT and SIGTERM themselves, to bring servers down in good order: whoever
//! runs them must not drop the future at Ctrl-C.

mod change;
mod credentials;
mod down;
mod layout;
mod plan;
mod ports;
mod process;
mod ready;
mod report;
mod servers;
mod signals;
mod spawn;
mod status;
mod up;

use std::path::PathBuf;

use super::{CliError, Exit, Output};
use layout::Layout;

/// A cluster on this machine: each server its own process on loopback, with TLS.
#[derive(clap::Args, Debug)]
pub struct DevArgs {
    /// Folder of the cluster [default: the one DFSCTL_CONFIG is in, else
    /// ~/.local/share/distribute/dev]
    #[arg(long, value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: DevCommand,
}

#[derive(clap::Subcommand, Debug)]
enum DevCommand {
    /// Make a cluster, or start what is not running of one, and wait until it is ready
    ///
    /// Stays in the foreground and brings the cluster down at Ctrl-C, unless --detach is given.
    Up(up::UpArgs),
    /// Stop all servers; the data stays
    Down,
    /// Show the servers and whether they are ready
    Status,
    /// Add a chunk server, or with --metadata a metadata server, to a running cluster
    Add(change::AddArgs),
    /// Stop servers in good order
    Stop(Names),
    /// Start servers that do not run
    Start(Names),
    /// End servers at once, as kill -9 does
    Kill(Names),
}

/// Servers by name.
#[derive(clap::Args, Debug)]
struct Names {
    /// Names, such as m1 or n2
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Runs the command.
pub async fn run(args: DevArgs, output: Output) -> Result<(), CliError> {
    let layout = Layout::resolve(args.data_dir)?;
    match args.command {
        DevCommand::Up(args) => up::run(args, layout, output).await,
        DevCommand::Down => down::run(layout, output).await,
        DevCommand::Status => status::run(layout, output).await,
        DevCommand::Add(args) => change::add(args, layout, output).await,
        DevCommand::Stop(names) => change::stop(names.names, layout, output).await,
        DevCommand::Start(names) => change::start(names.names, layout, output).await,
        DevCommand::Kill(names) => change::kill(names.names, layout, output).await,
    }
}

/// An error of the cluster's state: not now, not like this.
fn conflict(message: impl Into<String>) -> CliError {
    CliError { exit: Exit::Conflict, code: "conflict", message: message.into(), hint: None }
}

fn not_found(message: impl Into<String>) -> CliError {
    CliError { exit: Exit::NotFound, code: "not_found", message: message.into(), hint: None }
}

fn unavailable(message: impl Into<String>) -> CliError {
    CliError { exit: Exit::Unavailable, code: "unavailable", message: message.into(), hint: None }
}
