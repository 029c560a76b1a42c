//! What every command needs: where to print, and the cluster to talk to.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::{CliError, Output, contexts};
use crate::config::contexts_file;
use crate::contexts::Contexts;
use crate::{Client, Config};

type Says = Box<dyn Fn() -> String + Send>;

/// Cheap to clone.
#[derive(Clone)]
pub struct Context {
    pub output: Output,
    config: Option<PathBuf>,
    name: Option<String>,
    on_interrupt: Arc<Mutex<Option<Says>>>,
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
        let message = message.into();
        self.say_when_interrupted(move || message.clone());
    }

    /// The same, made when it happens, so that it can tell how far the command came.
    pub fn say_when_interrupted(&self, says: impl Fn() -> String + Send + 'static) {
        *self.on_interrupt.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(says));
    }

    pub fn interrupt_message(&self) -> String {
        let says = self.on_interrupt.lock().unwrap_or_else(PoisonError::into_inner);
        says.as_ref().map_or_else(|| "interrupted".to_owned(), |says| says())
    }
}
