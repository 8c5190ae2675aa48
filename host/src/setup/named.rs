//! Models that an experiment names: their folders, tokenizers and shapes, and placeholders for models that an earlier stage of
//! a pipeline will produce.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use crate::{
    config::{
        Loaded,
        experiment::{Model as ModelSource, Tokenizer as TokenizerSource},
    },
    data::{DataError, Source, Tokenizer, foreign},
    error::{Error, Result, refusal_text},
    files,
    model::ModelConfig,
    runs::checkpoint::find::{self, Checkpoint},
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
}

/// Models that have been read, by their names in the experiment.
pub(crate) type Named = Mutex<BTreeMap<String, Arc<NamedModel>>>;

/// Models that do not exist yet, by the folder of the run that will produce them.
pub type PendingModels = BTreeMap<PathBuf, Arc<NamedModel>>;

/// Returns the model in `from` if it does not exist yet.
pub(super) fn pending_model(pending: &PendingModels, from: &str) -> Option<Arc<NamedModel>> {
    pending.iter().find(|(folder, _)| Path::new(from).starts_with(folder)).map(|(_, model)| model.clone())
}

/// Checks that `loaded` was read from the same files as `checked`.
///
/// # Errors
/// A request error that names a file that changed in between.
pub(crate) fn check_unchanged(folder: &Path, checked: &ModelConfig, loaded: &ModelConfig) -> Result<()> {
    let changed = |(a, b): &(&Source, &Source)| a != b;
    let mut both = checked.files.iter().zip(&loaded.files);
    let name = match both.find(changed) {
        Some((file, _)) => file.path.as_path(),
        None if checked.files.len() == loaded.files.len() => return Ok(()),
        None => Path::new("a file"),
    };
    let message = format!("{}: {} changed while the run was starting", folder.display(), name.display());
    Err(Error::request(message).with_hint("start the run again once nothing writes there"))
}

/// Returns the folder with the weights of a run, a checkpoint or a Hugging Face model.
///
/// # Errors
/// A request error if the folder does not exist or contains no model, and for a run whose newest checkpoint is damaged.
pub fn model_folder(path: &Path) -> Result<PathBuf> {
    if let Some(checkpoint) = pointed_at(path)? {
        return Ok(checkpoint);
    }
    if path.is_file() {
        return Err(foreign::file_for_a_folder(path).into());
    }
    if !path.is_dir() {
        return Err(match foreign::missing(path) {
            DataError::Missing(_) => Error::request(format!("there is no model folder {}", path.display()))
                .with_hint("check the path; a model of the Hugging Face hub is downloaded first, by `hf download`"),
            hub => hub.into(),
        });
    }
    find::verify_named(path)?;
    if !files::is_missing(&path.join("config.json")) {
        return Ok(path.to_owned());
    }
    let checkpoints = if path.join("checkpoints").is_dir() { path.join("checkpoints") } else { path.to_owned() };
    if let Some(checkpoint) = find::latest(&checkpoints)? {
        return as_named(path, checkpoint);
    }
    let (other, remedy) = match foreign::other_weights(path) {
        Some((other, remedy)) => (format!("; {other}"), remedy),
        None => (String::new(), "name a run, a checkpoint or a Hugging Face folder".to_owned()),
    };
    let place = path.display();
    Err(Error::request(format!(
        "{place} is neither a model folder (it has no config.json) nor a run with a checkpoint{other}"
    ))
    .with_hint(remedy))
}

/// Resolves `checkpoints/LATEST` and `checkpoints/BEST`, in upper or lower case, to the checkpoint that the file of that name
/// points to.
fn pointed_at(path: &Path) -> Result<Option<PathBuf>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
    let Some(folder) = path.parent().filter(|_| !path.is_dir()) else { return Ok(None) };
    let checkpoint = match name.as_str() {
        find::LATEST => find::latest(folder)?,
        find::BEST => find::best(folder)?,
        _ => None,
    };
    checkpoint.map(|found| as_named(path, found)).transpose()
}

