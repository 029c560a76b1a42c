//! `dfsctl`: one file per command. The binary is a thin shell around [`main`].

mod error;
mod output;

pub mod dev;

pub use error::{CliError, Exit};
pub use output::{Format, Output};
