use plugin_api::batch::names;
use proptest::prelude::*;

use crate::data::batches::pack::{PackedBatch, Sequence, Window, micro_batches, micro_batches_apart, pack};
use crate::data::error::DataError;

fn sequence(ids: &[u32], supervised: &[u8], row: u64) -> Sequence {
    let supervised = supervised.iter().map(|&flag| flag == 1).collect();
    Sequence { ids: ids.to_vec(), supervised, row, ..Default::default() }
}

#[test]
fn gotcha_02_target_and_mask_are_those_of_the_next_token() {
    // A prompt of two tokens, a completion of two, and its end token: the first completion token is predicted by
    // the prompt's last. Catches a mask sliced on the wrong side, which would supervise 12 and drop the end.
    let batch = pack(&[sequence(&[11, 12, 21, 22, 2], &[0, 0, 1, 1, 1], 0)]).unwrap();
    assert_eq!(batch.tokens, [11, 12, 21, 22]);
    assert_eq!(batch.targets, [12, 21, 22, 2]);
    assert_eq!(batch.mask, [0.0, 1.0, 1.0, 1.0]);
    assert_eq!(batch.supervised(), 3);
}

#[test]
fn gotcha_03_a_token_is_masked_by_its_place_not_by_its_id() {
    // Id 2 occurs in the prompt, and once as the supervised end.
    let batch = pack(&[sequence(&[2, 5, 2, 2], &[0, 0, 0, 1], 0)]).unwrap();
    assert_eq!(batch.mask, [0.0, 0.0, 1.0]);
    // The first token is never a target, whatever its flag is.
    let first = sequence(&[7, 8], &[1, 0], 0);
    assert_eq!((first.supervised_targets(), pack(&[first]).unwrap().supervised()), (0, 0));
}

#[test]
fn gotcha_06_positions_restart_and_nothing_is_predicted_across_the_seam() {
    let batch = pack(&[sequence(&[1, 2, 3], &[1; 3], 4), sequence(&[9, 8, 7, 6], &[1; 4], 5)]).unwrap();
    assert_eq!(batch.positions, [0, 1, 0, 1, 2]);
    assert_eq!(batch.offsets, [0, 2, 5]);
    assert_eq!((batch.max_len, batch.rows), (3, vec![4, 5]));
    // Catches a shift of the joined tokens: 3 would predict 9.
    assert_eq!(batch.tokens.iter().zip(&batch.targets).filter(|pair| pair == &(&3, &9)).count(), 0);
    assert_eq!(batch.targets, [2, 3, 8, 7, 6]);
}

#[test]
fn gotcha_05_a_window_without_supervised_tokens_is_an_error() {
    let mute = || sequence(&[1, 2, 3], &[1, 0, 0], 0);
    assert!(matches!(Window::new(vec![mute(), mute()]), Err(DataError::NothingSupervised { tokens: 6, .. })));
    assert!(matches!(Window::new(vec![]), Err(DataError::NothingSupervised { .. })));
    // Such a sequence is allowed next to a supervised one, even alone in a micro-batch.
    let window = Window::new(vec![mute(), sequence(&[1, 2], &[0, 1], 1)]).unwrap();
    let supervised: Vec<usize> = window.micro_batches(2).map(|batch| batch.unwrap().supervised()).collect();
    assert_eq!((supervised, window.supervised()), (vec![0, 1], 1));
    assert!(matches!(pack(&[sequence(&[1], &[1], 3)]), Err(DataError::NoTarget { row: 3, .. })));
}

#[test]
fn columns_stay_with_their_rows_and_must_be_the_same_in_all() {
    let with = |row: u64, columns: &[(&str, f64)]| Sequence {
        columns: columns.iter().map(|&(name, value)| (name.to_owned(), value)).collect(),
        ..sequence(&[1, 2], &[1, 1], row)
    };
    let batch =
        pack(&[with(0, &[("margin", 0.5), ("label", 1.0)]), with(1, &[("label", 0.0), ("margin", 0.0)])]).unwrap();
    assert_eq!((&batch.columns["margin"], &batch.columns["label"]), (&vec![0.5, 0.0], &vec![1.0, 0.0]));
    let message = pack(&[with(0, &[("margin", 0.5)]), with(1, &[])]).unwrap_err().to_string();
    assert!(message.contains("row 1") && message.contains("margin"), "{message}");
    let mut short = with(2, &[]);
    short.supervised.pop();
    assert!(matches!(pack(&[short]), Err(DataError::Row { row: 2, .. })));
}

