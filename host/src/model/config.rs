//! A decoder's shape: read from a Hugging Face `config.json` (the layouts of transformers 4 and 5) or made for fresh
//! weights, and written back so that transformers loads it.
//!
//! What would change the function and is not implemented is refused by file, key and value.

use std::path::Path;

use plugin_api::backend::ops::ActivationKind;
use serde_json::{Map, Value, json};

use super::family::{Biases, FAMILIES, Family, Positions, family};
use crate::config::experiment::{Arch, Shape};
use crate::error::{Error, Result};

/// File name inside a model folder.
pub const CONFIG_FILE: &str = "config.json";

/// The shape of a decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The family.
    pub family: &'static Family,
    /// Decoder layers.
    pub layers: u64,
    /// Width of the residual stream.
    pub dim: u64,
    /// Query heads.
    pub heads: u64,
    /// Key-value heads; divides `heads`.
    pub kv_heads: u64,
    /// Width of a head.
    pub head_dim: u64,
    /// Feed-forward width.
    pub hidden: u64,
    /// Number of token ids.
    pub vocab: u64,
    /// Longest sequence in tokens.
    pub context: u64,
    /// Epsilon inside the norms.
    pub norm_eps: f64,
    /// Activation of the feed-forward block, by its Hugging Face name.
    pub activation: String,
    /// Base of the rotary frequencies; not used with learned positions.
    pub rope_theta: f64,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// Whether the attention's projections have biases.
    pub attention_bias: bool,
    /// Whether the feed-forward block's projections have biases.
    pub mlp_bias: bool,
    /// Standard deviation of initial weights.
    pub init_std: f64,
    /// Id that starts a sequence.
    pub bos: Option<u32>,
    /// Ids that end a generation.
    pub eos: Vec<u32>,
    /// Id that fills where other programs pad; Telos packs and never reads it.
    pub pad: Option<u32>,
    /// What was read and has no effect here, for the user to know.
    pub notes: Vec<String>,
}

/// Activations by the names of Hugging Face.
const ACTIVATIONS: &[(&str, ActivationKind)] = &[
    ("gelu_new", ActivationKind::GELU_TANH),
    ("gelu_pytorch_tanh", ActivationKind::GELU_TANH),
    ("gelu", ActivationKind::GELU_ERF),
    ("silu", ActivationKind::SILU),
    ("swish", ActivationKind::SILU),
    ("relu", ActivationKind::RELU),
];

impl ModelConfig {
    /// The config of a shape with fresh weights over `vocab` token ids.
    ///
    /// # Errors
    /// A request error for a shape that contradicts itself.
    pub fn from_shape(shape: &Shape, vocab: usize) -> Result<ModelConfig> {
        let model_type = match shape.arch {
            Arch::Llama => "llama",
            Arch::Gpt2 => "gpt2",
        };
        let family = family(model_type).ok_or_else(|| Error::request(format!("model.arch: no family {model_type}")))?;
        let biases = family.biases == Biases::Always;
        if shape.heads == 0 || !shape.dim.is_multiple_of(shape.heads) {
            return Err(Error::request(format!("[model]: dim {} is not a multiple of {} heads", shape.dim, shape.heads)));
        }
        let config = ModelConfig {
            family,
            layers: shape.layers as u64,
            dim: shape.dim as u64,
            heads: shape.heads as u64,
            kv_heads: shape.kv_heads() as u64,
            head_dim: (shape.dim / shape.heads) as u64,
            hidden: shape.hidden as u64,
            vocab: vocab as u64,
            context: shape.context as u64,
            norm_eps: shape.norm_eps,
            activation: family.defaults.activation.to_owned(),
            rope_theta: shape.rope_theta.unwrap_or(10_000.0),
            tied: shape.tied,
            attention_bias: biases,
            mlp_bias: biases,
            init_std: shape.init_std,
            bos: None,
            eos: Vec::new(),
            pad: None,
            notes: Vec::new(),
        };
        config.check().map_err(|what| Error::request(format!("[model]: {what}")))?;
        Ok(config)
    }

    /// Reads `config.json` of a model folder.
    ///
    /// # Errors
    /// A request error naming file, key and value.
    pub fn from_folder(folder: &Path) -> Result<ModelConfig> {
        let path = folder.join(CONFIG_FILE);
        let text = std::fs::read_to_string(&path)
            .map_err(|cause| Error::request(format!("cannot read {}", path.display())).with_cause(cause))?;
        ModelConfig::parse(&text, &path.display().to_string())
    }

