//! Many files at once: how many run together, what is told at the end. Shared by put, get, cp and rm.

use std::future::Future;
use std::time::{Duration, Instant};

use futures::StreamExt;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::{CliError, Exit, Output, format};
use crate::Client;

/// Files under way together: small ones cost a round trip each and little else.
const TOGETHER: usize = 24;
/// Of those, files larger than [`LARGE_BYTES`]: each has a pipeline of its own.
const LARGE_TOGETHER: usize = 2;
pub(crate) const LARGE_BYTES: u64 = 8 << 20;
/// Failures printed one by one; the rest are counted.
const MAX_PRINTED: usize = 20;
/// Fewer bytes say nothing about speed.
const MIN_RATED_BYTES: u64 = 1 << 20;

/// The bound of memory is for the command, so transfers that run together share it.
pub(crate) fn share_memory(client: &Client, file_bytes: u64) -> Client {
    let all = client.config().memory_bytes;
    if file_bytes > LARGE_BYTES {
        client.with_memory_bytes(all / LARGE_TOGETHER as u64)
    } else {
        client.with_memory_bytes((all / TOGETHER as u64).max(LARGE_BYTES * 2))
    }
}

/// What put and get say about waiting: see [`Client::longest_operation`].
pub(crate) fn longest_call_ms(client: &Client) -> u64 {
    client.longest_operation().as_millis() as u64
}

/// A file that was not done.
#[derive(Debug, Serialize)]
pub(crate) struct Failure {
    pub path: String,
    pub code: &'static str,
    pub message: String,
    #[serde(skip)]
    pub exit: Exit,
    #[serde(skip)]
    pub hint: Option<String>,
}

impl Failure {
    pub fn new(path: impl Into<String>, error: CliError) -> Self {
        let CliError { exit, code, message, hint } = error;
        Self { path: path.into(), code, message, exit, hint }
    }

    /// As the error of a command that was about this file alone.
    pub fn into_error(self) -> CliError {
        CliError { exit: self.exit, code: self.code, message: self.message, hint: self.hint }
    }
}

/// What became of many files.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// What each command says of a file that was done.
    pub files: Vec<Value>,
    pub failed: Vec<Failure>,
    pub bytes: u64,
    pub seconds: f64,
    /// Of the transfers' single operations; none for commands without transfers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub longest_call_ms: Option<u64>,
}

/// Runs `work` over all jobs. `size` says how large a job is; `work` answers what to report.
pub(crate) async fn run_all<J, S, W, F>(jobs: Vec<J>, size: S, work: W) -> Report
where
    S: Fn(&J) -> u64,
    W: Fn(J) -> F,
    F: Future<Output = Result<Value, Failure>>,
{
    let start = Instant::now();
    let large = Semaphore::new(LARGE_TOGETHER);
    let mut report = Report::default();
    let mut running = futures::stream::iter(jobs)
        .map(|job| {
            let (bytes, large, work) = (size(&job), &large, &work);
            async move {
                let _permit = if bytes > LARGE_BYTES { large.acquire().await.ok() } else { None };
                (bytes, work(job).await)
            }
        })
        .buffer_unordered(TOGETHER);
    while let Some((bytes, result)) = running.next().await {
        match result {
            Ok(value) => {
                report.bytes += bytes;
                report.files.push(value);
            }
            Err(failure) => report.failed.push(failure),
        }
    }
    report.seconds = start.elapsed().as_secs_f64();
    report
}

impl Report {
    /// What was done, in a line; nothing when nothing was, which the failures say.
    fn summary(&self, verb: &str) -> String {
        if self.files.is_empty() && !self.failed.is_empty() {
            return String::new();
        }
        let mut line = format!("{} {verb}", files(self.files.len() as u64));
        if self.longest_call_ms.is_some() {
            line += &format!(", {} in {:.1} s", format::size(self.bytes), self.seconds);
        }
        if self.bytes >= MIN_RATED_BYTES {
            line += &format!(" ({})", format::rate(self.bytes, Duration::from_secs_f64(self.seconds)));
        }
        line
    }

    /// Prints it and turns failures into the command's exit code. `verb`: "put", "fetched".
    pub fn finish(mut self, output: Output, verb: &str) -> Result<(), CliError> {
        self.failed.sort_by(|a, b| a.path.cmp(&b.path));
        output.result(&self, || self.summary(verb))?;
        let Some(first) = self.failed.first() else { return Ok(()) };
        if !output.is_json() {
            for failure in self.failed.iter().take(MAX_PRINTED) {
                eprintln!("dfsctl: {}: {}", format::printable(&failure.path), failure.message);
            }
        }
        let count = self.failed.len();
        let more =
            if count > MAX_PRINTED { format!(" (the first {MAX_PRINTED} are named)") } else { String::new() };
        // Part done is 1; if nothing was, and all for one reason, that reason.
        let alike = self.files.is_empty() && self.failed.iter().all(|failure| failure.exit == first.exit);
        let exit = if alike { first.exit } else { Exit::Failed };
        let mut error = CliError::failed(format!(
            "{count} of {} not {verb}{more}",
            files((count + self.files.len()) as u64)
        ));
        error.exit = exit;
        error.code = if alike { first.code } else { "partial" };
        error.hint = first.hint.clone().filter(|_| alike);
        Err(error)
    }
}

pub(crate) fn files(count: u64) -> String {
    format!("{count} {}", if count == 1 { "file" } else { "files" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_says_what_was_done() {
        let mut report = Report { seconds: 2.0, longest_call_ms: Some(1), ..Report::default() };
        report.files = vec![Value::Null];
        report.bytes = 5;
        assert_eq!(report.summary("put"), "1 file put, 5 B in 2.0 s");
        report.files.push(Value::Null);
        report.bytes = 10 << 20;
        assert_eq!(report.summary("fetched"), "2 files fetched, 10.00 MiB in 2.0 s (5.2 MB/s)");
        let deleted = Report { files: report.files.clone(), ..Report::default() };
        assert_eq!(deleted.summary("deleted"), "2 files deleted");
        let nothing = Report { failed: vec![Failure::new("x", CliError::failed("no"))], ..Report::default() };
        assert_eq!(nothing.summary("put"), "");
    }

    #[tokio::test]
    async fn all_jobs_run_and_failures_are_kept() {
        let report = run_all(
            (0..100u64).collect(),
            |n| n << 20,
            |n| async move {
                if n % 10 == 3 {
                    Err(Failure::new(format!("f{n}"), CliError::failed("no")))
                } else {
                    Ok(Value::from(n))
                }
            },
        )
        .await;
        assert_eq!((report.files.len(), report.failed.len()), (90, 10));
        let error = report.finish(Output::new(super::super::Format::Json, true), "put").unwrap_err();
        assert_eq!(error.exit, Exit::Failed);
    }
}
