//! `config.json` in the layouts of transformers 4 and 5, read and written.
//!
//! Keys that would change the model's function and are not implemented are refused with file, key and value.

use std::collections::BTreeMap;
use std::path::Path;

use plugin_api::manifest::AttentionMask;
use serde_json::{Map, Value, json};

use super::config::{CONFIG_FILE, ModelConfig, Outputs, activation_kind, known_activations};
use super::keys::{Reader, read_text};
use super::rope::{Rope, Ropes, Scaling};
use super::rope_json;
use super::windows;
use crate::data::Inputs;
use crate::error::{Error, Result};
use crate::families::family::{Bias, FIXED, Positions, Residual};
use crate::families::{self, Family};
use crate::model::adapter::config::{
    ADAPTED_CONFIG, ADAPTER_CONFIG, config_over, has_no_config, is_adapter, model_config,
};

/// The beginning of the keys below, which only Telos writes.
const OWN: &str = "telos_";
/// Key that marks a language model with an additional scalar head.
const BOTH: &str = "telos_scalar_head";
/// Key of the mean and standard deviation of the scores.
const SCORES: &str = "telos_scores";
/// Key that marks a process reward model: the separator of the segments that it scores.
const SEGMENTS: &str = "telos_segment_separator";
/// Key that says whether both branches of a layer read its input.
const PARALLEL: &str = "use_parallel_residual";
/// Key of the attention mask, if it is not causal.
const ATTENTION: &str = "telos_attention";

/// Key of the code that a model brings along, which a saved folder does not have and its files do not need.
const CUSTOM_CODE: &str = "auto_map";

/// Keys of models whose layers choose a few of many feed-forward blocks for each token.
const EXPERTS: &[&str] = &["num_experts", "num_local_experts", "n_routed_experts"];

impl ModelConfig {
    /// Reads `config.json` of a model folder, and `generation_config.json` if it exists. An adapter's folder without `config.json`
    /// has its own under another name, or that of its base.
    ///
    /// # Errors
    /// A request error that names file, key and value.
    pub fn from_folder(folder: &Path) -> Result<ModelConfig> {
        let mut inputs = Inputs::of(folder)?;
        if has_no_config(&inputs) && !inputs.has(ADAPTED_CONFIG) {
            let mut config = model_config(folder, &mut inputs)?;
            config.files.extend(inputs.noted());
            return Ok(config);
        }
        let name = if has_no_config(&inputs) { ADAPTED_CONFIG } else { CONFIG_FILE };
        let file = inputs.path(name).display().to_string();
        let mut config = ModelConfig::parse(&read_text(&mut inputs, name)?, &file)?;
        config.add_generation(&mut inputs)?;
        if is_adapter(folder) {
            inputs.read(ADAPTER_CONFIG)?;
        }
        config.files = inputs.noted();
        Ok(config)
    }

    /// Returns the config of a model with the adapter in `folder` over weights with the config `base`, wherever the adapter's files say
    /// that these weights are.
    ///
    /// # Errors
    /// A request error that names file, key and value.
    pub(crate) fn of_adapter(folder: &Path, base: &ModelConfig) -> Result<ModelConfig> {
        let mut inputs = Inputs::of(folder)?;
        if !has_no_config(&inputs) || inputs.has(ADAPTED_CONFIG) {
            return ModelConfig::from_folder(folder);
        }
        let mut config = config_over(base, &mut inputs)?;
        config.files.extend(inputs.noted());
        Ok(config)
    }

    /// Takes what an adapter's config says in place of its base's, for a model with these outputs. `files` becomes the adapter's.
    pub(in crate::model) fn take_from_adapter(&mut self, own: ModelConfig, outputs: Outputs) {
        self.outputs = outputs;
        self.files = own.files;
        self.notes = own.notes;
        self.eos = own.eos;
        self.generation = own.generation;
        self.attention = own.attention;
        if outputs.scalar {
            (self.scores, self.segment_separator) = (own.scores, own.segment_separator);
        }
    }

    /// Returns the config of a run's model that is this base with an adapter, whose config is `own`. `files` stays the base's.
    pub(crate) fn with_adapter(&self, own: ModelConfig) -> ModelConfig {
        let mut config = self.clone();
        let outputs = Outputs { tokens: own.outputs.tokens && self.outputs.tokens, ..own.outputs };
        config.take_from_adapter(own, outputs);
        config.files.clone_from(&self.files);
        config
    }

