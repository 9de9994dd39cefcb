//! The options that several commands share.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub(crate) struct LogOptions {
    /// The log's directory
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// Prints JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// One line each, with the payload escaped
    Text,
    /// One line each, and the bytes of the payload in rows of sixteen
    Hex,
    /// One JSON object each
    Json,
}
