//! Models that an earlier stage of a pipeline will produce, and that a later stage of it names.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    config::experiment::Model as ModelSource,
    data::Tokenizer,
    error::Result,
    model::{ModelConfig, adapter::Settings, files::hash::same_weights},
    runs::checkpoint::find::MERGED,
};

/// A model that an experiment names.
pub struct NamedModel {
    /// Its folder; `None` if an earlier stage of a pipeline will produce it and has not run yet. Fresh weights are used in its
    /// place.
    pub folder: Option<PathBuf>,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Its shape.
    pub config: ModelConfig,
    /// Its adapter, if it is one that does not exist yet.
    pub adapter: Option<PendingAdapter>,
}

/// An adapter that an earlier stage of a pipeline will produce.
#[derive(Clone)]
pub struct PendingAdapter {
    /// Its settings.
    pub settings: Settings,
    /// `model.from` of its stage.
    pub(super) base: String,
    /// The folder of that model; `None` if it does not exist yet either.
    base_folder: Option<PathBuf>,
}

impl PendingAdapter {
    /// Returns the adapter that an experiment with this `[model]` will produce; `folder` is that of `model.from`, if it exists.
    pub fn of(model: &ModelSource, folder: Option<&Path>, settings: Settings) -> PendingAdapter {
        let base = match model {
            ModelSource::From { from, .. } => from.clone(),
            ModelSource::Shape(_) => String::new(),
        };
        PendingAdapter { settings, base, base_folder: folder.map(Path::to_owned) }
    }

    /// Whether its weights will be those of a model named `from`, which is in `folder` or does not exist yet. Two models of one stage may
    /// be the same checkpoint.
    pub(super) fn is_over(&self, from: &str, folder: Option<&Path>, pending: &PendingModels) -> Result<bool> {
        let stage = |from: &str| pending.keys().find(|stage| Path::new(from).starts_with(stage));
        match (&self.base_folder, folder) {
            (Some(own), Some(other)) => same_weights(own, other),
            (None, None) => Ok(self.base == from || stage(&self.base) == stage(from)),
            _ => Ok(false),
        }
    }
}

/// Models that do not exist yet, by the folder of the run that will produce them.
pub type PendingModels = BTreeMap<PathBuf, Arc<NamedModel>>;

/// Returns the model in `from` if it does not exist yet.
pub(in crate::setup) fn pending_model(pending: &PendingModels, from: &str) -> Option<Arc<NamedModel>> {
    let within = |folder: &PathBuf| Path::new(from).strip_prefix(folder).ok();
    let (within, model) = pending.iter().find_map(|(folder, model)| Some((within(folder)?, model)))?;
    // Only what follows the folder counts: a stage may be named so too.
    if model.adapter.is_none() || !within.ends_with(MERGED) {
        return Some(model.clone());
    }
    let (tokenizer, config) = (model.tokenizer.clone(), model.config.clone());
    Some(Arc::new(NamedModel { folder: None, tokenizer, config, adapter: None }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter_over(base: &str, base_folder: Option<&Path>) -> PendingAdapter {
        let settings = Settings { rank: 1, alpha: 1.0, targets: vec!["q_proj".into()], rslora: false };
        PendingAdapter { settings, base: base.to_owned(), base_folder: base_folder.map(Path::to_owned) }
    }

    /// Catches a stage that puts an earlier stage's adapter over other weights than those that it is trained on, such as the merged model
    /// of the same stage, and one that is refused although the weights are the same.
    #[test]
    fn an_adapter_of_a_stage_belongs_to_the_weights_of_that_stage() {
        let folder = tempfile::tempdir().unwrap();
        let [base, copy, other] = ["base", "copy", "other"].map(|name| folder.path().join(name));
        for (place, text) in [(&base, "abc"), (&copy, "abc"), (&other, "abd")] {
            std::fs::create_dir(place).unwrap();
            std::fs::write(place.join("model.safetensors"), text).unwrap();
        }
        let model = |adapter| {
            let config = r#"{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8,
                "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 512}"#;
            let config = ModelConfig::parse(config, "config.json").unwrap();
            Arc::new(NamedModel { folder: None, tokenizer: Tokenizer::bytes().unwrap(), config, adapter })
        };
        let sft = adapter_over("base", Some(&base));
        let pending =
            PendingModels::from([("runs/p/sft".into(), model(Some(sft.clone()))), ("runs/p/full".into(), model(None))]);
        let is_over = |adapter: &PendingAdapter, from: &str, folder: Option<&Path>| {
            adapter.is_over(from, folder, &pending).unwrap()
        };
        assert!(is_over(&sft, "base", Some(&base)) && is_over(&sft, "copy", Some(&copy)));
        assert!(!is_over(&sft, "other", Some(&other)));
        assert!(!is_over(&sft, "runs/p/sft/checkpoints/LATEST/merged", None));
        let later = adapter_over("runs/p/full", None);
        assert!(is_over(&later, "runs/p/full", None) && is_over(&later, "runs/p/full/checkpoints/BEST", None));
        assert!(
            !is_over(&later, "runs/p/sft/checkpoints/LATEST/merged", None) && !is_over(&later, "base", Some(&base))
        );
    }

    /// Catches a stage named "merged" whose adapter is taken for a merged model.
    #[test]
    fn a_stage_may_be_named_merged() {
        let config = r#"{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8,
            "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 512}"#;
        let adapter = adapter_over("base", None);
        let model = NamedModel {
            folder: None,
            tokenizer: Tokenizer::bytes().unwrap(),
            config: ModelConfig::parse(config, "config.json").unwrap(),
            adapter: Some(adapter),
        };
        let pending = PendingModels::from([("runs/pipe/merged".into(), Arc::new(model))]);
        let is_adapter = |from: &str| pending_model(&pending, from).map(|model| model.adapter.is_some());
        assert_eq!(is_adapter("runs/pipe/merged"), Some(true));
        assert_eq!(is_adapter("runs/pipe/merged/checkpoints/BEST"), Some(true));
        assert_eq!(is_adapter("runs/pipe/merged/checkpoints/LATEST/merged"), Some(false));
        assert_eq!(is_adapter("runs/pipe/other"), None);
    }
}