    /// Reads the text of a `config.json`; `file` names it in errors.
    ///
    /// # Errors
    /// A request error that names file, key and value.
    pub fn parse(text: &str, file: &str) -> Result<ModelConfig> {
        let value: Value = serde_json::from_str(text)
            .map_err(|cause| Error::request(format!("{file}: not valid JSON")).with_cause(cause))?;
        let Value::Object(map) = value else {
            return Err(Error::request(format!("{file}: expected a JSON object")));
        };
        let read = Reader { file, map: &map };
        let family = read.family()?;
        let (keys, defaults) = (&family.keys, &family.defaults);
        read.refuse_unimplemented(family)?;
        let dim = read.size(keys.dim)?;
        let heads = read.size(keys.heads)?;
        let optional = |key: Option<&str>, absent| key.map_or(Ok(None), |key| read.size_or(key, absent));
        let hidden = match (read.optional_size(keys.hidden)?, defaults.hidden_factor) {
            (Some(hidden), _) => hidden,
            (None, Some(factor)) => dim.saturating_mul(factor),
            (None, None) => return Err(read.missing(keys.hidden)),
        };
        let bias = |bias: Bias| match bias {
            Bias::Yes => Ok(true),
            Bias::No => Ok(false),
            Bias::Key(key, default) => read.flag(key, default),
        };
        let vocab = read.size("vocab_size")?;
        let mut notes = read.notes(family);
        let layers = read.size(keys.layers)?;
        let mut context = read.optional_size(keys.context)?.unwrap_or(defaults.context);
        let ropes = match family.positions {
            Positions::Rotary => rope_json::read(&read, &family.rope, context, layers)?,
            Positions::Learned => Ropes::new(Rope::new(10_000.0)),
        };
        if let Scaling::LongRope(long) = &ropes.all.scaling
            && context > long.original
        {
            let (original, key) = (long.original, keys.context);
            notes.push(format!(
                "{file}: `{key}` is {context}, but the context length is limited to {original}, that before scaling by longrope: \
                 longer sequences need other frequencies"
            ));
            context = original;
        }
        let scores = family.scores;
        let positive = |key: Option<(&str, Option<f64>)>| key.map_or(Ok(None), |key| read.positive_or(key));
        let config = ModelConfig {
            family,
            layers,
            dim,
            heads,
            kv_heads: optional(keys.kv_heads, defaults.kv_heads)?.unwrap_or(heads),
            head_dim: match optional(keys.head_dim, defaults.head_dim)? {
                Some(head_dim) => head_dim,
                None if dim.is_multiple_of(heads) => dim / heads,
                None => return Err(read.wrong(keys.heads, &json!(heads), &format!("a divisor of {dim}"))),
            },
            hidden,
            vocab,
            context,
            norm_eps: read.float(keys.norm_eps, defaults.norm_eps)?,
            activation: read.activation(family)?,
            windows: windows::read(&read, family.windows, layers, &ropes.rotated)?,
            ropes,
            score_scale: match scores.map(|scores| scores.scale) {
                Some((key, default)) => {
                    let scale = read.positive_or((key, Some(default)))?;
                    Some(scale.ok_or_else(|| read.wrong(key, &Value::Null, "a number above 0"))?)
                }
                None => None,
            },
            score_cap: positive(scores.map(|scores| scores.cap))?.unwrap_or(0.0),
            logit_cap: positive(scores.map(|scores| scores.logit_cap))?.unwrap_or(0.0),
            parallel: match family.residual {
                Residual::Sequential => false,
                Residual::Configured { default } => read.flag(PARALLEL, default)?,
            },
            tied: read.flag("tie_word_embeddings", defaults.tied)?,
            outputs: read.outputs(family)?,
            scores: read.scores()?,
            segment_separator: read.text(SEGMENTS)?,
            attention: read.attention()?,
            attention_bias: bias(family.biases.qkv)?,
            output_bias: bias(family.biases.output)?,
            mlp_bias: bias(family.biases.mlp)?,
            init_std: read.float("initializer_range", 0.02)?,
            bos: read.ids("bos_token_id", vocab, &mut notes)?.first().copied(),
            eos: read.ids("eos_token_id", vocab, &mut notes)?,
            pad: read.ids("pad_token_id", vocab, &mut notes)?.first().copied(),
            generation: None,
            original: map.clone(),
            files: Vec::new(),
            notes,
        };
        config.check().map_err(|what| Error::request(format!("{file}: {what}")))?;
        Ok(config)
    }

