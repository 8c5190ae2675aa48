//! A model from a folder: its weights, or an adapter over the frozen weights of the folder that `adapter_config.json` names.
//! Frozen weights are loaded once for all models that adapt them.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::adapter::config::{AdapterConfig, check_base, is_adapter};
use super::loaded::Model;
use super::shape::config::{ModelConfig, Outputs};
use crate::device::Device;
use crate::error::{Error, Result};

/// The frozen weights of one or more devices, by the folder that they were loaded from.
#[derive(Default)]
pub struct Bases(RefCell<Vec<(PathBuf, Rc<Model>)>>);

impl Bases {
    /// Returns the frozen weights of `folder` on `device`, loaded now or earlier.
    ///
    /// # Errors
    /// A request error that names file and key or tensor; a folder that is an adapter itself.
    pub fn load(&self, device: &Device, folder: &Path) -> Result<Rc<Model>> {
        if let Some(known) = self.find(device, folder) {
            return Ok(known);
        }
        if is_adapter(folder) {
            let what = format!("{} is an adapter; an adapter needs a model with weights as its base", folder.display());
            return Err(Error::request(what)
                .with_hint("set checkpoint.merged = true in its run, and name checkpoints/LATEST/merged of it"));
        }
        let outputs = ModelConfig::from_folder(folder)?.outputs;
        self.insert(folder, Model::load(device, folder, outputs, true)?)
    }

    /// Adds frozen weights under the name `folder`, which need not exist, and returns them.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn insert(&self, folder: &Path, model: Model) -> Result<Rc<Model>> {
        let model = Rc::new(model);
        self.0.borrow_mut().push((place(folder), model.clone()));
        Ok(model)
    }

    /// Returns the frozen weights of `folder` on `device` if they are loaded.
    pub fn find(&self, device: &Device, folder: &Path) -> Option<Rc<Model>> {
        let place = place(folder);
        let all = self.0.borrow();
        all.iter().find(|(known, model)| *known == place && model.device().same(device)).map(|(_, model)| model.clone())
    }

    /// Drops the frozen weights that no model uses.
    pub fn drop_unused(&self) {
        self.0.borrow_mut().retain(|(_, model)| Rc::strong_count(&model.params) > 1);
    }

    /// Allocates a model of the same size as `model`, whose values are undefined. Models that share frozen weights with each other share
    /// them in the copies too.
    ///
    /// # Errors
    /// The device is out of memory.
    pub(crate) fn like(&self, device: &Device, model: &Model) -> Result<Model> {
        let shared = model.adapter.is_some() || Rc::strong_count(&model.params) > 1;
        if !shared {
            return Model::allocate(device, model.config.clone());
        }
        let name = PathBuf::from(format!("{:p}", Rc::as_ptr(&model.params)));
        let base = match self.find(device, &name) {
            Some(known) => known,
            None => {
                let layout = &model.layout;
                let tokens = model.config.tied || layout.head != layout.embedding;
                let outputs = Outputs { tokens, scalar: layout.scalar.is_some() };
                let config = ModelConfig { outputs, ..model.config.clone() };
                self.insert(&name, Model::allocate_frozen(device, config)?)?
            }
        };
        match &model.adapter {
            Some(adapter) => base.with_undefined_adapter(model.config.outputs, adapter.settings().clone()),
            None => Ok(base.frozen(model.config.outputs)),
        }
    }

    /// Opens a folder with these outputs: an adapter over shared weights, or a model with weights of its own.
    ///
    /// # Errors
    /// As [`Model::from_folder_as`].
    pub fn open(&self, device: &Device, folder: &Path, outputs: Outputs) -> Result<Model> {
        if !is_adapter(folder) {
            return Model::load(device, folder, outputs, false);
        }
        let base = AdapterConfig::read(folder)?.base.folder(folder)?;
        check_base(folder, &base)?;
        let mut model = self.load(device, &base)?.adapted_from(folder, outputs)?;
        // Saved elsewhere, a relative path would name another folder, and a name of the hub another revision.
        model.name_base(&base);
        Ok(model)
    }
}

fn place(folder: &Path) -> PathBuf {
    fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned())
}

impl Model {
    /// Loads the model of a Hugging Face folder: `config.json` and `model.safetensors`, or shards with their index; or an adapter
    /// with the weights that it names.
    ///
    /// # Errors
    /// A request error that names file and key or tensor; nothing is allocated before all names and shapes match.
    pub fn from_folder(device: &Device, folder: &Path) -> Result<Model> {
        let config = ModelConfig::from_folder(folder)?;
        Model::from_folder_as(device, folder, config.outputs)
    }

    /// Loads the model of a folder with other outputs. A scalar head that the folder lacks starts at 0, so its output is 0 for
    /// every input; heads that are not in `outputs` are dropped.
    ///
    /// # Errors
    /// As [`Model::from_folder`]; a folder without a language-model head if `outputs` needs one.
    pub fn from_folder_as(device: &Device, folder: &Path, outputs: Outputs) -> Result<Model> {
        Bases::default().open(device, folder, outputs)
    }
}

#[cfg(test)]
mod tests {
    use backend_reference::Reference;
    use plugin_api::abi::DType;

    use super::*;
    use crate::model::adapter::Settings;
    use crate::model::adapter::config::ADAPTER_CONFIG;

    const TINY: &str = r#"{"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 12, "vocab_size": 11, "max_position_embeddings": 8, "tie_word_embeddings": true}"#;

    /// Catches an adapter that names its base by a path from its own folder and is saved elsewhere with the same path.
    #[test]
    fn an_adapter_that_is_saved_elsewhere_keeps_its_base() {
        let device = Device::new(Box::new(Reference::new(1)), DType::F64).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let [base, peft, copy] = ["base", "peft", "runs/step-4/critic"].map(|name| folder.path().join(name));
        [&base, &peft, &copy].iter().for_each(|place| fs::create_dir_all(place).unwrap());
        let model = Model::init(&device, ModelConfig::parse(TINY, "config.json").unwrap(), 5).unwrap();
        model.save(&base).unwrap();
        let settings = Settings { rank: 1, alpha: 1.0, targets: vec!["q_proj".into()], rslora: false };
        let mut adapter = model.adapted(Outputs::TOKENS, settings, 7).unwrap();
        adapter.name_base(Path::new("no such folder"));
        adapter.save(&peft).unwrap();
        let config = fs::read_to_string(peft.join(ADAPTER_CONFIG)).unwrap();
        assert!(config.contains("no such folder"));
        fs::write(peft.join(ADAPTER_CONFIG), config.replace("no such folder", "../base")).unwrap();
        let opened = Model::from_folder(&device, &peft).unwrap();
        assert_eq!(opened.base_folder(), Some(peft.join("../base").as_path()));
        opened.save(&copy).unwrap();
        let named = AdapterConfig::read(&copy).unwrap().base.local(&copy).expect("its base");
        assert_eq!(place(&named), place(&base));
    }
}
