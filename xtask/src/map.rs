//! `cargo xtask map`: checks the source tree against the rules of its order, and the contract against its allowed dependencies.
//!
//! - A folder has at most [`FILES`] source files at one level.
//! - No two files import each other. `mod child;` is not an import. `pub use child::Item` is one if the child imports an item that
//!   its parent itself defines; a path through it leads to the child.
//! - The longest chain of imports inside [`CHAIN_FOLDER`] has at most [`CHAIN`] files.
//! - The top-level modules of the host are in [`LAYERS`]; an import leads to a lower layer.
//! - Only the boundary uses `abi_stable`: the contract's `abi` and the loader.
//! - A test that is named after a known mistake has a number that docs/known-mistakes.md lists.
//! - Documents name files that exist, and the README lists every experiment and every objective.
//!
//! Imports of tests do not count. Method calls are not detected, because a method needs no path.

mod boundary;
mod documents;
mod graph;
mod mistakes;
mod modules;
mod paths;
mod sources;
#[cfg(test)]
mod tests;

use crate::{
    cargo::{self, WORKSPACES},
    errors::Result,
};
use graph::{Graph, Import, length};
use sources::Sources;
use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
    process::Stdio,
};

/// The most source files in a folder, its subfolders not counted.
const FILES: usize = 12;

/// The folder in which chains of imports are limited.
const CHAIN_FOLDER: &str = "host/src/train";
/// The maximum number of files in a chain.
const CHAIN: usize = 7;

/// The folder whose top-level modules are in layers.
const LAYERED: &str = "host/src";
/// The top-level modules of [`LAYERED`], the highest first. Modules of one layer do not import each other.
const LAYERS: &[&[&str]] = &[
    &["lib", "main"],
    &["cli"],
    &["authoring", "study"],
    &["pipeline", "compare", "report", "verify"],
    &["inference"],
    &["train"],
    &["setup"],
    &["config"],
    &["objectives"],
    &["generate"],
    &["optimizer"],
    &["model"],
    &["device", "plugins"],
    &["runs"],
    &["data", "families"],
    &["keys"],
    &["files", "html", "plot", "track"],
    &["capacity", "decimals"],
    &["error"],
];

/// The contract's crates, with packages that they must not depend on: objectives have no tensors, and a plugin compiles neither
/// the laws nor the code that loads plugins.
const BANNED: [(&str, &[&str]); 3] = [
    ("plugin-api", &["candle-core", "tch", "gemm", "burn", "plugin-api-laws", "plugin-api-load"]),
    ("plugin-api-laws", &["candle-core", "tch", "gemm", "burn", "plugin-api-load"]),
    ("plugin-api-load", &["candle-core", "tch", "gemm", "burn", "plugin-api-laws"]),
];

/// Checks all rules; the error names every place that breaks one.
pub fn check() -> Result<()> {
    BANNED.iter().try_for_each(|(package, banned)| depends_on_none(package, banned))?;
    let (sources, graph) = read()?;
    let mut errors = errors(&sources, &graph);
    errors.extend(boundary::crossings(&sources));
    errors.extend(mistakes::unlisted(&sources)?);
    errors.extend(documents::errors()?);
    if errors.is_empty() {
        return Ok(());
    }
    Err(format!("the source tree breaks {} rules of its structure:\n{}", errors.len(), errors.join("\n")))
}

/// Prints the figures that the rules limit.
pub fn print_figures() -> Result<()> {
    let (sources, graph) = read()?;
    print!("{}", figures(&sources, &graph));
    Ok(())
}

fn read() -> Result<(Sources, Graph)> {
    let mut packages = Vec::new();
    for manifest in WORKSPACES {
        packages.extend(cargo::packages(Path::new(manifest))?);
    }
    let sources = Sources::read(&packages)?;
    let graph = graph(&sources)?;
    Ok((sources, graph))
}

fn graph(sources: &Sources) -> Result<Graph> {
    let mut graph = Graph::default();
    sources.roots.iter().try_for_each(|root| modules::add_crate(&mut graph, sources, root))?;
    Ok(graph)
}

/// Violations of the rules, a text for each.
fn errors(sources: &Sources, graph: &Graph) -> Vec<String> {
    let mut errors: Vec<String> = crowded(sources)
        .iter()
        .map(|(folder, files)| {
            format!(
                "{}/: {files} source files at one level, at most {FILES} are allowed: group them in folders by topic",
                folder.display()
            )
        })
        .collect();
    errors.extend(graph.pairs().iter().filter_map(|(one, other)| {
        let (there, back) = (graph.import(one, other)?, graph.import(other, one)?);
        Some(format!(
            "{}, and {}: move what both need to a file that imports neither",
            import(one, other, there),
            import(other, one, back)
        ))
    }));
    let chain = graph.longest_chain(Path::new(CHAIN_FOLDER));
    if length(&chain) > CHAIN {
        errors.push(format!(
            "{CHAIN_FOLDER}/: a chain of imports has {} files, at most {CHAIN} are allowed: pass what a file needs as \
             an argument, or join files of one topic:\n{}",
            length(&chain),
            links(graph, &chain)
        ));
    }
    errors.extend(graph.all().filter_map(|(from, to, by)| upwards(from, to, by)));
    errors
}

