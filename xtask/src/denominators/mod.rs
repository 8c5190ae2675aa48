//! `cargo xtask denominators`: the page docs/denominators.html. It shows that the gradient of a batch does not depend on how the batch
//! is cut into micro-batches here, for several objectives, and what threads of other frameworks say happened there
//! (docs/denominators.toml).

mod entries;
mod page;

use entries::{Cut, Thread};

use crate::{build, cargo, errors::Result, files};
use serde_json::Value;
use std::{fs, path::Path, process::Command};

/// The threads.
const THREADS: &str = "docs/denominators.toml";
/// The page.
const PAGE: &str = "docs/denominators.html";
/// The numbers of micro-batches.
const CUTS: &str = "1,2,4,8";

/// The experiments that are cut: plugin, batch, other tables, and what divides the loss.
const EXPERIMENTS: [(&str, &str, &str, &str); 6] = [
    ("sft", "sequences = 32", "", "supervised tokens"),
    ("reward", "pairs = 32", "", "pairs"),
    ("dpo", "pairs = 32", "reference = { from = \"self\" }\n", "pairs"),
    ("simpo", "pairs = 32", "", "pairs"),
    ("kto", "sequences = 32", "reference = { from = \"self\" }\n", "answers; the batch's KL couples them"),
    ("orpo", "pairs = 32", "", "pairs, and tokens of the chosen answers"),
];

/// A small model with random weights on rows of different lengths.
fn experiment(plugin: &str, batch: &str, more: &str) -> String {
    let optimizer = "{ lr = 1e-3 }";
    format!(
        "name = \"cut-{plugin}\"\nseed = 7\n\
         model = {{ layers = 2, dim = 64, heads = 2, context = 128 }}\n\
         tokenizer = {{ kind = \"bytes\" }}\n\
         data = {{ source = \"synthetic\", tasks = [\"copy\", \"reverse\", \"sort\"], rows = 400 }}\n\
         objective = {{ plugin = \"{plugin}\" }}\n\
         train = {{ steps = 2, batch = {{ {batch} }}, optimizer = {optimizer} }}\n\
         eval = {{ every = 0 }}\n{more}"
    )
}

/// Builds the host, cuts the batches, and writes the page.
pub fn run() -> Result<()> {
    let host = build::everything(None)?.host;
    let root = cargo::root()?;
    let folder = host.with_file_name("denominators");
    fs::create_dir_all(&folder).map_err(|why| format!("{}: {why}", folder.display()))?;
    let cuts = EXPERIMENTS
        .iter()
        .map(|(plugin, batch, more, normaliser)| {
            let file = folder.join(format!("{plugin}.toml"));
            files::write(&file, &experiment(plugin, batch, more))?;
            Ok(Cut { plugin, normaliser, cuts: measured(&host, &file)? })
        })
        .collect::<Result<Vec<_>>>()?;
    let text = fs::read_to_string(root.join(THREADS)).map_err(|why| format!("{THREADS}: {why}"))?;
    files::write(&root.join(PAGE), &page::page(&cuts, &threads(&text)?))?;
    println!("{PAGE}");
    Ok(())
}

fn measured(host: &Path, file: &Path) -> Result<Vec<(u64, f64, f64)>> {
    let mut command = Command::new(host);
    command.args([
        "compare",
        "--backends",
        "candle",
        "--steps",
        "2",
        "--no-replay",
        "--no-plot",
        "--json",
        "--cuts",
        CUTS,
    ]);
    let output = command.arg(file).output().map_err(|why| format!("{}: {why}", host.display()))?;
    if !output.status.success() {
        return Err(format!("{}: {}", file.display(), String::from_utf8_lossy(&output.stderr).trim()));
    }
    let json: Value = serde_json::from_slice(&output.stdout).map_err(|why| format!("{}: {why}", file.display()))?;
    cuts_of(&json).ok_or_else(|| format!("{}: the comparison reports no cuts: {}", file.display(), json["backends"]))
}

fn cuts_of(json: &Value) -> Option<Vec<(u64, f64, f64)>> {
    let cuts = json["backends"][0]["cuts"]["cuts"].as_array().filter(|cuts| !cuts.is_empty())?;
    let cut = |cut: &Value| Some((cut["micro_batches"].as_u64()?, cut["loss"].as_f64()?, cut["grad_norm"].as_f64()?));
    cuts.iter().map(cut).collect()
}

fn threads(text: &str) -> Result<Vec<Thread>> {
    let table: toml::Table = text.parse().map_err(|why| format!("{THREADS}: {why}"))?;
    let entries = table.get("thread").and_then(toml::Value::as_array).ok_or(format!("{THREADS}: no [[thread]]"))?;
    let thread = |entry: &toml::Value| {
        let text = |key: &str| match entry.get(key).and_then(toml::Value::as_str) {
            Some(text) => Ok(text.to_owned()),
            None => Err(format!("{THREADS}: a thread has no {key}: {entry}")),
        };
        let links = entry.get("links").and_then(toml::Value::as_array).into_iter().flatten();
        let links: Vec<String> = links.filter_map(toml::Value::as_str).map(str::to_owned).collect();
        if links.is_empty() || links.iter().any(|link| !link.starts_with("https://")) {
            return Err(format!("{THREADS}: a thread has no links: {entry}"));
        }
        Ok(Thread {
            framework: text("framework")?,
            links,
            by: text("by")?,
            date: text("date")?,
            what: text("what")?,
            numbers: text("numbers")?,
            outcome: text("outcome")?,
        })
    };
    entries.iter().map(thread).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a thread without a link or a reporter.
    #[test]
    fn every_thread_has_its_source() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
        let read = threads(&fs::read_to_string(root.join(THREADS)).expect("the threads")).expect("threads");
        let frameworks: std::collections::BTreeSet<&str> =
            read.iter().map(|thread| thread.framework.as_str()).collect();
        assert_eq!((read.len(), frameworks.len()), (11, 11));
        assert!(read.iter().all(|thread| !thread.by.is_empty() && !thread.what.is_empty()));
        assert!(threads("[[thread]]\nframework = \"x\"").is_err_and(|why| why.contains("links")));
    }

    /// Catches a cut that is left out.
    #[test]
    fn cuts_are_read_from_a_comparison() {
        let json = serde_json::json!({"backends": [{"cuts": {"cuts": [{"micro_batches": 2, "loss": 0.5, "grad_norm": 1.5}]}}]});
        assert_eq!(cuts_of(&json), Some(vec![(2, 0.5, 1.5)]));
        assert_eq!(cuts_of(&serde_json::json!({"backends": [{"cuts": {"cuts": []}}]})), None);
    }
}
