//! `config.json` and `generation_config.json` from the metadata of a GGUF file.

use serde_json::{Map, Value, json};

use super::architecture::{self, Architecture, ROTARY_FACTORS};
use super::header::{self, Gguf, unusable};
use super::quants;
use crate::data::error::Result;

/// Keys of an architecture that are read, without its prefix.
const READ: &[&str] = &[
    "vocab_size",
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.layer_norm_epsilon",
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "use_parallel_residual",
    "attention.causal",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
];

/// Keys that do not change what the model computes if they have these values, as texts.
const HARMLESS: &[(&str, &[&str])] = &[
    ("expert_count", &["Integer(0)"]),
    ("expert_used_count", &["Integer(0)"]),
    ("tensor_data_layout", &["Text(\"Meta AI original pth\")"]),
    ("rope.scale_linear", &["Float(1.0)"]),
    ("pooling_type", &["Integer(0)"]),
];

/// Returns `config.json` and `generation_config.json`.
///
/// # Errors
/// An architecture that is not read; keys that are missing, of a wrong type, or not read.
pub(super) fn json(file: &Gguf) -> Result<[Value; 2]> {
    let own = architecture::of(file)?;
    refuse_unread(file, own)?;
    let size = |name: &str| file.size(&own.key(name));
    let optional = |name: &str| file.optional_size(&own.key(name));
    let epsilon = |name: &str| file.optional_float(&own.key(name)).map(|value| value.unwrap_or(1e-5));
    let has = |name: &str| file.tensors.contains_key(name);
    let vocab = file.tensors.get("token_embd.weight").and_then(|info| info.shape.first().copied());
    let vocab = vocab.ok_or_else(|| unusable(&file.path, "the tensor `token_embd.weight` is missing".into()))?;
    let (dim, heads) = (size("embedding_length")?, own.heads(file)?);
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| {
        map.insert(key.to_owned(), value);
    };
    put("architectures", json!([own.class]));
    put("model_type", json!(own.model_type));
    put("vocab_size", json!(vocab));
    put("tie_word_embeddings", json!(!has("output.weight")));
    if own.model_type == "gpt2" {
        put("n_layer", json!(size("block_count")?));
        put("n_embd", json!(dim));
        put("n_head", json!(heads));
        put("n_inner", json!(size("feed_forward_length")?));
        put("n_positions", json!(size("context_length")?));
        put("layer_norm_epsilon", json!(epsilon("attention.layer_norm_epsilon")?));
        put("activation_function", json!("gelu_new"));
    } else if own.model_type == "gpt_neox" {
        put("num_hidden_layers", json!(size("block_count")?));
        put("hidden_size", json!(dim));
        put("num_attention_heads", json!(heads));
        put("intermediate_size", json!(size("feed_forward_length")?));
        put("max_position_embeddings", json!(size("context_length")?));
        put("layer_norm_eps", json!(epsilon("attention.layer_norm_epsilon")?));
        put("hidden_act", json!("gelu"));
        let parallel = file.optional_flag(&own.key("use_parallel_residual"))?;
        put("use_parallel_residual", json!(parallel.unwrap_or(true)));
        let rotated = optional("rope.dimension_count")?.unwrap_or(dim / heads);
        put("rotary_pct", json!(rotated as f64 / (dim as f64 / heads as f64)));
        put("rotary_emb_base", json!(file.optional_float(&own.key("rope.freq_base"))?.unwrap_or(10_000.0)));
        put("attention_bias", json!(has("blk.0.attn_qkv.bias")));
        let scaling = own.key("rope.scaling.type");
        if file.optional_text(&scaling)?.is_some_and(|kind| kind != "none") {
            return Err(file.wrong(&scaling, "\"none\""));
        }
    } else {
        let head_dim = optional("attention.key_length")?.unwrap_or(dim / heads);
        put("num_hidden_layers", json!(size("block_count")?));
        put("hidden_size", json!(dim));
        put("num_attention_heads", json!(heads));
        put("num_key_value_heads", json!(own.kv_heads(file)?));
        put("head_dim", json!(head_dim));
        put("intermediate_size", json!(size("feed_forward_length")?));
        put("max_position_embeddings", json!(size("context_length")?));
        put("rms_norm_eps", json!(epsilon("attention.layer_norm_rms_epsilon")?));
        if own.name.starts_with("gemma") {
            gemma(file, own, [dim, heads, head_dim], &mut put)?;
        } else {
            put("hidden_act", json!("silu"));
        }
        if own.model_type == "smollm3" {
            // llama.cpp has the same interval in its code.
            put("no_rope_layer_interval", json!(4));
        }
        if own.model_type == "llama" {
            put("attention_bias", json!(has("blk.0.attn_q.bias")));
            put("mlp_bias", json!(has("blk.0.ffn_up.bias")));
        }
        if let Some(window) = optional("attention.sliding_window")?.filter(|window| *window > 0) {
            put("sliding_window", json!(window));
        }
        if optional("attention.value_length")?.is_some_and(|width| width != head_dim) {
            return Err(file.wrong(&own.key("attention.value_length"), &format!("{head_dim}, the width of keys")));
        }
        rotary(file, own, head_dim, &mut put)?;
    }
    for (key, of) in [("bos_token_id", "bos"), ("eos_token_id", "eos"), ("pad_token_id", "padding")] {
        put(key, json!(file.optional_size(&format!("tokenizer.ggml.{of}_token_id"))?));
    }
    put("torch_dtype", json!("float32"));
    Ok([Value::Object(map), generation(file)?])
}

