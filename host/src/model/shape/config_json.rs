//! `config.json` in the layouts of transformers 4 and 5, read and written.
//!
//! Keys that would change the model's function and are not implemented are refused with file, key and value.

use std::path::Path;

use plugin_api::manifest::AttentionMask;
use serde_json::{Map, Value, json};

use super::config::{CONFIG_FILE, ModelConfig, Outputs, activation_kind, known_activations};
use super::keys::Reader;
use super::rope::Rope;
use super::windows;
use crate::data::Inputs;
use crate::error::{Error, Result};
use crate::families::family::{Biases, Positions};
use crate::families::{self, Family};

/// Key that marks a language model with an additional scalar head.
const BOTH: &str = "telos_scalar_head";
/// Key of the mean and standard deviation of the scores.
const SCORES: &str = "telos_scores";
/// Key that marks a process reward model: the separator of the segments that it scores.
const SEGMENTS: &str = "telos_segment_separator";
/// Key of the attention mask, if it is not causal.
const ATTENTION: &str = "telos_attention";

impl ModelConfig {
    /// Reads `config.json` of a model folder, and `generation_config.json` if it exists.
    ///
    /// # Errors
    /// A request error that names file, key and value.
    pub fn from_folder(folder: &Path) -> Result<ModelConfig> {
        let mut inputs = Inputs::of(folder);
        let file = inputs.path(CONFIG_FILE).display().to_string();
        let mut config = ModelConfig::parse(&read_text(&mut inputs, CONFIG_FILE)?, &file)?;
        config.add_generation(&mut inputs)?;
        config.files = inputs.noted();
        Ok(config)
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
        let optional = |key: Option<&str>| key.map_or(Ok(None), |key| read.optional_size(key));
        let hidden = match (read.optional_size(keys.hidden)?, defaults.hidden_factor) {
            (Some(hidden), _) => hidden,
            (None, Some(factor)) => dim.saturating_mul(factor),
            (None, None) => return Err(read.missing(keys.hidden)),
        };
        let biases = family.biases == Biases::Always;
        let configured = |key: &str| match family.biases {
            Biases::Configured => read.flag(key, false),
            _ => Ok(false),
        };
        let vocab = read.size("vocab_size")?;
        let mut notes = read.notes(family);
        let layers = read.size(keys.layers)?;
        let config = ModelConfig {
            family,
            layers,
            dim,
            heads,
            kv_heads: optional(keys.kv_heads)?.unwrap_or(heads),
            head_dim: match optional(keys.head_dim)? {
                Some(head_dim) => head_dim,
                None if dim.is_multiple_of(heads) => dim / heads,
                None => return Err(read.wrong(keys.heads, &json!(heads), &format!("a divisor of {dim}"))),
            },
            hidden,
            vocab,
            context: read.optional_size(keys.context)?.unwrap_or(defaults.context),
            norm_eps: read.float(keys.norm_eps, defaults.norm_eps)?,
            activation: read.activation(family)?,
            rope: if family.positions == Positions::Rotary { Rope::read(&read)? } else { Rope::new(10_000.0) },
            windows: windows::read(&read, family.windows, layers)?,
            tied: read.flag("tie_word_embeddings", defaults.tied)?,
            outputs: read.outputs(family)?,
            scores: read.scores()?,
            segment_separator: read.text(SEGMENTS)?,
            attention: read.attention()?,
            attention_bias: biases || family.biases == Biases::QueriesKeysValues || configured("attention_bias")?,
            output_bias: biases || configured("attention_bias")?,
            mlp_bias: biases || configured("mlp_bias")?,
            init_std: read.float("initializer_range", 0.02)?,
            bos: read.ids("bos_token_id", vocab, &mut notes)?.first().copied(),
            eos: read.ids("eos_token_id", vocab, &mut notes)?,
            pad: read.ids("pad_token_id", vocab, &mut notes)?.first().copied(),
            generation: None,
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
        put(keys.context, json!(self.context));
        put("vocab_size", json!(self.vocab));
        put(keys.norm_eps, json!(self.norm_eps));
        put(keys.activation, json!(self.activation));
        if family.biases == Biases::Configured {
            put("attention_bias", json!(self.attention_bias));
            put("mlp_bias", json!(self.mlp_bias));
        }
        if family.positions == Positions::Rotary {
            self.rope.write(&mut put);
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
        Value::Object(map)
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

/// Reads the text of a JSON file in the folder.
pub(in crate::model) fn read_text(inputs: &mut Inputs, name: &str) -> Result<String> {
    let text = String::from_utf8(inputs.read(name)?);
    let fail = |cause| Error::request(format!("{}: not UTF-8 text", inputs.path(name).display())).with_cause(cause);
    text.map_err(|cause| fail(cause.utf8_error()))
}

impl Reader<'_> {
    fn family(&self) -> Result<&'static Family> {
        let value = self.get("model_type").ok_or_else(|| self.missing("model_type"))?;
        let hint = format!("implemented are {}", families::NAMES.join(", "));
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
        for (key, harmless) in family.fixed {
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
