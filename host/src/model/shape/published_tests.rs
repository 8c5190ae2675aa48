//! config.json of published models: each gives the number of parameters that the model has, or is refused with the reason.

use serde_json::{Map, Value, json};

use super::super::config::ModelConfig;
use super::super::rope::Scaling;
use crate::model::params::Layout;

fn parse(config: &Value) -> ModelConfig {
    ModelConfig::parse(&config.to_string(), "c").unwrap_or_else(|error| panic!("{config}: {}", error.report()))
}

/// Checks the number of parameters, and that the written config is read back equal. Returns the config.
fn published(config: &Value, parameters: u64) -> ModelConfig {
    let read = parse(config);
    assert_eq!(Layout::new(&read).unwrap().count(), parameters, "{config}");
    let again = parse(&read.to_json("float32"));
    let meaning = |config| ModelConfig { notes: Vec::new(), original: Map::new(), ..config };
    assert_eq!(meaning(again), meaning(read.clone()));
    read
}

fn smollm2() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 0,
        "eos_token_id": 0, "hidden_act": "silu", "hidden_size": 576, "initializer_range": 0.041666666666666664,
        "intermediate_size": 1536, "is_llama_config": true, "max_position_embeddings": 8192, "model_type": "llama",
        "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3, "pretraining_tp": 1,
        "rms_norm_eps": 1e-05, "rope_interleaved": false, "rope_scaling": null, "rope_theta": 100000,
        "tie_word_embeddings": true, "torch_dtype": "bfloat16", "transformers_version": "4.40.1", "use_cache": true,
        "vocab_size": 49152
    })
}