/// Writes the keys of Gemma 2 and 3.
fn gemma(file: &Gguf, own: &Architecture, sizes: [u64; 3], put: &mut impl FnMut(&str, Value)) -> Result<()> {
    let [dim, heads, head_dim] = sizes;
    put("hidden_activation", json!("gelu_pytorch_tanh"));
    let layers = file.size(&own.key("block_count"))?;
    // The metadata have no factor of attention's scores: llama.cpp has it in its code, another one for the models of 27 billion
    // parameters.
    let is_27b = (own.name == "gemma2" && layers == 46) || (own.name == "gemma3" && layers == 62);
    put("query_pre_attn_scalar", json!(if is_27b { dim / heads } else { head_dim }));
    for name in ["attn_logit_softcapping", "final_logit_softcapping"] {
        let cap = file.optional_float(&own.key(name))?;
        let missing =
            if own.name == "gemma2" { Some(if name.starts_with("attn") { 50.0 } else { 30.0 }) } else { None };
        put(name, json!(cap.or(missing)));
    }
    if own.name == "gemma3" {
        let period = file.optional_size(&own.key("attention.sliding_window_pattern"))?.unwrap_or(6);
        put("sliding_window_pattern", json!(period));
        put("rope_local_base_freq", json!(10_000.0));
    }
    Ok(())
}

fn generation(file: &Gguf) -> Result<Value> {
    let id = |of: &str| file.optional_size(&format!("tokenizer.ggml.{of}_token_id"));
    let mut ends: Vec<u64> = Vec::new();
    // End of text, of a turn, of a message: each of them ends an answer.
    for of in ["eos", "eot", "eom"] {
        ends.extend(id(of)?.filter(|end| !ends.contains(end)));
    }
    let mut map = Map::new();
    map.insert("_from_model_config".into(), json!(true));
    map.insert("bos_token_id".into(), json!(id("bos")?));
    map.insert("eos_token_id".into(), if let [one] = ends[..] { json!(one) } else { json!(ends) });
    map.insert("pad_token_id".into(), json!(id("padding")?));
    Ok(Value::Object(map))
}

fn refuse_unread(file: &Gguf, own: &Architecture) -> Result<()> {
    let prefix = format!("{}.", own.name);
    for (key, value) in &file.metadata {
        let Some(name) = key.strip_prefix(&prefix).filter(|name| !READ.contains(name)) else { continue };
        let value = format!("{value:?}");
        let harmless = HARMLESS.iter().any(|(known, values)| *known == name && values.contains(&value.as_str()));
        if !harmless {
            return Err(file.wrong(key, "that it is absent: it is not implemented"));
        }
    }
    match file.optional_flag(&own.key("attention.causal"))? {
        Some(false) => Err(file.wrong(&own.key("attention.causal"), "true")),
        _ => Ok(()),
    }
}

