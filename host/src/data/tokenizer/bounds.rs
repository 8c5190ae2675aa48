//! Limits on a `tokenizer.json`, checked before the library reads it: exceeding them would use up all memory or
//! take forever. A file that cannot be parsed here, such as one with a duplicate key, is refused, because the
//! library might read it differently.

use std::collections::HashSet;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::data::error::{DataError, Result};

/// Nesting depth of lists and objects. Published files nest up to 8; the library reads nested sequences again at
/// each level.
const NESTED: usize = 24;
/// The largest token id. Published vocabularies have fewer than 2 million tokens; a model has a row for each id up to the largest.
const LARGEST_ID: u64 = (1 << 24) - 1;
/// The longest token of a Unigram model: the library stores each token in a tree as deep as the token is long, and
/// frees the tree by recursion.
const LONGEST: usize = 1024;
/// Number of steps of the normalizers, pre-tokenizers, post-processors and decoders, each counted separately. A
/// text passes through each step once.
const STEPS: usize = 1000;
/// Factor by which all normalizers together, or all decoders together, may lengthen a text.
const GROWTH: f64 = 1000.0;
/// Factor by which a character map may lengthen a text: NFKC's largest expansion is 18 characters.
const MAP_GROWTH: f64 = 18.0;

#[derive(Deserialize)]
struct Parts {
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
    #[serde(default)]
    model: Model,
}

#[derive(Deserialize)]
struct Added {
    #[serde(default)]
    id: Value,
}

#[derive(Default, Deserialize)]
struct Model {
    #[serde(default)]
    vocab: Vocabulary,
}

/// A vocabulary: a map from tokens to ids, or a list of tokens and scores.
#[derive(Default)]
struct Vocabulary {
    largest_id: Option<f64>,
    /// Length in bytes of the longest token of a list.
    longest: usize,
}

impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Vocabulary, D::Error> {
        struct Ids;
        impl<'de> Visitor<'de> for Ids {
            type Value = Vocabulary;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a vocabulary")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocabulary, A::Error> {
                let mut largest: Option<f64> = None;
                while let Some((IgnoredAny, id)) = map.next_entry::<IgnoredAny, Value>()? {
                    largest = largest.into_iter().chain(id.as_f64()).reduce(f64::max);
                }
                Ok(Vocabulary { largest_id: largest, longest: 0 })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vocabulary, A::Error> {
                let (mut count, mut longest) = (0.0, 0);
                while let Some(token) = list.next_element::<Value>()? {
                    count += 1.0;
                    longest = longest.max(token.get(0).and_then(Value::as_str).map_or(0, str::len));
                }
                Ok(Vocabulary { largest_id: Some(count - 1.0), longest })
            }

            fn visit_unit<E>(self) -> Result<Vocabulary, E> {
                Ok(Vocabulary::default())
            }
        }
        deserializer.deserialize_any(Ids)
    }
}

/// Checks the bytes of a `tokenizer.json`.
///
/// # Errors
/// The limit that it exceeds, or why it cannot be read.
pub(super) fn check(name: &str, json: &[u8]) -> Result<()> {
    let error = |what, source| DataError::Tokenizer { name: name.to_owned(), what, source };
    let parts =
        serde_json::from_slice(json).map_err(|source| error("it cannot be read".into(), Some(source.into())))?;
    within(json, &parts).map_err(|what| error(what, None))
}

fn within(json: &[u8], parts: &Parts) -> Result<(), String> {
    let nested = nesting(json);
    if nested > NESTED {
        return Err(format!("its JSON nests {nested} deep; the limit is {NESTED}"));
    }
    let ids = parts.added_tokens.iter().filter_map(|token| token.id.as_f64()).chain(parts.model.vocab.largest_id);
    if let Some(id) = ids.reduce(f64::max).filter(|id| *id > LARGEST_ID as f64) {
        return Err(format!("it has a token with the id {id}; the limit is {LARGEST_ID}"));
    }
    let longest = parts.model.vocab.longest;
    if longest > LONGEST {
        return Err(format!("it has a token of {longest} bytes; the limit for a Unigram model is {LONGEST}"));
    }
    let all = [
        ("normalizer", &parts.normalizer),
        ("pre_tokenizer", &parts.pre_tokenizer),
        ("post_processor", &parts.post_processor),
        ("decoder", &parts.decoder),
    ];
    for (name, part) in all {
        let (steps, growth) = steps(part);
        if steps > STEPS {
            return Err(format!("its {name} has {steps} steps; the limit is {STEPS}"));
        }
        if growth > GROWTH {
            return Err(format!("its {name} can make a text {growth:.0} times as long; the limit is {GROWTH} times"));
        }
    }
    Ok(())
}