    /// Returns `config.json` as transformers 5 writes it, with the older layout's keys in addition to the newer ones, so that
    /// transformers 4 reads the same model. `dtype` is the stored tensors' type: `float32` or `float64`.
    pub fn to_json(&self, dtype: &str) -> Value {
        let (family, keys) = (self.family, &self.family.keys);
        let mut map = Map::new();
        let mut put = |key: &str, value: Value| {
            map.insert(key.to_owned(), value);
        };
        put("architectures", json!([if self.outputs.tokens { family.class } else { family.scalar_class }]));
        if !self.outputs.tokens {
            put("num_labels", json!(1));
            put("id2label", json!({"0": "score"}));
            put("label2id", json!({"score": 0}));
        }
        if self.outputs == Outputs::BOTH {
            put(BOTH, json!(true));
        }
        if let Some((mean, deviation)) = self.scores {
            put(SCORES, json!({"mean": mean, "standard_deviation": deviation}));
        }
        if let Some(separator) = &self.segment_separator {
            put(SEGMENTS, json!(separator));
        }
        if self.attention != AttentionMask::CAUSAL {
            put(ATTENTION, json!(self.attention.as_str()));
        }
        put("model_type", json!(family.model_type));
        put(keys.layers, json!(self.layers));
        put(keys.dim, json!(self.dim));
        put(keys.heads, json!(self.heads));
        if let Some(key) = keys.kv_heads {
            put(key, json!(self.kv_heads));
        }
        if let Some(key) = keys.head_dim {
            put(key, json!(self.head_dim));
        }
        put(keys.hidden, json!(self.hidden));
        put(keys.context, json!(self.stored_context()));
        put("vocab_size", json!(self.vocab));
        put(keys.norm_eps, json!(self.norm_eps));
        put(keys.activation, json!(self.activation));
        let has_bias = [self.attention_bias, self.output_bias, self.mlp_bias];
        for (bias, has_bias) in family.biases.all().into_iter().zip(has_bias) {
            if let Bias::Key(key, _) = bias {
                put(key, json!(has_bias));
            }
        }
        if family.positions == Positions::Rotary {
            rope_json::write(&self.ropes, &family.rope, self.layers, &mut put);
        }
        if let Some(scores) = family.scores {
            let cap = |cap: f64| if cap > 0.0 { json!(cap) } else { Value::Null };
            put(scores.scale.0, whole(self.score_scale.unwrap_or(self.head_dim as f64)));
            put(scores.cap.0, cap(self.score_cap));
            put(scores.logit_cap.0, cap(self.logit_cap));
        }
        if let Residual::Configured { .. } = family.residual {
            put(PARALLEL, json!(self.parallel));
        }
        windows::write(family.windows, &self.windows, self.layers, &mut put);
        for (key, value) in family.unused {
            put(key, json!(value));
        }
        put("initializer_range", json!(self.init_std));
        put("tie_word_embeddings", json!(self.tied));
        put("bos_token_id", json!(self.bos));
        put("eos_token_id", self.eos_json());
        put("pad_token_id", json!(self.pad));
        put("dtype", json!(dtype));
        put("torch_dtype", json!(dtype));
        // In sorted order, so that a config that was written and read is written again with the same bytes.
        let is_kept = |key: &str| !key.starts_with(OWN) && key != CUSTOM_CODE && !map.contains_key(key);
        let kept = self.original.iter().filter(|(key, _)| is_kept(key));
        let kept: BTreeMap<_, _> = kept.map(|(key, value)| (key.clone(), value.clone())).collect();
        map.extend(kept);
        Value::Object(map)
    }

    /// The context length that config.json gives: longer than the model's own with frequencies that depend on the length.
    fn stored_context(&self) -> u64 {
        match &self.ropes.all.scaling {
            Scaling::LongRope(long) => long.context,
            _ => self.context,
        }
    }

    /// Returns one id, a list, or null.
    pub(super) fn eos_json(&self) -> Value {
        match self.eos.as_slice() {
            [] => Value::Null,
            [id] => json!(id),
            ids => json!(ids),
        }
    }
}

