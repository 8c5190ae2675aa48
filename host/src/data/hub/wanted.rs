//! Which files of a repository are needed. Pickles never are.

use std::path::Path;

use serde_json::Value;

use super::id::is_inside;
use crate::data::reading::described::{describes, is_hidden};

/// The files of a model besides its weights.
const SMALL: &[&str] = &[
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "tokenizer.model",
];
/// Folder of further chat templates.
const TEMPLATES: &str = "additional_chat_templates/";
/// Unsharded weights.
const WEIGHTS: &str = "model.safetensors";
/// The index of sharded ones.
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// The settings and the factors of an adapter.
const ADAPTER: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];
/// The model's config, which this program saves with an adapter.
const ADAPTED_CONFIG: &str = "telos_config.json";
/// Endings of files of rows and of text; packed ones have one of [`PACKED`] after it.
const DATA: &[&str] = &[".jsonl", ".ndjson", ".json", ".parquet", ".arrow", ".feather", ".csv", ".tsv", ".txt"];
/// Endings of packed files.
const PACKED: &[&str] = &[".gz", ".zst", ".zstd"];

/// What to download of a model first.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Model {
    /// A folder in the Hugging Face layout: its small files, and its weights if they are one file; or an adapter's folder.
    Folder(Vec<String>),
    /// As a folder, with the index last, which names the files of weights.
    Sharded(Vec<String>),
    /// One GGUF file.
    Gguf(String),
}

/// Returns what to download of a model.
///
/// # Errors
/// Why it cannot be read, and how to name what can.
pub(super) fn model(files: &[String], path: Option<&str>) -> Result<Model, [String; 2]> {
    let has = |name: &str| files.iter().any(|file| file == name);
    if let Some(path) = path {
        return match has(path) && path.to_lowercase().ends_with(".gguf") {
            true => Ok(Model::Gguf(path.to_owned())),
            false => {
                let names = listed(files.iter().filter(|file| file.to_lowercase().ends_with(".gguf")));
                let what = format!("`{path}` is not one of its GGUF files ({names})");
                Err([what, "leave the path out to read its safetensors".to_owned()])
            }
        };
    }
    let mut wanted = small(files);
    if has(WEIGHTS) {
        wanted.push(WEIGHTS.to_owned());
        return Ok(Model::Folder(wanted));
    }
    if has(INDEX) {
        wanted.push(INDEX.to_owned());
        return Ok(Model::Sharded(wanted));
    }
    if is_adapter(files) {
        wanted.extend(ADAPTER.map(str::to_owned));
        wanted.extend(has(ADAPTED_CONFIG).then(|| ADAPTED_CONFIG.to_owned()));
        return Ok(Model::Folder(wanted));
    }
    let ggufs: Vec<&String> = files.iter().filter(|file| file.to_lowercase().ends_with(".gguf")).collect();
    match ggufs[..] {
        [one] => Ok(Model::Gguf(one.clone())),
        [] => {
            let what = format!(
                "has no model in safetensors, no adapter with its settings and no GGUF file; its files are {}",
                listed(files.iter())
            );
            let remedy = "weights in PyTorch's format are pickles, which run code when they are read, and are not downloaded: convert \
                          the model with transformers' save_pretrained, and name the folder";
            Err([what, remedy.to_owned()])
        }
        _ => {
            let what = format!("has several GGUF files: {}", listed(ggufs.into_iter()));
            Err([what, "name one of them after the repository: hf:org/name/FILE.gguf".to_owned()])
        }
    }
}

/// Whether these are the files of an adapter and not of a whole model.
fn is_adapter(files: &[String]) -> bool {
    let has = |name: &str| files.iter().any(|file| file == name);
    ADAPTER.into_iter().all(has) && !has(WEIGHTS) && !has(INDEX)
}

