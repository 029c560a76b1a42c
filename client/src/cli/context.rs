//! What every command needs: where to print, and the cluster to talk to.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::{CliError, Output, contexts};
use crate::config::contexts_file;
use crate::contexts::Contexts;
use crate::{Client, Config};

/// Cheap to clone.
#[derive(Clone)]
pub struct Context {
    pub output: Output,
    config: Option<PathBuf>,
    name: Option<String>,
    on_interrupt: Arc<Mutex<Option<String>>>,
}

impl Context {
    /// `name`: of a cluster that `dfsctl context` knows.
    pub fn new(config: Option<PathBuf>, name: Option<String>, output: Output) -> Self {
        Self { output, config, name, on_interrupt: Arc::default() }
    }

    /// The configuration file in use.
    pub fn config_file(&self) -> Result<PathBuf, CliError> {
        match (&self.config, &self.name) {
            (Some(path), _) => Ok(path.clone()),
            (None, Some(name)) => {
                let file = contexts_file().unwrap_or_default();
                contexts::find(&Contexts::load(&file)?, name)
            }
            (None, None) => Ok(Config::find()?),
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
