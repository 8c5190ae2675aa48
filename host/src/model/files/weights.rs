//! A model's tensors in a Hugging Face folder or a GGUF file: which file contains which, and whether names and shapes match.
//!
//! All names and shapes are checked before the first value is read, and all mistakes are reported at once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::refusal::refusal;
use super::tensor_file::TensorFile;
use crate::data::reading::foreign;
use crate::data::{Inputs, gguf};
use crate::error::{Error, Result};
use crate::families::Family;
use crate::files;
use crate::model::params::{Layout, SCALAR_HEAD};
use crate::model::shape::config::{CONFIG_FILE, ModelConfig};

/// File name of unsharded weights.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// File name of the master weights of a checkpoint whose other weights are rounded (`checkpoint.dtype`).
pub const MASTER_FILE: &str = "master.safetensors";
/// File name of the index, which maps tensors to shards.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// File name of an adapter's settings.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";
/// File name of an adapter's tensors.
pub const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";

/// A folder's files, and where each parameter is stored.
pub struct StoredWeights {
    files: Vec<TensorFile>,
    /// By the parameter's index in the layout; a scalar head that the folder lacks has no entry.
    stored: BTreeMap<usize, Stored>,
    tied_head: Option<(usize, String)>,
    layout: Layout,
}

/// File and name of a parameter, by its index in the layout.
struct Stored {
    file: usize,
    name: String,
}

impl StoredWeights {
    /// Opens a folder's files and checks names and shapes against the layout.
    ///
    /// # Errors
    /// A request error that lists every missing or extra tensor and every tensor of the wrong shape.
    pub fn open(folder: &Path, config: &ModelConfig, layout: &Layout) -> Result<StoredWeights> {
        let mut mistakes = Vec::new();
        let files = open_files(folder, config, layout, &mut mistakes)?;
        StoredWeights::of(folder, files, config, layout, mistakes)
    }

    /// Opens the master weights of a checkpoint that has them; `None` if its weights are not rounded.
    ///
    /// # Errors
    /// As [`StoredWeights::open`].
    pub fn masters(folder: &Path, config: &ModelConfig, layout: &Layout) -> Result<Option<StoredWeights>> {
        let file = folder.join(MASTER_FILE);
        if files::is_missing(&file) {
            return Ok(None);
        }
        StoredWeights::of(folder, vec![TensorFile::open(&file)?], config, layout, Vec::new()).map(Some)
    }

    fn of(
        folder: &Path,
        files: Vec<TensorFile>,
        config: &ModelConfig,
        layout: &Layout,
        mut mistakes: Vec<String>,
    ) -> Result<StoredWeights> {
        let mut found: BTreeMap<usize, Stored> = BTreeMap::new();
        let mut tied_head = None;
        for (file, tensors) in files.iter().enumerate() {
            let place = file_name(tensors.path());
            for name in tensors.names() {
                let shape = tensors.shape(&name).unwrap_or_default();
                match Role::of(&name, config, layout) {
                    Role::Parameter(index) => {
                        let expected = layout.parameters()[index].stored_shape();
                        if shape != expected {
                            mistakes.push(format!("{place}: `{name}` has shape {shape:?}, expected {expected:?}"));
                        }
                        let stored = Stored { file, name: name.clone() };
                        if let Some(first) = found.insert(index, stored) {
                            mistakes.push(format!("{place}: `{name}` is stored twice, also as `{}`", first.name));
                        }
                    }
                    Role::TiedHead => tied_head = Some((file, name)),
                    Role::Ignored | Role::OtherHead => {}
                    Role::Extra => {
                        mistakes.push(format!("{place}: `{name}` {shape:?} is extra: the model has no such tensor"))
                    }
                }
            }
        }
        for (index, parameter) in layout.parameters().iter().enumerate() {
            if !found.contains_key(&index) && layout.scalar != Some(index) {
                let (name, shape) = (&parameter.name, parameter.stored_shape());
                mistakes.push(format!("`{name}` {shape:?} is missing"));
            }
        }
        if !mistakes.is_empty() {
            return Err(refusal(format!("{}: the tensors do not fit {CONFIG_FILE}", folder.display()), mistakes));
        }
        Ok(StoredWeights { files, stored: found, tied_head, layout: layout.clone() })
    }

