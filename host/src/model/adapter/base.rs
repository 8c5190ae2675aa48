//! The place of the frozen weights under an adapter, as `adapter_config.json` names it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::data::hub::id::{Id, Kind};
use crate::data::{Inputs, gguf, hub};
use crate::error::{Error, Result};
use crate::files;
use crate::model::files::hash::weights_sha256;
use crate::model::files::weights::ADAPTER_CONFIG;
use crate::model::shape::config::CONFIG_FILE;
use crate::model::shape::keys::read_text;
use crate::runs::checkpoint::{find, manifest::MANIFEST};
use crate::runs::folder::CHECKPOINTS;

/// File name of the config of an adapted model. It is not `config.json`, because transformers searches whole weights beside that.
pub const ADAPTED_CONFIG: &str = "telos_config.json";
/// Its key with the sha256 of the frozen weights. It is not in `adapter_config.json`: older versions of PEFT refuse keys that they do
/// not know.
pub const BASE_SHA256: &str = "telos_base_sha256";

/// Returns the sha256 of the weights that the adapter in `folder` was trained over; `None` if its files do not record it, as those that
/// PEFT writes.
///
/// # Errors
/// A request error for a file that cannot be read, or another type of the key.
fn recorded_base(folder: &Path) -> Result<Option<String>> {
    let mut inputs = Inputs::of(folder)?;
    if !inputs.has(ADAPTED_CONFIG) {
        return Ok(None);
    }
    let fail = |what: &str| Error::request(format!("{}: {what}", folder.join(ADAPTED_CONFIG).display()));
    let config: Value = serde_json::from_str(&read_text(&mut inputs, ADAPTED_CONFIG)?)
        .map_err(|cause| fail("not valid JSON").with_cause(cause))?;
    match config.get(BASE_SHA256) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(sha256)) => Ok(Some(sha256.clone())),
        Some(other) => Err(fail(&format!("`{BASE_SHA256}` is {other}, expected text"))),
    }
}

/// Whether the weights in `base` are those that the adapter in `folder` was trained over; `None` if its files do not say.
///
/// # Errors
/// Files that cannot be read.
pub fn is_base_of(folder: &Path, base: &Path) -> Result<Option<bool>> {
    recorded_base(folder)?.map(|recorded| Ok(weights_sha256(base)? == recorded)).transpose()
}

/// What is wrong with the weights in `base` for the adapter in `folder`.
pub fn other_base(folder: &Path, base: &Path) -> String {
    format!("the weights in {} are not those that the adapter {} was trained on", base.display(), folder.display())
}

/// Checks that the weights in `base` are those that the adapter in `folder` was trained over, if its files say.
///
/// # Errors
/// A request error for other weights; files that cannot be read.
pub fn check_base(folder: &Path, base: &Path) -> Result<()> {
    if is_base_of(folder, base)? != Some(false) {
        return Ok(());
    }
    let what = other_base(folder, base);
    Err(Error::request(what).with_hint(format!(
        "restore them; to use the adapter over other weights, copy its folder under another name without {MANIFEST}, remove \
         `{BASE_SHA256}` from {ADAPTED_CONFIG} in the copy, and set `{BASE_NAME}` in its adapter_config.json to their folder"
    )))
}

/// The key of `adapter_config.json` with the place of the frozen weights.
pub(super) const BASE_NAME: &str = "base_model_name_or_path";

/// The place of an adapter's frozen weights.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Base {
    /// A folder, a GGUF file, or a name on the Hugging Face hub (`org/name`); empty if it names none.
    pub name: String,
    /// The revision on the hub, if it is a name there.
    pub revision: Option<String>,
}

impl Base {
    /// Returns the place of the weights in `folder`: their name on the hub if they are from there, else the absolute path.
    pub fn of(folder: &Path) -> Base {
        match hub::named(folder) {
            Some(id) => {
                let name = [Some(id.repository), id.path].into_iter().flatten().collect::<Vec<_>>().join("/");
                Base { name, revision: Some(id.revision) }
            }
            None => {
                let whole = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
                Base { name: whole.display().to_string(), revision: None }
            }
        }
    }

    /// Returns the folder or GGUF file if it is on this machine: a path from the current directory, else from the adapter's folder. The
    /// hub's cache is not searched.
    pub fn local(&self, adapter: &Path) -> Option<PathBuf> {
        let places = [PathBuf::from(&self.name), adapter.join(&self.name)];
        let is_model = |place: &PathBuf| place.is_dir() || gguf::is_named(place) && place.is_file();
        places.into_iter().find(|place| !self.name.is_empty() && is_model(place))
    }

    /// Returns the folder or GGUF file: as [`Base::local`], else by its name on the hub.
    ///
    /// # Errors
    /// A request error if it does not exist.
    pub fn folder(&self, adapter: &Path) -> Result<PathBuf> {
        let file = adapter.join(ADAPTER_CONFIG);
        let file = file.display();
        if let Some(base) = self.local(adapter) {
            let checkpoints = base.join(CHECKPOINTS);
            let is_run = checkpoints.is_dir() && files::is_missing(&base.join(CONFIG_FILE));
            return if is_run { Err(self.names_a_run(&checkpoints, &file.to_string())) } else { Ok(base) };
        }
        let error = match self.name.as_str() {
            "" => Error::request(format!("{file}: `{BASE_NAME}` names no base model")),
            name => {
                let there_is_none =
                    format!("{file}: `{BASE_NAME}` is \"{name}\", and there is no such folder or GGUF file");
                match self.on_hub().map(|name| hub::model(&name)) {
                    Some(Ok(Some(found))) => return Ok(found),
                    Some(Err(cause)) => {
                        Error::request(there_is_none + ", nor a model of the hub that can be read").with_cause(cause)
                    }
                    _ => Error::request(there_is_none),
                }
            }
        };
        let remedy = match find::is_verified(adapter) {
            false => {
                format!("set `{BASE_NAME}` to the folder or GGUF file of the model that the adapter was trained on")
            }
            true => format!(
                "move or link that model back; or copy the folder {} under another name without {MANIFEST}, set `{BASE_NAME}` in the copy to the model's \
                 folder or GGUF file, and name the copy",
                adapter.display()
            ),
        };
        Err(error.with_hint(remedy))
    }

