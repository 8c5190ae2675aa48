//! Tests of reading and writing `config.json`, and of what is refused.

use super::*;
use crate::families::FAMILIES;
use crate::model::{
    params::Layout,
    shape::{fresh::Shape, rope::Scaling},
};

const LLAMA: &str = r#"{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8,
    "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 32}"#;
const GPT2: &str = r#"{"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 32}"#;

fn with(base: &str, key: &str, value: &str) -> Result<ModelConfig> {
    let mut map: Value = serde_json::from_str(base).unwrap();
    map[key] = serde_json::from_str(value).unwrap();
    ModelConfig::parse(&map.to_string(), "m/config.json")
}

/// Catches one family's defaults used for the other.
#[test]
fn absent_keys_have_the_defaults_of_the_family() {
    let llama = ModelConfig::parse(LLAMA, "c").unwrap();
    assert_eq!((llama.kv_heads, llama.head_dim, llama.context, llama.norm_eps), (2, 4, 2048, 1e-6));
    assert!(!llama.tied && !llama.attention_bias && llama.ropes == Ropes::new(Rope::new(10_000.0)));
    let gpt2 = ModelConfig::parse(GPT2, "c").unwrap();
    assert_eq!((gpt2.hidden, gpt2.context, gpt2.norm_eps, gpt2.activation.as_str()), (32, 1024, 1e-5, "gelu_new"));
    assert!(gpt2.tied && gpt2.attention_bias && gpt2.mlp_bias);
}