/// The figures themselves.
fn figures(sources: &Sources, graph: &Graph) -> String {
    let chain = graph.longest_chain(Path::new(CHAIN_FOLDER));
    let mut lines = vec![
        format!("longest chain in {CHAIN_FOLDER}/: {} files (limit {CHAIN})", length(&chain)),
        links(graph, &chain),
    ];
    let pairs = graph.pairs();
    lines.push(format!("pairs that import each other: {}", pairs.len()));
    lines.extend(pairs.iter().filter_map(|(one, other)| {
        let (there, back) = (graph.import(one, other)?, graph.import(other, one)?);
        let side = |file: &Path, import: &Import| {
            let how = if import.is_reexport { "pub use " } else { "" };
            format!("{}:{} ({how}{})", file.display(), import.line, import.path)
        };
        Some(format!("   {}  <->  {}", side(one, there), side(other, back)))
    }));
    let crowded = crowded(sources);
    lines.push(format!("folders with more than {FILES} source files at one level: {}", crowded.len()));
    lines.extend(crowded.iter().map(|(folder, files)| format!("   {}/: {files}", folder.display())));
    let upwards: Vec<String> = graph.all().filter_map(|(from, to, by)| upwards(from, to, by)).collect();
    lines.push(format!("imports that do not go downwards in {LAYERED}/: {}", upwards.len()));
    lines.extend(upwards.iter().map(|text| format!("   {text}")));
    lines.retain(|line| !line.is_empty());
    lines.join("\n") + "\n"
}

/// Folders with more than [`FILES`] source files, with their number.
fn crowded(sources: &Sources) -> Vec<(&Path, usize)> {
    let mut folders: BTreeMap<&Path, usize> = BTreeMap::new();
    for folder in sources.files.keys().filter_map(|file| file.parent()) {
        *folders.entry(folder).or_default() += 1;
    }
    folders.into_iter().filter(|(_, files)| *files > FILES).collect()
}

fn import(from: &Path, to: &Path, import: &Import) -> String {
    format!("{}:{} imports `{}` of {}", from.display(), import.line, import.path, to.display())
}

/// A line for each link of a chain: its files, and where it imports the next link.
fn links(graph: &Graph, chain: &[Vec<&Path>]) -> String {
    let line = |at: usize| {
        let next = chain.get(at + 1);
        let names = chain[at].iter().map(|file| {
            let import = next.into_iter().flatten().find_map(|to| graph.import(file, to).filter(|i| !i.is_reexport));
            match import {
                Some(import) => format!("{}:{} (imports {})", file.display(), import.line, import.path),
                None => file.display().to_string(),
            }
        });
        let names = names.collect::<Vec<_>>().join(", ");
        if chain[at].len() > 1 { format!("   in a cycle: {names}") } else { format!("   {names}") }
    };
    (0..chain.len()).map(line).collect::<Vec<_>>().join("\n")
}

/// An error for an import in the layered folder that does not lead to a lower layer.
fn upwards(from: &Path, to: &Path, by: &Import) -> Option<String> {
    let (above, below) = (module(from)?, module(to)?);
    if above == below {
        return None;
    }
    let layer = |name: &str| LAYERS.iter().position(|layer| layer.contains(&name));
    let what = import(from, to, by);
    let how = match (layer(&above), layer(&below)) {
        (Some(a), Some(b)) if a < b => return None,
        (Some(a), Some(b)) if a == b => format!("the layers of `{above}` and `{below}` are the same"),
        (Some(_), Some(_)) => format!("the layer of `{above}` is below that of `{below}`"),
        (None, _) => return Some(format!("{what}: `{above}` has no layer, add it to LAYERS in xtask/src/map.rs")),
        (_, None) => return Some(format!("{what}: `{below}` has no layer, add it to LAYERS in xtask/src/map.rs")),
    };
    Some(format!(
        "{what}: {how}, and an import leads to a lower layer: move what is needed down, or pass it as an argument"
    ))
}

/// The top-level module of a file in the layered folder.
fn module(file: &Path) -> Option<String> {
    let first = file.strip_prefix(LAYERED).ok()?.components().next()?;
    let Component::Normal(name) = first else { return None };
    PathBuf::from(name).file_stem().map(|stem| stem.to_string_lossy().into_owned())
}

/// Fails if a package depends on a banned package.
fn depends_on_none(package: &str, banned: &[&str]) -> Result<()> {
    let tree = ["tree", "--package", package, "--all-features", "--edges", "normal,build", "--prefix", "none"];
    let output = cargo::cargo()?.args(tree).stderr(Stdio::inherit()).output().map_err(|e| e.to_string())?;
    if !output.status.success() {
        return Err("cargo tree failed".into());
    }
    let tree = String::from_utf8_lossy(&output.stdout);
    let names = tree.lines().filter_map(|line| line.split_whitespace().next());
    let found: Vec<&str> = names.filter(|name| banned.contains(name)).collect();
    if found.is_empty() { Ok(()) } else { Err(format!("{package} depends on {}", found.join(", "))) }
}
