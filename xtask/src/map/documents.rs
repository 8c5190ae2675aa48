//! Documents: what they name exists, their lists are complete, and commands of the source tree are where they hold.

use crate::{cargo::root, errors::Result};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The documents that are checked, besides those in `docs/`.
const DOCUMENTS: [&str; 5] =
    ["README.md", "ARCHITECTURE.md", "SECURITY.md", "benches/peers/README.md", "python/README.md"];
/// Paths in code are checked if they begin with one of these folders.
const FOLDERS: [&str; 11] = [
    "benches/",
    "docs/",
    "experiments/",
    "host/",
    "plugin-api/",
    "plugins/",
    "python/",
    "random/",
    "tests/",
    "world/",
    "xtask/",
];
/// The section of the README whose commands hold in the source tree alone.
const SOURCE_TREE: &str = "## In the source tree";

/// An error for each link or path that leads nowhere, each experiment or objective that the README does not list, and each command
/// of cargo where a reader may have a distribution.
pub fn errors() -> Result<Vec<String>> {
    let root = root()?;
    let read = |file: &Path| fs::read_to_string(file).map_err(|e| format!("cannot read {}: {e}", file.display()));
    let mut errors = Vec::new();
    let documents = DOCUMENTS.iter().map(|name| root.join(name)).chain(files(&root.join("docs"), "md")?);
    for file in documents {
        let name = file.strip_prefix(&root).unwrap_or(&file).to_owned();
        let folder = file.parent().unwrap_or(&root);
        let text = read(&file)?;
        let exists = |link: &str| folder.join(link).exists();
        errors.extend(missing(&name, links(&text), exists));
        errors.extend(missing(&name, paths(&text), |path| root.join(path).exists()));
    }
    let readme = read(&root.join("README.md"))?;
    let experiments = files(&root.join("experiments"), "toml")?;
    let named = experiments.iter().filter_map(|file| file.file_name()?.to_str());
    errors.extend(unlisted(&readme, named));
    let page = read(&root.join("docs/objectives.md"))?;
    errors.extend(unlisted(&readme, page.lines().filter_map(|line| line.strip_prefix("## `")?.strip_suffix('`'))));
    let elsewhere: String = readme.split("\n## ").filter(|section| !SOURCE_TREE.ends_with(title(section))).collect();
    // The one sentence there that explains it may be wrapped anywhere.
    let elsewhere = elsewhere.split_whitespace().collect::<Vec<_>>().join(" ");
    errors.extend(cargo_in("README.md", &elsewhere.replace("`cargo telos` takes the place of `telos`", "")));
    for file in &experiments {
        errors.extend(cargo_in(&file.strip_prefix(&root).unwrap_or(file).to_string_lossy(), &read(file)?));
    }
    Ok(errors)
}

fn title(section: &str) -> &str {
    section.lines().next().unwrap_or_default()
}

/// The files of a folder with an ending, sorted.
fn files(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(|e| format!("cannot read {}: {e}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    files.retain(|file| file.extension().is_some_and(|found| found == ending));
    files.sort();
    Ok(files)
}

/// Relative targets of links, with their lines.
fn links(text: &str) -> Vec<(usize, &str)> {
    let of_line = |(at, line)| targets(line).map(move |target| (at, target));
    (1..).zip(text.lines()).flat_map(of_line).collect()
}

fn targets(line: &str) -> impl Iterator<Item = &str> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    targets.filter(|target| !target.is_empty() && !target.contains("://"))
}

/// Paths of the source tree in code, with their lines. A part in capitals, or a `*`, stands for any name.
fn paths(text: &str) -> Vec<(usize, &str)> {
    let of_line = |(at, line)| codes(line).filter(|code| is_path(code)).map(move |code| (at, code));
    (1..).zip(text.lines()).flat_map(of_line).collect()
}

fn codes(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

fn is_path(code: &str) -> bool {
    let is_placeholder = |part: &str| part.contains('*') || part.split('.').next().is_some_and(capitals);
    FOLDERS.iter().any(|folder| code.starts_with(folder))
        && !code.contains(' ')
        && !code.split('/').any(|part| !part.ends_with(".md") && is_placeholder(part))
}

fn capitals(word: &str) -> bool {
    word.len() > 1 && word.chars().all(|c| c.is_ascii_uppercase())
}

fn missing(name: &Path, found: Vec<(usize, &str)>, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let missing = found.into_iter().filter(|(_, path)| !exists(path));
    missing.map(|(line, path)| format!("{}:{line} names {path}, which does not exist", name.display())).collect()
}

fn unlisted<'a>(readme: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let missing =
        names.filter(|name| !readme.lines().any(|line| line.starts_with("| `") && line.contains(&format!("`{name}`"))));
    missing.map(|name| format!("README.md: no table lists `{name}`")).collect()
}

fn cargo_in(name: &str, text: &str) -> Vec<String> {
    let commands = ["cargo telos", "cargo xtask", "cargo bench"].into_iter().filter(|command| text.contains(command));
    let why = format!(
        "which a distribution does not have: write `telos`, or move it to the section \"{}\"",
        &SOURCE_TREE[3..]
    );
    commands.map(|command| format!("{name} names `{command}`, {why} of README.md")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a link or a path that is not looked up because it is the second one of its line, one with an anchor, and placeholders
    /// and addresses that are looked up.
    #[test]
    fn links_and_paths_are_found_with_their_lines() {
        let text = "a\n[b](c.md) and [d](../e.md#f), [g](https://h/i.md)\n`host/src/x.rs`, `host/GROUP.rs`, `tests/*.rs`, `docs/README.md`\n";
        assert_eq!(links(text), [(2, "c.md"), (2, "../e.md")]);
        assert_eq!(paths(text), [(3, "host/src/x.rs"), (3, "docs/README.md")]);
        let errors = missing(Path::new("A.md"), paths(text), |path| path == "docs/README.md");
        assert_eq!(errors, ["A.md:3 names host/src/x.rs, which does not exist"]);
    }

    /// Catches a list in which the name of another file or the text around a table counts, and a command that is not found.
    #[test]
    fn lists_are_complete_and_commands_hold_in_a_distribution() {
        let readme = "`dpo` in a text\n| `online-dpo` | pairs |\n| `ce`, `sft.toml` | more |\n";
        assert_eq!(unlisted(readme, ["ce", "sft.toml", "dpo"].into_iter()), ["README.md: no table lists `dpo`"]);
        assert_eq!(cargo_in("x.toml", "#   telos run x.toml"), Vec::<String>::new());
        assert!(cargo_in("x.toml", "#   cargo telos run x.toml")[0].starts_with("x.toml names `cargo telos`"));
    }
}
