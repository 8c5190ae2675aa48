//! `telos plugins`.

mod list;
mod show;
mod table;

use std::path::PathBuf;

use clap::Subcommand;

use super::verify;
use crate::cli::print;
use crate::error::Result;
use crate::plugins::Registry;

/// List, explain and verify plugins.
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
    #[expect(missing_docs, reason = "its help is the documentation of its arguments")]
    Verify(verify::Verify),
    /// The child process that `verify` starts for each of its groups.
    #[command(name = crate::verify::process::COMMAND, hide = true)]
    VerifyGroup {
        /// The folder that holds the job.
        folder: PathBuf,
    },
}

impl Plugins {
    /// Whether a plugin is called in this process.
    pub(in crate::cli) fn calls_plugins(&self) -> bool {
        matches!(self, Plugins::Show { .. })
    }
}

pub(in crate::cli) fn execute(args: Plugins, plugin_folders: Vec<PathBuf>) -> Result<()> {
    let registry = || Registry::discover(&plugin_folders);
    match args {
        Plugins::List { json: true } => print::json(&list::as_json(&registry())),
        Plugins::List { json: false } => print::out(&list::as_text(&registry())),
        Plugins::Show { id, json } => show::show(&registry(), &id, json),
        Plugins::Verify(args) => verify::execute(args, plugin_folders),
        Plugins::VerifyGroup { folder } => verify::group(&folder),
    }
}
