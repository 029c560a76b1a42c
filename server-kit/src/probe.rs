//! `--probe health` and `--probe ready`: the program asks the server of the same settings and exits with
//! 0 for yes and 1 for no. For container images, which have no curl.

use std::process::ExitCode;

use dfs_types::DfsError;

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
    match answer {
        Ok((Some(200), body)) => {
            println!("{body}");
            ExitCode::SUCCESS
        }
        Ok((Some(status), body)) => {
            println!("{status} {body}");
            ExitCode::FAILURE
        }
        Ok((None, _)) => {
            println!("it closed the connection without an answer");
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("{}", error.message);
            ExitCode::FAILURE
        }
    }
}