/// How deep lists and objects nest.
fn nesting(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Returns the number of steps of a part, and the factor by which they can lengthen a text.
fn steps(part: &Value) -> (usize, f64) {
    let mut chain = Chain { steps: 0, before: 1.0, growth: 1.0, written: HashSet::new() };
    chain.add(part);
    (chain.steps, chain.before * chain.growth)
}

/// The steps of a part so far. A replacement whose pattern shares no character with the output of the replacements
/// directly before it changes other characters than they do. A run of such replacements therefore lengthens a text only
/// as much as its largest factor. Any other step multiplies the factor.
struct Chain {
    steps: usize,
    /// The factor of the steps before the last run of such replacements.
    before: f64,
    /// The factor of that last run.
    growth: f64,
    /// The characters that this run writes.
    written: HashSet<char>,
}

impl Chain {
    fn add(&mut self, part: &Value) {
        let Value::Object(step) = part else { return };
        self.steps += 1;
        let (pattern, content) = (step.get("pattern"), step.get("content").and_then(Value::as_str));
        let text = |pattern: &Value| pattern.get("String").and_then(Value::as_str).map(str::to_owned);
        // The type may be missing, as in older files.
        let (growth, replaced) = match (step.get("type").and_then(Value::as_str), pattern, content) {
            (Some("ByteLevel"), ..) => (2.0, None),
            (Some("Precompiled"), ..) => (MAP_GROWTH, None),
            (_, Some(pattern), Some(content)) => match text(pattern).filter(|text| !text.is_empty()) {
                Some(text) => (length(content) / length(&text), Some((text, content))),
                // Replaces each character, and an empty pattern also matches at the end.
                None => (1.0 + length(content), None),
            },
            _ => (1.0, None),
        };
        let is_apart = |text: &str| !text.chars().any(|c| self.written.contains(&c));
        if replaced.as_ref().is_some_and(|(text, _)| is_apart(text)) {
            self.growth = self.growth.max(growth);
        } else {
            self.before *= self.growth;
            self.growth = growth.max(1.0);
            self.written.clear();
        }
        self.written.extend(replaced.iter().flat_map(|(_, content)| content.chars()));
        let lists = ["normalizers", "pretokenizers", "processors", "decoders"];
        lists.iter().filter_map(|list| step.get(*list)?.as_array()).flatten().for_each(|part| self.add(part));
    }
}

fn length(text: &str) -> f64 {
    text.chars().count() as f64
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reason(json: &[u8]) -> Option<String> {
        match check("x", json) {
            Err(DataError::Tokenizer { what, .. }) => Some(what),
            other => other.err().map(|error| error.to_string()),
        }
    }

    fn refused(change: impl FnOnce(&mut Value)) -> Option<String> {
        let mut json = json!({
            "added_tokens": [{"id": 3, "content": "<s>"}],
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}, {"type": "Prepend", "prepend": "▁"}]},
            "pre_tokenizer": {"type": "ByteLevel"}, "post_processor": null,
            "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
            "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []},
        });
        change(&mut json);
        reason(json.to_string().as_bytes())
    }

    /// Catches an ordinary file that is refused, and each limit that is not checked.
    #[test]
    fn files_that_exceed_a_limit_are_refused() {
        assert_eq!(refused(|_| {}), None);
        assert_eq!(refused(|json| json["model"]["vocab"]["a"] = json!(LARGEST_ID)), None);
        let has =
            |found: Option<String>, part: &str| assert!(found.as_ref().is_some_and(|f| f.contains(part)), "{found:?}");
        has(refused(|json| json["model"]["vocab"]["a"] = json!(u64::from(u32::MAX))), "id 4294967295");
        has(refused(|json| json["model"]["vocab"]["a"] = json!(1e300)), "limit");
        has(refused(|json| json["added_tokens"][0]["id"] = json!(1u64 << 40)), "id 1099511627776");
        let deep = |json: &mut Value| {
            json["normalizer"] =
                (0..30).fold(json!({"type": "NFC"}), |inner, _| json!({"type": "Sequence", "normalizers": [inner]}));
        };
        has(refused(deep), "nests");
        has(refused(|json| json["decoder"]["decoders"] = json!(vec![json!({"type": "Fuse"}); 1001])), "1002 steps");
        let doubling = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
        has(refused(|json| json["normalizer"]["normalizers"] = json!(vec![doubling.clone(); 10])), "1024 times");
        has(refused(|json| json["normalizer"]["normalizers"] = json!(vec![json!({"type": "ByteLevel"}); 40])), "times");
        // The second replaces parts of what the first wrote, together with characters next to it.
        let replace = |pattern: &str, content: &str| json!({"type": "Replace", "pattern": {"String": pattern}, "content": content});
        let crossing = vec![vec![replace("a", "bb"), replace("bbb", &"a".repeat(30))]; 4].concat();
        has(refused(|json| json["normalizer"]["normalizers"] = json!(crossing)), "times");
        let whole = json!({"pattern": {"Regex": "."}, "content": "a".repeat(2000)});
        has(refused(|json| json["decoder"] = whole.clone()), "2001 times");
        has(refused(|json| json["model"]["vocab"] = json!([["a".repeat(9999), 0.0]])), "9999 bytes");
        // Brackets within strings do not count.
        assert_eq!(refused(|json| json["added_tokens"][0]["content"] = json!("[{\"\\".repeat(99))), None);
        // A second model, which a reader that keeps the last of two equal keys would not check.
        let twice = br#"{"model": {"vocab": {"a": 0}}, "model": {"vocab": {"a": 4294967295}}}"#;
        for bytes in [b"{".as_slice(), twice] {
            has(reason(bytes), "cannot be read");
        }
    }

    /// Catches factors that are multiplied over replacements that change different characters.
    #[test]
    fn factors_of_separate_replacements_are_not_multiplied() {
        let pairs =
            [("½", " 1/2"), ("¼", " 1/4"), ("¾", " 3/4"), ("—", "---"), ("…", "..."), ("™", "(TM)"), ("©", "(C)")];
        let replace =
            |(pattern, content)| json!({"type": "Replace", "pattern": {"String": pattern}, "content": content});
        let list = |pairs: &[_]| json!({"type": "Sequence", "normalizers": pairs.iter().copied().map(replace).collect::<Vec<_>>()});
        assert_eq!(steps(&list(&pairs)), (8, 4.0));
        assert_eq!(steps(&list(&[("a", "bbb"), ("b", "cccc")])), (3, 12.0));
        assert_eq!(refused(|json| json["normalizer"] = list(&pairs)), None);
        assert_eq!(refused(|json| json["decoder"]["decoders"] = json!(vec![json!({"type": "Fuse"}); 900])), None);
    }
}