/// Whether a model with these files can be used, also if files are missing that are not known: it has a config and a tokenizer, or
/// needs none besides its weights.
pub(super) fn is_usable(files: &[String], path: Option<&str>) -> bool {
    match model(files, path) {
        Ok(Model::Gguf(_)) => true,
        Ok(_) => is_adapter(files) || has_tokenizer(files) && files.iter().any(|file| file == "config.json"),
        Err(_) => false,
    }
}

/// Whether a tokenizer is among these files.
pub(super) fn has_tokenizer(files: &[String]) -> bool {
    files.iter().any(|file| file == "tokenizer.json")
}

/// Returns the files of a model besides its weights, sorted.
pub(super) fn small(files: &[String]) -> Vec<String> {
    let is_small = |file: &&String| {
        SMALL.contains(&file.as_str()) || (file.starts_with(TEMPLATES) && file.ends_with(".jinja") && is_inside(file))
    };
    let mut wanted: Vec<String> = files.iter().filter(is_small).cloned().collect();
    wanted.sort();
    wanted
}

/// Returns the names of the files of weights in an index.
///
/// # Errors
/// What is wrong with it.
pub(super) fn shards(index: &[u8]) -> Result<Vec<String>, String> {
    let value: Value = serde_json::from_slice(index).map_err(|cause| format!("{INDEX} is not valid JSON: {cause}"))?;
    let map = value.get("weight_map").and_then(Value::as_object);
    let names = map.into_iter().flatten().filter_map(|(_, name)| name.as_str());
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.sort();
    names.dedup();
    match names.iter().find(|name| !is_inside(name) || name.contains('/')) {
        Some(name) => Err(format!("{INDEX} names the file {name:?}, which is not in the folder")),
        None if names.is_empty() => Err(format!("{INDEX} names no file")),
        None => Ok(names),
    }
}

/// Returns the data files that a path stands for: a file, a folder, a pattern; without a path the only data file.
///
/// # Errors
/// Why there is none, or which one is meant is not known, and the remedy.
pub(super) fn data(files: &[String], path: Option<&str>) -> Result<Vec<String>, [String; 2]> {
    let data: Vec<&String> = files.iter().filter(|file| is_data(file)).collect();
    let remedy = "name a file, a folder or a pattern after the repository: hf:datasets/org/name/data/train-*.parquet";
    let Some(path) = path else {
        return match data[..] {
            [one] => Ok(vec![one.clone()]),
            [] => {
                Err([format!("has no file of rows or text; its files are {}", listed(files.iter())), remedy.to_owned()])
            }
            _ => Err([format!("has several data files: {}", listed(data.into_iter())), remedy.to_owned()]),
        };
    };
    if files.iter().any(|file| file == path) {
        return Ok(vec![path.to_owned()]);
    }
    let pattern = glob::Pattern::new(path).ok().filter(|_| path.contains(['*', '?', '[']));
    let folder = format!("{path}/");
    // A star stays within a folder, as in paths.
    let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
    let fits = |file: &&&String| {
        let is_meant = match &pattern {
            Some(pattern) => pattern.matches_with(file, options),
            None => file.starts_with(&folder),
        };
        is_meant && !is_hidden(Path::new(file), path)
    };
    let mut found: Vec<String> = data.iter().filter(fits).map(|file| (*file).clone()).collect();
    found.sort();
    match found.is_empty() {
        true => Err([
            format!("has no data file `{path}`; its data files are {}", listed(data.into_iter())),
            remedy.to_owned(),
        ]),
        false => Ok(found),
    }
}

/// Whether a file holds rows or text, and does not describe the data.
fn is_data(file: &str) -> bool {
    let name = file.to_lowercase();
    let name = PACKED.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
    DATA.iter().any(|end| name.ends_with(end)) && !describes(Path::new(file))
}

