//! A progress bar with rate and time left, on a terminal only.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio_util::task::AbortOnDropHandle;

use super::Output;
use crate::Progress;

const REDRAW: Duration = Duration::from_millis(100);

/// A bar that follows a counter until it is dropped, and then is gone.
pub(crate) struct Bar {
    bar: ProgressBar,
    _follower: Option<AbortOnDropHandle<()>>,
}

impl Bar {
    /// `files`: how many files there are, if that is worth showing.
    pub fn follow(output: Output, progress: &Progress, files: Option<u64>) -> Self {
        if !output.draws_progress() {
            return Self { bar: ProgressBar::hidden(), _follower: None };
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
        let progress = progress.clone();
        let follower = {
            let bar = bar.clone();
            AbortOnDropHandle::new(tokio::spawn(async move {
                let mut sized = false;
                bar.set_style(style("{bytes} {bytes_per_sec} {elapsed} {msg}"));
                loop {
                    let now = progress.snapshot();
                    if now.total_bytes > 0 && !sized {
                        bar.set_style(style(
                            "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} ETA {eta} {msg}",
                        ));
                        sized = true;
                    }
                    if sized {
                        bar.set_length(now.total_bytes.max(now.done_bytes));
                    }
                    bar.set_position(now.done_bytes);
                    if let Some(files) = files {
                        bar.set_message(format!("{}/{files} files", now.files));
                    }
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
