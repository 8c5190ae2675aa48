//! Tests of batches, micro-batches, composed sequences and prepared arrays: each is cut, joined and read in the right places.

use plugin_api::{
    batch::{Array, Batch, Scope, names},
    contract,
    manifest::DataKind,
};

use super::{
    batch_arrays::{data_arrays, join_batches, supervised_rows, with_statistics},
    compose::{rows_of, sequences_of},
    micro_batch::{MicroBatchRange, at_ends, join, unpack},
    prepared_arrays::PreparedArrays,
};
use crate::{
    data::{PackedBatch, Sequence, pack::pack},
    model::{HeadStats, Statistics},
};

fn packed(lengths: &[i32]) -> PackedBatch {
    let mut batch = PackedBatch { offsets: vec![0], ..Default::default() };
    for (row, length) in lengths.iter().enumerate() {
        batch.tokens.extend(0..*length);
        batch.targets.extend(1..=*length);
        batch.positions.extend(0..*length);
        batch.mask.extend((0..*length).map(|n| f64::from(u8::from(n % 2 == 0))));
        batch.offsets.push(batch.tokens.len() as i32);
        batch.prompts.push(1);
        batch.rows.push(row as u64);
    }
    batch
}

/// Catches a cut that gives every micro-batch the window's first rows, or that counts tokens instead of sequences.
#[test]
fn arrays_of_prepare_are_cut_like_the_window() {
    let parts = [packed(&[2, 3]), packed(&[4])];
    let whole = join(&parts);
    assert_eq!(whole.offsets, [0, 2, 5, 9]);
    let answer = Batch::new()
        .with("advantage", Scope::TOKEN, (0..9).map(f64::from).collect::<Vec<_>>())
        .with("reward", Scope::SEQUENCE, vec![10.0, 20.0, 30.0])
        .with("spread", Scope::BATCH, vec![7.0]);
    let joined: PreparedArrays = [answer].into_iter().collect();
    let places = MicroBatchRange::all(&parts);
    let expected = [(vec![0.0, 1.0, 2.0, 3.0, 4.0], vec![10.0, 20.0]), (vec![5.0, 6.0, 7.0, 8.0], vec![30.0])];
    for ((packed, place), (advantage, reward)) in parts.iter().zip(places).zip(expected) {
        let data = data_arrays(packed);
        let batch = joined.with(0, &data, place);
        assert_eq!(batch.get("advantage").ok(), Some(advantage.as_slice()));
        assert_eq!(batch.get("reward").ok(), Some(reward.as_slice()));
        assert_eq!(batch.get("spread").ok(), Some([7.0].as_slice()));
        assert!(batch.check().is_ok());
    }
}

/// Catches an unpacking that loses the last target, and rows or masks that shift relative to their tokens.
#[test]
fn sequences_are_unchanged_by_packing_and_by_compose() {
    let packed = packed(&[3, 2]);
    let sequences = unpack(&packed);
    assert_eq!(pack(&sequences).unwrap(), PackedBatch { max_len: 3, ..packed });
    let masks = sequences.iter().flat_map(|s| s.supervised.iter().map(|m| f64::from(u8::from(*m))));
    let answer = rows_of(&sequences, &DataKind::TEXT, 64).with(names::MASK, Scope::TOKEN, masks.collect::<Vec<_>>());
    assert_eq!(sequences_of(&answer).unwrap(), sequences);
    assert!(sequences_of(&answer.with("token", Scope::TOKEN, vec![0.5; 7])).is_err());
}

/// Catches prompts and completions passed on as one text, and columns or rows that only one of the two parts has.
#[test]
fn compose_reads_prompts_and_completions_as_separate_parts() {
    let sequence = |row, supervised: &[bool]| Sequence {
        ids: (0..supervised.len() as u32).collect(),
        supervised: supervised.to_vec(),
        columns: [("m".to_owned(), row as f64)].into(),
        row,
        ..Default::default()
    };
    let sequences = [sequence(4, &[false, false, true]), sequence(7, &[false, true, false, true])];
    let rows = rows_of(&sequences, &DataKind::PROMPT_COMPLETION, 64);
    assert!(rows.check().is_ok());
    assert_eq!(rows.offsets().unwrap(), [0, 2, 3, 4, 7]);
    assert_eq!(rows.get("part").unwrap(), [1.0, 2.0, 1.0, 2.0]);
    assert_eq!(rows.get("row").unwrap(), [4.0, 4.0, 7.0, 7.0]);
    assert_eq!(rows.mask().unwrap(), [0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0]);
    assert_eq!(rows.column("m").unwrap(), [4.0, 4.0, 7.0, 7.0]);
}

