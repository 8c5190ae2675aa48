//! `telos plugins`.

use std::path::PathBuf;

use clap::Subcommand;

use crate::error::{Error, Result};

/// List and explain plugins.
#[derive(Debug, Subcommand)]
pub enum Plugins {
    /// List the plugins found, without executing any of them.
    List {
        /// Print the list as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Load one plugin and print its manifest: formula, options with ranges and defaults, metrics, statistics.
    Show {
        /// Its id, as experiments name it.
        id: String,
        /// Print the manifest as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// What `telos plugins` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginsRequest {
    /// The plugin to explain; none to list all.
    pub show: Option<String>,
    /// Where to look for plugins.
    pub plugin_folders: Vec<PathBuf>,
    /// Whether the answer is printed as JSON.
    pub json: bool,
}

pub(super) fn execute(args: Plugins, plugin_folders: Vec<PathBuf>) -> Result<()> {
    let (show, json) = match args {
        Plugins::List { json } => (None, json),
        Plugins::Show { id, json } => (Some(id), json),
    };
    perform(PluginsRequest { show, plugin_folders, json })
}

/// Lists or explains plugins and prints the answer.
fn perform(request: PluginsRequest) -> Result<()> {
    let command = if request.show.is_some() { "plugins show" } else { "plugins list" };
    Err(Error::run(format!("not wired in this build: {command}")))
}