    /// Reads the text of a `config.json`; `file` names it in errors.
    ///
    /// # Errors
    /// A request error naming file, key and value.
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
        let config = ModelConfig {
            family,
            layers: read.size(keys.layers)?,
            dim,
            heads,
            kv_heads: optional(keys.kv_heads)?.unwrap_or(heads),
            head_dim: match optional(keys.head_dim)? {
                Some(head_dim) => head_dim,
                None if dim.is_multiple_of(heads) => dim / heads,
                None => return Err(read.wrong(keys.heads, &json!(heads), &format!("a divisor of {dim}"))),
            },
            hidden,
            vocab: read.size("vocab_size")?,
            context: read.optional_size(keys.context)?.unwrap_or(defaults.context),
            norm_eps: read.float(keys.norm_eps, defaults.norm_eps)?,
            activation: read.activation(family)?,
            rope_theta: if family.positions == Positions::Rotary { read.rope_theta()? } else { 10_000.0 },
            tied: read.flag("tie_word_embeddings", defaults.tied)?,
            attention_bias: biases || read.flag("attention_bias", false)?,
            mlp_bias: biases || read.flag("mlp_bias", false)?,
            init_std: read.float("initializer_range", 0.02)?,
            bos: read.ids("bos_token_id")?.first().copied(),
            eos: read.ids("eos_token_id")?,
            pad: read.ids("pad_token_id")?.first().copied(),
            notes: read.notes(family),
        };
        config.check().map_err(|what| Error::request(format!("{file}: {what}")))?;
        Ok(config)
    }

    /// Rules between the numbers.
    fn check(&self) -> Result<(), String> {
        let sizes = [
            ("layers", self.layers, 4096),
            ("width", self.dim, 1 << 20),
            ("heads", self.heads, 4096),
            ("key-value heads", self.kv_heads, 4096),
            ("head width", self.head_dim, 1 << 16),
            ("feed-forward width", self.hidden, 1 << 22),
            ("vocabulary", self.vocab, 1 << 28),
            ("context", self.context, 1 << 28),
        ];
        for (what, size, most) in sizes {
            if size == 0 || size > most {
                return Err(format!("{what} is {size}, expected 1 to {most}"));
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(format!("{} heads cannot share {} key-value heads evenly", self.heads, self.kv_heads));
        }
        if self.family.positions == Positions::Rotary && !self.head_dim.is_multiple_of(2) {
            return Err(format!("head width {} is odd, and rotary embedding needs pairs", self.head_dim));
        }
        if !(self.norm_eps > 0.0 && self.norm_eps < 1.0) {
            return Err(format!("norm epsilon is {}, expected a number above 0 and below 1", self.norm_eps));
        }
        if !(self.rope_theta > 1.0 && self.rope_theta.is_finite()) {
            return Err(format!("rope_theta is {}, expected a number above 1", self.rope_theta));
        }
        if !(self.init_std >= 0.0 && self.init_std.is_finite()) {
            return Err(format!("initializer_range is {}, expected a number from 0", self.init_std));
        }
        Ok(())
    }

    /// The activation function.
    ///
    /// # Errors
    /// A request error for a name that is not implemented.
    pub fn activation_kind(&self) -> Result<ActivationKind> {
        activation_kind(&self.activation).ok_or_else(|| {
            Error::request(format!("activation {:?} is not implemented", self.activation)).with_hint(known_activations())
        })
    }

    /// Width of all query heads.
    pub fn query_width(&self) -> u64 {
        self.heads * self.head_dim
    }

    /// Width of all key (or value) heads.
    pub fn kv_width(&self) -> u64 {
        self.kv_heads * self.head_dim
    }

    /// Factor of the attention's scores.
    pub fn attention_scale(&self) -> f64 {
        (self.head_dim as f64).sqrt().recip()
    }

    /// `config.json` as transformers 5 writes it, with the older layout's keys beside the newer ones, so that
    /// transformers 4 reads the same model. `dtype` is the stored tensors' type: `float32` or `float64`.
    pub fn to_json(&self, dtype: &str) -> Value {
        let (family, keys) = (self.family, &self.family.keys);
        let mut map = Map::new();
        let mut put = |key: &str, value: Value| {
            map.insert(key.to_owned(), value);
        };
        put("architectures", json!([family.class]));
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
            put("rope_parameters", json!({"rope_theta": self.rope_theta, "rope_type": "default"}));
            put("rope_theta", json!(self.rope_theta));
        }
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

    /// One id, a list, or null.
    pub(super) fn eos_json(&self) -> Value {
        match self.eos.as_slice() {
            [] => Value::Null,
            [id] => json!(id),
            ids => json!(ids),
        }
    }
}

fn activation_kind(name: &str) -> Option<ActivationKind> {
    ACTIVATIONS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
}

