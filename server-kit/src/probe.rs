//! `--probe health` and `--probe ready`: the program asks the server of the same settings and exits with
//! 0 for yes and 1 for no. For container images, which have no curl.

use std::process::ExitCode;

use dfs_types::DfsError;

use crate::program::print;

/// What to ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Probe {
    /// Is the process alive?
    Health,
    /// May it be sent requests?
    Ready,
}

impl Probe {
    pub fn path(self) -> &'static str {
        match self {
            Probe::Health => "/health",
            Probe::Ready => "/ready",
        }
    }
}

/// Prints what was learned and says how to exit: the answer's status and body, or why there is none.
pub(crate) fn report(answer: Result<(Option<u16>, String), DfsError>) -> ExitCode {
    let failed = match answer {
        Ok((Some(200), body)) => return print(&format!("{body}\n")),
        Ok((Some(status), body)) => format!("{status} {body}\n"),
        Ok((None, _)) => "it closed the connection without an answer\n".to_owned(),
        Err(error) => format!("{}\n", error.message),
    };
    print(&failed);
    ExitCode::FAILURE
}
