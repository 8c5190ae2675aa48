//! `telos plugins`.

mod install;
mod list;
mod new;
mod shell;
mod show;
mod table;
mod try_objective;

use std::path::PathBuf;

use clap::Subcommand;

use super::verify;
use crate::cli::print;
use crate::error::Result;
use crate::plugins::Registry;

/// List, explain, verify, make, install and try plugins.
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
    #[command(subcommand)]
    #[expect(missing_docs, reason = "its help is the documentation of its arguments")]
    New(new::New),
    #[expect(missing_docs, reason = "its help is the documentation of its arguments")]
    Install(install::Install),
    #[expect(missing_docs, reason = "its help is the documentation of its arguments")]
    Try(try_objective::Try),
    /// Print a page with the manifest of every objective found, as Markdown: docs/objectives.md.
    #[command(hide = true)]
    Page,
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
        matches!(self, Plugins::Show { .. } | Plugins::Try(_) | Plugins::Page)
    }
}

pub(in crate::cli) fn execute(args: Plugins, plugin_folders: Vec<PathBuf>) -> Result<()> {
    let registry = || Registry::discover(&plugin_folders);
    match args {
        Plugins::List { json: true } => print::json(&list::as_json(&registry())),
        Plugins::List { json: false } => print::out(&list::as_text(&registry())),
        Plugins::Show { id, json } => show::show(&registry(), &id, json),
        Plugins::Verify(args) => verify::execute(args, plugin_folders),
        Plugins::New(args) => new::execute(args, &registry()),
        Plugins::Install(args) => install::execute(args, &plugin_folders),
        Plugins::Try(args) => try_objective::execute(args, plugin_folders),
        Plugins::Page => print::out(&show::page(&registry())?),
        Plugins::VerifyGroup { folder } => verify::group(&folder),
    }
}
