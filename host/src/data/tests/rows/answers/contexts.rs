//! Other prompts, behind which the role `context` reads the rows' answers.

use serde_json::{Value, json};

use super::super::encoding::{pair, with_bos};
use crate::data::batches::pack::{Sequence, pack};
use crate::data::error::Result;
use crate::data::rows::encode::{Encoder, Reads};
use crate::data::rows::read::jsonl;
use crate::data::rows::write::layout::RowLayout;
use crate::data::rows::write::template::PLAIN;
use crate::data::rows::{ChatTemplate, Columns, RowCorpus, RowCounts, RowKind, Rows};
use crate::data::tokenizer::Tokenizer;

/// The sequences of rows with the column `hint`, and the counts.
fn encode(
    tokenizer: &Tokenizer,
    kind: RowKind,
    template: Option<&str>,
    longest: usize,
    lines: &[Value],
) -> Result<(Vec<Sequence>, RowCounts, String)> {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let train = jsonl::parse("rows.jsonl".as_ref(), &text, kind, &Columns::new())?;
    let template_of = ChatTemplate::new(template.unwrap_or(PLAIN), tokenizer)?;
    let layout = RowLayout { template: template_of, strings: template.is_some() };
    let corpus = RowCorpus { name: "rows.jsonl".into(), kind, train: Rows::of(train)?.into(), ..RowCorpus::default() };
    let encoder = Encoder { tokenizer, layout: &layout, longest, truncation: None, filter: Default::default(), context: Some("hint"), reads: Reads::default(), cache: None };
    let data = encoder.encode(&corpus)?;
    let rows = data.train.in_order(longest, false).into_iter();
    let all = rows.flat_map(|row| data.train.sequences(row, tokenizer.prefix(), 0)).collect();
    Ok((all, data.rows.unwrap_or_default(), data.train.key()))
}

fn with_hint(mut row: Value, hint: &str) -> Value {
    row["hint"] = hint.into();
    row
}

/// The answer of a sequence behind its other prompt, as text.
fn behind(tokenizer: &Tokenizer, sequence: &Sequence) -> String {
    tokenizer.decode(&sequence.behind_context_prompt().unwrap().ids, false).unwrap()
}

/// Catches another prompt that is not written by the template, without its opening of an answer, or in addition to the row's own
/// system message; an answer that is tokenised again; and pairs of which one answer has no other prompt.
#[test]
fn other_prompts_are_written_like_the_rows_own() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let end = "<|endoftext|>";
    let first = |kind, template, row: Value| {
        let (all, ..) = encode(&tokenizer, kind, template, 64, &[row]).unwrap();
        all.iter().map(|sequence| behind(&tokenizer, sequence)).collect::<Vec<_>>()
    };
    let own = with_hint(pair("ab", "cd"), "xyz");
    assert_eq!(first(RowKind::PromptCompletion, None, own.clone()), [format!("xyzcd{end}")]);
    let template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
    assert_eq!(first(RowKind::PromptCompletion, Some(template), own), [format!("<user>xyz<assistant>cd{end}")]);
    let message = |role: &str, content: &str| json!({"role": role, "content": content});
    let chat =
        json!({"messages": [message("system", "s"), message("user", "a"), message("assistant", "b")], "hint": "h"});
    assert_eq!(first(RowKind::PromptCompletion, Some(template), chat), [format!("<user>h<assistant>b{end}")]);
    let pairs = json!({"prompt": "p", "chosen": "yes", "rejected": "no", "hint": "other "});
    assert_eq!(first(RowKind::Preference, None, pairs), [format!("other yes{end}"), format!("other no{end}")]);
    let (_folder, prefixed) = with_bos();
    let (all, ..) = encode(&prefixed, RowKind::PromptCompletion, None, 64, &[with_hint(pair("a", " b"), "c")]).unwrap();
    assert!(behind(&prefixed, &all[0]).starts_with("<|endoftext|>c b"), "{}", behind(&prefixed, &all[0]));
}

