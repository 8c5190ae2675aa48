//! Recognizes files and names that Telos does not read: a Git LFS pointer, weights or a tokenizer in another
//! format, an id of the Hugging Face hub. The error names the format and gives the command that converts it.

use std::fs;
use std::io::Read;
use std::path::Path;

use crate::data::error::{DataError, Result};
use crate::data::hub::id::is_plain;
use crate::files;

/// Whether a file that begins with `bytes` is a Git LFS pointer: a few lines of text that a clone without Git LFS
/// holds instead of a large file.
pub fn is_lfs_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(b"version https://git-lfs")
}

/// Refuses a file whose first bytes are a Git LFS pointer. A file that cannot be read passes, since reading it
/// later reports the error.
///
/// # Errors
/// A Git LFS pointer.
pub fn refuse_lfs_pointer(path: &Path) -> Result<()> {
    let mut bytes = Vec::new();
    let read = files::open(path).and_then(|file| file.take(64).read_to_end(&mut bytes));
    if read.is_ok() && is_lfs_pointer(&bytes) { Err(DataError::LfsPointer(path.to_owned())) } else { Ok(()) }
}

/// Reads a file of a model's or tokenizer's folder.
///
/// # Errors
/// A file that cannot be read; a Git LFS pointer; JSON that begins with a byte order mark.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let bytes = files::read(path).map_err(DataError::io("read", path))?;
    if is_lfs_pointer(&bytes) {
        return Err(DataError::LfsPointer(path.to_owned()));
    }
    let is_json = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("json"));
    if is_json && bytes.starts_with(b"\xEF\xBB\xBF") {
        return Err(DataError::Unusable {
            path: path.to_owned(),
            what: "begins with a byte order mark (EF BB BF), which JSON does not allow and transformers refuses too"
                .into(),
            remedy: format!("remove it: sed -i '1s/^\\xEF\\xBB\\xBF//' {}", path.display()),
            source: None,
        });
    }
    Ok(bytes)
}

/// The error for a missing folder or file. A name such as `org/name` may be an id of the Hugging Face hub.
pub fn missing(path: &Path) -> DataError {
    let name = path.to_string_lossy();
    // For a misspelt path the parent folder usually exists.
    if !is_like_a_hub_id(&name) || path.parent().is_some_and(Path::is_dir) {
        return DataError::Missing(path.to_owned());
    }
    DataError::Unusable {
        path: path.to_owned(),
        what: "no such file or folder".into(),
        remedy: format!("if it is a model of the Hugging Face hub, write hf:{name}; otherwise check the path"),
        source: None,
    }
}

/// Whether `name` has the form `org/name`.
fn is_like_a_hub_id(name: &str) -> bool {
    name.split_once('/').is_some_and(|(owner, model)| is_plain(owner) && is_plain(model)) && !name.ends_with(".json")
}

/// If `folder` holds weights that are not safetensors: what they are, and how to convert them.
pub fn other_weights(folder: &Path) -> Option<(String, String)> {
    let names = names(folder);
    let place = folder.display();
    let through_transformers = |from: &str, out: &str| {
        format!(
            "convert them: python -c \"from transformers import AutoModelForCausalLM as M; \
             M.from_pretrained({from}).save_pretrained('{out}')\""
        )
    };
    let find = |fits: &dyn Fn(&str) -> bool| names.iter().find(|name| fits(name));
    if let Some(name) = find(&|name| name.starts_with("pytorch_model") && name.contains(".bin")) {
        let remedy = through_transformers(&format!("'{place}'"), &place.to_string());
        return Some((format!("its weights are in PyTorch's format ({name}): {PICKLE}"), remedy));
    }
    if let Some(name) = find(&|name| name.ends_with(".gguf")) {
        let remedy = format!("name the file itself: {}", folder.join(name).display());
        return Some((format!("it holds a GGUF file ({name})"), remedy));
    }
    if let Some(name) = find(&|name| name.starts_with("adapter_model.")) {
        let remedy = "an adapter is read from a folder with adapter_model.safetensors and adapter_config.json, which names its model: \
                      copy the missing file of the two; PEFT's save_pretrained writes both";
        return Some((format!("it holds a part of a LoRA adapter ({name})"), remedy.into()));
    }
    if let Some(name) = find(&|name| name.starts_with("consolidated")) {
        let remedy =
            "download the model's Hugging Face version, or convert it with the script that transformers has for it";
        return Some((format!("its weights are in their author's own format ({name})"), remedy.into()));
    }
    if let Some(name) = find(&|name| is_pickle(name)) {
        let remedy = convert_pickle(&folder.join(name), &folder.join("model.safetensors"));
        return Some((format!("its weights are in PyTorch's format ({name}): {PICKLE}"), remedy));
    }
    let name = find(&|name| [".h5", ".msgpack", ".onnx"].iter().any(|end| name.ends_with(end)))?;
    Some((format!("its weights are in another format ({name})"), "convert them to model.safetensors".into()))
}

/// If `folder` holds an adapter's weights in PyTorch's format instead of the file `expected`: what they are, and how to convert them.
pub fn other_adapter_weights(folder: &Path, expected: &str) -> Option<(String, String)> {
    let name = names(folder).into_iter().find(|name| name.starts_with("adapter_model.") && is_pickle(name))?;
    let remedy = convert_pickle(&folder.join(&name), &folder.join(expected));
    Some((format!("its weights are in PyTorch's format ({name}): {PICKLE}"), remedy))
}

/// Why PyTorch's files are not read.
const PICKLE: &str = "a pickle, which runs code when it is read";