fn phi3_mini(more: &Value) -> Value {
    let mut config = json!({
        "architectures": ["Phi3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"}, "bos_token_id": 1, "embd_pdrop": 0.0,
        "eos_token_id": 32000, "hidden_act": "silu", "hidden_size": 3072, "initializer_range": 0.02,
        "intermediate_size": 8192, "max_position_embeddings": 4096, "model_type": "phi3", "num_attention_heads": 32,
        "num_hidden_layers": 32, "num_key_value_heads": 32, "original_max_position_embeddings": 4096,
        "pad_token_id": 32000, "resid_pdrop": 0.0, "rms_norm_eps": 1e-05, "rope_scaling": null, "rope_theta": 10000.0,
        "sliding_window": 2047, "tie_word_embeddings": false, "torch_dtype": "bfloat16", "vocab_size": 32064
    });
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

/// Catches a family whose shape lacks a tensor or has one too many, and a key of a published config that is refused.
#[test]
fn published_models_have_their_numbers_of_parameters() {
    published(&smollm2(), 134_515_008);
    let llama = json!({
        "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 128000,
        "eos_token_id": 128001, "head_dim": 64, "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02,
        "intermediate_size": 8192, "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama",
        "num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8, "pretraining_tp": 1,
        "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "tie_word_embeddings": true, "vocab_size": 128256,
        "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192, "rope_type": "llama3"}
    });
    assert!(matches!(published(&llama, 1_235_814_400).ropes.all.scaling, Scaling::Llama3 { original: 8192, .. }));
    let qwen2 = json!({
        "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151643,
        "hidden_act": "silu", "hidden_size": 896, "initializer_range": 0.02, "intermediate_size": 4864,
        "max_position_embeddings": 32768, "max_window_layers": 24, "model_type": "qwen2", "num_attention_heads": 14,
        "num_hidden_layers": 24, "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
        "sliding_window": 32768, "tie_word_embeddings": true, "use_mrope": false, "use_sliding_window": false,
        "vocab_size": 151936
    });
    assert!(published(&qwen2, 494_032_768).windows.is_empty());
    let qwen3 = json!({
        "architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "head_dim": 128,
        "hidden_act": "silu", "hidden_size": 1024, "intermediate_size": 3072, "max_position_embeddings": 40960,
        "max_window_layers": 28, "model_type": "qwen3", "num_attention_heads": 16, "num_hidden_layers": 28,
        "num_key_value_heads": 8, "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000,
        "sliding_window": null, "tie_word_embeddings": true, "use_sliding_window": false, "vocab_size": 151936
    });
    published(&qwen3, 596_049_920);
    let mistral = |vocab: u64, window: Value, theta: f64| {
        json!({
            "architectures": ["MistralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
            "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
            "max_position_embeddings": 32768, "model_type": "mistral", "num_attention_heads": 32,
            "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": theta,
            "sliding_window": window, "tie_word_embeddings": false, "vocab_size": vocab
        })
    };
    assert_eq!(published(&mistral(32000, json!(4096), 1e4), 7_241_732_096).windows, [4096; 32]);
    assert!(published(&mistral(32768, Value::Null, 1e6), 7_248_023_552).windows.is_empty());
    let olmo2 = json!({
        "architectures": ["Olmo2ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "eos_token_id": 100257,
        "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 8192,
        "max_position_embeddings": 4096, "model_type": "olmo2", "num_attention_heads": 16, "num_hidden_layers": 16,
        "num_key_value_heads": 16, "pad_token_id": 100277, "rms_norm_eps": 1e-06, "rope_scaling": null,
        "rope_theta": 500000, "tie_word_embeddings": false, "vocab_size": 100352
    });
    published(&olmo2, 1_484_916_736);
    let pythia = json!({
        "architectures": ["GPTNeoXForCausalLM"], "bos_token_id": 0, "eos_token_id": 0, "hidden_act": "gelu",
        "hidden_size": 512, "initializer_range": 0.02, "intermediate_size": 2048, "layer_norm_eps": 1e-05,
        "max_position_embeddings": 2048, "model_type": "gpt_neox", "num_attention_heads": 8, "num_hidden_layers": 6,
        "rotary_emb_base": 10000, "rotary_pct": 0.25, "tie_word_embeddings": false, "torch_dtype": "float16",
        "use_parallel_residual": true, "vocab_size": 50304
    });
    let pythia = published(&pythia, 70_426_624);
    assert!(pythia.parallel && pythia.ropes.all.frequencies(pythia.head_dim).len() == 8);
    let smollm3 = json!({
        "architectures": ["SmolLM3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": 128000, "eos_token_id": 128012, "hidden_act": "silu", "hidden_size": 2048,
        "initializer_range": 0.02, "intermediate_size": 11008, "layer_types": vec!["full_attention"; 36],
        "max_position_embeddings": 65536, "max_window_layers": 28, "mlp_bias": false, "model_type": "smollm3",
        "no_rope_layer_interval": 4, "no_rope_layers": (1..=36).map(|i| u8::from(i % 4 != 0)).collect::<Vec<_>>(),
        "num_attention_heads": 16, "num_hidden_layers": 36, "num_key_value_heads": 4, "pad_token_id": 128004,
        "pretraining_tp": 2, "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 5000000.0,
        "sliding_window": null, "use_sliding_window": false, "vocab_size": 128256
    });
    let smollm3 = published(&smollm3, 3_075_098_624);
    assert!(smollm3.tied && smollm3.rope(2).is_some() && smollm3.rope(3).is_none());
}

/// Catches layers of Gemma that exchange their windows or their rotary bases, and a scale or cap that is not read.
#[test]
fn gemma_has_its_caps_windows_and_bases() {
    let gemma2 = json!({
        "architectures": ["Gemma2ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "attn_logit_softcapping": 50.0, "bos_token_id": 2, "cache_implementation": "hybrid", "eos_token_id": 1,
        "final_logit_softcapping": 30.0, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 2304, "initializer_range": 0.02,
        "intermediate_size": 9216, "max_position_embeddings": 8192, "model_type": "gemma2", "num_attention_heads": 8,
        "num_hidden_layers": 26, "num_key_value_heads": 4, "pad_token_id": 0, "query_pre_attn_scalar": 256,
        "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "sliding_window": 4096, "torch_dtype": "float32",
        "vocab_size": 256000
    });
    let gemma2 = published(&gemma2, 2_614_341_888);
    assert_eq!(gemma2.windows, [4096, 0].repeat(13));
    assert_eq!((gemma2.score_cap, gemma2.logit_cap, gemma2.attention_scale()), (50.0, 30.0, 1.0 / 16.0));
    let gemma3 = json!({
        "architectures": ["Gemma3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "attn_logit_softcapping": null, "bos_token_id": 2, "cache_implementation": "hybrid", "eos_token_id": [1, 106],
        "final_logit_softcapping": null, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1152,
        "initializer_range": 0.02, "intermediate_size": 6912, "max_position_embeddings": 32768,
        "model_type": "gemma3_text", "num_attention_heads": 4, "num_hidden_layers": 26, "num_key_value_heads": 1,
        "pad_token_id": 0, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000,
        "rope_scaling": null, "rope_theta": 1000000, "sliding_window": 512, "sliding_window_pattern": 6,
        "torch_dtype": "bfloat16", "vocab_size": 262144
    });
    let gemma3 = published(&gemma3, 999_885_952);
    assert_eq!(gemma3.windows[..7], [512, 512, 512, 512, 512, 0, 512]);
    assert_eq!((gemma3.rope(4).unwrap().theta, gemma3.rope(5).unwrap().theta), (1e4, 1e6));
    assert_eq!((gemma3.score_cap, gemma3.logit_cap), (0.0, 0.0));
}

/// Catches a longer context than that in which the frequencies hold, one that is saved in place of the model's own, and a part of a
/// head that is ignored.
#[test]
fn phi3_with_long_contexts_is_limited_to_the_original_length() {
    assert_eq!(published(&phi3_mini(&json!({})), 3_821_079_552).windows, [2047; 32]);
    let scaling = json!({"long_factor": vec![2.5; 48], "short_factor": vec![1.05; 48], "type": "longrope"});
    let long = json!({"max_position_embeddings": 131072, "rope_scaling": scaling, "sliding_window": 262144});
    let read = published(&phi3_mini(&long), 3_821_079_552);
    assert_eq!(read.context, 4096);
    assert!(read.notes[0].contains("limited to 4096"), "{:?}", read.notes);
    assert_eq!(read.to_json("float32")["max_position_embeddings"], 131072);
    let amplitude = read.ropes.all.amplitude();
    assert!((amplitude - (1.0 + 32_f64.ln() / 4096_f64.ln()).sqrt()).abs() < 1e-15, "{amplitude}");
    let phi4 = json!({
        "max_position_embeddings": 131072, "rope_scaling": scaling, "sliding_window": 262144, "num_attention_heads": 24,
        "num_key_value_heads": 8, "partial_rotary_factor": 0.75, "tie_word_embeddings": true, "vocab_size": 200064
    });
    assert_eq!(published(&phi3_mini(&phi4), 3_836_021_760).ropes.all.share, 0.75);
    let short = json!({"rope_scaling": {"long_factor": [1.0], "short_factor": vec![1.0; 48], "type": "longrope"}});
    let error = ModelConfig::parse(&phi3_mini(&short).to_string(), "c").unwrap_err();
    assert!(error.message().contains("long_factor has 1 numbers, expected 48"), "{error:?}");
}

/// Catches a model that would load and compute something else, and a refusal without its reason.
#[test]
fn other_published_models_are_refused_with_the_reason() {
    let with = |pairs: &[(&str, Value)]| {
        let mut config = smollm2();
        for (key, value) in pairs {
            config[*key] = value.clone();
        }
        ModelConfig::parse(&config.to_string(), "c").unwrap_err().report()
    };
    for (kind, experts) in
        [("mixtral", "num_local_experts"), ("qwen3_moe", "num_experts"), ("deepseek_v3", "n_routed_experts")]
    {
        let report = with(&[("model_type", json!(kind)), (experts, json!(8))]);
        for part in
            [&format!("`model_type` = \"{kind}\" is not implemented"), "mixture of experts", "implemented are llama"]
        {
            assert!(report.contains(part), "{part} is missing in {report}");
        }
    }
    let report = with(&[("model_type", json!("gemma3")), ("text_config", json!({"model_type": "gemma3_text"}))]);
    assert!(report.contains("text_config") && report.contains("implemented are llama"), "{report}");
    let report = with(&[("rope_interleaved", json!(true))]);
    assert!(report.contains("`rope_interleaved` = true"), "{report}");
}
