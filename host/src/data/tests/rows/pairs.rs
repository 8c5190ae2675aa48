//! Pairs of answers as tokens: the same prompt on both sides, both answers whole, always next to each other.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::encoding::{Case, bytes, with_bos};
use crate::data::batches::batcher::{BatchSize, Batcher, BatcherOptions};
use crate::data::batches::pack::{Sequence, micro_batches, pack};
use crate::data::error::{DataError, Result};
use crate::data::examples::TrainingData;
use crate::data::rows::read::jsonl;
use crate::data::rows::write::template::PLAIN;
use crate::data::rows::{Columns, Content, Part, Row, RowKind, Truncation};
use crate::data::tests::references;
use crate::data::tokenizer::Tokenizer;

const END: &str = "<|endoftext|>";

fn pairs(tokenizer: &Tokenizer) -> Case<'_> {
    Case { kind: RowKind::Preference, ..bytes(tokenizer) }
}

fn pair(prompt: &str, chosen: &str, rejected: &str) -> Value {
    json!({"prompt": prompt, "chosen": chosen, "rejected": rejected})
}

fn turn(role: &str, content: &str) -> Value {
    json!({"role": role, "content": content})
}

fn parse(line: &Value) -> Result<Row> {
    Ok(jsonl::parse("rows.jsonl".as_ref(), &line.to_string(), RowKind::Preference, &Columns::new())?.remove(0))
}

fn small_bpe() -> Tokenizer {
    Tokenizer::open(&references().join("tokenizer").join("gpt2")).unwrap()
}

/// The tokens before the first supervised one.
fn prompt_of(sequence: &Sequence) -> &[u32] {
    let length = sequence.supervised.iter().position(|s| *s).unwrap_or(sequence.ids.len());
    &sequence.ids[..length]
}

/// Catches sides that are swapped, prompts that are learned, targets that are not shifted with their mask, and
/// columns that reach one side only.
#[test]
fn gotcha_02_a_pair_is_two_sequences_with_the_chosen_answer_first() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let lines = [
        json!({"prompt": "ab", "chosen": "c", "rejected": "de", "margin": 0.5}),
        json!({"prompt": "f", "chosen": "gh", "rejected": "", "margin": 2}),
    ];
    let (sequences, counts) = pairs(&tokenizer).encode(&lines);
    let batch = pack(&sequences).unwrap();
    assert_eq!(batch.rows, [0, 0, 1, 1]);
    assert_eq!(batch.per_sequence["side"], [1.0, 0.0, 1.0, 0.0]);
    assert_eq!(batch.columns["margin"], [0.5, 0.5, 2.0, 2.0]);
    let (id, end) = (|c: char| c as i32, 256);
    assert_eq!(
        batch.tokens,
        [id('a'), id('b'), id('c'), id('a'), id('b'), id('d'), id('e'), id('f'), id('g'), id('h'), id('f')]
    );
    assert_eq!(batch.targets, [id('b'), id('c'), end, id('b'), id('d'), id('e'), end, id('g'), id('h'), end, end]);
    assert_eq!(batch.mask, [0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
    assert!(counts.to_string().starts_with("2 pairs to train on, 0 held out"), "{counts}");
}

/// Catches an end-of-text token that only one side has or that one side has twice, and a beginning-of-text token
/// within the answer.
#[test]
fn gotcha_03_each_answer_ends_once_and_the_prompt_begins_once() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let shown = |template, chosen: &str, rejected: &str| {
        Case { template, ..pairs(&tokenizer) }.all_shown(pair("a", chosen, rejected))
    };
    assert_eq!(shown(None, "b", &format!("c{END}")), [format!("a[b{END}]"), format!("a[c{END}]")]);
    assert_eq!(shown(Some(PLAIN), "b", "cd"), [format!("a\n[b{END}]"), format!("a\n[cd{END}]")]);
    let (_folder, with_bos) = with_bos();
    let shown = pairs(&with_bos).all_shown(pair("a.", "b", "c"));
    assert_eq!(shown, ["<|endoftext|>a.[b<|im_end|>]", "<|endoftext|>a.[c<|im_end|>]"]);
}

