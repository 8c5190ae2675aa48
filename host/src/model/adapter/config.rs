//! `adapter_config.json` as PEFT writes it, read and written.
//!
//! A key that would change the function and is not implemented is refused with file, key and value, also if it is not known.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::data::Inputs;
use crate::error::{Error, Result};
pub use crate::model::adapter::base::{ADAPTED_CONFIG, check_base, is_base_of, other_base};
use crate::model::adapter::base::{BASE_NAME, Base};
use crate::model::adapter::{ALL_LINEAR, Settings};
pub use crate::model::files::weights::{ADAPTER_CONFIG, ADAPTER_WEIGHTS, is_adapter};
use crate::model::shape::config::{CONFIG_FILE, ModelConfig, Outputs};
use crate::model::shape::keys::{Reader, read_text};

/// PEFT's task of a language model.
const LANGUAGE_MODEL: &str = "CAUSAL_LM";
/// The module of a scalar head, in PEFT's list of modules that are saved whole.
const SCORE: &str = "score";
/// Highest rank that is read.
pub const MOST_RANK: u64 = 1 << 16;

/// Keys that do not change the function: names, versions, and how an adapter was initialised or trained.
const HARMLESS: &[&str] = &[
    "task_type",
    "auto_mapping",
    "peft_version",
    "revision",
    "inference_mode",
    "fan_in_fan_out",
    "megatron_core",
    "loftq_config",
    "eva_config",
    "qalora_group_size",
    "ensure_weight_tying",
    // Which of the targets have factors is read from the tensors.
    "layers_to_transform",
    "layers_pattern",
    "exclude_modules",
];
/// Values of `init_lora_weights` that leave the base as it is; true and false do too.
const INITS: &[&str] = &["gaussian", "eva", "orthogonal"];

/// The settings in a folder's `adapter_config.json`.
#[derive(Debug, Clone)]
pub struct AdapterConfig {
    /// Rank, scale and targets; no targets if `target_modules` is a pattern.
    pub settings: Settings,
    /// Whether the file may have factors for some of its targets only.
    pub partial: bool,
    /// Place of the base model.
    pub base: Base,
    /// Its outputs, if it has a scalar head; else they are those of its base.
    pub outputs: Option<Outputs>,
    /// Notes for the user about keys that have no effect here.
    pub notes: Vec<String>,
}

/// Returns the folder with the weights that `folder` computes with: that of its base if it is an adapter, else itself.
///
/// # Errors
/// A request error for a base that does not exist.
pub fn base_of(folder: &Path) -> Result<PathBuf> {
    if !is_adapter(folder) {
        return Ok(folder.to_owned());
    }
    AdapterConfig::read(folder)?.base.folder(folder)
}

impl AdapterConfig {
    /// Reads the file of `folder`.
    ///
    /// # Errors
    /// A request error that names file, key and value.
    pub fn read(folder: &Path) -> Result<AdapterConfig> {
        AdapterConfig::from_inputs(&mut Inputs::of(folder)?)
    }

    fn from_inputs(inputs: &mut Inputs) -> Result<AdapterConfig> {
        let file = inputs.path(ADAPTER_CONFIG).display().to_string();
        AdapterConfig::parse(&read_text(inputs, ADAPTER_CONFIG)?, &file)
    }

    /// Reads the text of an `adapter_config.json`; `file` names it in errors.
    ///
    /// # Errors
    /// A request error that names file, key and value.
    pub fn parse(text: &str, file: &str) -> Result<AdapterConfig> {
        let value: Value = serde_json::from_str(text)
            .map_err(|cause| Error::request(format!("{file}: not valid JSON")).with_cause(cause))?;
        let Value::Object(map) = value else {
            return Err(Error::request(format!("{file}: expected a JSON object")));
        };
        read(&Reader { file, map: &map })
    }

    /// Returns the config of a model with this adapter over weights with the config `base`.
    fn over(&self, base: &ModelConfig) -> ModelConfig {
        let mut config = base.clone();
        config.outputs = self.outputs.unwrap_or(config.outputs);
        config.notes.extend(self.notes.iter().cloned());
        config
    }
}

/// Returns the config of the base of an adapter's folder.
pub(in crate::model) fn model_config(folder: &Path, inputs: &mut Inputs) -> Result<ModelConfig> {
    let adapter = AdapterConfig::from_inputs(inputs)?;
    let base = adapter.base.folder(folder)?;
    if is_adapter(&base) {
        let what = format!("{}: its base, {}, is an adapter too", folder.display(), base.display());
        return Err(Error::request(what)
            .with_hint("set checkpoint.merged = true in its run, and name checkpoints/LATEST/merged of it"));
    }
    Ok(adapter.over(&ModelConfig::from_folder(&base)?))
}

/// As [`model_config`], for a base with the config `base`, wherever the adapter's files say that it is.
pub(in crate::model) fn config_over(base: &ModelConfig, inputs: &mut Inputs) -> Result<ModelConfig> {
    Ok(AdapterConfig::from_inputs(inputs)?.over(base))
}

