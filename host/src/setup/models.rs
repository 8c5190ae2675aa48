//! Loads the models that an experiment names.

use std::{
    path::Path,
    sync::{Arc, PoisonError},
};

use super::{
    Setup,
    named::{AdapterStart, NamedModel, check_unchanged, has_tokenizer, model_folder, pending_model, tokenizer_folder},
};
use crate::{
    config::experiment::Model as ModelSource,
    data::Tokenizer,
    device::Device,
    error::{Result, refusal_text},
    model::{Model, ModelConfig, Outputs, adapter::config::AdapterConfig},
};

/// The key of the one role besides the policy that is trained.
pub(super) const CRITIC_KEY: &str = "critic.from";

impl Setup {
    /// Returns the model with these outputs: loaded from `checkpoint` if given, else from the experiment's folder, else fresh.
    /// A value head in the experiment's folder is dropped if `outputs` does not include one.
    ///
    /// # Errors
    /// A request error that names file and tensor.
    pub fn model(&self, device: &Device, checkpoint: Option<&Path>, outputs: Outputs) -> Result<Model> {
        self.check_start(outputs)?;
        if let Some(start) = &self.adapter {
            return self.adapted_model(device, start, checkpoint, outputs);
        }
        let mut model = match (checkpoint, &self.model_folder) {
            (Some(checkpoint), _) => Model::from_checkpoint(device, checkpoint, outputs)?,
            (None, Some(folder)) => Model::from_folder_as(device, folder, outputs)?,
            (None, None) => {
                Model::init(device, ModelConfig { outputs, ..self.config.clone() }, self.experiment().seed)?
            }
        };
        if let (None, Some(folder)) = (checkpoint, &self.model_folder) {
            check_unchanged(folder, &self.config, model.config())?;
        }
        if checkpoint.is_none() && !outputs.tokens && self.config.outputs.tokens {
            model.reset_scalar()?;
        }
        model.add_eos(self.tokenizer.eos());
        Ok(model)
    }

    /// Checks that a model with these outputs can begin from the experiment's model.
    ///
    /// # Errors
    /// Request error if `model.from` has no language-model head but `outputs` needs one.
    pub fn check_start(&self, outputs: Outputs) -> Result<()> {
        if !outputs.tokens || self.config.outputs.tokens {
            return Ok(());
        }
        let why =
            "a reward model or critic: it has no language-model head; name the language model that it was trained from";
        Err(self.loaded.refuse(self.start_key(), why))
    }

    /// The key of the model that the policy begins as.
    pub fn start_key(&self) -> &'static str {
        match self.experiment().model {
            ModelSource::From { adapter: Some(_), .. } => "model.adapter",
            _ => "model.from",
        }
    }

    /// Returns tokenizer and shape of the model in `path` (a run, a checkpoint or a Hugging Face folder) without reading its
    /// weights.
    ///
    /// # Errors
    /// A request error if there is no model.
    pub fn named_model(&self, path: &str) -> Result<Arc<NamedModel>> {
        if let Some(model) = pending_model(&self.pending, path) {
            return Ok(model);
        }
        // Each model is read only once, so what is checked, loaded and recorded is the same.
        let mut known = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(model) = known.get(path) {
            return Ok(model.clone());
        }
        let folder = model_folder(Path::new(path))?;
        let (config, mut tokenizer) = match &self.adapter {
            // What it takes from its base is that of the weights that the run puts it over.
            Some(AdapterStart::Folder(own))
                if *own == folder && AdapterConfig::read(&folder)?.base.local(&folder).is_none() =>
            {
                let tokenizer = if has_tokenizer(&folder) { Tokenizer::open(&folder)? } else { self.tokenizer.clone() };
                (ModelConfig::of_adapter(&folder, &self.config)?, tokenizer)
            }
            _ => (ModelConfig::from_folder(&folder)?, Tokenizer::open(&tokenizer_folder(&folder)?)?),
        };
        tokenizer.fit_to_model(&config.eos, config.vocab)?;
        let model = Arc::new(NamedModel { folder: Some(folder), tokenizer, config, adapter: None });
        known.insert(path.to_owned(), model.clone());
        Ok(model)
    }

    /// Loads the model that `key` names; it must have the policy's tokenizer, and a context at least as long.
    ///
    /// # Errors
    /// A request error at `key`.
    pub fn role(&self, key: &str, device: &Device, path: &str, outputs: Outputs) -> Result<Model> {
        let model = self.role_of_any_context(key, device, path, outputs)?;
        let (context, wanted) = (model.config().context, self.config.context);
        if context < wanted {
            let why = format!(
                "{path} has a context of {context} tokens, the policy's is {wanted}; name a model with at least the policy's"
            );
            return Err(self.loaded.refuse(key, why));
        }
        Ok(model)
    }

    /// Loads the model that `key` names; it must have the policy's tokenizer.
    ///
    /// # Errors
    /// A request error at `key`.
    pub fn role_of_any_context(&self, key: &str, device: &Device, path: &str, outputs: Outputs) -> Result<Model> {
        let refuse = |why: String| self.loaded.refuse(key, why);
        let named = self.named_model(path).map_err(|e| refuse(refusal_text(&e)))?;
        let model = match &named.folder {
            Some(folder) => {
                let model = self.role_in(device, folder, outputs, key);
                let model = model.map_err(|e| refuse(refusal_text(&e)))?;
                check_unchanged(folder, &named.config, model.config())?;
                model
            }
            None if outputs.tokens && !named.config.outputs.tokens => {
                return Err(refuse(format!("{path} is a reward model or critic: it has no language-model head")));
            }
            None => {
                let fresh =
                    Model::init(device, ModelConfig { outputs, ..named.config.clone() }, self.experiment().seed)?;
                match (&named.adapter, key == CRITIC_KEY) {
                    (Some(adapter), true) => {
                        fresh.adapted(outputs, adapter.settings.clone(), self.experiment().seed)?
                    }
                    _ => fresh,
                }
            }
        };
        if named.tokenizer.hash() != self.tokenizer.hash() {
            let own = self.tokenizer.name();
            return Err(refuse(format!("{path} has another tokenizer than {own}")));
        }
        Ok(model)
    }
}