    /// The indices of the parameters that are stored, in the order of the layout.
    pub fn indices(&self) -> impl Iterator<Item = usize> {
        self.stored.keys().copied()
    }

    /// Reads every parameter and passes its index and values, as in the layout, to `put`.
    ///
    /// # Errors
    /// As [`StoredWeights::values`] and [`StoredWeights::check_tied_head`]; errors of `put`.
    pub fn load(mut self, mut put: impl FnMut(usize, &[f64]) -> Result<()>) -> Result<()> {
        self.check_tied_head()?;
        for index in self.indices().collect::<Vec<_>>() {
            put(index, &self.values(index)?)?;
        }
        Ok(())
    }

    /// Reads a parameter's values, as in the layout.
    ///
    /// # Errors
    /// A request error that names file and tensor, if it is not stored, cannot be read, or holds a value that is not finite.
    pub fn values(&mut self, index: usize) -> Result<Vec<f64>> {
        let parameter = &self.layout.parameters()[index];
        let stored = self.stored.get(&index);
        let Stored { file, name } = stored.ok_or_else(|| Error::run(format!("`{}` is not stored", parameter.name)))?;
        let file = &mut self.files[*file];
        let values = file.values(name)?;
        if let Some((at, value)) = values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
            let place = file.path().display();
            return Err(Error::request(format!("{place}: tensor `{name}` holds {value} (element {at})")));
        }
        Ok(parameter.from_stored(values))
    }

    /// Refuses a stored head that differs from the embedding to which it is tied.
    ///
    /// # Errors
    /// A request error that names file and tensor.
    pub fn check_tied_head(&mut self) -> Result<()> {
        let Some((file, name)) = &self.tied_head else { return Ok(()) };
        let file = &mut self.files[*file];
        let (head, place) = (file.values(name)?, file.path().display());
        let differs = Error::request(format!("{place}: tensor `{name}` differs from the embedding it is tied to"))
            .with_hint("set tie_word_embeddings to false in config.json");
        match self.values(self.layout.embedding)? == head {
            true => Ok(()),
            false => Err(differs),
        }
    }
}

/// Whether a folder contains an adapter and no weights of a whole model.
pub fn is_adapter(folder: &Path) -> bool {
    let has = |name: &str| !files::is_missing(&folder.join(name));
    has(ADAPTER_CONFIG) && !has(WEIGHTS_FILE) && !has(INDEX_FILE)
}

/// The role of a stored tensor in the model.
enum Role {
    Parameter(usize),
    /// A head that is stored although it is tied to the embedding.
    TiedHead,
    /// Known not to be a parameter.
    Ignored,
    /// A head that is not among this model's outputs.
    OtherHead,
    Extra,
}

impl Role {
    fn of(name: &str, config: &ModelConfig, layout: &Layout) -> Role {
        let Family { names, .. } = config.family;
        let own_head = format!("{}.weight", names.head);
        let is_alias = names.head_alias.is_some_and(|alias| name == format!("{alias}.weight"));
        let name = if is_alias { own_head.as_str() } else { name };
        let prefixed = || layout.index(&format!("{}{name}", names.prefix));
        if let Some(index) = layout.index(name).or_else(prefixed) {
            Role::Parameter(index)
        } else if config.tied && name == own_head {
            Role::TiedHead
        } else if name == SCALAR_HEAD || (!config.outputs.tokens && name == own_head) {
            Role::OtherHead
        } else if names.ignored.iter().any(|ending| name.ends_with(ending)) {
            Role::Ignored
        } else {
            Role::Extra
        }
    }
}

