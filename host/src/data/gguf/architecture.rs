//! The architectures of GGUF files that are read: the Hugging Face names of their tensors, and what llama.cpp's converter
//! (`convert_hf_to_gguf.py`) changes in their values, which is undone.

use super::header::{Gguf, unusable};
use crate::data::error::{DataError, Result};

/// An architecture.
#[derive(Debug)]
pub struct Architecture {
    /// `general.architecture`, the prefix of its keys.
    pub name: &'static str,
    /// `model_type` of config.json.
    pub model_type: &'static str,
    /// `architectures` of config.json.
    pub class: &'static str,
    /// Whether the rows of each head of queries and keys are stored in the order of pairs (0, D/2, 1, D/2 + 1, ...).
    pub pairs: bool,
    /// Whether Hugging Face files store its matrices as (in, out); GGUF files never do.
    pub transposed: bool,
    /// What the converter has added to the weights of norms.
    pub norm_offset: f64,
    /// Whether Hugging Face files have a joint projection head by head, each with its query, key and value; GGUF files have all
    /// queries first.
    pub by_head: bool,
    /// Names of tensors outside of layers: in GGUF, in Hugging Face files.
    pub names: &'static [(&'static str, &'static str)],
    /// Start of the Hugging Face names of a layer's tensors, before its number.
    pub layer: &'static str,
    /// Names of a layer's tensors, in groups.
    pub layer_names: &'static [&'static [(&'static str, &'static str)]],
}

const LLAMA_NAMES: &[(&str, &str)] =
    &[("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")];

/// The linear maps of a layer, and the norms of queries and keys.
const MAPS: &[(&str, &str)] = &[
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// The norms before both branches.
const BEFORE: &[(&str, &str)] = &[("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm")];

/// The norms after both branches.
const AFTER: &[(&str, &str)] =
    &[("post_attention_norm", "post_attention_layernorm"), ("post_ffw_norm", "post_feedforward_layernorm")];

const GEMMA_LAYER: &[&[(&str, &str)]] =
    &[MAPS, AFTER, &[("attn_norm", "input_layernorm"), ("ffn_norm", "pre_feedforward_layernorm")]];

const LLAMA: Architecture = Architecture {
    name: "llama",
    model_type: "llama",
    class: "LlamaForCausalLM",
    pairs: true,
    transposed: false,
    norm_offset: 0.0,
    by_head: false,
    names: LLAMA_NAMES,
    layer: "model.layers.",
    layer_names: &[MAPS, BEFORE],
};

/// Every architecture that is read. Mistral's files have the name "llama".
pub const ALL: &[Architecture] = &[
    LLAMA,
    Architecture { name: "qwen2", model_type: "qwen2", class: "Qwen2ForCausalLM", pairs: false, ..LLAMA },
    Architecture { name: "qwen3", model_type: "qwen3", class: "Qwen3ForCausalLM", pairs: false, ..LLAMA },
    Architecture {
        name: "phi3",
        model_type: "phi3",
        class: "Phi3ForCausalLM",
        pairs: false,
        layer_names: &[
            BEFORE,
            &[
                ("attn_qkv", "self_attn.qkv_proj"),
                ("attn_output", "self_attn.o_proj"),
                ("ffn_up", "mlp.gate_up_proj"),
                ("ffn_down", "mlp.down_proj"),
            ],
        ],
        ..LLAMA
    },
    Architecture { name: "smollm3", model_type: "smollm3", class: "SmolLM3ForCausalLM", ..LLAMA },
    Architecture {
        name: "gemma2",
        model_type: "gemma2",
        class: "Gemma2ForCausalLM",
        pairs: false,
        norm_offset: 1.0,
        layer_names: GEMMA_LAYER,
        ..LLAMA
    },
    Architecture {
        name: "gemma3",
        model_type: "gemma3_text",
        class: "Gemma3ForCausalLM",
        pairs: false,
        norm_offset: 1.0,
        layer_names: GEMMA_LAYER,
        ..LLAMA
    },
    Architecture {
        name: "olmo2",
        model_type: "olmo2",
        class: "Olmo2ForCausalLM",
        pairs: false,
        layer_names: &[MAPS, AFTER],
        ..LLAMA
    },
    Architecture {
        name: "gptneox",
        model_type: "gpt_neox",
        class: "GPTNeoXForCausalLM",
        pairs: false,
        transposed: false,
        norm_offset: 0.0,
        by_head: true,
        names: &[
            ("token_embd", "gpt_neox.embed_in"),
            ("output_norm", "gpt_neox.final_layer_norm"),
            ("output", "embed_out"),
        ],
        layer: "gpt_neox.layers.",
        layer_names: &[
            BEFORE,
            &[
                ("attn_qkv", "attention.query_key_value"),
                ("attn_output", "attention.dense"),
                ("ffn_up", "mlp.dense_h_to_4h"),
                ("ffn_down", "mlp.dense_4h_to_h"),
            ],
        ],
    },
    Architecture {
        name: "gpt2",
        model_type: "gpt2",
        class: "GPT2LMHeadModel",
        pairs: false,
        transposed: true,
        norm_offset: 0.0,
        by_head: false,
        names: &[
            ("token_embd", "transformer.wte"),
            ("position_embd", "transformer.wpe"),
            ("output_norm", "transformer.ln_f"),
            ("output", "lm_head"),
        ],
        layer: "transformer.h.",
        layer_names: &[&[
            ("attn_norm", "ln_1"),
            ("attn_qkv", "attn.c_attn"),
            ("attn_output", "attn.c_proj"),
            ("ffn_norm", "ln_2"),
            ("ffn_up", "mlp.c_fc"),
            ("ffn_down", "mlp.c_proj"),
        ]],
    },
];

/// How the values of a tensor differ from those of a Hugging Face file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    /// They do not.
    None,
    /// The rows of each head are in the order of pairs.
    Pairs {
        /// Number of heads.
        heads: usize,
    },
    /// The rows of all queries come first, then those of all keys and of all values.
    Joint {
        /// Number of heads.
        heads: usize,
    },
    /// This was added.
    Offset(f64),
}

