//! An adapter's folder, in PEFT's layout: `adapter_config.json` and `adapter_model.safetensors`. A saved adapter has the model's
//! config beside them.

use std::collections::BTreeMap;
use std::path::Path;

use plugin_api::abi::DType;
use safetensors::tensor::Dtype;

use crate::error::{Error, Result};
use crate::model::adapter::base::BASE_SHA256;
use crate::model::adapter::config::{ADAPTED_CONFIG, ADAPTER_CONFIG, ADAPTER_WEIGHTS, AdapterConfig, to_json};
use crate::model::adapter::{Adapter, PREFIX, Settings, Shape, module, target_names};
use crate::model::files::refusal::refusal;
use crate::model::files::save::{stored_tensor, write_text};
use crate::model::files::tensor_file::{TensorFile, write_tensors};
use crate::model::files::weights::adapter_weights;
use crate::model::loaded::Model;
use crate::model::params::{Layout, SCALAR_HEAD};
use crate::model::shape::config::{ModelConfig, Outputs};

impl Model {
    /// Returns a model of the same frozen weights with the adapter in `folder`, wherever its files say that these weights are. A scalar
    /// head that the folder lacks starts as that of the frozen weights, or at 0.
    ///
    /// # Errors
    /// A request error that lists every missing or extra tensor and every tensor of the wrong shape; an adapter of a reward model if
    /// `outputs` needs a language model.
    pub(crate) fn adapted_from(&self, folder: &Path, outputs: Outputs) -> Result<Model> {
        let config = &AdapterConfig::read(folder)?;
        let own = ModelConfig::of_adapter(folder, &self.config)?;
        if outputs.tokens && !(self.config.outputs.tokens && own.outputs.tokens) {
            let what = format!("{} is a reward model or critic: it has no language-model head", folder.display());
            return Err(Error::request(what).with_hint("name the language model that it was trained from"));
        }
        let mut file = TensorFile::open(&adapter_weights(folder)?)?;
        let stored = by_own_name(&file, self.layout(), &self.config);
        let settings = settings(config, &stored, self.layout())?;
        // Names and shapes are checked before anything is allocated.
        let table = Shape::new(self.layout(), &settings, outputs.scalar.then_some(self.config.dim))?.table;
        let mut mistakes = Vec::new();
        for (name, parameter) in table.parameters().iter().map(|parameter| (&parameter.name, parameter)) {
            let Some(theirs) = stored.get(name) else {
                if !name.ends_with(SCALAR_HEAD) {
                    mistakes.push(format!("`{name}` {:?} is missing", parameter.stored_shape()));
                }
                continue;
            };
            let (shape, expected) = (file.shape(theirs).unwrap_or_default(), parameter.stored_shape());
            if shape != expected {
                mistakes.push(format!("`{theirs}` has shape {shape:?}, expected {expected:?}"));
            }
        }
        let known = |name: &str| table.index(name).is_some() || name == format!("{PREFIX}{SCALAR_HEAD}");
        for (_, theirs) in stored.iter().filter(|(name, _)| !known(name)) {
            mistakes.push(format!("`{theirs}` is extra: the settings describe no such tensor"));
        }
        if !mistakes.is_empty() {
            let what = format!("{}: the tensors do not fit {ADAPTER_CONFIG} and the base model", file.path().display());
            return Err(refusal(what, mistakes));
        }
        // The scalar head starts as that of the frozen weights; the factors are all overwritten.
        let mut model = self.adapted(outputs, settings, 0)?;
        model.config.take_from_adapter(own, outputs);
        let Some(adapter) = &mut model.adapter else { return Err(Error::run("an adapted model without an adapter")) };
        adapter.base = config.base.clone();
        for parameter in table.parameters() {
            let Some(theirs) = stored.get(&parameter.name) else { continue };
            let values = file.values(theirs)?;
            if let Some(value) = values.iter().find(|value| !(**value as f32).is_finite()) {
                let place = file.path().display();
                return Err(Error::request(format!(
                    "{place}: tensor `{theirs}` holds {value}, which is not finite in f32"
                )));
            }
            adapter.params.upload(parameter.offset, &parameter.from_stored(values))?;
        }
        model.refresh_shadow()?;
        Ok(model)
    }

