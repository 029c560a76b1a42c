//! What every command needs: where to print, and the cluster to talk to.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::{CliError, Output};
use crate::{Client, Config};

/// Cheap to clone.
#[derive(Clone)]
pub struct Context {
    pub output: Output,
    config: Option<PathBuf>,
    on_interrupt: Arc<Mutex<Option<String>>>,
}

impl Context {
    pub fn new(config: Option<PathBuf>, output: Output) -> Self {
        Self { output, config, on_interrupt: Arc::default() }
    }

    /// The configuration file in use.
    pub fn config_file(&self) -> Result<PathBuf, CliError> {
        match &self.config {
            Some(path) => Ok(path.clone()),
            None => Ok(Config::find()?),
        }
    }

    /// A client of the configured cluster.
    pub async fn client(&self) -> Result<Client, CliError> {
        Ok(Client::from_config_file(self.config_file()?).await?)
    }

    /// What to say when Ctrl-C ends the command from here on.
    pub fn set_interrupt_message(&self, message: impl Into<String>) {
        *self.on_interrupt.lock().unwrap_or_else(PoisonError::into_inner) = Some(message.into());
    }

    pub fn interrupt_message(&self) -> String {
        let message = self.on_interrupt.lock().unwrap_or_else(PoisonError::into_inner);
        message.clone().unwrap_or_else(|| "interrupted".to_owned())
    }
}