/// A tensor that is not a parameter: the factors of rotary frequencies, which become keys of config.json.
pub const ROTARY_FACTORS: &str = "rope_freqs.weight";

impl Architecture {
    /// Returns the Hugging Face name of a tensor; `None` if the architecture has no such tensor.
    pub fn hugging_face(&self, name: &str) -> Option<String> {
        let find = |names: &[(&str, &str)], name: &str| {
            let (stem, ending) = name.rsplit_once('.').filter(|(_, ending)| matches!(*ending, "weight" | "bias"))?;
            let (_, own) = names.iter().find(|(gguf, _)| *gguf == stem)?;
            Some(format!("{own}.{ending}"))
        };
        match name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
            Some((number, rest)) => {
                number.parse::<u32>().ok().filter(|parsed| parsed.to_string() == number)?;
                let found = self.layer_names.iter().find_map(|names| find(names, rest))?;
                Some(format!("{}{number}.{found}", self.layer))
            }
            None => find(self.names, name),
        }
    }

    /// What is undone in the values of a tensor, by its name in the file.
    ///
    /// # Errors
    /// The number of heads is missing.
    pub fn change(&self, file: &Gguf, name: &str) -> Result<Change> {
        let stem = name.rsplit('.').nth(1).unwrap_or_default();
        Ok(match stem {
            "attn_q" if self.pairs => Change::Pairs { heads: self.heads(file)? as usize },
            "attn_k" if self.pairs => Change::Pairs { heads: self.kv_heads(file)? as usize },
            "attn_qkv" if self.by_head => Change::Joint { heads: self.heads(file)? as usize },
            _ if self.norm_offset != 0.0 && stem.ends_with("norm") => Change::Offset(self.norm_offset),
            _ => Change::None,
        })
    }

    /// The key of the architecture with this name.
    pub(super) fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.name)
    }

    /// Number of query heads.
    pub(super) fn heads(&self, file: &Gguf) -> Result<u64> {
        let key = self.key("attention.head_count");
        file.size(&key).and_then(|heads| if heads == 0 { Err(file.wrong(&key, "a number from 1")) } else { Ok(heads) })
    }

    /// Number of key and value heads.
    pub(super) fn kv_heads(&self, file: &Gguf) -> Result<u64> {
        match file.optional_size(&self.key("attention.head_count_kv"))? {
            Some(heads) => Ok(heads),
            None => self.heads(file),
        }
    }
}

/// Returns the architecture of a file.
///
/// # Errors
/// An architecture that is not read, with the list of those that are.
pub fn of(file: &Gguf) -> Result<&'static Architecture> {
    let name = file.optional_text("general.architecture")?;
    let name = name.ok_or_else(|| unusable(&file.path, "the key `general.architecture` is missing".into()))?;
    ALL.iter().find(|known| known.name == name).ok_or_else(|| {
        let known: Vec<&str> = ALL.iter().map(|known| known.name).collect();
        DataError::Unusable {
            path: file.path.clone(),
            what: format!("has the architecture \"{name}\"; GGUF files of {} are read", known.join(", ")),
            remedy: "use the model's safetensors version".into(),
            source: None,
        }
    })
}
