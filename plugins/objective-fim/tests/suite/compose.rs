//! The sequences of a window.

use super::create;
use plugin_api::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const PREFIX: f64 = 257.0;
const SUFFIX: f64 = 258.0;
const MIDDLE: f64 = 259.0;
const END: f64 = 256.0;

/// Sequences as running text comes: the first token is only read.
fn rows(sequences: &[Vec<f64>]) -> Batch<'static> {
    let (mut offsets, mut mask) = (vec![0.0], Vec::new());
    for tokens in sequences {
        mask.extend((0..tokens.len()).map(|n| f64::from(u8::from(n > 0))));
        offsets.push(mask.len() as f64);
    }
    Batch::new()
        .with("offsets", Scope::BATCH, offsets)
        .with("longest", Scope::BATCH, vec![99.0])
        .with("token", Scope::TOKEN, sequences.concat())
        .with("mask", Scope::TOKEN, mask)
        .with("part", Scope::SEQUENCE, vec![0.0; sequences.len()])
        .with("row", Scope::SEQUENCE, (0..sequences.len()).map(|s| (3 * s) as f64).collect::<Vec<_>>())
}

/// The numbers 0 to `length`, and an end of text.
fn text(length: usize) -> Vec<f64> {
    (0..length).map(|n| n as f64).chain([END]).collect()
}

/// The sequences that come out, each with its mask and places.
fn composed(given: Value, rows: &Batch<'_>, seed: u64) -> Vec<[Vec<f64>; 3]> {
    let made = create(given).unwrap().compose(rows, seed).unwrap().unwrap();
    made.check().unwrap();
    assert_eq!(made.get("row").unwrap(), rows.get("row").unwrap());
    let of = |name: &str, w: &[usize]| made.get(name).unwrap()[w[0]..w[1]].to_vec();
    made.offsets().unwrap().windows(2).map(|w| ["token", "mask", "place"].map(|name| of(name, w))).collect()
}

/// Prefix, suffix and middle (with the end of text) of a rewritten sequence; the sentinels say which order it has.
fn parts(tokens: &[f64], begin: usize) -> (bool, [Vec<f64>; 3]) {
    let tokens = &tokens[begin..];
    let at = |id: f64| tokens.iter().position(|t| *t == id).unwrap();
    let (suffix, middle) = (at(SUFFIX), at(MIDDLE));
    assert_eq!(tokens[0], PREFIX);
    (suffix == 1, [tokens[1..suffix].to_vec(), tokens[suffix + 1..middle].to_vec(), tokens[middle + 1..].to_vec()])
}

/// Catches a part that is lost or read twice, an end of text that does not stay last, sentinels that are not learned,
/// and a first token that is.
#[test]
fn psm_is_the_text_in_another_order() {
    let given = json!({"rate": 1.0, "spm_rate": 0.0});
    let mut cuts = BTreeSet::new();
    for seed in 0..200 {
        let [tokens, mask, place] = composed(given.clone(), &rows(&[text(6)]), seed).swap_remove(0);
        let (spm, [prefix, suffix, middle]) = parts(&tokens, 0);
        assert!(!spm || prefix.is_empty());
        let (middle, end) = middle.split_at(middle.len() - 1);
        assert_eq!([&prefix, middle, &suffix, end].concat(), text(6));
        cuts.insert((prefix.len(), middle.len()));
        assert_eq!(mask, [vec![0.0], vec![1.0; tokens.len() - 1]].concat());
        let place_of = |n: usize| if n > tokens.len() - middle.len() - 2 { 2.0 } else { 1.0 };
        assert_eq!(place, (0..tokens.len()).map(place_of).collect::<Vec<_>>());
    }
    assert_eq!(cuts.len(), 7 * 8 / 2, "every pair of places is drawn");
}

/// Catches a prefix after its own sentinel, and a middle that is apart from its prefix.
#[test]
fn spm_writes_the_prefix_directly_before_the_middle() {
    let given = json!({"rate": 1.0, "spm_rate": 1.0});
    for seed in 0..50 {
        let [tokens, _, place] = composed(given.clone(), &rows(&[text(6)]), seed).swap_remove(0);
        let (spm, [_, suffix, rest]) = parts(&tokens, 0);
        assert!(spm, "{tokens:?}");
        let written = rest.len() - 1;
        assert_eq!([&rest[..written], &suffix, &rest[written..]].concat(), text(6));
        let of_middle = place.iter().filter(|place| **place == 2.0).count();
        assert!(place.iter().rev().take(of_middle).all(|place| *place == 2.0), "{place:?}");
    }
}