/// The first names of a list, and how many more there are.
fn listed<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.map(String::as_str).collect();
    match names.len() {
        0 => "none".to_owned(),
        1..=12 => names.join(", "),
        count => format!("{} and {} more", names[..12].join(", "), count - 12),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// Catches a pickle, a duplicate of the weights or a file of another program that is downloaded.
    #[test]
    fn only_what_a_model_needs_is_wanted() {
        let names = [
            "README.md",
            "pytorch_model.bin",
            "config.json",
            "model.safetensors",
            "consolidated.safetensors",
            "tokenizer.json",
            "onnx/model.onnx",
            "additional_chat_templates/rag.jinja",
        ];
        let wanted =
            files(&["additional_chat_templates/rag.jinja", "config.json", "tokenizer.json", "model.safetensors"]);
        assert_eq!(model(&files(&names), None), Ok(Model::Folder(wanted)));
        assert_eq!(model(&files(&["config.json", INDEX]), None), Ok(Model::Sharded(files(&["config.json", INDEX]))));
        assert_eq!(model(&files(&["a.gguf", "README.md"]), None), Ok(Model::Gguf("a.gguf".into())));
        // An adapter of PEFT's and one of this program; weights of a whole model come before it.
        let [settings, factors] = ADAPTER;
        let adapter = ["README.md", factors, settings, "tokenizer.json", "a.gguf"];
        let wanted = files(&["tokenizer.json", settings, factors]);
        assert_eq!(model(&files(&adapter), None), Ok(Model::Folder(wanted)));
        let own = files(&[settings, factors, ADAPTED_CONFIG]);
        assert_eq!(model(&own, None), Ok(Model::Folder(own)));
        assert_eq!(model(&files(&[settings, factors, WEIGHTS]), None), Ok(Model::Folder(files(&[WEIGHTS]))));
        assert_eq!(model(&files(&["a.gguf", "b.gguf"]), Some("b.gguf")), Ok(Model::Gguf("b.gguf".into())));
        for (names, path, part) in [
            (&["a.gguf", "b.gguf"][..], None, "several GGUF files: a.gguf, b.gguf"),
            (&["config.json", "pytorch_model.bin"], None, "no model in safetensors"),
            (&["adapter_model.safetensors"], None, "no adapter with its settings"),
            (&["a.gguf"], Some("c.gguf"), "`c.gguf` is not one of its GGUF files (a.gguf)"),
        ] {
            assert!(model(&files(names), path).unwrap_err()[0].contains(part), "{part}");
        }
        assert_eq!(shards(br#"{"weight_map": {"a": "2.st", "b": "1.st", "c": "2.st"}}"#), Ok(files(&["1.st", "2.st"])));
        for index in [r#"{"weight_map": {"a": "../x"}}"#, r#"{"weight_map": {"a": "d/x"}}"#, "{}", "["] {
            assert!(shards(index.as_bytes()).is_err(), "{index}");
        }
    }

    /// Catches held-out files that are trained on because no file was named.
    #[test]
    fn of_several_data_files_one_is_named() {
        let all = files(&["README.md", "data/train-0.parquet", "data/train-1.parquet", "data/test-0.parquet"]);
        assert!(data(&all, None).unwrap_err()[0].contains("several data files"));
        assert_eq!(
            data(&all, Some("data/train-*.parquet")),
            Ok(files(&["data/train-0.parquet", "data/train-1.parquet"]))
        );
        assert_eq!(data(&all, Some("data")).map(|found| found.len()), Ok(3));
        assert_eq!(data(&all, Some("data/test-0.parquet")), Ok(files(&["data/test-0.parquet"])));
        assert!(data(&all, Some("*.parquet")).is_err());
        assert_eq!(data(&files(&["a.jsonl", "README.md"]), None), Ok(files(&["a.jsonl"])));
        for name in ["a.tsv", "a.CSV.gz", "a.ndjson", "a.feather", "a.json.zst", "d/a.txt.zstd"] {
            let all = files(&["dataset_infos.json", "LICENSE.txt", ".gitattributes", name]);
            assert_eq!(data(&all, None), Ok(files(&[name])));
        }
        // A file that is named is read, whatever its name.
        assert_eq!(data(&files(&["a.data"]), Some("a.data")), Ok(files(&["a.data"])));
    }
}
