//! Sequences, groups, pairs, order, detaching, several terms, printing, determinism.

use proptest::prelude::*;

use super::super::{Tape, Var};
use super::value_and_gradient;

fn numbers(var: Var<'_>) -> Vec<f64> {
    var.to_vec().expect("a sound tape")
}

/// Catches offsets read as lengths, a shift by one, and an empty sequence that takes its neighbour's tokens.
#[test]
fn sequences() {
    let tape = Tape::with_offsets(&[0_u32, 2, 2, 5]);
    let x = tape.constant([1.0, 2.0, 4.0, 8.0, 16.0]);
    assert_eq!(numbers(x.seq_sum(&[1, 1, 1, 1, 1])), [3.0, 0.0, 28.0]);
    assert_eq!(numbers(x.seq_sum(&[0, 1, 1, 0, 1])), [2.0, 0.0, 20.0]);
    assert_eq!(numbers(x.seq_mean(&[0, 1, 1, 0, 1])), [2.0, 0.0, 10.0]);
    assert_eq!(numbers(tape.constant([7.0, 8.0, 9.0]).to_tokens()), [7.0, 7.0, 9.0, 9.0, 9.0]);
    assert_eq!(numbers(x.masked_sum(&[0, 1, 1, 0, 1])), [22.0]);
    assert_eq!(numbers(x.masked_mean(&[0, 1, 1, 0, 1])), [22.0 / 3.0]);
    let candidates = tape.constant([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0], [8.0, 80.0], [16.0, 160.0]]);
    assert_eq!(numbers(candidates.seq_sum(&[1, 1, 1, 0, 1])), [3.0, 30.0, 0.0, 0.0, 20.0, 200.0]);
}

/// Catches ids used as indices, and groups ordered by id in one operation and by appearance in another.
#[test]
fn groups_are_numbered_by_first_appearance() {
    let tape = Tape::new();
    let group = [900, -2, 900, 5];
    let x = tape.constant([1.0, 2.0, 4.0, 8.0]);
    assert_eq!(numbers(x.group_sum(&group)), [5.0, 2.0, 8.0]);
    assert_eq!(numbers(x.group_mean(&group)), [2.5, 2.0, 8.0]);
    assert_eq!(numbers(x.group_mean(&group).group_broadcast(&group)), [2.5, 2.0, 2.5, 8.0]);
}

/// Catches swapped sides, and pairs matched by position instead of by id.
#[test]
fn pairs_are_matched_by_id() {
    let tape = Tape::new();
    let (pair, side) = ([8, 3, 3, 8], [0.0, 1.0, 0.0, 1.0]);
    let x = tape.constant([1.0, 2.0, 3.0, 4.0]);
    assert_eq!(numbers(x.chosen(&pair, &side)), [4.0, 2.0]);
    assert_eq!(numbers(x.rejected(&pair, &side)), [1.0, 3.0]);
}

/// Catches an unstable sort, a descending one, gradients that stay in sorted order, and -0 sorted before 0.
#[test]
fn sort_is_stable_and_carries_gradients() {
    let x = [0.0, 3.0, -0.0, -1.0, 3.0];
    let tape = Tape::new();
    let input = tape.input("x", x);
    assert_eq!(input.argsort().expect("sound"), [3, 0, 2, 1, 4]);
    assert_eq!(numbers(input.sort()), [-1.0, 0.0, -0.0, 3.0, 3.0]);
    let root = (input.sort() * tape.constant([1.0, 2.0, 3.0, 4.0, 5.0])).sum();
    let gradients = tape.backward(root).expect("sound");
    assert_eq!(gradients.get(input).expect("an input").as_slice(), Some(&[2.0, 4.0, 3.0, 1.0, 5.0][..]));
    assert_eq!(tape.constant([f64::NAN, 1.0, f64::NAN, f64::INFINITY]).argsort().expect("sound"), [1, 3, 0, 2]);
}

/// Catches an unstable sort on long inputs: the standard library's unstable one is stable on short inputs.
#[test]
fn sort_is_stable_for_equal_values() {
    let x: Vec<f64> = (0..500).map(|i| f64::from(i % 3)).collect();
    let tape = Tape::new();
    let order = tape.constant(&x).argsort().expect("sound");
    assert!(order.windows(2).all(|pair| (x[pair[0]], pair[0]) < (x[pair[1]], pair[1])), "{order:?}");
}

/// Catches a detach that copies the value but passes the gradient on.
#[test]
fn detach_stops_the_gradient() {
    let tape = Tape::new();
    let x = tape.input("x", [2.0, 3.0]);
    let root = (x.detach() * x + x.exp().detach()).sum();
    assert_eq!(tape.backward(root).expect("sound").get(x).expect("an input").as_slice(), Some(&[2.0, 3.0][..]));
}