/// Arrays that an objective adds in `compose` reach its loss where they belong. Catches an array that is dropped, numbers of a
/// token that reach the target before or after it, columns that are mixed, and a cut that gives a micro-batch the numbers of
/// another one.
#[test]
fn gotcha_02_composed_arrays_reach_the_batch_at_their_targets() {
    let ids = [vec![5.0, 6.0, 7.0], vec![8.0, 9.0]];
    let tokens: Vec<f64> = ids.concat();
    let wide = tokens.iter().flat_map(|id| [10.0 * id, 10.0 * id + 1.0]).collect::<Vec<_>>();
    let composed = Batch::new()
        .with(names::OFFSETS, Scope::BATCH, vec![0.0, 3.0, 5.0])
        .with("token", Scope::TOKEN, tokens.clone())
        .with(names::MASK, Scope::TOKEN, vec![0.0, 1.0, 1.0, 0.0, 1.0])
        .with("row", Scope::SEQUENCE, vec![3.0, 4.0])
        .with(names::COUNTED, Scope::SEQUENCE, vec![1.0, 0.0])
        .with("strength", Scope::SEQUENCE, vec![0.5, 0.25])
        .with("weight", Scope::TOKEN, tokens)
        .with_array(Array {
            name: "wide".into(),
            scope: Scope::TOKEN,
            differentiable: false,
            cols: 2,
            data: wide.into(),
        });
    let sequences = sequences_of(&composed).unwrap();
    let parts: Vec<PackedBatch> = sequences.iter().map(|one| pack(std::slice::from_ref(one)).unwrap()).collect();
    let whole = pack(&sequences).unwrap();
    assert_eq!(join(&parts), PackedBatch { max_len: 2, ..whole.clone() });
    assert_eq!(pack(&unpack(&whole)).unwrap(), whole);
    for packed in parts.iter().chain([&whole]) {
        let batch = data_arrays(packed);
        assert!(batch.check().is_ok());
        let target = batch.get(names::TARGET).unwrap();
        assert_eq!(batch.get("weight").unwrap(), target);
        assert_eq!(batch.array("wide").unwrap().cols, 2);
        let expected: Vec<f64> = target.iter().flat_map(|id| [10.0 * id, 10.0 * id + 1.0]).collect();
        assert_eq!(batch.get("wide").unwrap(), expected);
    }
    let batch = data_arrays(&whole);
    assert_eq!(
        (batch.get(names::COUNTED).unwrap(), batch.get("strength").unwrap()),
        (&[1.0, 0.0][..], &[0.5, 0.25][..])
    );
    assert!(batch.find("row").is_none() && batch.find("token").is_none());
}

/// Gotcha 2: only supervised tokens pass the head, and their statistics return to their own places.
#[test]
fn gotcha_02_statistics_return_to_the_tokens_they_belong_to() {
    let packed = packed(&[3, 2]);
    let rows = supervised_rows(&packed);
    assert_eq!(rows, [0, 2, 3]);
    let stats = HeadStats { logp: vec![-1.0, -2.0, -3.0], top1: Some(vec![1, 9, 1]), ..Default::default() };
    let batch = with_statistics(&packed, &rows, Statistics::default(), Some(&stats)).unwrap();
    assert_eq!(batch.get("logp").unwrap(), [-1.0, 0.0, -2.0, -3.0, 0.0]);
    assert_eq!(batch.get("top1").unwrap(), [1.0, 0.0, 0.0, 1.0, 0.0]);
}

/// Catches a score that is read one position off, at the longest sequence's end, or from the next sequence.
#[test]
fn gotcha_13_29_scores_are_read_at_each_sequences_own_last_token() {
    let sequence = |length: usize, reads_last| Sequence {
        ids: (0..length as u32).collect(),
        supervised: vec![true; length],
        reads_last,
        ..Default::default()
    };
    let values: Vec<f64> = (0..9).map(f64::from).collect();
    let packed = pack(&[sequence(2, true), sequence(4, true), sequence(3, true)]).unwrap();
    assert_eq!(at_ends(&packed, &values), [1.0, 5.0, 8.0]);
    assert_eq!(packed.tokens[5], 3, "the last token is read");
    // If no objective reads the last token, it is only a target.
    let packed = pack(&[sequence(3, false), sequence(2, false)]).unwrap();
    assert_eq!(at_ends(&packed, &values), [1.0, 2.0]);
}

/// Catches lists that are cut by the number of sequences or tokens instead of their own lengths, and segments that do not follow
/// their sequences.
#[test]
fn lists_and_segments_follow_their_sequences() {
    let sequence = |row: u64, list: &[f64]| Sequence {
        ids: vec![1; 3],
        supervised: vec![false, true, true],
        lists: [("labels".to_owned(), list.to_vec())].into(),
        of_tokens: [(names::SEGMENT_END.to_owned(), vec![0.0, f64::from(u8::from(row == 1)), 1.0])].into(),
        row,
        ..Default::default()
    };
    let sequences = [sequence(0, &[1.0, 2.0]), sequence(1, &[]), sequence(2, &[3.0])];
    let parts = [pack(&sequences[..2]).unwrap(), pack(&sequences[2..]).unwrap()];
    let whole = join(&parts);
    assert_eq!(whole, pack(&sequences).unwrap());
    assert_eq!(pack(&unpack(&whole)).unwrap(), whole);
    let batch = data_arrays(&whole);
    assert!(batch.check().is_ok());
    assert_eq!(batch.column("labels").unwrap(), [1.0, 2.0, 3.0]);
    assert_eq!(batch.lengths("column.labels").unwrap(), [2, 0, 1]);
    assert_eq!(batch.get(names::SEGMENT_END).unwrap(), [0.0, 1.0, 1.0, 1.0, 0.0, 1.0]);
    let arrays: Vec<_> = parts.iter().map(data_arrays).collect();
    assert_eq!(join_batches(&arrays, &whole), batch);
    // Each part of a row has the row's list, and what `compose` returns is read back.
    let rows = rows_of(&sequences, &DataKind::PROMPT_COMPLETION, 64);
    assert!(rows.check().is_ok());
    assert_eq!(rows.lengths("column.labels").unwrap(), [2, 2, 0, 0, 1, 1]);
    let rows = rows_of(&sequences, &DataKind::TEXT, 64);
    let limits = contract::Limits { vocab: 9, longest: 9, candidates: None };
    assert_eq!(contract::composed(&rows, &rows, limits), Ok(()));
    assert_eq!(sequences_of(&rows).unwrap(), sequences);
}
