//! `dfsctl explain`: what an error code means and what to do, without any server.

use dfs_types::troubleshooting;
use serde_json::json;

use super::{CliError, Context};
use crate::ErrorCode;

/// Say what an error code means and what to do
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  dfsctl explain not_enough_nodes\n  dfsctl explain            # all codes"
)]
pub(crate) struct ExplainArgs {
    /// As in `code` of an error; absent: list all
    code: Option<String>,
}

pub(crate) fn run(args: ExplainArgs, context: &Context) -> Result<(), CliError> {
    let Some(word) = args.code else {
        let all: Vec<_> = ErrorCode::ALL
            .iter()
            .map(|code| json!({"code": code.as_str(), "meaning": code.meaning()}))
            .collect();
        let lines = || {
            let lines: Vec<_> = ErrorCode::ALL
                .iter()
                .map(|code| format!("{:<20} {}", code.as_str(), code.meaning()))
                .collect();
            lines.join("\n")
        };
        return context.output.result(&json!({ "codes": all }), lines);
    };
    let code = ErrorCode::from_word(&word).ok_or_else(|| {
        CliError::usage(format!("{word:?} is no error code")).with_hint("`dfsctl explain` lists them all")
    })?;
    let entry = troubleshooting::entry(code).trim_end();
    context.output.result(&json!({"code": code.as_str(), "meaning": code.meaning(), "entry": entry}), || {
        entry.to_owned()
    })
}
