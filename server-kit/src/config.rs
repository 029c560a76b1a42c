//! Settings in four layers: defaults < file (TOML) < `DFS_*` environment < flags.
//!
//! A setting has one name everywhere: field `data_dir`, key `data_dir` in the file, `DFS_DATA_DIR`
//! in the environment, `--data-dir` as a flag. One struct serves as all of them when its fields are
//! `Option`s (or `bool`s and `Vec`s), with the defaults in `Default`:
//!
//! ```
//! #[derive(clap::Parser, serde::Serialize, serde::Deserialize, Default)]
//! #[serde(default, deny_unknown_fields)]
//! struct Settings {
//!     /// Name of this server.
//!     #[arg(long)]
//!     id: Option<String>,
//!     #[arg(long, value_delimiter = ',')]
//!     metadata: Vec<String>,
//!     /// Settings file.
//!     #[arg(long)]
//!     #[serde(skip)]
//!     config: Option<std::path::PathBuf>,
//! }
//! let settings: Settings = server_kit::config::load_from::<Settings, Settings>(
//!     ["server", "--id", "n1"].map(Into::into),
//!     &|name| (name == "DFS_METADATA").then(|| "a:1,b:2".into()),
//! )
//! .unwrap();
//! assert_eq!(settings.id.as_deref(), Some("n1"));
//! assert_eq!(settings.metadata, ["a:1", "b:2"]);
//! ```
//!
//! [`load`] also says where each value came from, for `--print-config` (see [`report`]).
//!
//! A flag that is absent (`None`, `false`, an empty list) leaves the layers below it alone; so flags
//! must not have clap default values. A key of the file that is no setting is refused, with the
//! nearest name that is one.

mod nearest;
pub mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches};
use dfs_types::{DfsError, ErrorCode};
use figment::Figment;
use figment::providers::Serialized;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use self::nearest::nearest;
use self::report::{Report, Source};
use crate::probe::Probe;

const ENV_PREFIX: &str = "DFS_";
/// A settings file larger than this is none.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// A variable this close to a setting's is taken for a misspelling.
const MISSPELT_EDITS: usize = 2;

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// clap's own: prints usage, help or version. [`ConfigError::exit`] does the right thing.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    #[error("{file}: {reason}")]
    File { file: PathBuf, reason: String },
    #[error("{file}: there is no setting {key:?}{}", hint(nearest))]
    UnknownKey { file: PathBuf, key: String, nearest: Option<String> },
    #[error("{0}")]
    Value(String),
    #[error("{name} is required: --{flag}, {env} or {name} in the settings file", flag = flag_of(.0), env = env_of(.0), name = .0)]
    Missing(String),
}

impl ConfigError {
    /// Prints the error (or the help that was asked for) and ends the process: 0 after help or
    /// version, else 2.
    pub fn exit(self) -> ! {
        match self {
            ConfigError::Usage(usage) => usage.exit(),
            other => {
                eprintln!("error: {other}");
                std::process::exit(2)
            }
        }
    }
}

impl From<ConfigError> for DfsError {
    fn from(error: ConfigError) -> Self {
        DfsError::new(ErrorCode::InvalidArgument, error.to_string())
    }
}

/// The setting, or [`ConfigError::Missing`] that says the three ways to give it.
pub fn required<T>(value: Option<T>, name: &str) -> Result<T, ConfigError> {
    value.ok_or_else(|| ConfigError::Missing(name.to_owned()))
}

/// What the program is to do with its settings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    Serve,
    /// `--check-config`: say whether they would do, and end.
    Check,
    /// `--print-config`: show them, and end.
    Print,
    /// `--probe`: ask the server that runs with them, and end.
    Probe(Probe),
    /// `--print-metrics`, for the documents: show what the server records, and end.
    Metrics,
}

/// Settings, where each came from, and what to do with them.
#[derive(Debug)]
pub struct Loaded<S> {
    pub settings: S,
    pub action: Action,
    pub report: Report,
}

/// Loads settings `S` for this process, with `F` as its flags (often the same struct). The file is
/// the one of the flag `config`, where `F` has that.
pub fn load<F, S>() -> Result<Loaded<S>, ConfigError>
where
    F: CommandFactory + FromArgMatches + Serialize,
    S: Default + Serialize + DeserializeOwned,
{
    load_all::<F, S>(std::env::args_os(), &|name| std::env::var_os(name))
}