fn known_activations() -> String {
    let names: Vec<&str> = ACTIVATIONS.iter().map(|(name, _)| *name).collect();
    format!("implemented are {}", names.join(", "))
}

/// Typed access to the keys of one file.
struct Reader<'a> {
    file: &'a str,
    map: &'a Map<String, Value>,
}

impl Reader<'_> {
    /// The key's value; absent and null are the same.
    fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn missing(&self, key: &str) -> Error {
        Error::request(format!("{}: key `{key}` is missing", self.file))
    }

    fn wrong(&self, key: &str, value: &Value, expected: &str) -> Error {
        Error::request(format!("{}: `{key}` is {value}, expected {expected}", self.file))
    }

    fn refuse(&self, key: &str, value: &Value) -> Error {
        Error::request(format!("{}: `{key}` = {value} is not implemented", self.file))
    }

    fn optional_size(&self, key: &str) -> Result<Option<u64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_u64() {
            Some(size) if size > 0 => Ok(Some(size)),
            _ => Err(self.wrong(key, value, "an integer from 1")),
        }
    }

    fn size(&self, key: &str) -> Result<u64> {
        self.optional_size(key)?.ok_or_else(|| self.missing(key))
    }

    fn float(&self, key: &str, default: f64) -> Result<f64> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_f64().ok_or_else(|| self.wrong(key, value, "a number"))
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.wrong(key, value, "true or false"))
    }

    /// A token id, a list of them, or nothing.
    fn ids(&self, key: &str) -> Result<Vec<u32>> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids = match value {
            Value::Array(ids) => ids.iter().map(id).collect(),
            one => id(one).map(|id| vec![id]),
        };
        ids.ok_or_else(|| self.wrong(key, value, "a token id, a list of them, or null"))
    }

    fn family(&self) -> Result<&'static Family> {
        let value = self.get("model_type").ok_or_else(|| self.missing("model_type"))?;
        let known: Vec<&str> = FAMILIES.iter().map(|family| family.model_type).collect();
        let hint = format!("implemented are {}", known.join(", "));
        let family = value
            .as_str()
            .and_then(family)
            .ok_or_else(|| self.refuse("model_type", value).with_hint(hint))?;
        let classes = self.get("architectures").and_then(Value::as_array);
        if let Some(class) = classes.and_then(|classes| classes.first())
            && class.as_str() != Some(family.class)
        {
            let hint = format!("a {} model has `architectures` = [\"{}\"]", family.model_type, family.class);
            return Err(self.refuse("architectures", &json!([class])).with_hint(hint));
        }
        Ok(family)
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

    /// transformers 5 keeps the base in `rope_parameters`; before, it stood alone, with `rope_scaling` beside it.
    fn rope_theta(&self) -> Result<f64> {
        let mut theta = None;
        for key in ["rope_parameters", "rope_scaling"] {
            let Some(value) = self.get(key) else { continue };
            let Value::Object(map) = value else { return Err(self.wrong(key, value, "an object or null")) };
            for (inner, value) in map {
                let name = format!("{key}.{inner}");
                match inner.as_str() {
                    "rope_type" | "type" if value == "default" => {}
                    "partial_rotary_factor" if value.as_f64() == Some(1.0) => {}
                    "rope_theta" => {
                        theta = Some(value.as_f64().ok_or_else(|| self.wrong(&name, value, "a number"))?);
                    }
                    _ => return Err(self.refuse(&name, value)),
                }
            }
        }
        let alone = self.get("rope_theta").map(|value| self.float("rope_theta", 0.0).map(|theta| (theta, value)));
        match (theta, alone.transpose()?) {
            (Some(inside), Some((alone, value))) if inside != alone => {
                Err(self.wrong("rope_theta", value, &format!("{inside} as in `rope_parameters`")))
            }
            (Some(theta), _) | (None, Some((theta, _))) => Ok(theta),
            (None, None) => Ok(10_000.0),
        }
    }

    fn notes(&self, family: &Family) -> Vec<String> {
        let set = family.unused.iter().filter_map(|(key, ours)| {
            let value = self.get(key)?;
            (value.as_f64() != Some(*ours)).then(|| {
                format!("{}: `{key}` = {value} has no effect: Telos trains without dropout", self.file)
            })
        });
        set.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LLAMA: &str = r#"{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8,
        "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 32}"#;
    const GPT2: &str = r#"{"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 32}"#;

    fn with(base: &str, key: &str, value: &str) -> Result<ModelConfig> {
        let mut map: Value = serde_json::from_str(base).unwrap();
        map[key] = serde_json::from_str(value).unwrap();
        ModelConfig::parse(&map.to_string(), "m/config.json")
    }

    /// Catches defaults of one family used for the other.
    #[test]
    fn absent_keys_mean_what_the_familys_own_code_assumes() {
        let llama = ModelConfig::parse(LLAMA, "c").unwrap();
        assert_eq!((llama.kv_heads, llama.head_dim, llama.context, llama.norm_eps), (2, 4, 2048, 1e-6));
        assert!(!llama.tied && !llama.attention_bias && llama.rope_theta == 10_000.0);
        let gpt2 = ModelConfig::parse(GPT2, "c").unwrap();
        assert_eq!((gpt2.hidden, gpt2.context, gpt2.norm_eps, gpt2.activation.as_str()), (32, 1024, 1e-5, "gelu_new"));
        assert!(gpt2.tied && gpt2.attention_bias && gpt2.mlp_bias);
    }

    /// Catches a key that is read by one layout only, or a scaling that is ignored.
    #[test]
    fn both_layouts_of_the_rotary_base_are_read_and_a_contradiction_is_refused() {
        assert_eq!(with(LLAMA, "rope_theta", "500.0").unwrap().rope_theta, 500.0);
        let newer = r#"{"rope_theta": 500.0, "rope_type": "default"}"#;
        assert_eq!(with(LLAMA, "rope_parameters", newer).unwrap().rope_theta, 500.0);
        let both = LLAMA.replacen('{', r#"{"rope_theta": 7.0,"#, 1);
        assert!(with(&both, "rope_parameters", newer).is_err());
    }

    /// Catches any of these keys being silently ignored; the message must name file, key and value.
    #[test]
    fn what_is_not_implemented_is_refused_by_file_key_and_value() {
        let cases = [
            (LLAMA, "model_type", r#""mamba""#),
            (LLAMA, "architectures", r#"["LlamaForSequenceClassification"]"#),
            (LLAMA, "hidden_act", r#""quick_gelu""#),
            (LLAMA, "sliding_window", "128"),
            (LLAMA, "pretraining_tp", "2"),
            (LLAMA, "quantization_config", r#"{"bits":4}"#),
            (GPT2, "scale_attn_by_inverse_layer_idx", "true"),
            (GPT2, "scale_attn_weights", "false"),
            (GPT2, "add_cross_attention", "true"),
            (LLAMA, "hidden_size", "-8"),
            (LLAMA, "hidden_size", "8.5"),
            (LLAMA, "eos_token_id", r#""</s>""#),
            (LLAMA, "tie_word_embeddings", "1"),
        ];
        for (base, key, value) in cases {
            let error = with(base, key, value).unwrap_err();
            let message = error.message();
            assert!(
                message.contains("m/config.json") && message.contains(key) && message.contains(value),
                "{key} = {value}: {message}"
            );
            assert_eq!(error.exit_code(), 2);
        }
        let scaled = r#"{"rope_type": "llama3", "factor": 8.0}"#;
        for key in ["rope_scaling", "rope_parameters"] {
            let error = with(LLAMA, key, scaled).unwrap_err();
            assert!(error.message().contains(&format!("{key}.rope_type")), "{error:?}");
        }
    }

    /// Catches shapes that would overflow, divide by zero or break heads.
    #[test]
    fn impossible_shapes_are_refused() {
        let cases = [
            ("num_attention_heads", "0"),
            ("num_attention_heads", "3"),
            ("num_key_value_heads", "3"),
            ("head_dim", "3"),
            ("vocab_size", "18446744073709551615"),
            ("num_hidden_layers", "100000000"),
            ("rms_norm_eps", "0"),
        ];
        for (key, value) in cases {
            assert!(with(LLAMA, key, value).is_err(), "{key} = {value}");
        }
    }

    /// Catches a key that is written under a name or in a form that reading does not take back.
    #[test]
    fn what_is_written_reads_back_equal() {
        for base in [LLAMA, GPT2] {
            let mut config = ModelConfig::parse(base, "c").unwrap();
            config.eos = vec![3, 5];
            config.bos = Some(1);
            config.rope_theta = if config.family.positions == Positions::Rotary { 1234.5 } else { 10_000.0 };
            let text = config.to_json("float32").to_string();
            assert_eq!(ModelConfig::parse(&text, "c").unwrap(), config);
        }
    }

    /// Catches a dropout that is dropped without a word.
    #[test]
    fn ignored_dropout_is_noted() {
        let config = with(GPT2, "resid_pdrop", "0.1").unwrap();
        assert_eq!(config.notes.len(), 1);
        assert!(config.notes[0].contains("resid_pdrop"), "{:?}", config.notes);
    }
}
