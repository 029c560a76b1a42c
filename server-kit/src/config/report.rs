//! `--print-config`: the settings in force as a settings file, with where each comes from behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use serde_json::Value;

/// Which layer gave a setting.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    Default,
    File(PathBuf),
    /// The variable's name.
    Environment(String),
    /// The flag, without dashes.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File(path) => write!(f, "{}", path.display()),
            Source::Environment(name) => f.write_str(name),
            Source::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// Settings by name, each with its source. Settings name files of keys, never keys, so all of it may
/// be shown.
#[derive(Clone, Debug)]
pub struct Report {
    pub values: Value,
    pub sources: BTreeMap<String, Source>,
    /// Settings that `--help` does not list: shown only when given.
    pub hidden: BTreeSet<String>,
    pub file: Option<PathBuf>,
}

impl Report {
    /// Names whose values differ in `newer`.
    pub fn changed(&self, newer: &Report) -> Vec<String> {
        self.sources.keys().filter(|name| self.values.get(name) != newer.values.get(name)).cloned().collect()
    }
}

/// A settings file: what has no value stands as a comment.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            writeln!(f, "# settings file: {}", file.display())?;
        }
        for (name, source) in &self.sources {
            if *source == Source::Default && self.hidden.contains(name) {
                continue;
            }
            let value = self.values.get(name).unwrap_or(&Value::Null);
            match toml::Value::try_from(value) {
                Ok(value) if *source != Source::Default || !is_empty(&value) => {
                    writeln!(f, "{name} = {value}  # {source}")?;
                }
                // TOML has no null.
                _ => writeln!(f, "# {name} is not set")?,
            }
        }
        Ok(())
    }
}

fn is_empty(value: &toml::Value) -> bool {
    value.as_array().is_some_and(|items| items.is_empty())
}