/// The settings alone of [`load_all`].
pub fn load_from<F, S>(
    arguments: impl IntoIterator<Item = OsString>,
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Result<S, ConfigError>
where
    F: CommandFactory + FromArgMatches + Serialize,
    S: Default + Serialize + DeserializeOwned,
{
    Ok(load_all::<F, S>(arguments, environment)?.settings)
}

/// [`load`] with the command line and the environment as arguments.
pub fn load_all<F, S>(
    arguments: impl IntoIterator<Item = OsString>,
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Loaded<S>, ConfigError>
where
    F: CommandFactory + FromArgMatches + Serialize,
    S: Default + Serialize + DeserializeOwned,
{
    let flags = F::command();
    let command = with_actions(flags.clone());
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let on_line = command.clone().ignore_errors(true).try_get_matches_from(&arguments)?;
    let matches =
        command.clone().try_get_matches_from(with_environment(&flags, &on_line, arguments, environment)?)?;
    let action = match (ACTIONS.into_iter().find(|(id, _)| matches.get_flag(id)), matches.get_one(PROBE)) {
        (Some((_, action)), _) => action,
        (None, Some(probe)) => Action::Probe(*probe),
        (None, None) => Action::Serve,
    };
    let file = matches.try_get_one::<PathBuf>("config").ok().flatten().cloned();
    let given = F::from_arg_matches(&matches)?;
    let layer = |error: serde_json::Error| ConfigError::Value(error.to_string());
    let defaults = serde_json::to_value(S::default()).map_err(layer)?;
    let given = without_absent(serde_json::to_value(&given).map_err(layer)?);
    let known = known_keys(&flags, &defaults);

    let mut figment = Figment::from(Serialized::defaults(&defaults));
    let mut in_file = BTreeSet::new();
    if let Some(path) = &file {
        let table = read_file(path)?;
        check_keys(path, &table, &known)?;
        in_file.extend(table.keys().cloned());
        figment = figment.merge(Serialized::defaults(table));
    }
    let settings: S = figment.merge(Serialized::defaults(&given)).extract().map_err(|error| {
        let key = error.path.join(".");
        let place = file.as_deref().map_or(String::new(), |file| format!(" ({} or a flag)", file.display()));
        ConfigError::Value(if key.is_empty() {
            format!("settings{place}: {}", error.kind)
        } else {
            format!("setting {key}{place}: {}", error.kind)
        })
    })?;
    let source_of = |name: &String| {
        let source = if on_line.try_contains_id(name).unwrap_or(false)
            && on_line.value_source(name) == Some(ValueSource::CommandLine)
        {
            Source::Flag(flag_of(name))
        } else if given.get(name).is_some() {
            Source::Environment(env_of(name))
        } else if let Some(file) = file.as_ref().filter(|_| in_file.contains(name)) {
            Source::File(file.clone())
        } else {
            Source::Default
        };
        (name.clone(), source)
    };
    let hidden = flags.get_arguments().filter(|argument| argument.is_hide_set());
    let report = Report {
        values: serde_json::to_value(&settings).map_err(layer)?,
        sources: known.iter().map(source_of).collect(),
        hidden: hidden.map(|argument| argument.get_id().as_str().to_owned()).collect(),
        file,
    };
    Ok(Loaded { settings, action, report })
}

const CHECK: &str = "check_config";
const PRINT: &str = "print_config";
const PROBE: &str = "probe";
const METRICS: &str = "print_metrics";
const ACTIONS: [(&str, Action); 3] =
    [(PRINT, Action::Print), (METRICS, Action::Metrics), (CHECK, Action::Check)];

/// The flags with those that are no settings: neither file nor environment gives them.
fn with_actions(command: Command) -> Command {
    let flag = |id: &'static str, long: &'static str, help: &'static str| {
        Arg::new(id).long(long).action(ArgAction::SetTrue).help(help)
    };
    command
        .arg(flag(CHECK, "check-config", "Say whether the server would start with these settings, and end"))
        .arg(flag(METRICS, "print-metrics", "Print what the server records, and end").hide(true))
        .arg(flag(PRINT, "print-config", "Print the settings in force and where each comes from, and end"))
        .arg(
            Arg::new(PROBE)
                .long("probe")
                .value_name("WHAT")
                .value_parser(clap::value_parser!(Probe))
                .help("Ask the server that runs with these settings: exit code 0 for yes, 1 for no"),
        )
        .after_help("Every flag can also be given as DFS_<NAME> or as a key of the settings file (--config).")
}

/// Variables of the environment that look like a setting misspelt: (name, the one probably meant).
/// Others that begin with DFS_ are none of ours: an orchestrator sets such for its own ends.
pub fn misspelt<F: CommandFactory>(names: impl Iterator<Item = String>) -> BTreeMap<String, String> {
    let command = F::command();
    let known: BTreeSet<String> =
        command.get_arguments().map(|argument| env_of(argument.get_id().as_str())).collect();
    names
        .filter(|name| name.starts_with(ENV_PREFIX) && !known.contains(name))
        .filter_map(|name| nearest::within(&name, &known, MISSPELT_EDITS).map(|meant| (name, meant)))
        .collect()
}

/// The command line with `--name=value` put in front for every flag that only the environment
/// gives, so that one parser reads both.
fn with_environment(
    command: &Command,
    on_line: &ArgMatches,
    mut arguments: Vec<OsString>,
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Vec<OsString>, ConfigError> {
    let mut extra = Vec::new();
    for argument in command.get_arguments() {
        let (id, Some(long)) = (argument.get_id().as_str(), argument.get_long()) else { continue };
        if on_line.value_source(id) == Some(ValueSource::CommandLine) {
            continue;
        }
        let Some(value) = environment(&env_of(id)).filter(|value| !value.is_empty()) else { continue };
        let mut flag = OsString::from(format!("--{long}"));
        if matches!(argument.get_action(), ArgAction::SetTrue) {
            match value.to_str() {
                Some("true" | "1" | "yes") => {}
                Some("false" | "0" | "no") => continue,
                _ => return Err(ConfigError::Value(format!("{} is neither true nor false", env_of(id)))),
            }
        } else {
            flag.push("=");
            flag.push(value);
        }
        extra.push(flag);
    }
    let after_name = arguments.len().min(1);
    arguments.splice(after_name..after_name, extra);
    Ok(arguments)
}

fn read_file(path: &Path) -> Result<toml::Table, ConfigError> {
    let wrong = |reason: String| ConfigError::File { file: path.to_owned(), reason };
    let length = std::fs::metadata(path).map_err(|e| wrong(e.to_string()))?.len();
    if length > MAX_FILE_BYTES {
        return Err(wrong(format!("{length} bytes are too many for a settings file")));
    }
    let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
    text.parse().map_err(|e: toml::de::Error| wrong(e.to_string()))
}

fn known_keys(command: &Command, defaults: &Value) -> BTreeSet<String> {
    let flags = command.get_arguments().map(|argument| argument.get_id().as_str().to_owned());
    let fields = defaults.as_object().into_iter().flat_map(|fields| fields.keys().cloned());
    let not_settings = ["config", "help", "version"];
    flags.chain(fields).filter(|name| !not_settings.contains(&name.as_str())).collect()
}

fn check_keys(file: &Path, table: &toml::Table, known: &BTreeSet<String>) -> Result<(), ConfigError> {
    match table.keys().find(|key| !known.contains(*key)) {
        None => Ok(()),
        Some(key) => Err(ConfigError::UnknownKey {
            file: file.to_owned(),
            key: key.clone(),
            nearest: nearest(key, known),
        }),
    }
}

/// Drops what a parsed command line says about flags that were not on it.
fn without_absent(value: Value) -> Value {
    let absent = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .map(|(name, value)| (name, without_absent(value)))
                .filter(|(_, value)| !absent(value))
                .collect(),
        ),
        other => other,
    }
}