/// Catches prompts that differ by the token that spans the prompt's end and one answer's beginning: the two answers
/// would then be compared after different prompts, and over different characters.
#[test]
fn gotcha_04_both_answers_are_supervised_from_the_same_token_on() {
    let tokenizer = small_bpe();
    let case = pairs(&tokenizer);
    let mut moved = 0;
    for (prompt, chosen, rejected) in [
        ("to the har", "bour", "!"),
        ("How many c", "?", "rates came"),
        ("The crate", "s came", " came"),
        ("a ", "b", " c"),
    ] {
        let (sequences, counts) = case.encode(&[pair(prompt, chosen, rejected)]);
        assert_eq!(prompt_of(&sequences[0]), prompt_of(&sequences[1]), "{prompt:?}");
        moved += counts.shared_tokens;
        for (sequence, answer) in sequences.iter().zip([chosen, rejected]) {
            let whole = tokenizer.encode(&format!("{prompt}{answer}")).unwrap();
            assert_eq!(sequence.ids[..sequence.ids.len() - 1], whole, "{prompt:?}");
            let learned = &sequence.ids[prompt_of(sequence).len()..];
            assert!(tokenizer.decode(learned, true).unwrap().ends_with(answer), "{prompt:?} {answer:?}");
        }
    }
    assert!((1..4).contains(&moved), "{moved}: the cases do not cover both outcomes");
}

fn words() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec!["har", "bour", " ", "the", "crate", "s", "\n", "é", "🦪", " came", "?", "c"]);
    prop::collection::vec(word, 0..8).prop_map(|words| words.concat())
}

proptest! {
    /// For any texts, tokenizer, limit and rule for long pairs: kept pairs have the same prompt on both sides and
    /// whole answers, and pairs that are not kept are counted.
    #[test]
    fn gotcha_04_13_both_sides_share_the_prompts_tokens_exactly(
        rows in prop::collection::vec((words(), words(), words()), 1..4),
        longest in 4usize..24,
        truncation in prop::sample::select(vec![None, Some(Truncation::Left), Some(Truncation::Drop)]),
        small in any::<bool>(),
    ) {
        let tokenizer = if small { Tokenizer::bytes().unwrap() } else { small_bpe() };
        let lines: Vec<Value> = rows.iter().map(|(prompt, chosen, rejected)| pair(prompt, chosen, rejected)).collect();
        let case = Case { longest, truncation, ..pairs(&tokenizer) };
        // If no row is kept, encoding is refused, and this does not count as a case.
        let data = case.data(&lines);
        prop_assume!(data.is_ok());
        let data = data.unwrap();
        let counts = data.rows.clone().unwrap();
        let dropped = counts.dropped_too_long + counts.dropped_empty + counts.dropped_same;
        prop_assert_eq!(counts.train + dropped, rows.len());
        for span in data.train.in_order(longest, false) {
            let both = data.train.sequences(span, None, 7);
            prop_assert_eq!(both.len(), 2);
            let (prompt, chosen) = (prompt_of(&both[0]).to_vec(), &rows[both[0].row as usize]);
            prop_assert_eq!(&prompt, &prompt_of(&both[1]).to_vec());
            prop_assert!(!prompt.is_empty() && both[0].ids != both[1].ids);
            prop_assert_eq!(span.targets(), both.iter().map(Sequence::positions).sum::<usize>());
            for (sequence, answer) in both.iter().zip([&chosen.1, &chosen.2]) {
                let text = tokenizer.decode(&sequence.ids[..sequence.ids.len() - 1], false).unwrap();
                let whole = chosen.0.clone() + answer;
                prop_assert!(whole.ends_with(text.trim_start_matches(char::REPLACEMENT_CHARACTER)));
                prop_assert!(sequence.ids.len() <= longest && sequence.ids.last() == tokenizer.eos().as_ref());
                prop_assert!(sequence.supervised[prompt.len()..].iter().all(|s| *s));
                let learned = tokenizer.decode(&sequence.ids[prompt.len()..], true).unwrap();
                prop_assert!(learned.ends_with(answer.as_str()), "{learned:?} of {answer:?}");
            }
        }
    }
}

/// Catches pairs with nothing left or with equal answers, and a count that calls them too long.
#[test]
fn gotcha_05_pairs_with_equal_answers_or_an_empty_prompt_are_dropped_and_counted() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let lines = [pair("a", "b", "c"), pair("a", "b", "b"), pair("", "b", "c"), pair("a", "b", &format!("b{END}"))];
    let (sequences, counts) = pairs(&tokenizer).encode(&lines);
    assert_eq!(sequences.len(), 2);
    assert_eq!((counts.dropped_same, counts.dropped_empty, counts.dropped_too_long), (2, 1, 0));
    assert!(counts.to_string().contains("2 dropped: both answers are the same"), "{counts}");
}

