//! `dfsctl completions` and `dfsctl man`: what a shell and a reader get from the command line itself.

use std::path::PathBuf;

use clap_complete::Shell;
use serde_json::json;

use super::{CliError, Context};

/// Print the completions of a shell
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  dfsctl completions bash > ~/.local/share/bash-completion/completions/dfsctl\n  dfsctl completions zsh > \"${fpath[1]}/_dfsctl\"\n  dfsctl completions fish > ~/.config/fish/completions/dfsctl.fish"
)]
pub(crate) struct CompletionsArgs {
    #[arg(value_enum)]
    shell: Shell,
}

/// Write the manual pages, one for each command
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  dfsctl man ~/.local/share/man/man1\n  dfsctl man . && man ./dfsctl-put.1"
)]
pub(crate) struct ManArgs {
    /// Made if it is missing
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub(crate) fn completions(args: &CompletionsArgs, context: &Context) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "dfsctl", &mut script);
    let script = String::from_utf8(script)
        .map_err(|_| CliError::failed("the completions are not UTF-8, which is a fault of dfsctl"))?;
    let value = json!({ "shell": args.shell.to_string(), "script": script });
    context.output.result(&value, || script.trim_end().to_owned())
}

pub(crate) fn man(args: &ManArgs, context: &Context) -> Result<(), CliError> {
    let writing = |error| CliError::io(format_args!("writing to {}", args.folder.display()), error);
    std::fs::create_dir_all(&args.folder).map_err(writing)?;
    clap_mangen::generate_to(super::command(), &args.folder).map_err(writing)?;
    let value = json!({ "folder": args.folder });
    context.output.result(&value, || format!("manual pages are in {}", args.folder.display()))
}
