//! The place of the frozen weights under an adapter, as `adapter_config.json` names it.

use std::path::{Path, PathBuf};

use crate::data::hub::id::{Id, Kind};
use crate::data::{gguf, hub};
use crate::error::{Error, Result};
use crate::model::files::weights::ADAPTER_CONFIG;

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
        if let Some(base) = self.local(adapter) {
            return Ok(base);
        }
        let file = adapter.join(ADAPTER_CONFIG);
        let file = file.display();
        let error = match self.name.as_str() {
            "" => Error::request(format!("{file}: `base_model_name_or_path` names no base model")),
            name => {
                let there_is_none = format!(
                    "{file}: `base_model_name_or_path` is \"{name}\", and there is no such folder or GGUF file"
                );
                match self.on_hub().map(|name| hub::model(&name)) {
                    Some(Ok(Some(found))) => return Ok(found),
                    Some(Err(cause)) => {
                        Error::request(there_is_none + ", nor a model of the hub that can be read").with_cause(cause)
                    }
                    _ => Error::request(there_is_none),
                }
            }
        };
        Err(error.with_hint("set it to the folder or GGUF file of the model that the adapter was trained on"))
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
