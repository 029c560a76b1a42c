//! The command line of a Distribute cluster. Everything is in `dfs_client::cli`.

fn main() {}
