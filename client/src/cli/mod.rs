//! `dfsctl`: one file per command. The binary is a thin shell around [`main`].

mod address;
mod again;
mod bench;
mod bucket;
mod cat;
mod chunk;
mod cluster;
mod context;
mod contexts;
mod cp;
mod curl;
mod error;
mod examples;
mod explain;
mod files;
mod format;
mod fsck;
mod get;
mod ls;
mod missing;
mod mv;
mod node;
mod output;
mod pki;
mod private_file;
mod progress;
mod put;
mod rm;
mod safe_write;
mod shell;
mod stat;
mod table;
mod user;

pub mod dev;
mod drain;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tracing::Instrument;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

pub use context::Context;
pub use error::{CliError, Exit};
pub use output::{Colour, Format, Output};

/// What is left running when a command ended gets this long.
const LAST_WORK: std::time::Duration = std::time::Duration::from_millis(300);
/// Spans that a collector does not take in this time are lost: nobody waits for it.
const LAST_SPANS: std::time::Duration = std::time::Duration::from_millis(500);

const EXAMPLES: &str = "\
Examples:
  dfsctl bucket create photos
  dfsctl put holiday.jpg dfs://photos/2026/
  dfsctl put -r pictures dfs://photos/all
  dfsctl ls -r -l dfs://photos/
  dfsctl get dfs://photos/2026/holiday.jpg .
  tar c docs | dfsctl put - dfs://photos/docs.tar
  dfsctl cat dfs://photos/docs.tar | tar t

Addresses are dfs://BUCKET/KEY or /BUCKET/KEY. A name that begins with a dash goes behind `--`.
Exit codes: 0 ok, 1 failed or done in part, 2 usage, 3 not found, 4 conflict, 5 denied,
6 unavailable or timed out, 7 integrity, 130 interrupted.";

/// Stores files in a Distribute cluster and looks after it.
#[derive(Parser)]
#[command(name = "dfsctl", version, after_help = EXAMPLES, max_term_width = 110)]
struct Cli {
    /// The cluster: a dfsctl.toml [env: DFSCTL_CONFIG] [default: the dev cluster's]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The cluster, by a name that `dfsctl context` knows
    #[arg(long, global = true, value_name = "NAME", conflicts_with = "config")]
    context: Option<String>,
    /// Colour in text: auto is on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    color: Colour,
    /// What to print
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    /// Print results and errors only
    #[arg(long, short, global = true)]
    quiet: bool,
    /// What the client itself logs, to stderr: error, warn, info, debug, trace
    #[arg(long, global = true, env = "DFSCTL_LOG", default_value = "off", hide = true)]
    log_level: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Put(put::PutArgs),
    Get(get::GetArgs),
    Cat(cat::CatArgs),
    Ls(ls::LsArgs),
    Stat(stat::StatArgs),
    Rm(rm::RmArgs),
    Mv(mv::MvArgs),
    Cp(cp::CpArgs),
    Bucket(bucket::BucketArgs),
    Node(node::NodeArgs),
    Cluster(cluster::ClusterArgs),
    Chunk(chunk::ChunkArgs),
    User(user::UserArgs),
    Curl(curl::CurlArgs),
    Bench(bench::BenchArgs),
    Pki(pki::PkiArgs),
    Explain(explain::ExplainArgs),
    Dev(dev::DevArgs),
    Context(contexts::ContextArgs),
    Completions(shell::CompletionsArgs),
    Man(shell::ManArgs),
}

/// The whole command line, with its examples.
fn command() -> clap::Command {
    examples::with_examples(Cli::command())
}

/// Runs dfsctl with the process's arguments.
pub fn main() -> ExitCode {
    let parsed = command()
        .try_get_matches()
        .and_then(|matches| Cli::from_arg_matches(&matches).map(|cli| (cli, matches)));
    let (cli, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            if error.use_stderr() && wants_json(std::env::args_os()) {
                Output::new(Format::Json, false).error(&usage(&error));
            } else {
                // Help and version are answers, not errors; nothing more can be done if printing fails.
                let _ = error.print();
            }
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
            return exit.code().into();
        }
    };
    init_logging(&cli.log_level);
    let named = format!("dfsctl {}", matches.subcommand_name().unwrap_or_default());
    table::use_colour(cli.color.wanted());
    let context = Context::new(cli.config, cli.context, Output::new(cli.output, cli.quiet));
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            context.output.error(&CliError::io("starting threads", error));
            return Exit::Failed.code().into();
        }
    };
    // `dev` brings its servers down in good order first: it watches for signals itself.
    let watches_signals = matches!(cli.command, Command::Dev(_));
    let span = tracing::info_span!("command", otel.name = named, otel.kind = "client");
    let work = async {
        tokio::select! {
            result = run(cli.command, context.clone()) => result,
            () = interrupted(), if !watches_signals => Err(CliError::interrupted(context.interrupt_message())),
        }
    };
    let result = runtime.block_on(work.instrument(span));
    // Time to remove half-written files; whatever still waits for a dead server must not keep us.
    runtime.shutdown_timeout(LAST_WORK);
    traces::flush(LAST_SPANS);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if error.code != error::BROKEN_PIPE {
                context.output.error(&error);
            }
            error.exit.code().into()
        }
    }
}