/// Whether the config of the model in this folder is that of an adapter's base.
pub(in crate::model) fn has_no_config(inputs: &Inputs) -> bool {
    !inputs.has(CONFIG_FILE) && inputs.has(ADAPTER_CONFIG)
}

fn read(file: &Reader<'_>) -> Result<AdapterConfig> {
    if file.get("peft_type").and_then(Value::as_str) != Some("LORA") {
        return Err(wrong(file, "peft_type", "\"LORA\", the only kind of adapter that is implemented"));
    }
    for (key, value) in file.map {
        check(file, key, value)?;
    }
    let rank = file.get("r").and_then(Value::as_u64).filter(|rank| (1..=MOST_RANK).contains(rank));
    let rank = rank.ok_or_else(|| wrong(file, "r", "a rank from 1"))?;
    let alpha = file.get("lora_alpha").and_then(Value::as_f64).filter(|alpha| *alpha > 0.0 && alpha.is_finite());
    let alpha = alpha.ok_or_else(|| wrong(file, "lora_alpha", "a number above 0"))?;
    let given = |key: &str| file.get(key).is_some_and(|value| !is_off(value));
    let (targets, pattern) = targets(file)?;
    let notes = file
        .get("lora_dropout")
        .filter(|value| value.as_f64() != Some(0.0))
        .map(|value| format!("{}: `lora_dropout` = {value} has no effect: Telos trains without dropout", file.file));
    let name_of = |key: &str| {
        let name = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(|| wrong(file, key, "text, or null"));
        file.get(key).map(name).transpose()
    };
    let is_language_model = name_of("task_type")?.as_deref() == Some(LANGUAGE_MODEL);
    Ok(AdapterConfig {
        settings: Settings { rank, alpha, targets, rslora: file.flag("use_rslora", false)? },
        partial: pattern || ["layers_to_transform", "exclude_modules", "layers_pattern"].into_iter().any(given),
        base: Base { name: name_of(BASE_NAME)?.unwrap_or_default(), revision: name_of("revision")? },
        outputs: saved_whole(file)?.then_some(if is_language_model { Outputs::BOTH } else { Outputs::SCALAR }),
        notes: notes.into_iter().collect(),
    })
}

/// Refuses a key that changes the function and is not implemented.
fn check(file: &Reader<'_>, key: &str, value: &Value) -> Result<()> {
    let known = match key {
        "peft_type" | "r" | "lora_alpha" | "use_rslora" | "target_modules" | BASE_NAME => true,
        "modules_to_save" | "lora_dropout" => true,
        "bias" => value.is_null() || value.as_str() == Some("none"),
        "init_lora_weights" => {
            value.is_null() || value.is_boolean() || value.as_str().is_some_and(|init| INITS.contains(&init))
        }
        _ => HARMLESS.contains(&key) || is_off(value),
    };
    if known {
        return Ok(());
    }
    let hint = match key {
        "use_dora" => "DoRA rescales every row of the adapted weights, which the operations of backends do not compute",
        "rank_pattern" | "alpha_pattern" => "all adapted linear maps must have the same rank and scale",
        "bias" => "train the adapter with bias = \"none\"",
        "init_lora_weights" => "this initialisation changes the base; convert the adapter with PEFT first",
        _ => "merge the adapter with PEFT, and use the merged model",
    };
    Err(file.refuse(key, value).with_hint(hint))
}

/// Returns the targets, and whether they are a pattern instead.
fn targets(file: &Reader<'_>) -> Result<(Vec<String>, bool)> {
    let expected = || wrong(file, "target_modules", "a list of names, or a pattern");
    match file.get("target_modules") {
        Some(Value::String(all)) if all == ALL_LINEAR => Ok((vec![all.clone()], false)),
        Some(Value::String(_)) => Ok((Vec::new(), true)),
        Some(Value::Array(names)) if !names.is_empty() => {
            let name = |name: &Value| name.as_str().map(str::to_owned).ok_or_else(expected);
            Ok((names.iter().map(name).collect::<Result<_>>()?, false))
        }
        _ => Err(expected()),
    }
}

/// Returns whether a scalar head is saved whole; refuses other modules.
fn saved_whole(file: &Reader<'_>) -> Result<bool> {
    let Some(value) = file.get("modules_to_save") else { return Ok(false) };
    let names = value.as_array().ok_or_else(|| wrong(file, "modules_to_save", "null or a list of names"))?;
    // PEFT adds both names for models that classify sequences; a model has one of them.
    let known = |name: &&Value| name.as_str() == Some(SCORE) || name.as_str() == Some("classifier");
    if let Some(other) = names.iter().find(|name| !known(name)) {
        let what =
            format!("{}: `modules_to_save` names {other}: modules trained as a whole are not implemented", file.file);
        return Err(Error::request(what).with_hint(
            "the exception is `score`, a scalar head; merge the adapter with PEFT, and use the merged model",
        ));
    }
    Ok(names.iter().any(|name| name.as_str() == Some(SCORE)))
}

