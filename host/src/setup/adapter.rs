//! The adapter that a run trains, over frozen weights that all models of the run share.

use std::path::Path;
use std::rc::Rc;

use super::{
    Setup,
    models::CRITIC_KEY,
    named::{AdapterStart, check_unchanged, model_folder},
};
use crate::{
    config::experiment::{POLICY, SELF},
    device::Device,
    error::{Result, refusal_text},
    model::{
        Model, ModelConfig, Outputs,
        adapter::config::{AdapterConfig, base_of, check_base, is_adapter},
    },
};

/// Name under which weights that do not exist yet are shared.
const PENDING: &str = "weights of an earlier stage";

impl Setup {
    /// Returns the frozen weights of the experiment's model, which all its adapters share.
    ///
    /// # Errors
    /// A request error that names file and tensor.
    pub fn frozen_weights(&self, device: &Device) -> Result<Rc<Model>> {
        let Some(folder) = &self.model_folder else {
            let place = Path::new(PENDING);
            return match self.bases.find(device, place) {
                Some(known) => Ok(known),
                None => {
                    // Those of an adapter that scores are the outputs of the adapter.
                    let outputs = Outputs { tokens: true, ..self.config.outputs };
                    let config = ModelConfig { outputs, ..self.config.clone() };
                    self.bases.insert(place, Model::init(device, config, self.experiment().seed)?)
                }
            };
        };
        let base = self.bases.load(device, folder)?;
        check_unchanged(folder, &self.config, base.config())?;
        Ok(base)
    }

    /// Returns the adapted model with these outputs, from `checkpoint` if given.
    pub(super) fn adapted_model(
        &self,
        device: &Device,
        start: &AdapterStart,
        checkpoint: Option<&Path>,
        outputs: Outputs,
    ) -> Result<Model> {
        let base = self.frozen_weights(device)?;
        let from = |folder: &Path| {
            self.model_folder.as_deref().map(|base| check_base(folder, base)).transpose()?;
            base.adapted_from(folder, outputs)
        };
        let mut model = match (checkpoint, start) {
            (Some(folder), _) => from(folder)?,
            (None, AdapterStart::Folder(folder)) => {
                from(folder).map_err(|e| self.loaded.refuse("model.adapter", refusal_text(&e)))?
            }
            (None, AdapterStart::Fresh(settings)) => base
                .adapted(outputs, settings.clone(), self.experiment().seed)
                .map_err(|e| self.loaded.refuse("model.lora.targets", refusal_text(&e)))?,
        };
        if checkpoint.is_none() && !outputs.tokens && self.config.outputs.tokens {
            model.reset_scalar()?;
        }
        if let Some(folder) = &self.model_folder {
            model.name_base(folder);
        }
        if let AdapterStart::Folder(_) = start {
            model.config_mut().notes.clone_from(&self.config.notes);
        }
        model.add_eos(self.tokenizer.eos());
        Ok(model)
    }

    /// Opens the model of a role. Adapters share their frozen weights; so does a frozen language model with the weights of a base. If the
    /// policy is an adapter, a critic is one too.
    pub(super) fn role_in(&self, device: &Device, folder: &Path, outputs: Outputs, key: &str) -> Result<Model> {
        if is_adapter(folder) {
            return self.bases.open(device, folder, outputs);
        }
        let trained = key == CRITIC_KEY;
        if let (Some(start), true) = (&self.adapter, trained) {
            let base = self.bases.load(device, folder)?;
            let mut model = base.adapted(outputs, start.settings(&self.config)?, self.experiment().seed)?;
            model.name_base(folder);
            return Ok(model);
        }
        let follows = self.experiment().reference.as_ref().is_some_and(|table| table.follow.is_some());
        let known = self.bases.find(device, folder).filter(|base| !trained && !follows && base.config().outputs.tokens);
        match known.filter(|_| outputs == Outputs::TOKENS) {
            Some(base) => Ok(base.frozen(outputs)),
            None => Model::from_folder_as(device, folder, outputs),
        }
    }

    /// Opens a model in a checkpoint of the run that began as `from`, the value of a role's key. An adapter is put over the weights that
    /// the experiment names now if those that it was trained over are no longer at their place; the receipt compares them.
    pub fn saved_role(&self, device: &Device, folder: &Path, from: &str, outputs: Outputs) -> Result<Model> {
        if !is_adapter(folder) {
            return self.bases.open(device, folder, outputs);
        }
        let config = AdapterConfig::read(folder)?;
        let place = match (from, config.base.local(folder)) {
            (SELF | POLICY, _) => self.model_folder.clone(),
            (_, Some(base)) => Some(base),
            (from, None) => {
                let named = model_folder(Path::new(from)).and_then(|named| base_of(&named));
                Some(named.or_else(|_| config.base.folder(folder))?)
            }
        };
        place.as_deref().map(|base| check_base(folder, base)).transpose()?;
        let base = match &place {
            Some(place) if ![SELF, POLICY].contains(&from) => self.bases.load(device, place)?,
            _ => self.frozen_weights(device)?,
        };
        let mut model = base.adapted_from(folder, outputs)?;
        if let Some(place) = place {
            model.name_base(&place);
        }
        Ok(model)
    }
}