    fn names_a_run(&self, checkpoints: &Path, file: &str) -> Error {
        let what = format!("{file}: `{BASE_NAME}` is \"{}\", which is a run and not a model", self.name);
        let latest = find::latest(checkpoints).ok().flatten();
        let example = latest.map_or_else(String::new, |found| format!(", such as {}", found.path.display()));
        Error::request(what).with_hint(format!("name the checkpoint of it that the adapter was trained on{example}"))
    }

    /// Whether `path` is from the hub, with this name and this revision.
    pub fn is_on_hub_as(&self, path: &Path) -> bool {
        let Base { name, revision } = Base::of(path);
        let fits = self.revision.is_none() || self.revision == revision;
        revision.is_some() && name == self.name && fits
    }

    /// Its name on the hub, if it has the form of one.
    fn on_hub(&self) -> Option<PathBuf> {
        let name = match &self.revision {
            Some(revision) => format!("hf:{}@{revision}", self.name),
            None => format!("hf:{}", self.name),
        };
        let id = Id::parse(&name, Kind::Model).ok()??;
        // Without a revision, a longer name is a path.
        (id.path.is_none() || self.revision.is_some()).then(|| name.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a GGUF file that is not taken as a base, a relative path that counts from one folder only, and an error that does not name
    /// the file and the key.
    #[test]
    fn a_base_is_a_folder_or_a_gguf_file() {
        let folder = tempfile::tempdir().unwrap();
        let base = |name: &str| Base { name: name.to_owned(), revision: None };
        std::fs::write(folder.path().join("model.gguf"), "").unwrap();
        std::fs::write(folder.path().join("model.txt"), "").unwrap();
        std::fs::create_dir(folder.path().join("base")).unwrap();
        let absolute = folder.path().join("model.gguf").display().to_string();
        for name in ["base", "model.gguf", &absolute] {
            assert_eq!(base(name).folder(folder.path()).unwrap(), folder.path().join(name));
        }
        for name in ["", "nothing", "model.txt", "/nowhere/a", "models/a/b"] {
            let report = base(name).folder(folder.path()).unwrap_err().report();
            assert!(report.contains("adapter_config.json: `base_model_name_or_path`"), "{report}");
        }
        assert_eq!(Base::of(&folder.path().join("base")).revision, None);
        std::fs::create_dir_all(folder.path().join("run/checkpoints")).unwrap();
        let report = base("run").folder(folder.path()).unwrap_err().report();
        assert!(report.contains("is a run and not a model") && report.contains("name the checkpoint"), "{report}");
    }

    /// Catches weights that were replaced under an adapter, an adapter that is refused although nothing is recorded, and a remedy that
    /// edits a file whose bytes are compared.
    #[test]
    fn the_weights_are_those_that_the_adapter_was_trained_on() {
        let folder = tempfile::tempdir().unwrap();
        let [adapter, model] = ["peft", "base"].map(|name| folder.path().join(name));
        [&adapter, &model].iter().for_each(|place| std::fs::create_dir(place).unwrap());
        std::fs::write(model.join("model.safetensors"), "abc").unwrap();
        assert_eq!(is_base_of(&adapter, &model).unwrap(), None);
        let record = |value: &str| {
            std::fs::write(adapter.join(ADAPTED_CONFIG), format!("{{\"{BASE_SHA256}\": {value}}}")).unwrap();
            is_base_of(&adapter, &model)
        };
        assert_eq!(record("null").unwrap(), None);
        check_base(&adapter, &model).unwrap();
        assert!(record("5").unwrap_err().report().contains(BASE_SHA256));
        assert_eq!(record(&format!("{:?}", weights_sha256(&model).unwrap())).unwrap(), Some(true));
        check_base(&adapter, &model).unwrap();
        std::fs::write(model.join("new"), "abd").unwrap();
        std::fs::rename(model.join("new"), model.join("model.safetensors")).unwrap();
        let report = check_base(&adapter, &model).unwrap_err().report();
        assert!(report.contains("are not those that the adapter"), "{report}");
        let away = Base { name: "nowhere".to_owned(), revision: None };
        let remedy = || away.folder(&adapter).unwrap_err().report();
        assert!(remedy().contains("set `base_model_name_or_path`"), "{}", remedy());
        std::fs::write(adapter.join(MANIFEST), r#"{"format": 1, "step": 2, "best": false, "files": []}"#).unwrap();
        assert!(remedy().contains("without manifest.json"), "{}", remedy());
    }

    /// Catches a name of the hub that is taken as a path, and a path that is looked up there.
    #[test]
    fn a_base_of_the_hub_has_the_form_of_a_name() {
        let of = |name: &str, revision: Option<&str>| {
            let base = Base { name: name.to_owned(), revision: revision.map(str::to_owned) };
            base.on_hub().map(|name| name.display().to_string())
        };
        assert_eq!(of("org/name", None).as_deref(), Some("hf:org/name"));
        assert_eq!(of("org/name/a.gguf", Some("abc")).as_deref(), Some("hf:org/name/a.gguf@abc"));
        for name in ["gpt2", "/models/base", "../runs/base", "models/a/b", ""] {
            assert_eq!(of(name, None), None, "{name}");
        }
    }
}