/// Returns the files that contain a folder's weights, sorted by name; for an adapter its own tensors, without those of its base.
///
/// # Errors
/// A request error if neither weights nor an index exist, and for an index that cannot be read.
pub fn weight_files(folder: &Path) -> Result<Vec<PathBuf>> {
    if let Some(file) = gguf::at(folder)? {
        return Ok(vec![file]);
    }
    if is_adapter(folder) {
        return Ok(vec![adapter_weights(folder)?]);
    }
    let shards = shards(folder)?;
    let names: BTreeSet<&str> =
        shards.as_ref().map_or([WEIGHTS_FILE].into(), |s| s.values().map(String::as_str).collect());
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

/// Returns the file that contains an adapter's tensors.
///
/// # Errors
/// A request error if it does not exist.
pub fn adapter_weights(folder: &Path) -> Result<PathBuf> {
    let file = folder.join(ADAPTER_WEIGHTS);
    if !files::is_missing(&file) {
        return Ok(file);
    }
    let (other, remedy) = match foreign::other_adapter_weights(folder, ADAPTER_WEIGHTS) {
        Some((other, remedy)) => (format!("; {other}"), remedy),
        None => {
            (String::new(), "copy it from where the adapter was saved; PEFT's save_pretrained writes it".to_owned())
        }
    };
    let message = format!("{}: the adapter has no {ADAPTER_WEIGHTS}{other}", folder.display());
    Err(Error::request(message).with_hint(remedy))
}

/// Returns the map from tensor name to shard; `None` if one file contains all tensors.
fn shards(folder: &Path) -> Result<Option<BTreeMap<String, String>>> {
    if gguf::at(folder)?.is_some() {
        return Ok(None);
    }
    let index = folder.join(INDEX_FILE);
    if !files::is_missing(&folder.join(WEIGHTS_FILE)) {
        return Ok(None);
    }
    if files::is_missing(&index) {
        let (other, remedy) = match foreign::other_weights(folder) {
            Some((other, remedy)) => (format!("; {other}"), remedy),
            None => (String::new(), "weights in other formats must be converted to safetensors".to_owned()),
        };
        let message = format!("{}: neither {WEIGHTS_FILE} nor {INDEX_FILE} exists{other}", folder.display());
        return Err(Error::request(message).with_hint(remedy));
    }
    read_index(folder, &index).map(Some)
}

fn open_files(
    folder: &Path,
    config: &ModelConfig,
    layout: &Layout,
    mistakes: &mut Vec<String>,
) -> Result<Vec<TensorFile>> {
    let files: Vec<TensorFile> =
        weight_files(folder)?.iter().map(|path| TensorFile::open(path)).collect::<Result<_>>()?;
    for (tensor, shard) in &shards(folder)?.unwrap_or_default() {
        let file = files.iter().find(|file| file_name(file.path()) == *shard);
        // Some exporters copy the index of an original model with a tied head or with buffers that are not parameters.
        let wanted = matches!(Role::of(tensor, config, layout), Role::Parameter(_) | Role::Extra);
        if wanted && file.is_none_or(|file| file.shape(tensor).is_none()) {
            mistakes.push(format!("{INDEX_FILE} names {shard} as the file of `{tensor}`, which it does not contain"));
        }
    }
    Ok(files)
}

/// Reads the map from tensor name to shard from the index.
fn read_index(folder: &Path, path: &Path) -> Result<BTreeMap<String, String>> {
    let fail = |what: &str| Error::request(format!("{}: {what}", path.display()));
    let text = crate::model::shape::keys::read_text(&mut Inputs::of(folder)?, INDEX_FILE)?;
    let value: Value = serde_json::from_str(&text).map_err(|cause| fail("not valid JSON").with_cause(cause))?;
    let Some(map) = value.get("weight_map").and_then(Value::as_object) else {
        return Err(fail("key `weight_map` is missing or not an object"));
    };
    let entry = |(tensor, shard): (&String, &Value)| {
        // A shard must be in the folder itself; any other path would read files that the user did not name.
        let shard = shard.as_str().filter(|name| Path::new(name).file_name().is_some_and(|own| own == *name));
        let shard = shard.ok_or_else(|| fail(&format!("the shard of `{tensor}` is not a plain file name")))?;
        Ok((tensor.clone(), shard.to_owned()))
    };
    map.iter().map(entry).collect()
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches an adapter in PyTorch's format whose error is that of the system, and a whole model's command for it.
    #[test]
    fn an_adapter_in_another_format_is_named_with_the_command_that_converts_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(ADAPTER_CONFIG), "{}").unwrap();
        let report = || weight_files(folder.path()).unwrap_err().report();
        assert!(report().contains("the adapter has no adapter_model.safetensors"), "{}", report());
        std::fs::write(folder.path().join("adapter_model.bin"), "").unwrap();
        let place = folder.path().join(ADAPTER_WEIGHTS).display().to_string();
        for part in ["adapter_model.bin", "weights_only=True", "save_file(", &place] {
            assert!(report().contains(part), "{part} in {}", report());
        }
    }
}
