//! What commands print: text for people or one JSON document a command (`ls`, `put -r` and other
//! streams: one JSON object a line). Results go to stdout, errors and notes to stderr.

use std::io::{IsTerminal, Write};

use serde::Serialize;

use super::error::CliError;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// When text is coloured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Colour {
    #[default]
    Auto,
    Always,
    Never,
}

impl Colour {
    /// Whether to colour what goes to standard output: no-color.org, and terminals that cannot.
    pub(crate) fn wanted(self) -> bool {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        match self {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => std::io::stdout().is_terminal() && !set("NO_COLOR") && !dumb,
        }
    }
}

/// Where a command's answer goes. Cheap to copy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Output {
    pub format: Format,
    /// Nothing but results and errors: no notes, no progress.
    pub quiet: bool,
}

impl Output {
    pub fn new(format: Format, quiet: bool) -> Self {
        Self { format, quiet }
    }

    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Prints a result: `value` as one line of JSON, or what `text` makes.
    pub fn result<T: Serialize>(&self, value: &T, text: impl FnOnce() -> String) -> Result<(), CliError> {
        match self.format {
            Format::Json => self.line(&json(value)?),
            Format::Text => {
                let text = text();
                if text.is_empty() { Ok(()) } else { self.line(&text) }
            }
        }
    }

    /// Prints one line to stdout. A reader that went away ends the command quietly.
    pub fn line(&self, text: &str) -> Result<(), CliError> {
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{text}").map_err(|error| CliError::io("writing to standard output", error))
    }

    /// A remark for people, on stderr.
    pub fn note(&self, text: impl AsRef<str>) {
        if !self.quiet && !self.is_json() {
            eprintln!("{}", text.as_ref());
        }
    }

    /// Prints an error to stderr: `dfsctl: ...`, or a JSON object.
    pub fn error(&self, error: &CliError) {
        if self.is_json() {
            let value = serde_json::json!({
                "error": { "code": error.code, "message": error.message, "hint": error.hint, "exit": error.exit.code() }
            });
            eprintln!("{value}");
        } else {
            eprintln!("dfsctl: {error}");
            if dfs_types::ErrorCode::from_word(error.code).is_some() {
                eprintln!("  ({code}: `dfsctl explain {code}` says more)", code = error.code);
            }
        }
    }

    /// Whether progress may be drawn.
    pub fn draws_progress(&self) -> bool {
        !self.quiet && !self.is_json() && std::io::stderr().is_terminal()
    }
}

fn json<T: Serialize>(value: &T) -> Result<String, CliError> {
    serde_json::to_string(value).map_err(|error| CliError::failed(format!("cannot write JSON: {error}")))
}
