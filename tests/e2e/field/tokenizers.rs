//! Side files of a tokenizer or a model folder, read as transformers reads them.

use std::fs;

use serde_json::{Value, json};

use super::case;

/// Catches special tokens that are spelt out byte by byte.
#[test]
fn special_tokens_in_decoder() {
    let lab = case("special-tokens-in-decoder");
    assert_eq!(lab.check("case.toml", &[])["train_tokens"], json!(24));
    // The same tokens named in the older files: special_tokens_map.json and added_tokens.json.
    let path = lab.at("tok/tokenizer_config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).expect("a file")).expect("JSON");
    config.as_object_mut().expect("an object").remove("added_tokens_decoder");
    lab.write("tok/tokenizer_config.json", config.to_string());
    assert_eq!(lab.check("case.toml", &[])["train_tokens"], json!(64));
    lab.write("tok/added_tokens.json", r#"{"<|im_start|>": 259, "<|im_end|>": 260}"#);
    assert_eq!(lab.check("case.toml", &[])["train_tokens"], json!(24));
    fs::remove_file(lab.at("tok/added_tokens.json")).expect("removed");
    let token = |text: &str| json!({"content": text, "lstrip": false, "rstrip": false, "normalized": false});
    let map = json!({"additional_special_tokens": [token("<|im_start|>"), token("<|im_end|>")]});
    lab.write("tok/special_tokens_map.json", map.to_string());
    assert_eq!(lab.check("case.toml", &[])["train_tokens"], json!(24));
    lab.write("tok/special_tokens_map.json", b"{\"eos_token\": \"\xff\"}");
    lab.ask(&["check", "case.toml"]).refuses(2, &["tok/special_tokens_map.json"]);
}

/// Catches another template that is used without a note, and rows that need none but are refused.
#[test]
fn template_named_only() {
    let lab = case("template-named-only");
    let listed = ["data.chat_template", "rag, tool_use", "tokenizer:rag"];
    lab.ask(&["check", "case.toml"]).refuses(2, &listed);
    lab.ask(&["check", "case.toml", "--set", "data.chat_template=tokenizer"]).refuses(2, &listed);
    lab.ask(&["check", "case.toml", "--set", "data.chat_template=tokenizer:tools"])
        .refuses(2, &["tools", "rag, tool_use"]);
    let example = lab.check("case.toml", &["data.chat_template=tokenizer:tool_use"])["example"].clone();
    assert!(example.as_str().is_some_and(|text| text.starts_with("<|im_start|>user\nq<|im_end|>\n")), "{example}");
    lab.ask(&["run", "case.toml", "--set", "data.chat_template=tokenizer:tool_use"]).succeeds();
    let saved = fs::read_to_string(lab.at("runs/case/checkpoints/step-00000001/chat_template.jinja")).expect("a file");
    assert!(saved.contains("<|im_start|>"), "{saved}");
    lab.write("rows.jsonl", "{\"prompt\": \"q\", \"completion\": \"a\"}\n");
    lab.ask(&["check", "case.toml"]).succeeds();
}

/// Catches a folder that is refused for a token no text holds, and an id beyond the embedding that is looked up.
#[test]
fn unused_added_token() {
    let lab = case("unused-added-token");
    let generate =
        |prompt: &str| lab.ask(&["generate", "model", "--prompt", prompt, "--temperature", "0", "--max-tokens", "2"]);
    generate("x").succeeds();
    generate("x<|end|>").refuses(2, &["<|end|>", "259"]);
    lab.write(
        "rows.jsonl",
        "{\"prompt\": \"q\", \"completion\": \"a\"}\n{\"prompt\": \"q\", \"completion\": \"b<|end|>\"}\n",
    );
    let head = "[model]\nfrom = \"model\"\n[data]\nsource = \"jsonl\"\npath = \"rows.jsonl\"\nheld_out = 0.0\n";
    let rest = "[objective]\nplugin = \"sft\"\n[train]\nsteps = 1\noptimizer.lr = 1e-3\nbatch = { sequences = 1 }\n";
    lab.write("case.toml", format!("{head}{rest}"));
    lab.ask(&["check", "case.toml"]).refuses(2, &["rows.jsonl:2", "<|end|>", "259"]);
    lab.write("rows.jsonl", "{\"prompt\": \"q\", \"completion\": \"a\"}\n");
    let answer = lab.ask(&["run", "case.toml"]);
    answer.succeeds();
    assert!((answer.out.clone() + &answer.err).contains("has 260 tokens, the model's vocabulary 259"), "{answer:?}");
    // Running text is checked too.
    lab.write("text.txt", "some text <|end|> more text");
    lab.ask(&["eval", "model", "--data", "text.txt"]).refuses(2, &["<|end|>", "259"]);
}

/// Catches an index of an original model that counts as damaged, and a damaged one that counts as complete.
#[test]
fn index_names_tied_head() {
    let lab = case("index-names-tied-head");
    let generate = || lab.ask(&["generate", "model", "--prompt", "x", "--temperature", "0", "--max-tokens", "2"]);
    generate().succeeds();
    let path = "model/model.safetensors.index.json";
    let index: Value = serde_json::from_slice(&fs::read(lab.at(path)).expect("a file")).expect("JSON");
    let with = |tensor: &str| {
        let mut index = index.clone();
        index["weight_map"][tensor] = json!("model-00002-of-00002.safetensors");
        lab.write(path, index.to_string());
        generate()
    };
    with("model.layers.0.self_attn.rotary_emb.inv_freq").succeeds();
    with("model.embed_tokens.weight").refuses(2, &["model-00002-of-00002.safetensors", "model.embed_tokens.weight"]);
    lab.write(path, "{\"weight_map\": {\"lm_head.weight\": \"model-00002-of-00002.safetensors\"}}");
    generate().refuses(2, &["model.embed_tokens.weight", "missing"]);
}

/// Catches a pointer that is read as a header of 2336927755350992246 bytes, or as a tokenizer that is not JSON.
#[test]
fn lfs_pointer_in_a_model() {
    let lab = case("lfs-pointer");
    let generate = |file: &str| {
        lab.ask(&["generate", "model", "--prompt", "x"]).refuses(2, &[file, "Git LFS pointer", "git lfs pull"]);
    };
    generate("model/model.safetensors");
    let pointer = fs::read(lab.at("model/model.safetensors")).expect("a file");
    for file in ["model/config.json", "model/tokenizer.json"] {
        lab.write(file, &pointer);
        generate(file);
    }
}

/// Catches names and formats of other tools that are refused without an explanation.
#[test]
fn column_names_and_formats_of_other_tools_are_recognised() {
    let lab = case("unused-added-token");
    let generate = |model: &str, parts: &[&str]| lab.ask(&["generate", model, "--prompt", "x"]).refuses(2, parts);
    generate("HuggingFaceTB/SmolLM2-135M", &["Hugging Face hub", "write hf:HuggingFaceTB/SmolLM2-135M"]);
    generate("model/model.safetensors", &["is a file", "model"]);
    fs::rename(lab.at("model/model.safetensors"), lab.at("model/pytorch_model.bin")).expect("renamed");
    generate("model", &["pytorch_model.bin", "runs code when it is read", "save_pretrained"]);
    fs::rename(lab.at("model/tokenizer.json"), lab.at("model/tokenizer.model")).expect("renamed");
    generate("model", &["sentencepiece", "tokenizer.model", "save_pretrained"]);
    fs::create_dir(lab.at("quantised")).expect("a folder");
    lab.write("quantised/model-q4.gguf", "GGUF");
    generate("quantised", &["model-q4.gguf", "truncated or damaged", "safetensors"]);
    generate("quantised/model-q4.gguf", &["model-q4.gguf", "truncated or damaged"]);
    let experiment = "[model]\nlayers = 1\ndim = 16\nheads = 2\ncontext = 64\n[tokenizer]\nkind = \"file\"\npath = \"org/name\"\n\
                      [data]\nsource = \"synthetic\"\n[objective]\nplugin = \"ce\"\n[train]\nsteps = 1\noptimizer.lr = 1e-3\n\
                      batch = { tokens = 64 }\n";
    lab.write("hub.toml", experiment);
    lab.ask(&["check", "hub.toml"]).refuses(2, &["tokenizer.path", "org/name", "hf:org/name"]);
}

/// A template that writes no beginning of text, with a tokenizer that adds one. Catches a beginning that serving the model with
/// its template would not give.
#[test]
fn bos_before_template() {
    let lab = case("bos-before-template");
    let example = |sets: &[&str]| lab.check("f.toml", sets)["example"].as_str().unwrap_or_default().to_owned();
    let templated = example(&["data.chat_template=nobos.jinja"]);
    assert!(templated.starts_with("[system] Be brief."), "{templated}");
    let template = format!("{{{{ bos_token }}}}{}", fs::read_to_string(lab.at("nobos.jinja")).expect("a file"));
    lab.write("bos.jinja", template);
    let begun = example(&["data.chat_template=bos.jinja"]);
    assert!(begun.starts_with("<s>") && begun.matches("<s>").count() == 1, "{begun}");
}