/// A number without a fraction as an integer: transformers refuses a float for some keys.
fn whole(number: f64) -> Value {
    if number.fract() == 0.0 && number < 1e15 { json!(number as u64) } else { json!(number) }
}

impl Reader<'_> {
    fn family(&self) -> Result<&'static Family> {
        let value = self.get("model_type").ok_or_else(|| self.missing("model_type"))?;
        let why = if EXPERTS.iter().any(|key| self.get(key).is_some()) {
            "a mixture of experts needs operations that send each token to its experts, which backends do not have; "
        } else if self.get("text_config").is_some() {
            "of a model with other inputs than text, the part that `text_config` describes must be saved alone; "
        } else {
            ""
        };
        let hint = format!("{why}implemented are {}", families::NAMES.join(", "));
        let family =
            value.as_str().and_then(families::find).ok_or_else(|| self.refuse("model_type", value).with_hint(hint))?;
        let classes = self.get("architectures").and_then(Value::as_array);
        if let Some(class) = classes.and_then(|classes| classes.first())
            && class.as_str() != Some(family.class)
            && class.as_str() != Some(family.scalar_class)
        {
            let classes = format!("[\"{}\"] or [\"{}\"]", family.class, family.scalar_class);
            let hint = format!("a {} model has `architectures` = {classes}", family.model_type);
            return Err(self.refuse("architectures", &json!([class])).with_hint(hint));
        }
        Ok(family)
    }

    /// Returns the outputs: a language model's, or with a sequence-classification class a scalar head's, which must have a
    /// single label.
    fn outputs(&self, family: &Family) -> Result<Outputs> {
        let class = self.get("architectures").and_then(Value::as_array).and_then(|classes| classes.first());
        if class.and_then(Value::as_str) != Some(family.scalar_class) {
            return Ok(if self.flag(BOTH, false)? { Outputs::BOTH } else { Outputs::TOKENS });
        }
        // transformers writes the labels' names, not their number, and assumes two if neither exists.
        let named = self.get("id2label").and_then(Value::as_object).map(|labels| labels.len() as u64);
        match self.optional_size("num_labels")?.or(named) {
            Some(1) => Ok(Outputs::SCALAR),
            labels => Err(self.refuse("num_labels", &json!(labels.unwrap_or(2))).with_hint("a reward model has one")),
        }
    }

    /// Returns the recorded mean and deviation of the scores.
    fn scores(&self) -> Result<Option<(f64, f64)>> {
        let Some(value) = self.get(SCORES) else { return Ok(None) };
        let number = |key: &str| value.get(key).and_then(Value::as_f64);
        match (number("mean"), number("standard_deviation")) {
            (Some(mean), Some(deviation)) => Ok(Some((mean, deviation))),
            _ => Err(self.wrong(SCORES, value, "`mean` and `standard_deviation`")),
        }
    }

    fn attention(&self) -> Result<AttentionMask> {
        let Some(value) = self.get(ATTENTION) else { return Ok(AttentionMask::CAUSAL) };
        let known = AttentionMask::ALL.iter().find(|known| value.as_str() == Some(**known));
        let expected = || self.wrong(ATTENTION, value, &format!("one of {}", AttentionMask::ALL.join(", ")));
        known.map(|known| AttentionMask((*known).into())).ok_or_else(expected)
    }

    fn refuse_unimplemented(&self, family: &Family) -> Result<()> {
        for (key, harmless) in FIXED.iter().chain(family.fixed) {
            if let Some(value) = self.get(key)
                && !harmless.contains(&value.to_string().as_str())
            {
                return Err(self.refuse(key, value));
            }
        }
        Ok(())
    }

    fn activation(&self, family: &Family) -> Result<String> {
        let key = family.keys.activation;
        let Some(value) = self.get(key) else { return Ok(family.defaults.activation.to_owned()) };
        match value.as_str() {
            Some(name) if activation_kind(name).is_some() => Ok(name.to_owned()),
            _ => Err(self.refuse(key, value).with_hint(known_activations())),
        }
    }

    fn notes(&self, family: &Family) -> Vec<String> {
        let set = family.unused.iter().filter_map(|(key, ours)| {
            let value = self.get(key)?;
            (value.as_f64() != Some(*ours))
                .then(|| format!("{}: `{key}` = {value} has no effect: Telos trains without dropout", self.file))
        });
        set.collect()
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "published_tests.rs"]
mod published_tests;
