//! Mistakes become errors that name the operation and both sides; nothing panics, and the first mistake is reported.

use super::super::{Tape, TapeError, Var};
use crate::batch::{Array, Scope};

/// The text of the error that `build` leaves on a tape of three sequences over six tokens, and on every accessor.
fn error(build: impl for<'t> FnOnce(&'t Tape, Var<'t>) -> Var<'t>) -> String {
    let tape = Tape::with_offsets(&[0, 2, 2, 6]);
    let x = tape.input("x", [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let wrong = build(&tape, x);
    // Every later operation on a poisoned tape does nothing.
    let after = wrong.exp().seq_sum(&[1]).chosen(&[1], &[5]).matmul(wrong).sum() + 1.0;
    let mask = after.gt(wrong);
    let _ = tape.select(&mask, tape.concat(&[after, x]), 0.0);
    let error = tape.finish().expect_err("a mistake");
    assert_eq!(after.scalar(), Err(error.clone()));
    assert_eq!(x.value(), Err(error.clone()));
    assert_eq!(x.shape(), Err(error.clone()));
    assert_eq!(x.argsort(), Err(error.clone()));
    assert_eq!(tape.backward(after).map(|_| ()), Err(error.clone()));
    assert!(format!("{after:?}").contains(&error.to_string()));
    assert!(format!("{tape:?}").contains(&error.to_string()));
    error.to_string()
}

/// Catches a panic, a silent broadcast of `[1]` or `[N]`, and messages that do not name both shapes.
#[test]
fn mismatched_shapes() {
    let expected = "`add`: shapes [6] and [2] do not agree";
    assert_eq!(error(|tape, x| x + tape.constant([1.0, 2.0])), expected);
    assert_eq!(error(|tape, x| x * tape.constant([1.0])), "`mul`: shapes [6] and [1] do not agree");
    assert_eq!(error(|_, x| x - x.repeat_last(2)), "`sub`: shapes [6] and [6, 2] do not agree");
    assert_eq!(error(|tape, x| x.max(tape.constant([1.0, 2.0]))), "`max`: shapes [6] and [2] do not agree");
    let compare = "`compare`: shapes [6] and [2] do not agree";
    assert_eq!(error(|tape, x| tape.select(x.gt(tape.constant([1.0, 2.0])), x, 0.0)), compare);
    assert_eq!(error(|_, x| x.repeat_last(2).matmul(x)), "`matmul`: shapes [6, 2] and [6] do not agree");
    assert_eq!(error(|tape, x| tape.concat(&[x, x.repeat_last(2)])), "`concat`: shapes [6] and [6, 2] do not agree");
    assert_eq!(error(|tape, _| tape.constant([1.0]).to_tokens()), "`to_tokens`: shapes [1] and [3] do not agree");
    assert_eq!(error(|tape, _| tape.constant([1.0]).seq_sum(&[1])), "`seq_sum`: shapes [1] and [6] do not agree");
    assert_eq!(error(|_, x| x.group_broadcast(&[1, 1])), "`group_broadcast`: shapes [6] and [1] do not agree");
}

#[test]
fn masks_ids_and_lengths() {
    let short = "`seq_sum`: `mask` has length 2, the variable has shape [6]";
    assert_eq!(error(|_, x| x.seq_sum(&[1, 0])), short);
    let weight = "`masked_sum`: not a mask of zeros and ones: entry 1 is 0.5";
    assert_eq!(error(|_, x| x.masked_sum(&[1.0, 0.5, 0.0, 1.0, 1.0, 2.0])), weight);
    let two = "`seq_mean`: not a mask of zeros and ones: entry 5 is 2";
    assert_eq!(error(|_, x| x.seq_mean(&[1, 1, 0, 1, 1, 2])), two);
    let lengths = "`masked_sum`: not a mask of zeros and ones: masks of lengths 6 and 1";
    assert_eq!(error(|_, x| x.masked_sum(x.gt(0.0).and(&[true]))), lengths);
    let group = "`group_sum`: `group` has length 1, the variable has shape [6]";
    assert_eq!(error(|_, x| x.group_sum(&[1])), group);
    assert_eq!(
        error(|_, x| x.group_sum(&[0.0, 1.0, 1.5, 0.0, 0.0, 0.0])),
        "`group_sum`: `group`[2] = 1.5 is not an integer"
    );
    let pair = "`chosen`: `pair` has length 1, the variable has shape [6]";
    assert_eq!(error(|_, x| x.chosen(&[1], &[1])), pair);
    let rejected = "`rejected`: pair 9 has 2 chosen and 0 rejected sequences; it needs one of each";
    assert_eq!(error(|_, x| x.rejected(&[1, 9, 1, 9, 2, 2], &[1, 1, 0, 1, 0, 1])), rejected);
    let side = "`chosen`: side 2 at position 2 is neither 1 (chosen) nor 0 (rejected)";
    assert_eq!(error(|_, x| x.chosen(&[1, 2, 3, 1, 2, 3], &[1, 0, 2, 0, 1, 1])), side);
    assert_eq!(error(|_, x| x.index_select(&[0, 6])), "`index_select`: index 6 at position 1 is outside 0..6");
    assert_eq!(error(|_, x| x.index_select(&[-1])), "`index_select`: index -1 at position 0 is outside 0..6");
    let gather = "`gather`: index 2 at position 5 is outside 0..2";
    assert_eq!(error(|_, x| x.repeat_last(2).gather(&[0, 1, 0, 1, 0, 2])), gather);
    assert_eq!(error(|_, x| x.clamp(1.0, -1.0)), "`clamp`: bounds 1 and -1 enclose nothing");
    // Not by `error`: an error that holds a NaN is not equal to itself.
    let tape = Tape::new();
    let _ = tape.constant(1.0).clamp(f64::NAN, 1.0);
    assert_eq!(tape.finish().expect_err("NaN").to_string(), "`clamp`: bounds NaN and 1 enclose nothing");
    assert_eq!(error(|tape, _| tape.input("x", 1.0)), "input `x` is declared twice");
}

#[test]
fn ranks() {
    let sort = "`sort` expects a vector, found shape [6, 2]";
    assert_eq!(error(|_, x| x.repeat_last(2).sort()), sort);
    assert_eq!(error(|_, x| x.transpose()), "`transpose` expects a matrix, found shape [6]");
    assert_eq!(error(|_, x| x.gather(&[0])), "`gather` expects a matrix, found shape [6]");
    assert_eq!(
        error(|_, x| x.repeat_last(2).repeat_last(2)),
        "`repeat_last` expects a scalar or a vector, found shape [6, 2]"
    );
    assert_eq!(error(|_, x| x.sum().logsumexp()), "`logsumexp` expects a vector or a matrix, found shape []");
    assert_eq!(error(|_, x| x.sum().group_sum(&[1])), "`group_sum` expects a vector or a matrix, found shape []");
    let cube = ndarray::Array3::<f64>::zeros((1, 2, 3));
    let expected = "`constant` expects a scalar, a vector or a matrix, found shape [1, 2, 3]";
    assert_eq!(error(|tape, _| tape.constant(&cube)), expected);
}

/// Catches a root that is silently summed: the gradient of a vector is not what its author meant.
#[test]
fn a_root_that_is_not_a_scalar() {
    let tape = Tape::new();
    let x = tape.input("x", [1.0]);
    let error = tape.backward(x).expect_err("a vector");
    assert_eq!(error.to_string(), "a gradient needs a scalar, found shape [1]: sum it first");
    assert_eq!(x.scalar(), Err(TapeError::NotScalar { wanted: "a single number", found: vec![1] }));
    // The tape stays usable: the next root may be right.
    tape.backward(x.sum()).expect("a scalar");
}

#[test]
fn variables_of_two_tapes() {
    let (one, two) = (Tape::new(), Tape::new());
    let _ = one.input("x", 1.0) + two.input("x", 2.0);
    assert_eq!(one.finish(), Err(TapeError::ForeignVar { op: "add" }));
    assert_eq!(two.finish(), Ok(()));
    let three = Tape::new();
    let foreign = two.backward(three.constant(1.0)).map(|_| ());
    assert_eq!(foreign, Err(TapeError::ForeignVar { op: "backward" }));
}

#[test]
fn offsets() {
    let text = |offsets: &[i64]| Tape::with_offsets(offsets).finish().expect_err("wrong offsets").to_string();
    assert_eq!(text(&[]), "sequence offsets: the first must be 0, found None");
    assert_eq!(text(&[1, 2]), "sequence offsets: the first must be 0, found Some(1)");
    assert_eq!(text(&[0, 5, 3]), "sequence offsets: 5 at 1 is followed by 3");
    let tape = Tape::new();
    let _ = tape.constant([1.0]).to_tokens();
    let expected = "`to_tokens` needs the sequences' offsets: make the tape with `Tape::with_offsets`";
    assert_eq!(tape.finish().expect_err("no offsets").to_string(), expected);
}

/// Catches a matrix read as a vector, and a last row dropped without an error.
#[test]
fn arrays_of_a_batch() {
    let array = |cols, data: &'static [f64]| Array {
        name: "candidates".into(),
        scope: Scope::TOKEN,
        differentiable: true,
        cols,
        data: data.into(),
    };
    let tape = Tape::new();
    assert_eq!(tape.constant(&array(1, &[1.0, 2.0])).shape(), Ok(vec![2]));
    assert_eq!(tape.constant(&array(2, &[1.0, 2.0, 3.0, 4.0])).shape(), Ok(vec![2, 2]));
    let _ = tape.constant(&array(2, &[1.0, 2.0, 3.0]));
    assert_eq!(tape.finish().expect_err("ragged").to_string(), "array `candidates`: 3 values do not make rows of 2");
}

/// Catches a later mistake hiding the one that caused it.
#[test]
fn the_first_mistake_is_reported() {
    let tape = Tape::new();
    let x = tape.constant([1.0, 2.0]) + tape.constant([1.0, 2.0, 3.0]);
    let _ = x.transpose();
    assert_eq!(tape.finish().expect_err("a mistake").to_string(), "`add`: shapes [2] and [3] do not agree");
}
