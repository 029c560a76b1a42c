//! The client of a Distribute cluster: put, get, list and manage files from Rust, and `dfsctl`.
//!
//! Everything a caller receives was verified against the hash committed for it; everything a caller
//! sends is sealed before it leaves the process. A [`Client`] is a cheap handle: clone it freely.
//!
//! ```no_run
//! use dfs_client::{Client, PutOptions};
//!
//! # async fn example() -> Result<(), dfs_client::DfsError> {
//! let client = Client::from_config_file("dfsctl.toml").await?;
//! client.create_bucket("photos", Default::default()).await?;
//! let done = client.put("/photos/a.txt", "hello", PutOptions::default()).await?;
//! println!("version {} has {} of {} copies", done.version, done.copies, done.target);
//! assert_eq!(client.read("/photos/a.txt").await?, "hello");
//! # Ok(())
//! # }
//! ```
//!
//! # Time
//! A call that moves no file content answers within [`Config::operation_deadline`] (10 s). A put or a
//! get takes as long as its bytes need, but gives up when a chunk or a metadata call made no progress
//! for [`Config::transfer_patience`] (30 s).
//!
//! # Memory
//! One transfer holds at most [`Config::memory_bytes`] (256 MiB) of file content.
//!
//! # Errors
//! Every method fails with [`DfsError`]: a code for programs, a sentence for people.
//! `unknown_outcome` means that a change may or may not have happened: look, then decide.

mod api;
mod awake;
pub mod cli;
mod client;
pub mod config;
pub mod contexts;
mod dial;
mod get;
mod longest;
mod options;
mod outgoing;
mod progress;
mod put;
mod retry;
mod rpc;

pub use client::Client;
pub use config::Config;
pub use dfs_proto::v1;
pub use dfs_types::{DfsError, DfsPath, ErrorCode, FileId};
pub use get::{ReadRange, ReadStream};
pub use options::{BucketOptions, Condition, FileRef, ListPage, Listing, Policy, PutOptions};
pub use progress::{Progress, ProgressSnapshot};
pub use put::{Multipart, Part, PutChunk, PutResult, Source};

/// What every method of the SDK answers.
pub type Result<T> = std::result::Result<T, DfsError>;
