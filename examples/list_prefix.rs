//! Lists what is directly below a prefix: files with size and version, and deeper prefixes.
//!
//! `cargo run -p dfs-client --example list_prefix -- photos 2026/`

use dfs_client::v1::list_entry::Kind;
use dfs_client::{Client, Config, Listing};
use futures::TryStreamExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [bucket, prefix] = args.as_slice() else { return Err("usage: list_prefix BUCKET PREFIX".into()) };
    let client = Client::from_config_file(Config::find()?).await?;
    for line in list_prefix(&client, bucket, prefix).await? {
        println!("{line}");
    }
    Ok(())
}

/// One line for each entry, in byte order of the keys. With a delimiter, everything that goes on
/// behind it is folded into one entry, however many files that are.
pub async fn list_prefix(client: &Client, bucket: &str, prefix: &str) -> dfs_client::Result<Vec<String>> {
    let listing = Listing { delimiter: "/".to_owned(), ..Listing::under(bucket, prefix) };
    let mut lines = Vec::new();
    // Pages are fetched as the stream is read.
    let mut entries = std::pin::pin!(client.list_all(listing));
    while let Some(entry) = entries.try_next().await? {
        match entry.kind {
            Some(Kind::File(info)) => lines.push(format!("{} {} {}", info.path, info.size, info.version)),
            Some(Kind::CommonPrefix(prefix)) => lines.push(format!("/{bucket}/{prefix}")),
            None => {}
        }
    }
    Ok(lines)
}
