//! A progress line with totals, rate and time left, on a terminal only.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio_util::task::AbortOnDropHandle;

use super::{Output, format};
use crate::{Progress, ProgressSnapshot};

const REDRAW: Duration = Duration::from_millis(100);
/// Columns of a terminal whose size nobody knows.
const USUAL_COLUMNS: u16 = 80;
/// With less room the line is words alone.
const BAR_COLUMNS: usize = 16;
/// A guess made earlier is none.
const FIRST_GUESS: Duration = Duration::from_millis(500);

/// A line that follows a counter until it is dropped, and then is gone.
pub(crate) struct Bar {
    bar: ProgressBar,
    _follower: Option<AbortOnDropHandle<()>>,
}

impl Bar {
    /// `files`: how many files there are, if that is worth showing; 0 if it is not known.
    pub fn follow(output: Output, progress: &Progress, files: Option<u64>) -> Self {
        if !output.draws_progress() {
            return Self { bar: ProgressBar::hidden(), _follower: None };
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
        let progress = progress.clone();
        let follower = {
            let bar = bar.clone();
            AbortOnDropHandle::new(tokio::spawn(async move {
                let start = Instant::now();
                loop {
                    let now = progress.snapshot();
                    let width = usize::from(terminal_width());
                    let words = line(&now, files, start.elapsed(), width);
                    // The bar takes what the words leave.
                    let has_bar = now.total_bytes > 0 && width > words.chars().count() + BAR_COLUMNS;
                    bar.set_style(style(if has_bar { "{wide_bar} {msg}" } else { "{msg}" }));
                    bar.set_length(now.total_bytes.max(now.done_bytes).max(1));
                    bar.set_position(now.done_bytes);
                    bar.set_message(words);
                    tokio::time::sleep(REDRAW).await;
                }
            }))
        };
        Self { bar, _follower: Some(follower) }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Columns of standard error, where the line is drawn.
fn terminal_width() -> u16 {
    let size = rustix::termios::tcgetwinsize(std::io::stderr());
    size.map_or(USUAL_COLUMNS, |size| if size.ws_col > 0 { size.ws_col } else { USUAL_COLUMNS })
}

/// `1.20 GiB/4.00 GiB, 120/800 files, ETA 12s, 98.10 MiB/s`: as many of these, in this order, as fit.
fn line(now: &ProgressSnapshot, files: Option<u64>, elapsed: Duration, width: usize) -> String {
    let bytes = match now.total_bytes {
        0 => format::size(now.done_bytes),
        total => format!("{}/{}", format::size(now.done_bytes), format::size(total.max(now.done_bytes))),
    };
    let files_text = files.map(|files| match files {
        0 => format!("{} files", now.files),
        files => format!("{}/{files} files", now.files),
    });
    let left = left(now, files, elapsed).map(|left| format!("ETA {}", seconds(left)));
    let rate = now.done_bytes as f64 / elapsed.as_secs_f64().max(0.001);
    let rate = (now.done_bytes > 0).then(|| format!("{}/s", format::size(rate as u64)));
    let mut line = bytes;
    for part in [files_text, left, rate].into_iter().flatten() {
        // The last column stays free: a cursor there makes some terminals begin a line.
        if line.chars().count() + 2 + part.chars().count() < width {
            line = format!("{line}, {part}");
        }
    }
    line.chars().take(width.saturating_sub(1)).collect()
}

/// Time left, by whichever lags behind: bytes, or files, whose number is what small ones cost.
fn left(now: &ProgressSnapshot, files: Option<u64>, elapsed: Duration) -> Option<Duration> {
    if now.total_bytes == 0 || elapsed < FIRST_GUESS {
        return None;
    }
    let of_bytes = now.done_bytes as f64 / now.total_bytes as f64;
    let of_files = files.filter(|files| *files > 1).map(|files| now.files as f64 / files as f64);
    let done = of_files.map_or(of_bytes, |of_files| of_files.min(of_bytes)).min(1.0);
    if done <= 0.0 {
        return None;
    }
    Duration::try_from_secs_f64((elapsed.as_secs_f64() * (1.0 - done) / done).round()).ok()
}

/// `12s`, `3m20s`, `2h05m`.
fn seconds(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        seconds => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(done: u64, total: u64, files: u64) -> ProgressSnapshot {
        ProgressSnapshot { total_bytes: total, done_bytes: done, files, ..Default::default() }
    }

    #[test]
    fn the_line_has_totals_and_fits() {
        let snapshot = now(100 << 20, 200 << 20, 120);
        let all = line(&snapshot, Some(480), Duration::from_secs(10), 80);
        assert_eq!(all, "100.00 MiB/200.00 MiB, 120/480 files, ETA 30s, 10.00 MiB/s");
        for width in [5, 20, 30, 40, 50, 60] {
            let line = line(&snapshot, Some(480), Duration::from_secs(10), width);
            assert!(line.chars().count() < width, "{width}: {line}");
        }
        let narrow = line(&snapshot, Some(480), Duration::from_secs(10), 40);
        assert_eq!(narrow, "100.00 MiB/200.00 MiB, 120/480 files");
        assert_eq!(line(&now(1 << 20, 0, 0), None, Duration::from_secs(1), 80), "1.00 MiB, 1.00 MiB/s");
    }

    /// It said `ETA 0s` before anything was done, and while hundreds of small files were still to come
    /// after the large ones.
    #[test]
    fn time_left_is_guessed_from_what_lags_and_not_from_nothing() {
        assert_eq!(left(&now(0, 100, 0), Some(10), Duration::from_secs(10)), None);
        assert_eq!(left(&now(99, 100, 1), Some(100), Duration::from_secs(1)), Some(Duration::from_secs(99)));
        assert_eq!(left(&now(50, 100, 0), None, Duration::from_secs(8)), Some(Duration::from_secs(8)));
        assert_eq!(left(&now(100, 100, 10), Some(10), Duration::from_secs(8)), Some(Duration::ZERO));
        assert_eq!([5, 200, 7500].map(|n| seconds(Duration::from_secs(n))), ["5s", "3m20s", "2h05m"]);
    }
}