/// Whether a file of this name usually is a pickle of PyTorch.
fn is_pickle(name: &str) -> bool {
    [".bin", ".pt", ".pth", ".ckpt"].iter().any(|end| name.ends_with(end))
}

/// The command that converts a file of PyTorch, without running the code in it.
fn convert_pickle(from: &Path, to: &Path) -> String {
    format!(
        "convert it: python -c \"import torch; from safetensors.torch import save_file; \
         w = torch.load('{}', map_location='cpu', weights_only=True); w = w.get('state_dict', w); \
         save_file({{k: v.clone().contiguous() for k, v in w.items()}}, '{}', metadata={{'format': 'pt'}})\"",
        from.display(),
        to.display()
    )
}

/// If `folder` holds a tokenizer that is not a `tokenizer.json`: what it is, and how to convert it.
pub fn other_tokenizer(folder: &Path) -> Option<(String, String)> {
    let names = names(folder);
    let has = |name: &str| names.iter().any(|own| own == name);
    let sentencepiece =
        ["tokenizer.model", "spiece.model", "sentencepiece.bpe.model"].into_iter().find(|name| has(name));
    let what = match sentencepiece {
        Some(name) => format!("its tokenizer is a sentencepiece model ({name}) without a tokenizer.json"),
        None if has("vocab.json") && has("merges.txt") => {
            "its tokenizer is in the older form (vocab.json and merges.txt) without a tokenizer.json".into()
        }
        None => {
            let other = |name: &&String| {
                name.as_str() == "vocab.txt" || name.as_str() == "tekken.json" || name.ends_with(".tiktoken")
            };
            format!("its tokenizer is in another format ({}) without a tokenizer.json", names.iter().find(other)?)
        }
    };
    Some((what, convert_tokenizer(&folder.display().to_string())))
}

/// The command that makes a `tokenizer.json` from an older tokenizer.
pub fn convert_tokenizer(folder: &str) -> String {
    format!(
        "create one: python -c \"from transformers import AutoTokenizer as T; \
         T.from_pretrained('{folder}').save_pretrained('{folder}')\" (a sentencepiece model needs the packages \
         sentencepiece and protobuf)"
    )
}

/// The error for a path that names a file of a model instead of its folder.
pub fn file_for_a_folder(path: &Path) -> DataError {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (what, remedy) = if is_pickle(&name) {
        let what = format!("is a file in PyTorch's format: {PICKLE}");
        (what, convert_pickle(path, &folder.join("model.safetensors")) + "; then name the folder")
    } else {
        let remedy = format!("name the folder that contains it: {}", folder.display());
        ("is a file; expected a folder or a GGUF file".to_owned(), remedy)
    };
    DataError::Unusable { path: path.to_owned(), what, remedy, source: None }
}

/// Names of a folder's files, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a run's path, an absolute path or a file that is treated as an id of the hub, and an id treated as a
    /// misspelt path.
    #[test]
    fn hub_ids_are_distinguished_from_paths() {
        for id in ["HuggingFaceTB/SmolLM2-135M", "meta-llama/Llama-3.1-8B", "a/b"] {
            assert!(is_like_a_hub_id(id), "{id}");
        }
        for path in ["gpt2", "/models/x", "./a/b", "../a/b", "a/b/c", "a/", "/a", "a b/c", "t/tokenizer.json"] {
            assert!(!is_like_a_hub_id(path), "{path}");
        }
    }

    /// Catches an error about invalid JSON for a byte order mark before JSON, in any file of a folder, and one that
    /// refuses the mark in plain text, where it is allowed.
    #[test]
    fn a_byte_order_mark_before_json_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for (name, refused) in [("tokenizer_config.json", true), ("X.JSON", true), ("chat_template.jinja", false)] {
            let path = folder.path().join(name);
            fs::write(&path, "\u{FEFF}{}").unwrap();
            let error = read(&path).err().map(|error| format!("{error} {}", error.hint().unwrap_or_default()));
            assert_eq!(error.is_some(), refused, "{name}");
            let contains = |part: &str| error.as_ref().is_none_or(|error| error.contains(part));
            assert!(contains("begins with a byte order mark") && contains(r"sed -i '1s/^\xEF\xBB\xBF//'"), "{error:?}");
        }
    }

    /// Catches a format that is not named, and safetensors named as another format.
    #[test]
    fn other_formats_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let weights = |name: &str| {
            fs::write(folder.path().join(name), "").unwrap();
            let found = other_weights(folder.path());
            fs::remove_file(folder.path().join(name)).unwrap();
            found.map(|(what, remedy)| format!("{what}; {remedy}"))
        };
        for (name, part) in [
            ("pytorch_model.bin", "AutoModelForCausalLM"),
            ("pytorch_model-00001-of-00002.bin", "runs code when it is read"),
            ("model-q4.gguf", "name the file itself"),
            ("adapter_model.safetensors", "adapter_config.json, which names its model"),
            ("consolidated.00.pth", "author's own"),
            ("model.pt", "runs code when it is read"),
            ("tf_model.h5", "tf_model.h5"),
        ] {
            let found = weights(name).unwrap();
            assert!(found.contains(name) && found.contains(part), "{found}");
        }
        assert_eq!(weights("model.safetensors"), None);
        assert_eq!(other_tokenizer(folder.path()), None);
        fs::write(folder.path().join("tokenizer.model"), "").unwrap();
        let (what, remedy) = other_tokenizer(folder.path()).unwrap();
        assert!(what.contains("sentencepiece model (tokenizer.model)") && remedy.contains("save_pretrained"), "{what}");
    }
}