/// Writes the keys of rotary positions.
fn rotary(file: &Gguf, own: &Architecture, head_dim: u64, put: &mut impl FnMut(&str, Value)) -> Result<()> {
    let theta = file.optional_float(&own.key("rope.freq_base"))?.unwrap_or(10_000.0);
    put("rope_theta", json!(theta));
    let rotated = file.optional_size(&own.key("rope.dimension_count"))?.unwrap_or(head_dim);
    if rotated != head_dim && head_dim > 0 {
        put("partial_rotary_factor", json!(rotated as f64 / head_dim as f64));
    }
    let (kind_key, factor_key) = (own.key("rope.scaling.type"), own.key("rope.scaling.factor"));
    let kind = file.optional_text(&kind_key)?.unwrap_or("none");
    let factor = file.optional_float(&factor_key)?;
    let original = file.optional_size(&own.key("rope.scaling.original_context_length"))?;
    let need = |value: Option<f64>| value.ok_or_else(|| file.wrong(&factor_key, "a number"));
    let scaling = match kind {
        "none" => None,
        "linear" => Some(json!({"rope_type": "linear", "factor": need(factor)?})),
        "yarn" => {
            let mut scaling = json!({"rope_type": "yarn", "factor": need(factor)?});
            if let Some(original) = original {
                scaling["original_max_position_embeddings"] = json!(original);
            }
            Some(scaling)
        }
        _ => return Err(file.wrong(&kind_key, "\"none\", \"linear\" or \"yarn\"")),
    };
    for name in ["rope_factors_long.weight", "rope_factors_short.weight"] {
        if file.tensors.contains_key(name) {
            return Err(unusable(&file.path, format!("the tensor `{name}` (LongRoPE) is not implemented")));
        }
    }
    let factors = factors(file, head_dim / 2)?;
    let scaling = match (scaling, factors) {
        (scaling, None) => scaling,
        (None, Some(factors)) => Some(llama3(file, theta, &factors)?),
        (Some(_), Some(_)) => {
            return Err(unusable(
                &file.path,
                format!("`{kind_key}` and the tensor `{ROTARY_FACTORS}` contradict each other"),
            ));
        }
    };
    if let Some(scaling) = scaling {
        put("rope_scaling", scaling);
    }
    Ok(())
}

/// Reads the factors by which the rotary frequencies are divided, if the file has them.
fn factors(file: &Gguf, pairs: u64) -> Result<Option<Vec<f32>>> {
    let Some(info) = file.tensors.get(ROTARY_FACTORS) else { return Ok(None) };
    if info.kind != quants::F32 || info.elements != pairs {
        let what = format!("the tensor `{ROTARY_FACTORS}` has {} values, expected {pairs} of F32", info.elements);
        return Err(unusable(&file.path, what));
    }
    let mut open = crate::files::open(&file.path).map_err(crate::data::DataError::io("read", &file.path))?;
    let bytes = header::read_tensor(&file.path, &mut open, ROTARY_FACTORS, info)?;
    Ok(Some(bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect()))
}

/// Finds the keys of Llama 3's scaling that give these factors: the converter of llama.cpp stores the factors alone.
fn llama3(file: &Gguf, theta: f64, factors: &[f32]) -> Result<Value> {
    let (low, high) = (1.0, 4.0);
    let factor = f64::from(factors.iter().copied().fold(1.0, f32::max));
    for original in (5..=20).map(|power| 1_u64 << power) {
        let divisor = |pair: usize| {
            let frequency = theta.powf(-((2 * pair) as f64) / (2 * factors.len()) as f64);
            let periods = original as f64 * frequency / std::f64::consts::TAU;
            let kept = ((periods - low) / (high - low)).clamp(0.0, 1.0);
            1.0 / ((1.0 - kept) / factor + kept)
        };
        let same = |(pair, found): (usize, &f32)| (divisor(pair) / f64::from(*found) - 1.0).abs() < 1e-4;
        if factors.iter().enumerate().all(same) {
            return Ok(json!({
                "rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
                "original_max_position_embeddings": original,
            }));
        }
    }
    let what = format!("the factors in the tensor `{ROTARY_FACTORS}` are not those of Llama 3's scaling");
    Err(unusable(&file.path, what))
}