/// Catches a sequence that outgrows the model's context, and one that is shortened without need.
#[test]
fn a_text_that_is_too_long_loses_its_last_tokens() {
    for (longest, kept) in [(21.0, 17), (12.0, 8), (22.0, 18), (24.0, 20), (99.0, 20)] {
        let given = json!({"rate": 1.0, "spm_rate": 0.0});
        let limited = rows(&[text(20)]).with("longest", Scope::BATCH, vec![longest]);
        let [tokens, ..] = composed(given, &limited, 3).swap_remove(0);
        let (_, [prefix, suffix, middle]) = parts(&tokens, 0);
        assert_eq!(
            [&prefix, &middle[..middle.len() - 1], &suffix, &[END]].concat(),
            text(20)[..kept].iter().copied().chain([END]).collect::<Vec<_>>(),
            "{longest}"
        );
    }
}

/// Catches a token that texts begin with in the middle of a sequence.
#[test]
fn the_token_that_texts_begin_with_stays_first() {
    let with_begin = [vec![255.0], text(6)].concat();
    let given = json!({"rate": 1.0, "begin_id": 255});
    for seed in 0..20 {
        let [tokens, mask, _] = composed(given.clone(), &rows(std::slice::from_ref(&with_begin)), seed).swap_remove(0);
        assert_eq!((tokens[0], tokens[1], mask[0], mask[1]), (255.0, PREFIX, 0.0, 1.0));
        let mut sorted = tokens.clone();
        sorted.sort_by(f64::total_cmp);
        assert_eq!(sorted, [text(6)[..6].to_vec(), vec![255.0, END, PREFIX, SUFFIX, MIDDLE]].concat());
    }
}

/// Catches rates that are ignored or exchanged.
#[test]
fn the_rates_are_shares_of_the_sequences() {
    let many: Vec<Vec<f64>> = (0..1000).map(|_| text(8)).collect();
    for (rate, spm_rate) in [(0.0, 0.5), (0.5, 0.5), (0.9, 0.2), (1.0, 1.0)] {
        let made = composed(json!({"rate": rate, "spm_rate": spm_rate}), &rows(&many), 5);
        let rewritten: Vec<_> = made.iter().filter(|[tokens, ..]| tokens.contains(&PREFIX)).collect();
        let spm = rewritten.iter().filter(|[tokens, ..]| tokens[1] == SUFFIX && tokens[2] != MIDDLE).count() as f64;
        let count = rewritten.len() as f64;
        assert!((count / 1000.0 - rate).abs() < 0.05, "{rate}: {count}");
        // An empty prefix in the order PSM looks the same, an empty suffix in the order SPM is not counted: about 2 in 9 each.
        assert!(count == 0.0 || (spm / count - spm_rate).abs() < 0.25, "{spm_rate}: {spm} of {count}");
    }
}

/// Catches draws that are the same for every sequence, in every pass, or that depend on the order of the rows.
#[test]
fn draws_depend_on_the_seed_the_row_and_its_tokens_only() {
    let given = || json!({"rate": 1.0});
    let (two, swapped) =
        (rows(&[text(30), text(31)]), rows(&[text(31), text(30)]).with("row", Scope::SEQUENCE, vec![3.0, 0.0]));
    let made = composed(given(), &two, 1);
    let mut other_order = composed(given(), &swapped, 1);
    other_order.reverse();
    assert_eq!(made, other_order);
    assert_ne!(made, composed(given(), &two, 2));
    let same_text = composed(given(), &rows(&vec![text(30); 4]), 1);
    assert!(same_text.iter().skip(1).any(|other| *other != same_text[0]), "rows differ");
    let one_document =
        rows(&[text(30), (30..60).map(f64::from).collect()]).with("row", Scope::SEQUENCE, vec![0.0, 0.0]);
    let lengths: Vec<usize> =
        composed(given(), &one_document, 1).iter().map(|[t, ..]| parts(t, 0).1[1].len()).collect();
    assert_ne!(lengths[0], lengths[1]);
}

/// Catches an order that is lost where only a part of a sequence is learned, and a sequence of sentinels alone.
#[test]
fn sequences_with_unsupervised_tokens_and_short_ones_stay_as_they_are() {
    let mut mask = vec![1.0; 7];
    (mask[0], mask[3]) = (0.0, 0.0);
    let masked = rows(&[text(6)]).with("mask", Scope::TOKEN, mask.clone());
    let given = json!({"rate": 1.0});
    assert_eq!(composed(given.clone(), &masked, 1), [[text(6), mask, vec![0.0; 7]]]);
    let short = rows(&[text(3)]).with("longest", Scope::BATCH, vec![4.0]);
    assert_eq!(composed(given, &short, 1), [[text(3), vec![0.0, 1.0, 1.0, 1.0], vec![0.0; 4]]]);
}
