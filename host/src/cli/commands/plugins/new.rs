//! `telos plugins new`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use plugin_api::manifest::kind;

use super::shell::{program, quoted};
use crate::{
    authoring::new_crate::{self, Created, DATA, Request},
    cli::print,
    error::Result,
    plugins::Registry,
};

/// Make a small crate to start a plugin from, outside of this repository.
///
/// It builds with `cargo build --release`, and has the plugin with its description and options, a test of the laws, an
/// experiment of less than a minute, and a README. The commands from there to a run are printed.
#[derive(Debug, Subcommand)]
pub enum New {
    /// A loss: cross-entropy with a confidence penalty, to be replaced.
    Objective {
        #[command(flatten)]
        place: Place,
        /// The kind of data that the loss learns from.
        #[arg(long, value_name = "KIND", default_value = "text", value_parser = DATA)]
        data: String,
    },
    /// A score of answers: the share of words that are not repetitions, to be replaced.
    Reward {
        #[command(flatten)]
        place: Place,
    },
    /// The start of a backend: buffers and linear layers; `telos plugins verify` lists the operations that are missing.
    Backend {
        #[command(flatten)]
        place: Place,
    },
}

/// Name and folders of a new crate.
#[derive(Debug, Args)]
pub struct Place {
    /// The plugin's id and the crate's name: lower-case letters, digits and hyphens.
    name: String,
    /// The crate's folder. Default: NAME in the current folder.
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// The folder of the SDK, with the sources that the crate is built with. Default: TELOS_SDK, `sdk` next to this
    /// program, or the repository that this program was built in.
    #[arg(long, value_name = "DIR")]
    sdk: Option<PathBuf>,
    /// Print what was made as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn execute(args: New, registry: &Registry) -> Result<()> {
    let (kind, data, place) = match args {
        New::Objective { place, data } => (kind::OBJECTIVE, data, place),
        New::Reward { place } => (kind::REWARD, String::new(), place),
        New::Backend { place } => (kind::BACKEND, String::new(), place),
    };
    let request = Request { kind, data, name: place.name, folder: place.path.clone(), sdk: place.sdk };
    let created = new_crate::create(&request, registry)?;
    if place.json {
        return print::json(&created);
    }
    let shown = place.path.unwrap_or_else(|| created.name.clone().into());
    print::out(&text(&created, &shown, &program()))
}

fn text(created: &Created, shown: &Path, telos: &str) -> String {
    let Created { kind, name, lines, sdk, .. } = created;
    let commands = match *kind {
        kind::OBJECTIVE => vec![
            "cargo test --release".to_owned(),
            format!("{telos} plugins install ."),
            format!("{telos} plugins try {name}"),
        ],
        kind::REWARD => vec![
            "cargo test --release".to_owned(),
            format!("{telos} plugins install ."),
            format!("{telos} run experiment.toml --dev"),
        ],
        _ => vec![
            "cargo test --release".to_owned(),
            format!("{telos} plugins install . --unverified"),
            format!("{telos} plugins verify {name}"),
        ],
    };
    let then = match *kind {
        kind::OBJECTIVE => format!("\nor, instead of the last one: {telos} run experiment.toml --dev\n"),
        kind::REWARD => String::new(),
        _ => "\nThe last one lists the operations that are missing; README.md says how to go on.\n".to_owned(),
    };
    let folder = quoted(shown);
    let commands: String = commands.into_iter().map(|command| format!("    {command}\n")).collect();
    format!(
        "made the {kind} `{name}` in {}: {lines} lines in src/lib.rs; built with the SDK {}\n\n    \
         cd {folder}\n{commands}{then}",
        shown.display(),
        sdk.display()
    )
}
