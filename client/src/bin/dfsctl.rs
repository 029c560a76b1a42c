//! The command line of a Distribute cluster. Everything is in `dfs_client::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    dfs_client::cli::main()
}