fn hint(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or(String::new(), |name| format!("; did you mean {name:?}?"))
}

fn env_of(name: &str) -> String {
    format!("{ENV_PREFIX}{}", name.to_ascii_uppercase().replace('-', "_"))
}

fn flag_of(name: &str) -> String {
    name.replace('_', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser, Serialize, serde::Deserialize, Debug)]
    #[serde(default, deny_unknown_fields)]
    struct Settings {
        #[arg(long)]
        id: Option<String>,
        #[arg(long)]
        segment_bytes: Option<u64>,
        #[arg(long, value_delimiter = ',')]
        metadata: Vec<String>,
        #[arg(long)]
        quiet: bool,
        #[arg(long)]
        #[serde(skip)]
        config: Option<PathBuf>,
    }

    impl Default for Settings {
        fn default() -> Self {
            Self { id: None, segment_bytes: Some(1024), metadata: Vec::new(), quiet: false, config: None }
        }
    }

    fn check(line: &str, env: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        let arguments = std::iter::once("server").chain(line.split_whitespace()).map(OsString::from);
        load_from::<Settings, Settings>(arguments, &|name| {
            env.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        })
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn each_layer_wins_over_the_one_below() {
        let file = file("id = \"file\"\nsegment_bytes = 2\nmetadata = [\"f:1\"]\n");
        let config = format!("--config {}", file.path().display());
        assert_eq!(check("", &[]).unwrap().segment_bytes, Some(1024));
        let settings = check(&config, &[]).unwrap();
        assert_eq!((settings.id.as_deref(), settings.segment_bytes), (Some("file"), Some(2)));
        let env = [("DFS_SEGMENT_BYTES", "3"), ("DFS_METADATA", "e:1,e:2"), ("DFS_QUIET", "true")];
        let settings = check(&config, &env).unwrap();
        assert_eq!((settings.segment_bytes, settings.quiet), (Some(3), true));
        assert_eq!(settings.metadata, ["e:1", "e:2"]);
        let settings = check(&format!("{config} --segment-bytes 4 --metadata x:1"), &env).unwrap();
        assert_eq!(settings.segment_bytes, Some(4));
        assert_eq!(settings.metadata, ["x:1"]);
        assert_eq!(settings.id.as_deref(), Some("file"));
    }

    #[test]
    fn the_file_may_be_named_by_the_environment() {
        let file = file("id = \"file\"");
        let path = file.path().to_str().unwrap();
        assert_eq!(check("", &[("DFS_CONFIG", path)]).unwrap().id.as_deref(), Some("file"));
    }

    #[test]
    fn each_value_says_where_it_came_from() {
        let file = file("id = \"file\"\nsegment_bytes = 2\n");
        let line = format!("server --print-config --config {} --segment-bytes 4", file.path().display());
        let loaded = load_all::<Settings, Settings>(line.split_whitespace().map(OsString::from), &|name| {
            (name == "DFS_METADATA").then(|| "e:1".into())
        })
        .unwrap();
        assert_eq!(loaded.action, Action::Print);
        let want = [
            ("id", Source::File(file.path().to_owned())),
            ("metadata", Source::Environment("DFS_METADATA".to_owned())),
            ("quiet", Source::Default),
            ("segment_bytes", Source::Flag("segment-bytes".to_owned())),
        ];
        let want: BTreeMap<String, Source> =
            want.into_iter().map(|(name, source)| (name.to_owned(), source)).collect();
        assert_eq!(loaded.report.sources, want);
        let text = loaded.report.to_string();
        assert!(text.contains("segment_bytes = 4  # --segment-bytes"), "{text}");
        let again: Settings = toml::from_str(&text).expect("what is printed is a settings file");
        assert_eq!((again.id.as_deref(), again.segment_bytes), (Some("file"), Some(4)));
        assert_eq!(again.metadata, ["e:1"]);
    }

    #[test]
    fn a_misspelt_variable_is_told_and_a_foreign_one_is_not() {
        let names = ["DFS_SEGMENT_BYTE", "DFS_METADATA_SERVICE_HOST", "DFS_ID", "PATH"];
        let found = misspelt::<Settings>(names.map(String::from).into_iter());
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            [("DFS_SEGMENT_BYTE".to_owned(), "DFS_SEGMENT_BYTES".to_owned())]
        );
    }

    #[test]
    fn what_to_ask_is_said_by_a_flag_alone() {
        let action = |line: &[&str], env: Option<&str>| {
            let line = line.iter().map(OsString::from);
            let env = |name: &str| (name == "DFS_PROBE").then(|| env.map(OsString::from)).flatten();
            load_all::<Settings, Settings>(line, &env).map(|loaded| loaded.action)
        };
        assert_eq!(action(&["server", "--probe", "ready"], None).unwrap(), Action::Probe(Probe::Ready));
        assert_eq!(action(&["server"], Some("ready")).unwrap(), Action::Serve);
        assert!(action(&["server", "--probe", "money"], None).is_err());
    }

    #[test]
    fn numbers_stay_text_where_text_is_wanted() {
        assert_eq!(check("", &[("DFS_ID", "7")]).unwrap().id.as_deref(), Some("7"));
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let file = file("segment_byte = 2");
        let error = check(&format!("--config {}", file.path().display()), &[]).unwrap_err();
        assert!(error.to_string().contains("did you mean \"segment_bytes\""), "{error}");
        let file = self::file("utterly_different = 2");
        let error = check(&format!("--config {}", file.path().display()), &[]).unwrap_err();
        assert!(!error.to_string().contains("did you mean"), "{error}");
    }

    #[test]
    fn wrong_values_name_their_setting() {
        let file = file("segment_bytes = \"many\"");
        let error = check(&format!("--config {}", file.path().display()), &[]).unwrap_err();
        assert!(error.to_string().contains("segment_bytes"), "{error}");
        assert!(check("", &[("DFS_SEGMENT_BYTES", "many")]).is_err());
        assert!(check("", &[("DFS_QUIET", "perhaps")]).is_err());
        assert!(check("--config /does/not/exist", &[]).is_err());
        assert!(check("--no-such-flag", &[]).is_err());
    }

    #[test]
    fn a_missing_setting_says_how_to_give_it() {
        let error = required(None::<String>, "data_dir").unwrap_err().to_string();
        assert_eq!(error, "data_dir is required: --data-dir, DFS_DATA_DIR or data_dir in the settings file");
    }
}
