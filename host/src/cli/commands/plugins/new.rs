//! `telos plugins new`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use plugin_api::manifest::kind;

use crate::{
    authoring::new_crate::{self, Created, DATA, Request},
    cli::print,
    error::Result,
    plugins::Registry,
};

/// Make a small crate to start a plugin from, outside of this repository.
///
/// It builds with `cargo build --release`, and has the plugin with its description and options, a test of the laws, an experiment
/// of less than a minute, and a README. The commands from there to a run are printed.
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
    /// The folder of the SDK, with the sources that the crate is built with. Default: TELOS_SDK, `sdk` next to this program, or the
    /// repository that this program was built in.
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
        "made the {kind} `{name}` in {}: {lines} lines in src/lib.rs; built with the SDK {}\n\n    cd {folder}\n{commands}{then}",
        shown.display(),
        sdk.display()
    )
}

/// How a shell finds this program from any folder: its name if that leads to it, else its path.
fn program() -> String {
    const NAME: &str = "telos";
    let Ok(own) = env::current_exe() else { return NAME.to_owned() };
    let own = fs::canonicalize(&own).unwrap_or(own);
    let path = env::var_os("PATH").unwrap_or_default();
    let first = env::split_paths(&path).map(|folder| folder.join(NAME)).find(|file| file.is_file());
    match first.and_then(|file| fs::canonicalize(file).ok()) {
        Some(found) if found == own => NAME.to_owned(),
        _ => quoted(&own),
    }
}

/// A path as a shell reads it.
pub(super) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a command that a shell reads as several words, or as an option of it.
    #[test]
    fn paths_are_quoted_for_a_shell() {
        assert_eq!(quoted(Path::new("my-loss")), "my-loss");
        assert_eq!(quoted(Path::new("/a b/telos")), "'/a b/telos'");
        assert_eq!(quoted(Path::new("it's")), "'it'\\''s'");
    }
}
