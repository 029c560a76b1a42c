//! Reads a file's last bytes first and then parts of it, as readers of Parquet or zip do. Only the
//! 64 KiB groups that hold the ranges travel, each checked against the committed hash.
//!
//! `cargo run -p dfs-client --example range_reader -- dfs://photos/2026/a.jpg`

use bytes::Bytes;
use dfs_client::{Client, Config, FileRef, ReadRange};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [file] = args.as_slice() else { return Err("usage: range_reader dfs://BUCKET/KEY".into()) };
    let client = Client::from_config_file(Config::find()?).await?;
    let reader = RangeReader::open(client, file).await?;
    println!("{} bytes, ends with {:?}", reader.size, reader.tail(16).await?);
    Ok(())
}

/// One version of a file: what others put meanwhile does not show.
pub struct RangeReader {
    client: Client,
    file: FileRef,
    pub size: u64,
}

impl RangeReader {
    pub async fn open(client: Client, file: &str) -> dfs_client::Result<Self> {
        let info = client.stat(file).await?;
        Ok(Self { client, file: FileRef::from(file).at_version(info.version), size: info.size })
    }

    pub async fn read(&self, offset: u64, length: u64) -> dfs_client::Result<Bytes> {
        self.client.read_range(self.file.clone(), ReadRange::new(offset, length)).await
    }

    pub async fn tail(&self, length: u64) -> dfs_client::Result<Bytes> {
        self.read(self.size.saturating_sub(length), length).await
    }
}