/// Catches pairs that attend to each other in a packed batch, and a micro-batch that ends between the two answers.
#[test]
fn gotcha_06_12_packing_keeps_pairs_unchanged_and_together() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let lines: Vec<Value> = (0..5).map(|i| pair(&"p".repeat(i + 1), "yes", &"no".repeat(5 - i))).collect();
    let data = pairs(&tokenizer).data(&lines).unwrap();
    let window = batcher(&data, BatchSize::Sequences(5)).next_window(64).unwrap().unwrap();
    let packed = pack(window.sequences()).unwrap();
    for (index, sequence) in window.sequences().iter().enumerate() {
        let alone = pack(std::slice::from_ref(sequence)).unwrap();
        let range = packed.offsets[index] as usize..packed.offsets[index + 1] as usize;
        assert_eq!(
            (&packed.tokens[range.clone()], &packed.targets[range.clone()]),
            (&alone.tokens[..], &alone.targets[..])
        );
        assert_eq!((&packed.mask[range.clone()], &packed.positions[range]), (&alone.mask[..], &alone.positions[..]));
    }
    for most in 1..80 {
        for range in micro_batches(window.sequences(), most) {
            assert!(range.start % 2 == 0 && range.end % 2 == 0, "{range:?} of at most {most}");
        }
    }
}

/// Catches the whole text of the template that is learned, one side's marks that are lost, and answers of earlier
/// turns that are learned.
#[test]
fn gotcha_11_in_conversations_only_answers_after_the_prompt_are_learned() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let prompt = [turn("user", "1?"), turn("assistant", "one"), turn("user", "2?")];
    let line = json!({"prompt": prompt, "chosen": [turn("assistant", "two")], "rejected": [turn("assistant", "too")]});
    let expected = [format!("1?\none{END}2?\n[two{END}]"), format!("1?\none{END}2?\n[too{END}]")];
    for template in [
        None,
        Some(
            "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% else %}{{ '\n' }}{% endif %}{% endfor %}",
        ),
    ] {
        assert_eq!(Case { template, ..pairs(&tokenizer) }.all_shown(line.clone()), expected, "{template:?}");
    }
}

/// Catches pairs truncated to the longer answer's length or to different prompts, and a limit that only one answer
/// keeps.
#[test]
fn gotcha_13_long_pairs_are_dropped_or_lose_the_same_prompt_tokens() {
    let tokenizer = Tokenizer::bytes().unwrap();
    // The longer sides have 4, 9 and 12 tokens, including the end-of-text token.
    let lines = [pair("a", "b", "cd"), pair("abcd", "e", "fghi"), pair("ab", "c", "defghijkl")];
    let case = |truncation, longest| Case { truncation, longest, ..pairs(&tokenizer) };
    let kept = |truncation, longest| {
        let (sequences, counts) = case(truncation, longest).encode(&lines);
        let shown: Vec<String> = sequences.iter().map(|s| case(None, 64).marked(s).replace(END, ".")).collect();
        (shown.join(" "), counts.dropped_too_long, counts.truncated)
    };
    let all = "a[b.] a[cd.] abcd[e.] abcd[fghi.] ab[c.] ab[defghijkl.]";
    assert_eq!(kept(None, 12), (all.into(), 0, 0));
    assert_eq!(kept(None, 11), ("a[b.] a[cd.] abcd[e.] abcd[fghi.]".into(), 1, 0));
    assert_eq!(kept(Some(Truncation::Drop), 8), ("a[b.] a[cd.]".into(), 2, 0));
    assert_eq!(kept(Some(Truncation::Left), 8), ("a[b.] a[cd.] bcd[e.] bcd[fghi.]".into(), 1, 1));
    assert_eq!(
        kept(Some(Truncation::Left), 11),
        ("a[b.] a[cd.] abcd[e.] abcd[fghi.] b[c.] b[defghijkl.]".into(), 0, 1)
    );
    assert!(matches!(case(None, 3).data(&lines), Err(DataError::NoRowLeft { .. })));
}

/// The score is read at the end-of-text token of each answer: its own, not the longer one's. Catches a wrong last
/// token.
#[test]
fn gotcha_13_the_last_position_of_each_answer_is_its_own_last_token() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let (mut sequences, _) = pairs(&tokenizer).encode(&[pair("ab", "c", "defg"), pair("h", "ijk", "l")]);
    sequences.iter_mut().for_each(|sequence| sequence.reads_last = true);
    let packed = pack(&sequences).unwrap();
    for (ends, sequence) in packed.offsets.windows(2).zip(&sequences) {
        assert_eq!((ends[1] - ends[0]) as usize, sequence.ids.len());
        assert_eq!((packed.tokens[ends[1] as usize - 1], packed.mask[ends[1] as usize - 1]), (256, 0.0));
    }
}