/// Returns the named checkpoint, never an earlier one: its results would be mistaken for those of the named one.
fn as_named(path: &Path, found: Checkpoint) -> Result<PathBuf> {
    let Some(why) = found.note else { return Ok(found.path) };
    let message = format!("the checkpoint that {} names cannot be used", path.display());
    let hint = format!("the newest complete one is {}; name it to use it", found.path.display());
    Err(Error::request(message).with_details([why]).with_hint(hint))
}

/// Opens the tokenizer in a file or folder, which may be that of a checkpoint.
fn tokenizer_at(path: &Path) -> Result<Tokenizer> {
    find::verify_tokenizer(if path.is_dir() { path } else { path.parent().unwrap_or(path) })?;
    Ok(Tokenizer::open(path)?)
}

/// Returns folder, tokenizer and shape of the model that the experiment begins with; no folder if the weights are fresh, or if
/// the model does not exist yet.
///
/// # Errors
/// A request error if there is no such model, or if its tokenizer does not fit.
pub(crate) fn model_and_tokenizer(
    loaded: &Loaded,
    pending: &PendingModels,
) -> Result<(Option<PathBuf>, Tokenizer, ModelConfig)> {
    let experiment = &loaded.experiment;
    let pending = match &experiment.model {
        ModelSource::From { from } => pending_model(pending, from),
        ModelSource::Shape(_) => None,
    };
    let folder = match &experiment.model {
        ModelSource::From { .. } if pending.is_some() => None,
        ModelSource::From { from } => {
            Some(model_folder(Path::new(from)).map_err(|e| loaded.refuse("model.from", refusal_text(&e)))?)
        }
        ModelSource::Shape(_) => None,
    };
    let mut tokenizer = match (&experiment.tokenizer, &folder) {
        (TokenizerSource::Bytes, _) => Tokenizer::bytes()?,
        (TokenizerSource::File { path }, _) => {
            tokenizer_at(Path::new(path)).map_err(|e| loaded.refuse("tokenizer.path", refusal_text(&e)))?
        }
        (TokenizerSource::Model, None) if let Some(model) = &pending => model.tokenizer.clone(),
        (TokenizerSource::Model, Some(folder)) => Tokenizer::open(folder)?,
        (TokenizerSource::Model, None) => {
            return Err(
                loaded.refuse("tokenizer.kind", "\"model\" needs model.from; with fresh weights choose bytes or file")
            );
        }
    };
    let config = match (&experiment.model, &folder) {
        (ModelSource::Shape(shape), _) => {
            let mut config = ModelConfig::from_shape(shape, shape.vocab.unwrap_or(tokenizer.vocab_size()))?;
            config.bos = tokenizer.bos();
            config.eos = tokenizer.eos().into_iter().collect();
            config
        }
        (ModelSource::From { .. }, Some(folder)) => ModelConfig::from_folder(folder)?,
        (ModelSource::From { .. }, None) => match pending {
            Some(model) => model.config.clone(),
            None => return Err(Error::run("model.from without a folder")),
        },
    };
    let is_the_models = matches!(experiment.tokenizer, TokenizerSource::Model);
    let is_of_the_model = match experiment.model {
        // Added tokens beyond the model's vocabulary are refused only if a text contains them, as in transformers.
        ModelSource::From { .. } => is_the_models || !tokenizer.has_words_beyond(config.vocab),
        ModelSource::Shape(_) => false,
    };
    if tokenizer.vocab_size() as u64 > config.vocab && !is_of_the_model {
        let (key, remedy) = match &experiment.model {
            ModelSource::From { .. } => ("tokenizer", "use the model's own tokenizer"),
            ModelSource::Shape(_) => ("model.vocab", "raise model.vocab, or leave it out"),
        };
        return Err(loaded.refuse(
            key,
            format!(
                "{} has {} tokens, the model's vocabulary {}; {remedy}",
                tokenizer.name(),
                tokenizer.vocab_size(),
                config.vocab
            ),
        ));
    }
    tokenizer.fit_to_model(&config.eos, config.vocab)?;
    Ok((folder, tokenizer, config))
}