    /// Writes the adapter's files, the model's config and `generation_config.json` into an existing folder.
    pub(in crate::model) fn save_adapter(&self, adapter: &Adapter, folder: &Path) -> Result<()> {
        let (dtype, name) = match adapter.params.dtype() {
            DType::F64 => (Dtype::F64, "float64"),
            _ => (Dtype::F32, "float32"),
        };
        let stored = |parameter| stored_tensor(&adapter.params, parameter, dtype);
        let tensors: Vec<_> = adapter.table.parameters().iter().map(stored).collect();
        write_tensors(&folder.join(ADAPTER_WEIGHTS), &tensors, true)?;
        let own = &self.config;
        let json = to_json(&adapter.settings, &adapter.base, own.outputs, own.family.stored_transposed);
        let text = serde_json::to_string_pretty(&json)
            .map_err(|cause| Error::run(format!("cannot write {ADAPTER_CONFIG}")).with_cause(cause))?;
        write_text(&folder.join(ADAPTER_CONFIG), text + "\n")?;
        // Weights that were replaced since they were loaded, and that nothing has read before, have no hash: the run continues.
        let base = adapter.base_weights.as_ref().and_then(|seen| seen.sha256().ok());
        self.save_config(folder, ADAPTED_CONFIG, name, base.map(|sha256| (BASE_SHA256, sha256)))
    }
}

/// Returns the file's tensors by the names that this program gives them: a file may leave out the prefix of the family.
fn by_own_name(file: &TensorFile, layout: &Layout, config: &ModelConfig) -> BTreeMap<String, String> {
    let known = |name: &str| {
        let name = name.strip_prefix(PREFIX).unwrap_or(name);
        let weight = name.rsplit_once(".lora_").map(|(module, _)| format!("{module}.weight"));
        weight.is_some_and(|weight| layout.index(&weight).is_some())
    };
    let own = |name: &String| {
        let longer = name.strip_prefix(PREFIX).map(|rest| format!("{PREFIX}{}{rest}", config.family.names.prefix));
        longer.filter(|longer| !known(name) && known(longer)).unwrap_or_else(|| name.clone())
    };
    file.names().into_iter().map(|name| (own(&name), name)).collect()
}

/// Returns the settings of the adapter in `folder` over a model with the config `base`; of a pattern, the names of the maps that have
/// factors.
///
/// # Errors
/// A request error for an adapter that cannot be read, or that has no factors of a map of the model.
pub fn settings_of(folder: &Path, base: &ModelConfig) -> Result<Settings> {
    let config = AdapterConfig::read(folder)?;
    if !config.partial {
        return Ok(config.settings);
    }
    let layout = Layout::new(base)?;
    let file = TensorFile::open(&adapter_weights(folder)?)?;
    settings(&config, &by_own_name(&file, &layout, base), &layout)
}

/// Returns the settings with the targets that the file has factors for.
fn settings(config: &AdapterConfig, stored: &BTreeMap<String, String>, layout: &Layout) -> Result<Settings> {
    let mut settings = config.settings.clone();
    if config.partial {
        let adapted = |module: &String| {
            let name = format!("{PREFIX}{module}.lora_");
            stored.range(name.clone()..).next().is_some_and(|(stored, _)| stored.starts_with(&name))
        };
        let modules = layout.linears().map(|linear| module(&layout.parameters()[linear.weight]).to_owned());
        settings.targets = modules.filter(adapted).collect();
        if settings.targets.is_empty() {
            let names = target_names(layout).join(", ");
            return Err(Error::request(format!("{ADAPTER_WEIGHTS} has no factors of a linear map that the model has"))
                .with_hint(format!("its linear maps are {names}")));
        }
    }
    Ok(settings)
}
