//! `dfsctl dev`: a cluster of processes on this machine. Not here yet.

use super::{CliError, Output};

/// A cluster on this machine: each server its own process on loopback, with TLS.
#[derive(clap::Args, Debug)]
pub struct DevArgs {}

/// Runs the command.
pub async fn run(_args: DevArgs, _output: Output) -> Result<(), CliError> {
    Err(CliError::usage("`dfsctl dev` is not part of this build"))
}