/// Catches a key that is read in one layout only, or a scaling that is ignored.
#[test]
fn both_layouts_of_the_rotary_base_are_read_and_a_contradiction_is_refused() {
    assert_eq!(with(LLAMA, "rope_theta", "500.0").unwrap().ropes.all, Rope::new(500.0));
    let newer = r#"{"rope_theta": 500.0, "rope_type": "default"}"#;
    assert_eq!(with(LLAMA, "rope_parameters", newer).unwrap().ropes.all, Rope::new(500.0));
    let both = LLAMA.replacen('{', r#"{"rope_theta": 7.0,"#, 1);
    assert!(with(&both, "rope_parameters", newer).is_err());
    let both = LLAMA.replacen('{', r#"{"rope_scaling": {"rope_theta": 7.0, "type": null, "factor": null},"#, 1);
    assert!(with(&both, "rope_parameters", newer).unwrap_err().message().contains("the same as `rope_parameters`"));
}

/// Catches an error that blames the JSON after a byte order mark instead of the mark.
#[test]
fn a_byte_order_mark_is_named_with_the_command_that_removes_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    std::fs::write(&path, format!("\u{FEFF}{LLAMA}")).unwrap();
    let error = ModelConfig::from_folder(folder.path()).unwrap_err().report();
    for expected in ["config.json: begins with a byte order mark", r"sed -i '1s/^\xEF\xBB\xBF//'"] {
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

/// Catches any of these keys being silently ignored; the message must name file, key and value.
#[test]
fn values_that_are_not_implemented_are_refused_with_file_key_and_value() {
    let cases = [
        (LLAMA, "model_type", r#""mamba""#),
        (LLAMA, "architectures", r#"["LlamaForTokenClassification"]"#),
        (LLAMA, "hidden_act", r#""quick_gelu""#),
        (LLAMA, "sliding_window", "128"),
        (LLAMA, "pretraining_tp", "2"),
        (LLAMA, "is_causal", "false"),
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
    let cases = [
        (r#"{"rope_type": "longrope", "factor": 8.0}"#, "rope_type` = \"longrope\" is not implemented"),
        (r#"{"type": "ntk", "factor": 8.0}"#, "type` = \"ntk\" is not implemented"),
        (r#"{"type": "yarn", "factor": 8.0, "attention_factor": -1.0}"#, "(attention_factor) is -1"),
        (r#"{"type": "yarn", "factor": 8.0, "beta_fast": 1, "beta_slow": 2}"#, "beta_fast is 1 and beta_slow 2"),
        (r#"{"type": "yarn", "factor": 8.0, "truncate": 1}"#, "truncate` is 1, expected true or false"),
        (r#"{"type": "dynamic", "factor": 8.0, "alpha": 1.0}"#, "alpha` = 1.0 is not implemented"),
        (r#"{"rope_type": "llama3", "factor": 8.0}"#, "low_freq_factor` is null, expected a number"),
        (r#"{"rope_type": "linear", "factor": 8.0, "beta_fast": 1.0}"#, "beta_fast` = 1.0 is not implemented"),
        (r#"{"rope_type": "default", "partial_rotary_factor": 0.5}"#, "partial_rotary_factor` = 0.5"),
        (r#"{"rope_type": "linear", "factor": 0.5}"#, "factor of the rotary scaling is 0.5"),
        (r#"{"rope_type": 3}"#, "rope_type` is 3, expected a string"),
        (
            r#"{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 0.5}"#,
            "original_max_position_embeddings` is 0.5, expected an integer",
        ),
    ];
    for (value, part) in cases {
        for key in ["rope_scaling", "rope_parameters"] {
            let error = with(LLAMA, key, value).unwrap_err();
            assert!(error.message().contains(part), "{part}: {error:?}");
        }
    }
}

/// Catches a window of the wrong layers, one that the file switches off, and the absent key of a family whose default has one.
#[test]
fn windows_are_those_of_the_layers_that_have_one() {
    let base = |kind: &str, class: &str, more: &str| {
        LLAMA
            .replace("\"llama\"", &format!("\"{kind}\""))
            .replace("LlamaFor", class)
            .replacen('{', &format!("{{{more}"), 1)
            .replace("\"num_hidden_layers\": 1", "\"num_key_value_heads\": 2, \"num_hidden_layers\": 3")
    };
    let windows = |kind: &str, class: &str, more: &str| {
        ModelConfig::parse(&base(kind, class, more), "m/config.json").map(|config| {
            let again = ModelConfig::parse(&config.to_json("float32").to_string(), "c").unwrap();
            assert_eq!(meaning(again), meaning(config.clone()), "written and read back");
            config.windows
        })
    };
    for (kind, class, more, expected) in [
        ("mistral", "MistralFor", "", &[4096, 4096, 4096][..]),
        ("mistral", "MistralFor", r#""sliding_window": null,"#, &[]),
        ("mistral", "MistralFor", r#""sliding_window": 5,"#, &[5, 5, 5]),
        ("phi3", "Phi3For", "", &[]),
        ("phi3", "Phi3For", r#""sliding_window": 7,"#, &[7, 7, 7]),
        ("qwen2", "Qwen2For", r#""sliding_window": 5,"#, &[]),
        (
            "qwen2",
            "Qwen2For",
            r#""use_sliding_window": true, "sliding_window": 5, "max_window_layers": 1,"#,
            &[0, 5, 5],
        ),
        ("qwen2", "Qwen2For", r#""use_sliding_window": true, "sliding_window": 5,"#, &[]),
        (
            "qwen2",
            "Qwen2For",
            r#""use_sliding_window": true, "sliding_window": 5,
               "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],"#,
            &[5, 0, 5],
        ),
    ] {
        assert_eq!(windows(kind, class, more).unwrap(), expected, "{kind} {more}");
    }
    let wrong = r#""use_sliding_window": true, "sliding_window": 5, "max_window_layers": -1,"#;
    let error = windows("qwen2", "Qwen2For", wrong).unwrap_err();
    assert!(error.message().contains("`max_window_layers` is -1, expected an integer from 0"), "{error:?}");
    let wrong = r#""sliding_window": 5, "layer_types": ["sliding_attention", "chunked_attention", "full_attention"],"#;
    let error = windows("mistral", "MistralFor", wrong).unwrap_err();
    assert!(error.message().contains("`layer_types`") && error.message().contains("each of 3 layers"), "{error:?}");
}

/// Catches a key of one family that another one would silently ignore, and layers that contradict each other.
#[test]
fn keys_of_layers_and_rotary_positions_are_refused_where_they_have_no_effect() {
    let base = |kind: &str, class: &str, more: &str| {
        let text = LLAMA.replace("\"llama\"", &format!("\"{kind}\"")).replace("LlamaForCausalLM", class);
        let config = text.replacen('{', &format!("{{\"num_key_value_heads\": 1, \"head_dim\": 4, {more}"), 1);
        ModelConfig::parse(&config, "m/config.json").map(|_| ()).unwrap_err().report()
    };
    let gemma3 = |more: &str| base("gemma3_text", "Gemma3ForCausalLM", more);
    let neox = |more: &str| {
        let text = LLAMA.replace("\"llama\"", "\"gpt_neox\"").replace("LlamaForCausalLM", "GPTNeoXForCausalLM");
        let config = text.replacen('{', &format!("{{{more}"), 1);
        ModelConfig::parse(&config, "m/config.json").map(|_| ()).unwrap_err().report()
    };
    for (report, part) in [
        (gemma3(r#""rope_parameters": {"rope_theta": 5.0},"#), "has the keys full_attention and sliding_attention"),
        (gemma3(r#""sliding_window": null,"#), "`sliding_window` is null, expected an integer from 1"),
        (gemma3(r#""query_pre_attn_scalar": 0,"#), "`query_pre_attn_scalar` is 0, expected a number above 0"),
        (gemma3(r#""use_bidirectional_attention": true,"#), "`use_bidirectional_attention` = true is not implemented"),
        (
            gemma3(r#""rope_local_base_freq": 7.0, "rope_parameters": {"sliding_attention": {"rope_theta": 5.0}},"#),
            "5 as in",
        ),
        (
            base("mistral", "MistralForCausalLM", r#""layer_types": ["full_attention"],"#),
            "set it to null if no layer has one",
        ),
        (base("smollm3", "SmolLM3ForCausalLM", r#""no_rope_layers": [2],"#), "for each of 1 layers"),
        (base("olmo2", "Olmo2ForCausalLM", r#""clip_qkv": 8.0,"#), "`clip_qkv` = 8.0 is not implemented"),
        (neox(r#""rope_theta": 500.0,"#), "`rope_theta` = 500.0 is not implemented"),
        (neox(r#""rotary_pct": 0.1,"#), "0.1 of a head of width 4 holds no pair to rotate"),
        (neox(r#""rotary_pct": 0.5, "rope_parameters": {"partial_rotary_factor": 1.0},"#), "1 as in `rope_parameters`"),
    ] {
        assert!(report.contains("m/config.json") && report.contains(part), "{part} is missing in {report}");
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

/// Catches a key that is written under a name or in a form that reading does not accept.
#[test]
fn a_written_config_reads_back_equal() {
    for base in [LLAMA, GPT2] {
        let mut config = ModelConfig::parse(base, "c").unwrap();
        config.eos = vec![3, 5];
        config.bos = Some(1);
        if config.family.positions == Positions::Rotary {
            let scaling = Scaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8192 };
            config.ropes.all = Rope { scaling, ..Rope::new(1234.5) };
        }
        let text = config.to_json("float32").to_string();
        assert_eq!(meaning(ModelConfig::parse(&text, "c").unwrap()), meaning(config));
    }
}

/// The config without the keys of its file, which hold more after it was written.
fn meaning(config: ModelConfig) -> ModelConfig {
    ModelConfig { original: Map::new(), ..config }
}

/// Catches a family whose config.json lacks a value of a fresh shape, and one with two parameters of one name.
#[test]
fn a_fresh_shape_of_every_family_reads_back_equal() {
    for arch in FAMILIES {
        let shape = Shape {
            arch,
            layers: 2,
            dim: 8,
            heads: 2,
            kv_heads: arch.keys.kv_heads.map(|_| 1),
            hidden: 12,
            context: 16,
            vocab: None,
            tied: !arch.defaults.tied,
            norm_eps: 1e-3,
            rope_theta: (arch.positions == Positions::Rotary).then_some(500.0),
            init_std: 0.1,
        };
        let config = ModelConfig::from_shape(&shape, 32).unwrap();
        let text = config.to_json("float32").to_string();
        assert_eq!(meaning(ModelConfig::parse(&text, "c").unwrap()), config);
        let layout = Layout::new(&config).unwrap();
        for (index, parameter) in layout.parameters().iter().enumerate() {
            assert_eq!(layout.index(&parameter.name), Some(index), "{}", parameter.name);
        }
    }
}

/// Catches a dropout that is ignored without a note.
#[test]
fn ignored_dropout_is_noted() {
    let config = with(GPT2, "resid_pdrop", "0.1").unwrap();
    assert_eq!(config.notes.len(), 1);
    assert!(config.notes[0].contains("resid_pdrop"), "{:?}", config.notes);
}