/// Whether a command line that could not be read asked for JSON all the same.
fn wants_json(args: impl Iterator<Item = OsString>) -> bool {
    let args: Vec<_> = args.take_while(|arg| arg != "--").collect();
    args.windows(2).any(|two| two[0] == "--output" && two[1] == "json")
        || args.iter().any(|arg| arg == "--output=json")
}

/// What is wrong with a command line, in a sentence.
fn usage(error: &clap::Error) -> CliError {
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return CliError::usage("a command is missing").with_hint("--help lists those there are");
    }
    let text = error.render().to_string();
    let sentence = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
    CliError::usage(sentence.split_whitespace().collect::<Vec<_>>().join(" ")).with_hint("see --help")
}

async fn run(command: Command, context: Context) -> Result<(), CliError> {
    match command {
        Command::Put(args) => put::run(args, &context).await,
        Command::Get(args) => get::run(args, &context).await,
        Command::Cat(args) => cat::run(args, &context).await,
        Command::Ls(args) => ls::run(args, &context).await,
        Command::Stat(args) => stat::run(args, &context).await,
        Command::Rm(args) => rm::run(args, &context).await,
        Command::Mv(args) => mv::run(args, &context).await,
        Command::Cp(args) => cp::run(args, &context).await,
        Command::Bucket(args) => bucket::run(args, &context).await,
        Command::Node(args) => node::run(args, &context).await,
        Command::Cluster(args) => cluster::run(args, &context).await,
        Command::Chunk(args) => chunk::run(args, &context).await,
        Command::User(args) => user::run(args, &context).await,
        Command::Curl(args) => curl::run(args, &context).await,
        Command::Bench(args) => bench::run(args, &context).await,
        Command::Pki(args) => pki::run(args, &context).await,
        Command::Explain(args) => explain::run(args, &context),
        Command::Dev(args) => dev::run(args, context.output).await,
        Command::Context(args) => contexts::run(args, &context).await,
        Command::Completions(args) => shell::completions(&args, &context),
        Command::Man(args) => shell::man(&args, &context),
    }
}

/// Resolves at the first SIGINT or SIGTERM.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut int), Ok(mut term)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = int.recv() => {}
        _ = term.recv() => {}
    }
}

/// Logs if asked for, traces if there is a collector; else nothing is set up at all.
fn init_logging(level: &str) {
    let mut layers: Vec<Box<dyn Layer<Registry> + Send + Sync>> = Vec::new();
    match traces::layer("dfsctl", &std::process::id().to_string()) {
        Ok(Some(spans)) => layers.push(spans.boxed()),
        Ok(None) => {}
        Err(reason) => eprintln!("warning: {reason}"),
    }
    if level != "off" {
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        layers.push(lines.with_filter(EnvFilter::new(level)).boxed());
    }
    if !layers.is_empty() {
        tracing_subscriber::registry().with(layers).init();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn what_is_wrong_with_a_command_line_is_a_sentence() {
        let sentence = |line: &str| {
            let error = command().try_get_matches_from(line.split(' ')).unwrap_err();
            usage(&error).message
        };
        assert_eq!(sentence("dfsctl lss"), "unrecognized subcommand 'lss'");
        assert_eq!(
            sentence("dfsctl get"),
            "the following required arguments were not provided: <SRC> <DST>..."
        );
        assert_eq!(sentence("dfsctl bucket"), "a command is missing");
        let wants = |line: &str| wants_json(line.split(' ').map(OsString::from));
        assert!(wants("dfsctl lss --output json") && wants("dfsctl --output=json lss"));
        assert!(!wants("dfsctl lss --output text") && !wants("dfsctl put -- --output json"));
    }

    #[test]
    fn names_with_dashes_go_behind_two_dashes() {
        let cli =
            Cli::try_parse_from(["dfsctl", "put", "--output", "json", "--", "-rf", "dfs://abc/-rf"]).unwrap();
        let Command::Put(args) = cli.command else { panic!("not put") };
        assert_eq!((cli.output, args.recursive), (Format::Json, false));
        assert!(Cli::try_parse_from(["dfsctl", "put", "onlyone"]).is_err());
    }
}