#[test]
fn micro_batches_are_as_full_as_order_allows() {
    let lengths = [3, 3, 5, 1, 9, 2];
    let sequences: Vec<Sequence> =
        lengths.iter().map(|&length| sequence(&vec![1; length + 1], &vec![1; length + 1], 0)).collect();
    assert_eq!(micro_batches(&sequences, 6), [0..2, 2..4, 4..5, 5..6]);
    assert_eq!(micro_batches(&sequences, 0).len(), 6);
    assert_eq!(micro_batches(&sequences, 1000), vec![0..6; 1]);
    assert!(micro_batches(&[], 6).is_empty());
}

/// Catches a cut between the two answers of a pair, and one that treats all sequences without a group as one group.
#[test]
fn neighbours_of_one_group_are_never_cut_apart() {
    let of = |group: u64, length: usize| Sequence {
        per_sequence: [("group".to_owned(), group as f64)].into(),
        ..sequence(&vec![1; length + 1], &vec![1; length + 1], 0)
    };
    let sequences = [of(0, 2), of(0, 2), of(1, 1), of(1, 4), of(2, 1), of(2, 1)];
    assert_eq!(micro_batches(&sequences, 5), [0..2, 2..4, 4..6]);
    assert_eq!(micro_batches(&sequences, 1), [0..2, 2..4, 4..6]);
    assert_eq!(micro_batches(&sequences, 9), [0..4, 4..6]);
    // Where an objective says so, answers to a prompt are cut apart.
    assert_eq!(micro_batches_apart(&sequences, 5), [0..3, 3..5, 5..6]);
    assert_eq!(micro_batches_apart(&sequences, 1).len(), 6);
}

/// Gotcha 13: values at the end of a sequence are computed where its last token has been read, and that position
/// predicts nothing. Catches a shift that drops the last token, and a mask that counts it.
#[test]
fn gotcha_13_the_last_token_is_read_where_requested() {
    let whole = |ids: &[u32]| Sequence { reads_last: true, ..sequence(ids, &vec![1; ids.len()], 0) };
    let batch = pack(&[whole(&[1, 2, 3]), whole(&[4, 5])]).unwrap();
    assert_eq!(batch.tokens, [1, 2, 3, 4, 5]);
    assert_eq!(batch.targets, [2, 3, 0, 5, 0]);
    assert_eq!(batch.mask, [1.0, 1.0, 0.0, 1.0, 0.0]);
    assert_eq!((batch.positions, batch.offsets), (vec![0, 1, 2, 0, 1], vec![0, 3, 5]));
    assert!(pack(&[whole(&[1, 2]), sequence(&[1, 2], &[1, 1], 1)]).is_err());
}

#[test]
fn values_per_position_stay_with_their_sequence_and_match_its_length() {
    let with = |values: &[f64]| Sequence {
        per_token: [("reference.logp".to_owned(), values.to_vec())].into(),
        ..sequence(&[1, 2, 3], &[1, 1, 1], 0)
    };
    let batch = pack(&[with(&[0.5, 1.0]), with(&[2.0, 3.0])]).unwrap();
    assert_eq!(batch.per_token["reference.logp"], [0.5, 1.0, 2.0, 3.0]);
    assert!(pack(&[with(&[0.5])]).unwrap_err().to_string().contains("reference.logp"));
}