/// Values stored for a row are found again by row and side, in any order and group. Catches values that follow the
/// place in the batch, and a data key that stays the same when truncation or template changes.
#[test]
fn gotcha_22_row_and_side_identify_the_same_tokens_in_every_epoch() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let lines: Vec<Value> = (0..9).map(|i| pair(&format!("{i}{}", "p".repeat(i)), "yes", "no")).collect();
    let data = pairs(&tokenizer).data(&lines).unwrap();
    let mut batcher = batcher(&data, BatchSize::Sequences(3));
    let (mut known, mut orders) = (BTreeMap::new(), BTreeSet::new());
    for _ in 0..4 {
        let mut order = Vec::new();
        for _ in 0..3 {
            for sequence in batcher.next_window(64).unwrap().unwrap().sequences() {
                order.push(sequence.row);
                let key = (sequence.row, sequence.per_sequence["side"] > 0.0);
                assert_eq!(known.entry(key).or_insert(sequence.ids.clone()), &sequence.ids);
            }
        }
        orders.insert(order);
    }
    assert_eq!((known.len(), orders.len()), (18, 4));
    let changed = [
        Case { longest: 9, truncation: Some(Truncation::Left), ..pairs(&tokenizer) },
        Case { template: Some(PLAIN), ..pairs(&tokenizer) },
    ];
    for case in changed {
        assert_ne!(case.data(&lines).unwrap().train.key(), data.train.key());
    }
}

fn batcher(data: &TrainingData, batch: BatchSize) -> Batcher {
    let options = BatcherOptions { seed: 3, batch, prefix: None, epochs: None };
    Batcher::new(data.train.clone(), options).unwrap()
}

/// Catches a batch of twice or half the pairs, a limit in tokens that counts one side only, and two pairs that
/// share a group.
#[test]
fn a_batch_contains_whole_pairs_each_with_its_own_group() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let lines: Vec<Value> = (0..6).map(|i| pair(&format!("{i}"), "ab", "abcd")).collect();
    let data = pairs(&tokenizer).data(&lines).unwrap();
    // A pair has 3 + 5 positions.
    for (batch, expected) in [(BatchSize::Sequences(4), 4), (BatchSize::Tokens(31), 3), (BatchSize::Tokens(32), 4)] {
        let window = batcher(&data, batch).next_window(64).unwrap().unwrap();
        let groups: Vec<f64> = window.sequences().iter().map(|s| s.per_sequence["group"]).collect();
        assert_eq!(groups.len(), 2 * expected, "{batch:?}");
        assert!(groups.chunks(2).all(|two| two[0] == two[1]), "{groups:?}");
        assert_eq!(groups.iter().map(|g| *g as u64).collect::<BTreeSet<_>>().len(), expected);
    }
}

/// The prompt may be given separately, in front of both answers, or only there. Catches a shared answer that is treated
/// as the prompt, and a prompt that is doubled.
#[test]
fn the_prompt_of_two_conversations_is_their_common_beginning() {
    let (ask, yes, no) = (turn("user", "a?"), turn("assistant", "yes"), turn("assistant", "no"));
    let parts = |line: &Value| {
        let row = parse(line).unwrap();
        let part = |part: Part| match &row.parts[&part] {
            Content::Messages(messages) => json!(messages),
            Content::Text(text) => json!(text),
        };
        [part(Part::Prompt), part(Part::Chosen), part(Part::Rejected)]
    };
    let expected = [json!([ask]), json!([yes]), json!([no])];
    assert_eq!(parts(&json!({"chosen": [ask, yes], "rejected": [ask, no]})), expected);
    assert_eq!(parts(&json!({"prompt": [ask], "chosen": [ask, yes], "rejected": [no]})), expected);
    let spelled = parts(&json!({"prompt": "a?", "chosen": [ask, yes], "rejected": [ask, no]}));
    assert_eq!(spelled, [json!("a?"), json!([yes]), json!([no])]);
    // The first answer is the same: it belongs to the prompt if more follows on both sides.
    let more = parts(&json!({"chosen": [ask, yes, ask, yes], "rejected": [ask, yes, ask, no]}));
    assert_eq!(more, [json!([ask, yes, ask]), json!([yes]), json!([no])]);
    let shorter = parts(&json!({"chosen": [ask, yes], "rejected": [ask, yes, ask, no]}));
    assert_eq!(shorter, [json!([ask]), json!([yes]), json!([yes, ask, no])]);
}

