//! What to say when a file is not there: whether it is a directory instead, and where to look.

use dfs_types::{DfsError, ErrorCode};

use super::address::Address;
use super::{CliError, format};
use crate::{Client, Listing};

/// What a command about the file at `address` answers. `instead`: what does the same for a directory.
///
/// # Errors
/// That of `outcome`; of a file that is not there with what to do next.
pub(crate) async fn explained<T>(
    client: &Client,
    address: &Address,
    outcome: crate::Result<T>,
    instead: &str,
) -> Result<T, CliError> {
    match outcome {
        Ok(value) => Ok(value),
        Err(error) if error.code == ErrorCode::NotFound => {
            Err(not_found(client, address, error, instead).await)
        }
        Err(error) => Err(error.into()),
    }
}

/// The error of a command about all that is under `address`, where nothing is.
pub(crate) fn nothing_under(address: &Address) -> CliError {
    DfsError::new(ErrorCode::NotFound, format!("nothing is under {address}")).into()
}

async fn not_found(client: &Client, address: &Address, error: DfsError, instead: &str) -> CliError {
    let shown = format::printable(&address.to_string());
    // A look that fails says nothing: what is known already is told.
    if is_directory(client, address).await.unwrap_or(false) {
        let error = DfsError::new(ErrorCode::NotFound, format!("{shown} is a directory, not a file"));
        return CliError::from(error).with_hint(instead);
    }
    let parent = address.key.rfind('/').map_or("", |slash| &address.key[..=slash]);
    let parent = format::printable(&format!("dfs://{}/{parent}", address.bucket));
    let named = error.message.contains(&address.key);
    let message = if named { error.message } else { format!("there is no file {shown}") };
    CliError::from(DfsError::new(ErrorCode::NotFound, message)).with_hint(format!(
        "`dfsctl ls {parent}` lists what is there; with --deleted also what was deleted and is kept"
    ))
}

/// The error of a command that wants the bucket.
pub(crate) fn of_bucket(error: DfsError, bucket: &str) -> CliError {
    CliError::hinted(error, ErrorCode::BucketNotFound, || {
        format!("`dfsctl bucket create {bucket}` makes it; `dfsctl bucket ls` lists those there are")
    })
}

/// Whether something is under `address` as under a directory.
pub(crate) async fn is_directory(client: &Client, address: &Address) -> crate::Result<bool> {
    if address.key.is_empty() {
        return client.bucket(&address.bucket).await.map(|_| true);
    }
    let mut listing = Listing::under(&address.bucket, address.prefix());
    listing.limit = 1;
    loop {
        let page = client.list(listing.clone()).await?;
        if !page.entries.is_empty() {
            return Ok(true);
        }
        if page.next_cursor.is_empty() {
            return Ok(false);
        }
        listing.cursor = page.next_cursor;
    }
}