/// Numbers of tokens, in two columns, that follow their token to the position that predicts it. Catches numbers that stay where
/// the token is read, that are shifted over the end of a sequence, and a column that is lost.
#[test]
fn gotcha_02_numbers_of_tokens_are_shifted_with_their_tokens() {
    let own = |ids: &[u32], reads_last| Sequence {
        of_tokens: [
            ("weight".to_owned(), ids.iter().map(|id| f64::from(*id)).collect()),
            ("wide".to_owned(), ids.iter().flat_map(|id| [f64::from(*id), -f64::from(*id)]).collect()),
        ]
        .into(),
        widths: [("wide".to_owned(), 2)].into(),
        reads_last,
        ..sequence(ids, &vec![1; ids.len()], 0)
    };
    for reads_last in [false, true] {
        let batch = pack(&[own(&[1, 2, 3], reads_last), own(&[4, 5], reads_last)]).unwrap();
        let targets: Vec<f64> = batch.targets.iter().map(|id| f64::from(*id)).collect();
        // A position that predicts nothing has target 0 and numbers of 0.
        assert_eq!(batch.per_token["weight"], targets);
        assert_eq!(batch.per_token["wide"], targets.iter().flat_map(|id| [*id, -id]).collect::<Vec<_>>());
        assert_eq!(batch.widths["wide"], 2);
    }
    let mut short = own(&[1, 2, 3], false);
    short.of_tokens.insert("wide".to_owned(), vec![0.0; 3]);
    assert!(pack(&[short]).unwrap_err().to_string().contains("3 values of `wide` for 3 tokens"));
}

/// Catches `counted` that is ignored, or counts the sequences instead of their targets.
#[test]
fn sequences_that_do_not_count_are_in_no_count() {
    let with = |counted: f64| Sequence {
        per_sequence: [(names::COUNTED.to_owned(), counted)].into(),
        ..sequence(&[1, 2, 3], &[0, 1, 1], 0)
    };
    let batch = pack(&[with(0.0), with(1.0), with(0.0)]).unwrap();
    assert_eq!((batch.counted().collect::<Vec<_>>(), batch.counted_targets(), batch.supervised()), (vec![1], 2, 6));
    let all = pack(&[sequence(&[1, 2], &[0, 1], 0), sequence(&[1, 2], &[0, 1], 0)]).unwrap();
    assert_eq!((all.counted().count(), all.counted_targets()), (2, 2));
}

proptest! {
    /// However a window is cut, the pieces hold the same positions in the same order, and the window's count of
    /// supervised targets is their sum: the denominator that gotcha 1 requires. The mean of micro-batch means is a
    /// different number.
    #[test]
    fn gotcha_01_cutting_changes_neither_content_nor_count(
        rows in prop::collection::vec(prop::collection::vec((0u32..300, any::<bool>()), 2..12), 1..12),
        most in 0usize..40,
    ) {
        let sequences: Vec<Sequence> = rows.iter().zip(0..).map(|(row, number)| Sequence {
            ids: row.iter().map(|token| token.0).collect(),
            supervised: row.iter().map(|token| token.1).collect(),
            row: number,
            ..Default::default()
        }).collect();
        prop_assume!(sequences.iter().any(|sequence| sequence.supervised_targets() > 0));
        let window = Window::new(sequences.clone()).unwrap();
        let pieces: Vec<PackedBatch> = window.micro_batches(most).map(Result::unwrap).collect();
        let whole = pack(&sequences).unwrap();
        prop_assert_eq!(pieces.iter().map(PackedBatch::supervised).sum::<usize>(), window.supervised());
        prop_assert_eq!(window.supervised(), whole.supervised());
        prop_assert_eq!(pieces.iter().flat_map(|piece| piece.targets.clone()).collect::<Vec<_>>(), whole.targets);
        prop_assert_eq!(pieces.iter().flat_map(|piece| piece.mask.clone()).collect::<Vec<_>>(), whole.mask);
        prop_assert_eq!(pieces.iter().flat_map(|piece| piece.positions.clone()).collect::<Vec<_>>(), whole.positions);
        prop_assert_eq!(pieces.iter().flat_map(|piece| piece.rows.clone()).collect::<Vec<_>>(), whole.rows);
        for piece in &pieces {
            prop_assert!(piece.len() <= most || piece.sequences() == 1);
            prop_assert_eq!(*piece.offsets.last().unwrap() as usize, piece.len());
        }
    }
}
