//! Puts every file below a folder into the cluster, eight at a time.
//!
//! `cargo run -p dfs-client --example upload_directory -- pictures dfs://photos/2026`

use std::path::{Path, PathBuf};

use dfs_client::{Client, Config, PutOptions, Source};
use futures::{StreamExt, TryStreamExt};

/// Files under way at once. The memory of the client is shared out among them.
const AT_ONCE: usize = 8;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [folder, target] = args.as_slice() else {
        return Err("usage: upload_directory FOLDER dfs://BUCKET/PREFIX".into());
    };
    let client = Client::from_config_file(Config::find()?).await?;
    let (files, bytes) = upload_directory(&client, Path::new(folder), target).await?;
    println!("{files} files, {bytes} bytes");
    Ok(())
}

/// Files put, and their bytes. The first failure ends it; what was put by then stays.
pub async fn upload_directory(
    client: &Client,
    folder: &Path,
    target: &str,
) -> Result<(u64, u64), Box<dyn std::error::Error>> {
    let client = client.with_memory_bytes(client.config().memory_bytes / AT_ONCE as u64);
    let puts = files_below(folder)?.into_iter().map(|file| {
        let client = client.clone();
        let name = file.strip_prefix(folder).map(Path::to_owned);
        async move {
            // Keys are text; a file name need not be.
            let name = name?.to_str().ok_or_else(|| format!("{} is not UTF-8", file.display()))?.to_owned();
            let address = format!("{}/{name}", target.trim_end_matches('/'));
            let done = client.put(&address, Source::file(&file), PutOptions::default()).await?;
            Ok::<_, Box<dyn std::error::Error>>(done.size)
        }
    });
    futures::stream::iter(puts)
        .buffer_unordered(AT_ONCE)
        .try_fold((0, 0), |(files, bytes), size| async move { Ok((files + 1, bytes + size)) })
        .await
}

fn files_below(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        // Symbolic links are left out: they may lead anywhere.
        let kind = entry.file_type()?;
        if kind.is_dir() {
            found.extend(files_below(&entry.path())?);
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    Ok(found)
}
