//! Puts a file and tells how far it is. Interrupt it and run it again: it goes on where it stopped.
//!
//! `cargo run -p dfs-client --example watch_progress -- film.mkv dfs://photos/film.mkv`

use std::path::Path;
use std::time::Duration;

use dfs_client::{Client, Config, Progress, ProgressSnapshot, PutOptions, PutResult, Source};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [file, target] = args.as_slice() else {
        return Err("usage: watch_progress FILE dfs://BUCKET/KEY".into());
    };
    let client = Client::from_config_file(Config::find()?).await?;
    let done = put_and_watch(&client, Path::new(file), target, |now| {
        eprintln!("{} of {} bytes durable, {} sent", now.done_bytes, now.total_bytes, now.sent_bytes);
    })
    .await?;
    println!("version {}: {} of {} copies", done.version, done.copies, done.target);
    Ok(())
}

/// Calls `tell` ten times a second, and once more when the put is done.
pub async fn put_and_watch(
    client: &Client,
    file: &Path,
    target: &str,
    tell: impl Fn(ProgressSnapshot),
) -> dfs_client::Result<PutResult> {
    let progress = Progress::new();
    let options = PutOptions {
        progress: Some(progress.clone()),
        // Holds no key; removed when the put is done.
        resume_file: Some(file.with_extension("resume")),
        ..Default::default()
    };
    let mut put = std::pin::pin!(client.put(target, Source::file(file), options));
    let mut beat = tokio::time::interval(Duration::from_millis(100));
    loop {
        tokio::select! {
            done = &mut put => {
                tell(progress.snapshot());
                return done;
            }
            _ = beat.tick() => tell(progress.snapshot()),
        }
    }
}