/// Catches a guess at where the prompt ends.
#[test]
fn answers_without_a_common_prompt_are_refused_with_a_remedy() {
    let (ask, other, yes) = (turn("user", "a?"), turn("user", "b?"), turn("assistant", "yes"));
    for (line, expected) in [
        (json!({"chosen": "yes", "rejected": "no"}), "without `prompt` both answers must begin with the text"),
        (
            json!({"chosen": "a? yes", "rejected": [ask, yes]}),
            "both answers must be strings, or both lists of messages",
        ),
        (json!({"chosen": [ask, yes], "rejected": [other, yes]}), "answer no common prompt"),
        (json!({"chosen": [yes], "rejected": [yes]}), "answer no common prompt"),
        (json!({"prompt": "c?", "chosen": [ask, yes], "rejected": [yes]}), "`chosen` begins with the role \"user\""),
        (
            json!({"prompt": "c?", "chosen": [ask], "rejected": [yes]}),
            "`chosen`: no message has the role \"assistant\"",
        ),
        (json!({"prompt": "a", "chosen": "b"}), "needs `chosen` and `rejected`, and `prompt` unless both contain it"),
        (
            json!({"prompt": "a", "chosen": 1, "rejected": "b"}),
            "`chosen`: expected a string or a list of messages, found a number",
        ),
    ] {
        let error = parse(&line).unwrap_err().to_string();
        assert!(error.starts_with("rows.jsonl:1: ") && error.contains(expected), "{line}: {error}");
    }
}

/// Catches margins that are skipped because one row has none, or writes it as a string.
#[test]
fn either_all_pairs_have_a_margin_or_none() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let with = json!({"prompt": "a", "chosen": "b", "rejected": "c", "margin": 1});
    let refused = pairs(&tokenizer).data(&[with, pair("d", "e", "f")]).unwrap_err().to_string();
    assert_eq!(
        refused,
        "rows.jsonl:2: `margin`: missing, and other rows have one: every pair needs a margin, or none may have one"
    );
    let words = json!({"prompt": "a", "chosen": "b", "rejected": "c", "margin": "0.5"});
    let refused = parse(&words).unwrap_err().to_string();
    assert_eq!(refused, "rows.jsonl:1: `margin`: expected a number, found \"0.5\"");
}

/// An answer that was cut off has no end. Catches an end-of-text token that is learned in the middle of a sentence.
#[test]
fn gotcha_03_an_answer_that_was_cut_off_has_no_end() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let line = |chosen: bool, rejected: bool| json!({"prompt": "a", "chosen": "b", "rejected": "c", "chosen_ended": chosen, "rejected_ended": rejected});
    assert_eq!(pairs(&tokenizer).all_shown(line(true, false)), [format!("a[b{END}]"), "a[c]".to_owned()]);
    assert_eq!(pairs(&tokenizer).all_shown(line(false, true)), ["a[b]".to_owned(), format!("a[c{END}]")]);
}

/// Catches an error that always names the length as the reason.
#[test]
fn if_no_pair_is_left_the_error_counts_the_reasons() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let Err(error) = pairs(&tokenizer).data(&[pair("a", "b", "b")]) else { panic!("equal answers were kept") };
    assert!(error.to_string().contains("1 dropped: both answers are the same"), "{error}");
    assert!(error.hint().is_some_and(|hint| !hint.contains("max_length")), "{:?}", error.hint());
}

/// Catches an answer that is learned although one of its messages is flagged as not learned, and an end that is
/// learned although the column marks the answer as cut off with a number.
#[test]
fn gotcha_48_flags_of_a_pairs_answers_are_applied_or_refused() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let plain = Case { template: Some(PLAIN), ..pairs(&tokenizer) };
    let weighed = |weight: u8| {
        let chosen = json!([{"role": "assistant", "content": "a", "weight": weight}]);
        json!({"prompt": "q", "chosen": chosen, "rejected": [turn("assistant", "b")]})
    };
    let error = plain.data(&[weighed(0)]).err().unwrap().to_string();
    assert!(error.contains("compared whole"), "{error}");
    assert!(plain.data(&[weighed(1)]).is_ok());
    let ended = |value: Value| {
        let mut line = pair("q ", "yes", "no");
        line["chosen_ended"] = value;
        line
    };
    let ids = |value: Value| pairs(&tokenizer).encode(&[ended(value)]).0[0].ids.clone();
    assert_eq!(ids(json!(0)), ids(json!(false)));
    assert_eq!(ids(json!(1)), ids(json!(null)));
    assert_ne!(ids(json!(0)), ids(json!(1)));
    let error = pairs(&tokenizer).data(&[ended(json!("no"))]).err().unwrap().to_string();
    assert!(error.contains("`chosen_ended`") && error.contains("rows.jsonl:1"), "{error}");
}
