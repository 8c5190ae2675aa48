//! How a byte-level tokenizer splits a text into words, by the name that GGUF files give it (`tokenizer.ggml.pre`). The patterns
//! are those of the original models' tokenizer.json.

use serde_json::{Value, json};

/// Llama 3: digits in groups of up to three.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 2: single digits.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Tekken (Mistral Nemo): words change where small letters are followed by capitals.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// o200k (Phi-4-mini): as Tekken, with English endings and digits in groups of up to three.
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The words of a tokenizer.
pub(super) struct Splitting {
    /// `normalizer` of tokenizer.json.
    pub normalizer: Value,
    /// `pre_tokenizer` of tokenizer.json.
    pub pre_tokenizer: Value,
    /// Whether a word that is a token as a whole becomes that token, whatever the merges.
    pub ignore_merges: bool,
}

/// The names that are known.
pub(super) const NAMES: &[&str] = &[
    "gpt-2",
    "gpt2",
    "phi-2",
    "mpt",
    "olmo",
    "smollm",
    "starcoder",
    "refact",
    "codeshell",
    "command-r",
    "llama-bpe",
    "llama-v3",
    "llama3",
    "dbrx",
    "smaug-bpe",
    "qwen2",
    "deepseek-r1-qwen",
    "tekken",
    "gpt-4o",
];

/// Returns how the tokenizer of this name splits; `None` for an unknown name.
pub(super) fn find(name: &str) -> Option<Splitting> {
    let bytes = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
    let sequence = |first: Value, second: Value| json!({"type": "Sequence", "pretokenizers": [first, second]});
    let split = |pattern: &str| {
        let first = json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
        sequence(first, bytes(false))
    };
    let digits = || sequence(json!({"type": "Digits", "individual_digits": true}), bytes(true));
    let (pre_tokenizer, composed, ignore_merges) = match name {
        "gpt-2" | "gpt2" | "phi-2" => (bytes(true), false, false),
        "mpt" | "olmo" => (bytes(true), true, false),
        "smollm" | "starcoder" | "refact" | "codeshell" => (digits(), false, false),
        "command-r" => (digits(), true, false),
        "llama-bpe" | "llama-v3" | "llama3" => (split(LLAMA3), false, true),
        "dbrx" | "smaug-bpe" => (split(LLAMA3), false, false),
        "qwen2" | "deepseek-r1-qwen" => (split(QWEN2), true, false),
        "tekken" => (split(TEKKEN), false, true),
        "gpt-4o" => (split(GPT4O), false, false),
        _ => return None,
    };
    let normalizer = if composed { json!({"type": "NFC"}) } else { Value::Null };
    Some(Splitting { normalizer, pre_tokenizer, ignore_merges })
}

/// Whether texts of the tokenizer of this name begin with its beginning-of-text token if the file does not say: as in llama.cpp.
pub(super) fn begins_with_bos(name: &str) -> bool {
    ["llama-bpe", "llama-v3", "llama3", "tekken"].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a name in the list that is not found.
    #[test]
    fn every_name_is_found() {
        for name in NAMES {
            assert!(find(name).is_some(), "{name}");
        }
        assert!(find("default").is_none());
    }
}
