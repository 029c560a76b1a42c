//! `dfsctl context`: several clusters by name.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use super::{CliError, Context, table};
use crate::Config;
use crate::config::contexts_file;
use crate::contexts::Contexts;

/// Name clusters, and choose the one that commands are for
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  dfsctl context add prod ~/prod/dfsctl.toml\n  dfsctl context use prod\n  dfsctl --context test cluster status      this once\n\nWhich cluster a command is for: --config, --context, DFSCTL_CONFIG, the current context, the dev cluster,\n~/.config/distribute/dfsctl.toml; the first of these that there is."
)]
pub(crate) struct ContextArgs {
    #[command(subcommand)]
    command: ContextCommand,
}

#[derive(Subcommand, Debug)]
enum ContextCommand {
    /// List the names
    Ls,
    /// Make a name current
    Use { name: String },
    /// Give a cluster a name
    Add {
        name: String,
        /// Its dfsctl.toml
        file: PathBuf,
    },
    /// Show what a name stands for, or what commands are for now
    Show { name: Option<String> },
    /// Forget a name; the cluster and its files stay
    Rm { name: String },
}

pub(crate) async fn run(args: ContextArgs, context: &Context) -> Result<(), CliError> {
    let file = contexts_file()
        .ok_or_else(|| CliError::usage("neither XDG_CONFIG_HOME nor HOME is set: contexts have no place"))?;
    let mut contexts = Contexts::load(&file)?;
    match args.command {
        ContextCommand::Ls => list(&contexts, context),
        ContextCommand::Use { name } => {
            let config = find(&contexts, &name)?;
            contexts.current = Some(name.clone());
            contexts.store(&file)?;
            if std::env::var_os("DFSCTL_CONFIG").is_some_and(|value| !value.is_empty()) {
                context.output.note("note: DFSCTL_CONFIG is set and goes before the current context");
            }
            one(&name, &config, true, context)
        }
        ContextCommand::Add { name, file: config } => {
            // Checked now, because a wrong file would show only when it is needed.
            Config::from_file(&config)?;
            let reading = |error| CliError::io(format_args!("reading {}", config.display()), error);
            let config = std::path::absolute(&config).map_err(reading)?;
            contexts.add(&name, config.clone())?;
            contexts.store(&file)?;
            one(&name, &config, contexts.current.as_deref() == Some(name.as_str()), context)
        }
        ContextCommand::Show { name } => show(&contexts, name, context),
        ContextCommand::Rm { name } => {
            find(&contexts, &name)?;
            contexts.remove(&name)?;
            contexts.store(&file)?;
            context.output.result(&json!({ "name": name, "removed": true }), || format!("{name} forgotten"))
        }
    }
}

/// Without the hint that is for files.
pub(super) fn find(contexts: &Contexts, name: &str) -> Result<PathBuf, CliError> {
    contexts.get(name).map_err(|error| CliError { hint: None, ..error.into() })
}

fn list(contexts: &Contexts, context: &Context) -> Result<(), CliError> {
    let current = |name: &String| contexts.current.as_ref() == Some(name);
    let rows: Vec<_> = contexts
        .contexts
        .iter()
        .map(|(name, config)| json!({ "name": name, "config": config, "current": current(name) }))
        .collect();
    context.output.result(&json!({ "contexts": rows }), || {
        let header = ["", "CONTEXT", "CONFIG"];
        let mark = |name| if current(name) { "*" } else { "" }.to_owned();
        let rows = contexts.contexts.iter();
        table::table(
            header,
            &[],
            rows.map(|(name, config)| [mark(name), name.clone(), config.display().to_string()]),
        )
    })
}

fn show(contexts: &Contexts, name: Option<String>, context: &Context) -> Result<(), CliError> {
    if let Some(name) = name {
        let config = find(contexts, &name)?;
        return one(&name, &config, contexts.current.as_ref() == Some(&name), context);
    }
    let config = context.config_file()?;
    let name = contexts.contexts.iter().find(|(_, known)| **known == config).map(|(name, _)| name.clone());
    let value = json!({ "name": name, "config": config, "current": true });
    context.output.result(&value, || match &name {
        Some(name) => format!("{name}  {}", config.display()),
        None => config.display().to_string(),
    })
}

fn one(name: &str, config: &std::path::Path, current: bool, context: &Context) -> Result<(), CliError> {
    let value = json!({ "name": name, "config": config, "current": current });
    context.output.result(&value, || {
        format!("{name}  {}{}", config.display(), if current { "  (current)" } else { "" })
    })
}