/// An answer after an empty prompt begins with a token that is no target. Catches an answer that loses its first token behind
/// another prompt, or whose first token becomes a target there alone.
#[test]
fn gotcha_02_an_answer_without_a_prompt_keeps_its_first_token() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let rows = [with_hint(pair("", "cd"), "xy")];
    let (all, ..) = encode(&tokenizer, RowKind::PromptCompletion, None, 64, &rows).unwrap();
    assert_eq!(behind(&tokenizer, &all[0]), "xycd<|endoftext|>");
    let other = all[0].behind_context_prompt().unwrap();
    assert_eq!(other.supervised_targets(), all[0].supervised_targets());
}

/// Catches other prompts that make a sequence longer than the model's context, that lose their end instead of their beginning, and a
/// cut that is not counted.
#[test]
fn gotcha_44_other_prompts_are_cut_on_the_left() {
    let tokenizer = Tokenizer::bytes().unwrap();
    for (kind, row, longest, expected) in [
        // The last token of a completion is only predicted.
        (RowKind::PromptCompletion, pair("a", "cd"), 6, "6789cd<|endoftext|>"),
        (RowKind::Preference, json!({"prompt": "a", "chosen": "cd", "rejected": "e"}), 6, "789cd<|endoftext|>"),
    ] {
        let (all, counts, _) = encode(&tokenizer, kind, None, longest, &[with_hint(row, "0123456789")]).unwrap();
        assert_eq!(behind(&tokenizer, &all[0]), expected);
        assert!(all[0].extent() <= longest && counts.truncated_contexts == 1, "{counts}");
        assert!(counts.to_string().contains("1 with a prompt of [context] that was cut on the left"), "{counts}");
    }
    let prompt = with_hint(json!({"prompt": "ab"}), "0123456789");
    let (all, ..) = encode(&tokenizer, RowKind::Prompt, None, 4, &[prompt]).unwrap();
    assert_eq!(all[0].context_prompt.as_ref().map(Vec::len), Some(4));
}

/// Catches a row without its other prompt that is trained on, or refused without its line.
#[test]
fn a_row_without_its_other_prompt_is_refused_with_its_line() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let good = with_hint(pair("a", "b"), "c");
    for (bad, what) in [
        (pair("d", "e"), "missing"),
        (with_hint(pair("d", "e"), ""), "an empty text"),
        (json!({"prompt": "d", "completion": "e", "hint": 7}), "not a text"),
    ] {
        let error =
            encode(&tokenizer, RowKind::PromptCompletion, None, 64, &[good.clone(), bad]).unwrap_err().to_string();
        assert!(error.contains("rows.jsonl:2") && error.contains("hint") && error.contains(what), "{error}");
    }
}

/// Catches packing that mixes rows with and without other prompts, micro-batches that are too long behind the other prompts, files of
/// older checkpoints that are refused, and a cache that takes two data sets with other prompts for one.
#[test]
fn other_prompts_stay_with_their_sequences() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let rows = |hint: &str| [with_hint(pair("a", "b"), hint), with_hint(pair("cc", "d"), "xx")];
    let (all, _, key) = encode(&tokenizer, RowKind::PromptCompletion, None, 64, &rows("longer")).unwrap();
    let (_, _, other) = encode(&tokenizer, RowKind::PromptCompletion, None, 64, &rows("shorter")).unwrap();
    assert_ne!(key, other);
    assert_eq!([all[0].positions(), all[0].extent(), all[1].extent()], [2, 7, 3]);
    let packed = pack(&all).unwrap();
    assert_eq!(packed.context_prompts.iter().map(Vec::len).collect::<Vec<_>>(), [6, 2]);
    let without = Sequence { context_prompt: None, ..all[1].clone() };
    assert!(pack(&[all[0].clone(), without.clone()]).unwrap_err().to_string().contains("another prompt"));
    let json = serde_json::to_string(&without).unwrap();
    assert!(!json.contains("context_prompt"));
    assert_eq!(serde_json::from_str::<Sequence>(&json).unwrap(), without);
    let saved = serde_json::to_string(&all[0]).unwrap();
    assert_eq!(serde_json::from_str::<Sequence>(&saved).unwrap(), all[0]);
}