/// Catches cotangents left over from the term before, and missing gradients for inputs that a term does not read.
#[test]
fn each_term_has_its_own_gradients() {
    let tape = Tape::new();
    let (x, y) = (tape.input("x", [2.0, 3.0]), tape.input("y", 5.0));
    let (first, second) = (x.square().sum(), (x * y).sum());
    let by_name = |root| tape.backward(root).expect("sound").into_named();
    let expected = [("x".to_owned(), vec![4.0, 6.0]), ("y".to_owned(), vec![0.0])];
    let flat = |named: Vec<(String, ndarray::ArrayD<f64>)>| -> Vec<_> {
        named.into_iter().map(|(name, values)| (name, values.into_iter().collect::<Vec<_>>())).collect()
    };
    assert_eq!(flat(by_name(first)), expected);
    assert_eq!(flat(by_name(second)), [("x".to_owned(), vec![5.0, 5.0]), ("y".to_owned(), vec![5.0])]);
    assert_eq!(flat(by_name(first)), expected, "a second walk adds to the first");
    assert_eq!(flat(by_name(tape.constant(1.0))), [("x".to_owned(), vec![0.0; 2]), ("y".to_owned(), vec![0.0])]);
    let gradients = tape.backward(first).expect("sound");
    assert_eq!(gradients.get(first), None);
    let other = Tape::new();
    assert_eq!(gradients.get(other.input("x", [0.0, 0.0])), None);
    assert_eq!(gradients.by_name().map(|(name, _)| name).collect::<Vec<_>>(), ["x", "y"]);
}

/// Catches a recursive backward pass, which overflows the stack on a long chain.
#[test]
fn a_long_chain_does_not_recurse() {
    let tape = Tape::new();
    let x = tape.input("x", 1.0);
    let root = (0..200_000).fold(x, |sum, _| sum + 1.0);
    assert_eq!(tape.backward(root).expect("sound").get(x).expect("an input").sum(), 1.0);
}

#[test]
fn a_variable_prints_operation_operands_shape_and_values() {
    let tape = Tape::with_offsets(&[0, 3]);
    let logp = tape.input("logp", [-1.0, -2.0, -0.5]);
    let sum = logp.seq_sum(&[1, 0, 1]);
    assert_eq!(format!("{logp:?}"), "#0 input \"logp\" [3] = [-1, -2, -0.5]");
    assert_eq!(format!("{sum:?}"), "#1 seq_sum(#0) [1] = [-1.5]");
    assert_eq!(format!("{:?}", sum.sum() * 2.0), "#4 mul(#2, #3) [] = -3");
    let long = tape.constant(vec![1.5; 10_000]);
    assert_eq!(format!("{long:?}"), "#5 constant [10000] = [1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, ... 9992 more]");
    assert_eq!(format!("{tape:?}").lines().count(), 7);
    assert_eq!(format!("{:?}", logp.lt(-0.75)), "Mask(2 of 3)");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Catches any dependence on memory addresses, threads or iteration order of a hash map: the bits agree, not only the
    /// numbers.
    #[test]
    fn the_same_inputs_give_the_same_bits(x in proptest::collection::vec(-5.0..5.0_f64, 4..40)) {
        let build: super::Build = |tape, x| {
            let length = x[0].shape().map_or(0, |shape| shape[0]);
            let group: Vec<usize> = (0..length).map(|i| (i * 7) % 5).collect();
            let centred = x[0] - x[0].group_mean(&group).group_broadcast(&group);
            tape.concat(&[centred.sort().exp(), centred.log_sigmoid()])
        };
        let bits = |(value, gradient): (f64, Vec<f64>)| -> Vec<u64> {
            std::iter::once(value).chain(gradient).map(f64::to_bits).collect()
        };
        let first = bits(value_and_gradient(&x, build));
        let second = std::thread::scope(|scope| {
            scope.spawn(|| bits(value_and_gradient(&x, build))).join().expect("no panic")
        });
        prop_assert_eq!(first, second);
    }

    /// Masked equals filtered, in value and gradient. Catches a mean over the wrong count and a mask off by one.
    #[test]
    fn masked_equals_filtered(
        x in proptest::collection::vec((-5.0..5.0_f64, any::<bool>()), 1..30),
    ) {
        let (values, mask): (Vec<f64>, Vec<bool>) = x.iter().copied().unzip();
        let kept: Vec<f64> = x.iter().filter(|(_, bit)| *bit).map(|(value, _)| *value).collect();
        let tape = Tape::new();
        let (all, few) = (tape.input("all", &values), tape.input("few", &kept));
        for (masked, filtered) in [
            (all.exp().masked_sum(&mask), few.exp().sum()),
            (all.exp().masked_mean(&mask), few.exp().mean()),
        ] {
            prop_assert_eq!(masked.scalar(), filtered.scalar());
            let (masked, filtered) = (tape.backward(masked).unwrap(), tape.backward(filtered).unwrap());
            let gradient = masked.get(all).unwrap().iter().zip(&mask);
            let gradient: Vec<f64> = gradient.filter(|(_, bit)| **bit).map(|(gradient, _)| *gradient).collect();
            prop_assert_eq!(&gradient, &filtered.get(few).unwrap().iter().copied().collect::<Vec<_>>());
        }
    }
}
