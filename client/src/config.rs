//! How to reach a cluster: from values, or from a `dfsctl.toml`.
//!
//! ```toml
//! cluster_id = "0190c5a0-0000-7000-8000-000000000000"
//! metadata = ["127.0.0.1:7401", "127.0.0.1:7402", "127.0.0.1:7403"]
//! ca = "ca.pem"                # relative to this file
//! api_key_file = "admin.key"
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use dfs_types::limits::DEFAULT_DEADLINE_MS;
use dfs_types::{ClusterId, DfsError, ErrorCode};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::Result;
use crate::contexts::Contexts;

/// Where a cluster is and who we are there. Not `Debug`: it holds the API key.
#[derive(Clone)]
pub struct Config {
    pub cluster_id: ClusterId,
    /// `host:port` of the metadata servers; any subset works, more survive more.
    pub metadata: Vec<String>,
    /// The cluster's certificate authority, PEM.
    pub ca_pem: Vec<u8>,
    /// `dfs_<principal>_<secret>`.
    pub api_key: Zeroizing<String>,
    /// Longest a call without file content may take, all retries included.
    pub operation_deadline: Duration,
    /// Longest a transfer waits for one chunk or one metadata call to get through. Time in which this
    /// process was stopped (Ctrl-Z) does not count.
    pub transfer_patience: Duration,
    /// File content one transfer may hold in memory, in bytes.
    pub memory_bytes: u64,
    /// Chunks of one transfer under way at once.
    pub parallel_chunks: usize,
    /// How long a read waits for a replica before it asks another one as well.
    pub hedge_delay: Duration,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    cluster_id: String,
    metadata: Vec<String>,
    ca: PathBuf,
    api_key_file: PathBuf,
    memory_bytes: Option<u64>,
    parallel_chunks: Option<usize>,
}

impl Config {
    /// A configuration with default bounds.
    pub fn new(cluster_id: ClusterId, metadata: Vec<String>, ca_pem: Vec<u8>, api_key: String) -> Self {
        Self {
            cluster_id,
            metadata,
            ca_pem,
            api_key: Zeroizing::new(api_key),
            operation_deadline: Duration::from_millis(DEFAULT_DEADLINE_MS),
            transfer_patience: Duration::from_secs(30),
            memory_bytes: 256 << 20,
            parallel_chunks: 8,
            hedge_delay: Duration::from_secs(1),
        }
    }

    /// Reads a `dfsctl.toml`; paths in it are relative to it.
    ///
    /// # Errors
    /// `invalid_argument` when the file, the authority or the key cannot be read or parsed.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = read(path, "the configuration")?;
        let text = String::from_utf8_lossy(&text);
        let file: ConfigFile = toml::from_str(&text)
            .map_err(|error| invalid(format!("{} is not a dfsctl.toml: {error}", path.display())))?;
        let base = path.parent().unwrap_or(Path::new(""));
        let ca_pem = read(&base.join(&file.ca), "the cluster's authority (ca)")?;
        let key = Zeroizing::new(read(&base.join(&file.api_key_file), "the API key (api_key_file)")?);
        let key = std::str::from_utf8(&key).map_err(|_| invalid("the API key file is not text".into()))?;
        if file.metadata.is_empty() {
            return Err(invalid(format!("{}: metadata lists no address", path.display())));
        }
        let mut config = Self::new(file.cluster_id.parse()?, file.metadata, ca_pem, key.trim().to_owned());
        if let Some(bytes) = file.memory_bytes {
            config.memory_bytes = bytes;
        }
        if let Some(chunks) = file.parallel_chunks {
            config.parallel_chunks = chunks;
        }
        Ok(config)
    }

    /// The file dfsctl uses when none is named: `DFSCTL_CONFIG`, else the current context's, else the
    /// default dev cluster's, else the user's own. The first that exists; for the first two, whether it
    /// exists or not.
    pub fn find() -> Result<PathBuf> {
        if let Some(path) = env_path("DFSCTL_CONFIG") {
            return Ok(path);
        }
        if let Some(file) = contexts_file() {
            let contexts = Contexts::load(&file)?;
            if let Some(current) = &contexts.current {
                return contexts.get(current);
            }
        }
        let candidates: Vec<PathBuf> = [default_dev_dir().map(|dir| dir.join("dfsctl.toml")), user_config()]
            .into_iter()
            .flatten()
            .collect();
        if let Some(found) = candidates.iter().find(|path| path.is_file()) {
            return Ok(found.clone());
        }
        let looked: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
        Err(invalid(format!(
            "no cluster is configured (looked for {}); start one with `dfsctl dev up`, or name a dfsctl.toml \
             with --config or DFSCTL_CONFIG",
            looked.join(", ")
        )))
    }
}

/// Where `dfsctl dev` keeps its cluster when no directory is named.
pub fn default_dev_dir() -> Option<PathBuf> {
    let data = env_path("XDG_DATA_HOME").or_else(|| Some(env_path("HOME")?.join(".local/share")))?;
    Some(data.join("distribute/dev"))
}

/// Where dfsctl notes interrupted puts.
pub fn state_dir() -> Option<PathBuf> {
    let state = env_path("XDG_STATE_HOME").or_else(|| Some(env_path("HOME")?.join(".local/state")))?;
    Some(state.join("distribute"))
}

/// Where the names of clusters are kept.
pub fn contexts_file() -> Option<PathBuf> {
    Some(user_config()?.with_file_name("contexts.toml"))
}

fn user_config() -> Option<PathBuf> {
    let config = env_path("XDG_CONFIG_HOME").or_else(|| Some(env_path("HOME")?.join(".config")))?;
    Some(config.join("distribute/dfsctl.toml"))
}

fn env_path(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn read(path: &Path, what: &str) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| invalid(format!("cannot read {what} at {}: {error}", path.display())))
}

fn invalid(message: String) -> DfsError {
    DfsError::new(ErrorCode::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_to_the_file() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), "CA").unwrap();
        std::fs::write(dir.path().join("key"), "dfs_a_b\n").unwrap();
        let path = dir.path().join("dfsctl.toml");
        let text = "cluster_id = \"01010101-0101-0101-0101-010101010101\"\nmetadata = [\"h:1\"]\nca = \"ca.pem\"\n\
                    api_key_file = \"key\"\n";
        std::fs::write(&path, text).unwrap();
        let config = Config::from_file(&path).unwrap();
        assert_eq!((config.ca_pem.as_slice(), config.api_key.as_str()), (&b"CA"[..], "dfs_a_b"));
        std::fs::write(&path, format!("{text}colour = 1\n")).unwrap();
        assert!(Config::from_file(&path).err().unwrap().message.contains("colour"));
    }
}