fn wrong(file: &Reader<'_>, key: &str, expected: &str) -> Error {
    match file.get(key) {
        Some(value) => file.wrong(key, value, expected),
        None => Error::request(format!("{}: `{key}` is missing, expected {expected}", file.file)),
    }
}

/// Whether a value switches a key off.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

/// Returns the file for these settings.
pub(super) fn to_json(settings: &Settings, base: &Base, outputs: Outputs, transposed: bool) -> Value {
    json!({
        "alpha_pattern": {},
        "auto_mapping": null,
        BASE_NAME: base.name,
        "bias": "none",
        "fan_in_fan_out": transposed,
        "inference_mode": true,
        "init_lora_weights": true,
        "layers_pattern": null,
        "layers_to_transform": null,
        "lora_alpha": number(settings.alpha),
        "lora_dropout": 0.0,
        "modules_to_save": if outputs.scalar { json!([SCORE]) } else { Value::Null },
        "peft_type": "LORA",
        "r": settings.rank,
        "rank_pattern": {},
        "revision": base.revision,
        "target_modules": settings.targets,
        "task_type": if outputs.tokens { LANGUAGE_MODEL } else { "SEQ_CLS" },
        "use_dora": false,
        "use_rslora": settings.rslora,
    })
}

/// Whole numbers are written as PEFT writes them.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(changes: &[(&str, Value)]) -> Result<AdapterConfig> {
        let mut config = json!({
            "peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"], "bias": "none", "lora_dropout": 0.0,
            "base_model_name_or_path": "base", "modules_to_save": null, "rank_pattern": {}, "use_dora": false,
        });
        for (key, value) in changes {
            config[*key] = value.clone();
        }
        AdapterConfig::parse(&config.to_string(), "adapter_config.json")
    }

    /// Catches a key that changes the function and is ignored, also one that no version of PEFT has yet.
    #[test]
    fn keys_that_change_the_function_are_refused_by_name() {
        for (key, value) in [
            ("use_dora", json!(true)),
            ("rank_pattern", json!({"q_proj": 4})),
            ("alpha_pattern", json!({"q_proj": 4})),
            ("bias", json!("all")),
            ("modules_to_save", json!(["lm_head"])),
            ("init_lora_weights", json!("pissa")),
            ("trainable_token_indices", json!([1])),
            ("target_parameters", json!(["experts.w"])),
            ("layer_replication", json!([[0, 2]])),
            ("lora_bias", json!(true)),
            ("key_of_next_year", json!(3)),
            ("peft_type", json!("IA3")),
            ("r", json!(0)),
            ("r", json!(1u64 << 40)),
            ("r", json!("8")),
            ("lora_alpha", json!(null)),
            ("lora_alpha", json!(0)),
            ("lora_alpha", json!(-1)),
            ("base_model_name_or_path", json!(5)),
            ("revision", json!(5)),
            ("task_type", json!(["CAUSAL_LM"])),
            ("target_modules", json!([])),
            ("target_modules", json!([3])),
            ("use_rslora", json!("yes")),
        ] {
            let report = parse(&[(key, value.clone())]).expect_err(key).report();
            assert!(report.contains("adapter_config.json") && report.contains(key), "{key} = {value}: {report}");
        }
        for text in ["", "[]", "{\"peft_type\": \"LORA\"}"] {
            assert!(AdapterConfig::parse(text, "x").is_err(), "{text}");
        }
    }

    /// Catches a scale of another formula, a pattern that is read as a name, and dropout that is dropped without a note.
    #[test]
    fn settings_are_those_of_the_file() {
        let plain = parse(&[]).unwrap();
        assert_eq!((plain.settings.scale(), plain.partial, plain.outputs, plain.notes.len()), (2.0, false, None, 0));
        let stable = parse(&[("use_rslora", json!(true)), ("r", json!(4)), ("lora_dropout", json!(0.1))]).unwrap();
        assert_eq!((stable.settings.scale(), stable.notes.len()), (8.0, 1));
        let pattern = parse(&[("target_modules", json!(".*q_proj"))]).unwrap();
        assert!(pattern.partial && pattern.settings.targets.is_empty());
        assert!(parse(&[("layers_to_transform", json!([0]))]).unwrap().partial);
        let scores = parse(&[("modules_to_save", json!(["classifier", "score"]))]).unwrap();
        assert_eq!(scores.outputs, Some(Outputs::SCALAR));
        let again = to_json(&plain.settings, &plain.base, Outputs::BOTH, true).to_string();
        let again = AdapterConfig::parse(&again, "x").unwrap();
        assert_eq!((again.settings, again.base, again.outputs), (plain.settings, plain.base, Some(Outputs::BOTH)));
    }
}
