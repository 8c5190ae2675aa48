//! `telos plugins install`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use plugin_api::manifest::kind;

use super::shell::{program, quoted};
use crate::{
    authoring::{
        cargo,
        install::{Candidate, Installed},
    },
    cli::{commands::verify, folders, print},
    error::{Error, Result},
    plugins::Registry,
};

/// Build a plugin, verify it and put it in place.
///
/// PATH is the folder of a crate, which `cargo build --release` builds, or the file of a library. The library is
/// checked against the laws of its kind, as by `telos plugins verify`, and put into the first folder of --into,
/// --plugins, TELOS_PLUGINS and `plugins` next to this program. An older build of the same plugin is replaced; runs
/// that have its file open keep it. Plugins of other libraries are never replaced.
#[derive(Debug, Args)]
pub struct Install {
    /// The folder of a crate, or the file of a library.
    path: PathBuf,
    /// The folder to put it into.
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// Skip the laws. Runs still check some of them on their first batch.
    #[arg(long)]
    unverified: bool,
    #[command(flatten)]
    inputs: verify::Inputs,
    /// Print what was installed as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn execute(args: Install, plugin_folders: &[PathBuf]) -> Result<()> {
    let folder =
        args.into.clone().or_else(|| plugin_folders.first().cloned()).ok_or_else(|| {
            Error::request("there is no folder to install into").with_hint("name one with --into DIR")
        })?;
    let library = if args.path.is_dir() { cargo::build(&args.path)? } else { args.path.clone() };
    let candidate = Candidate::read(&library, &folder, plugin_folders)?;
    let mut sha256 = None;
    if args.unverified {
        print::err("note: not verified (--unverified)\n");
    } else {
        let registry = Registry::discover(plugin_folders);
        for info in &candidate.plugins {
            let verified = verify::with_inputs(info, args.inputs.clone(), &registry, args.json).map_err(|error| {
                error.with_hint("nothing was installed; fix the plugin, or install it as it is with --unverified")
            })?;
            sha256 = Some(verified);
        }
    }
    let installed = candidate.place(sha256.as_deref())?;
    if args.json {
        return print::json(&installed);
    }
    let mut text = String::new();
    for plugin in candidate.lost() {
        _ = writeln!(text, "note: the {} `{}` was in the replaced file and is no longer there", plugin.kind, plugin.id);
    }
    let is_searched = folders::search(&[]).iter().any(|searched| same(searched, &folder));
    installed.iter().for_each(|plugin| text.push_str(&line(plugin, &folder, is_searched)));
    print::out(&text)
}

fn same(a: &Path, b: &Path) -> bool {
    std::path::absolute(a).ok() == std::path::absolute(b).ok()
}

/// What was installed and what comes next.
fn line(plugin: &Installed, folder: &Path, is_searched: bool) -> String {
    let Installed { kind, id, version, replaces, file, unchanged } = plugin;
    let replaced = match replaces {
        _ if *unchanged => ", the same bytes as before".to_owned(),
        Some(old) => format!(", replaces {old}"),
        None => String::new(),
    };
    let mut text = format!("installed the {kind} `{id}` {version}{replaced}: {}\n", file.display());
    let place = if is_searched { String::new() } else { format!(" --plugins {}", quoted(folder)) };
    let telos = program();
    let next = match kind.as_str() {
        kind::OBJECTIVE => format!("{telos} plugins try {id}{place}, or {telos} run FILE{place}"),
        kind::BACKEND => format!("{telos} compare FILE --backends candle,{id}{place}"),
        _ => format!("{telos} run FILE{place}"),
    };
    _ = writeln!(text, "next: {next}");
    if replaces.is_some() && !unchanged {
        _ = writeln!(
            text,
            "A folder of runs that pinned the replaced build refuses this one: add --dev while you write the plugin, \
             or --update-lock to pin it."
        );
    }
    text
}
