//! Every operation against central differences, at random points away from its kinks. A new operation without a row
//! here fails `every_operation_has_a_row`.

use std::collections::BTreeSet;

use ndarray::{ArrayD, IxDyn};
use proptest::collection::vec;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use super::super::graph::array;
use super::super::{CheckError, OpKind, Tape, Tolerance, check_gradient, check_tape};
use super::{Build, weighted};

const OFFSETS: [usize; 4] = [0, 2, 2, 6];
const MASK: [u8; 6] = [1, 0, 1, 1, 0, 1];
const GROUP: [i64; 6] = [7, -3, 7, 7, 9, -3];
const PAIR: [u64; 6] = [40, 30, 30, 20, 20, 40];
const SIDE: [f64; 6] = [0.0, 1.0, 0.0, 1.0, 0.0, 1.0];

/// An input: its shape and the range its elements are drawn from.
type Drawn = (&'static [usize], std::ops::Range<f64>);

struct Row {
    op: OpKind,
    inputs: Vec<Drawn>,
    /// Values that the elements keep a distance from.
    kinks: &'static [f64],
    build: Build,
}

const TOKENS: Drawn = (&[6], -2.0..2.0);
const POSITIVE: Drawn = (&[6], 0.3..3.0);
const SCALAR: Drawn = (&[], 0.5..2.0);
const TABLE: Drawn = (&[6, 2], -2.0..2.0);

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = |op, inputs: &[Drawn], build| rows.push(Row { op, inputs: inputs.to_vec(), kinks: &[], build });
    row(OpKind::Constant, &[TOKENS], |tape, x| tape.constant([3.0, 1.0, 4.0, 1.0, 5.0, 9.0]) * x[0]);
    row(OpKind::Input, &[TOKENS], |_, x| x[0]);
    row(OpKind::Compare, &[TOKENS, TOKENS], |tape, x| tape.select(x[0].gt(x[1]), x[0].square(), x[1]));
    row(OpKind::Compare, &[TOKENS, SCALAR], |tape, x| {
        let inside = x[0].ge(x[1]).or(x[0].lt(-1.0)).and(x[1].le(x[0]));
        tape.select(&inside, x[0] * x[1], x[1])
    });
    row(OpKind::Neg, &[TOKENS], |_, x| -x[0]);
    row(OpKind::Exp, &[TOKENS], |_, x| x[0].exp());
    row(OpKind::Log, &[POSITIVE], |_, x| x[0].log());
    row(OpKind::Sqrt, &[POSITIVE], |_, x| x[0].sqrt());
    row(OpKind::Square, &[TOKENS], |_, x| x[0].square());
    row(OpKind::Powi, &[POSITIVE], |_, x| x[0].powi(3) + x[0].powi(-2) + x[0].powi(0) + x[0].powi(1));
    row(OpKind::Sigmoid, &[TOKENS], |_, x| (3.0 * x[0]).sigmoid());
    row(OpKind::LogSigmoid, &[TOKENS], |_, x| (3.0 * x[0]).log_sigmoid());
    row(OpKind::Log1mExp, &[(&[6], -3.0..-0.05)], |_, x| x[0].log1mexp());
    row(OpKind::Softplus, &[TOKENS], |_, x| (3.0 * x[0]).softplus());
    row(OpKind::Tanh, &[TOKENS], |_, x| x[0].tanh());
    row(OpKind::Add, &[TOKENS, TOKENS], |_, x| x[0] + x[1]);
    row(OpKind::Add, &[TOKENS, SCALAR], |_, x| (x[0] + x[1]) + (x[1] + x[0]) + (1.5 + x[0]) + 0.5);
    row(OpKind::Sub, &[TOKENS, TOKENS], |_, x| x[0] - x[1]);
    row(OpKind::Sub, &[TOKENS, SCALAR], |_, x| (x[0] - x[1]) * (x[1] - x[0]) - (1.5 - x[0]) * (x[0] - 0.5));
    row(OpKind::Mul, &[TOKENS, TOKENS], |_, x| x[0] * x[1]);
    row(OpKind::Mul, &[TOKENS], |_, x| x[0] * x[0] * x[0]);
    row(OpKind::Mul, &[TABLE, SCALAR], |_, x| x[1] * x[0] + x[0] * (2.0 * x[1]) * 3.0);
    row(OpKind::Div, &[TOKENS, POSITIVE], |_, x| x[0] / x[1]);
    row(OpKind::Div, &[POSITIVE, SCALAR], |_, x| x[0] / x[1] + x[1] / x[0] + x[0] / 3.0 + 2.0 / x[0]);
    row(OpKind::Div, &[SCALAR, SCALAR], |_, x| x[0] / x[1]);
    row(OpKind::Max, &[TOKENS, TOKENS], |_, x| x[0].max(x[1]));
    row(OpKind::Max, &[TOKENS, SCALAR], |_, x| x[1].max(x[0]));
    row(OpKind::Min, &[TOKENS, TOKENS], |_, x| x[0].min(x[1]));
    row(OpKind::Min, &[TABLE, SCALAR], |_, x| x[0].min(x[1]));
    row(OpKind::Select, &[TOKENS, TOKENS], |tape, x| tape.select(&MASK, x[0].exp(), x[1]));
    row(OpKind::Select, &[TABLE, SCALAR], |tape, x| tape.select(&MASK, x[0], x[1]) + tape.select(&MASK, 1.0, x[0]));
    row(OpKind::Select, &[SCALAR, SCALAR], |tape, x| tape.select(&MASK, x[0], x[1]));
    row(OpKind::Sum, &[TABLE], |_, x| x[0].sum());
    row(OpKind::Mean, &[TABLE], |_, x| x[0].square().mean());
    row(OpKind::MaskedSum, &[TOKENS], |_, x| x[0].square().masked_sum(&MASK));
    row(OpKind::MaskedSum, &[TABLE], |_, x| x[0].square().masked_sum(&MASK));
    row(OpKind::MaskedMean, &[TOKENS], |_, x| x[0].square().masked_mean(&MASK));
    row(OpKind::SeqSum, &[TOKENS], |_, x| x[0].square().seq_sum(&MASK));
    row(OpKind::SeqSum, &[TABLE], |_, x| x[0].square().seq_sum(&MASK));
    row(OpKind::SeqMean, &[TOKENS], |_, x| x[0].square().seq_mean(&MASK));
    row(OpKind::SeqMean, &[TABLE], |_, x| x[0].square().seq_mean(&MASK));
    row(OpKind::GroupSum, &[TOKENS], |_, x| x[0].square().group_sum(&GROUP));
    row(OpKind::GroupSum, &[TABLE], |_, x| x[0].square().group_sum(&GROUP));
    row(OpKind::GroupMean, &[TOKENS], |_, x| x[0].square().group_mean(&GROUP));
    row(OpKind::SumLast, &[TABLE], |_, x| x[0].square().sum_last());
    row(OpKind::SumLast, &[TOKENS], |_, x| x[0].square().sum_last());
    row(OpKind::ToTokens, &[(&[3], -2.0..2.0)], |_, x| x[0].square().to_tokens());
    row(OpKind::ToTokens, &[(&[3, 2], -2.0..2.0)], |_, x| x[0].square().to_tokens());
    row(OpKind::GroupBroadcast, &[TOKENS], |_, x| x[0] - x[0].group_mean(&GROUP).group_broadcast(&GROUP).square());
    row(OpKind::Chosen, &[TOKENS], |_, x| x[0].square().chosen(&PAIR, &SIDE));
    row(OpKind::Rejected, &[TABLE], |_, x| x[0].square().rejected(&PAIR, &SIDE));
    row(OpKind::IndexSelect, &[TOKENS], |_, x| x[0].square().index_select(&[5, 0, 5, 2]));
    row(OpKind::IndexSelect, &[TABLE], |_, x| x[0].square().index_select(&[5, 0, 5]));
    row(OpKind::Gather, &[TABLE], |_, x| x[0].square().gather(&MASK));
    row(OpKind::Sort, &[TOKENS], |_, x| x[0].square().sort());
    row(OpKind::RepeatLast, &[TOKENS], |_, x| x[0].square().repeat_last(3));
    row(OpKind::RepeatLast, &[SCALAR], |_, x| x[0].square().repeat_last(3));
    row(OpKind::Transpose, &[TABLE], |_, x| x[0].square().transpose());
    row(OpKind::Concat, &[TOKENS, (&[2], -2.0..2.0)], |tape, x| tape.concat(&[x[1], x[0].square(), x[1]]));
    row(OpKind::Concat, &[TABLE], |tape, x| tape.concat(&[x[0], x[0].exp()]));
    row(OpKind::LogSumExp, &[TABLE], |_, x| (2.0 * x[0]).logsumexp());
    row(OpKind::LogSumExp, &[TOKENS], |_, x| (2.0 * x[0]).logsumexp());
    row(OpKind::Matmul, &[TABLE, (&[2, 3], -2.0..2.0)], |_, x| x[0].matmul(x[1]));
    row(OpKind::Matmul, &[TABLE], |_, x| x[0].matmul(x[0].transpose()));
    row(OpKind::Matmul, &[TABLE, (&[2], -2.0..2.0)], |_, x| x[0].matmul(x[1]));
    let mut kinked = |op, kinks, build| rows.push(Row { op, inputs: vec![TOKENS], kinks, build });
    kinked(OpKind::Abs, &[0.0], |_, x| x[0].abs());
    kinked(OpKind::Relu, &[0.0], |_, x| x[0].relu());
    kinked(OpKind::Clamp, &[-0.5, 0.75], |_, x| x[0].clamp(-0.5, 0.75) + x[0].clamp(f64::NEG_INFINITY, 0.75));
    rows
}

fn tape() -> Tape {
    Tape::with_offsets(&OFFSETS)
}

/// `count` random points for a row, the same at every run.
fn points(row: &Row, count: usize) -> Vec<Vec<(&'static str, ArrayD<f64>)>> {
    let mut runner = TestRunner::deterministic();
    let mut draw = |(name, (shape, range)): (&'static str, &Drawn)| {
        let length = shape.iter().product::<usize>();
        let tree = vec(range.clone(), length).new_tree(&mut runner).expect("a range of numbers");
        let away = |x: f64| if row.kinks.iter().any(|kink| (x - kink).abs() < 0.01) { x + 0.03 } else { x };
        (name, array(shape, tree.current().into_iter().map(away).collect()))
    };
    (0..count).map(|_| ["a", "b"].into_iter().zip(&row.inputs).map(&mut draw).collect()).collect()
}

/// Catches an operation without a numerical check, and a row that does not use the operation it names.
#[test]
fn every_operation_has_a_row() {
    // A detached value has gradient 0 by definition, whatever a difference measures: `structure::detach_stops_the_gradient`.
    let mut covered = BTreeSet::from([OpKind::Detach]);
    for row in rows() {
        let tape = tape();
        let point = points(&row, 1).remove(0);
        let inputs: Vec<_> = point.iter().map(|(name, values)| tape.input(*name, values)).collect();
        (row.build)(&tape, &inputs);
        tape.finish().unwrap_or_else(|error| panic!("{}: {error}", row.op));
        assert!(tape.state().nodes.iter().any(|node| node.kind == row.op), "the row of {} does not use it", row.op);
        covered.insert(row.op);
    }
    let missing: Vec<_> = OpKind::ALL.iter().filter(|op| !covered.contains(op)).collect();
    assert!(missing.is_empty(), "no gradient test for {missing:?}");
}

/// Catches any wrong derivative; the next test shows that it does.
#[test]
fn every_gradient_agrees_with_central_differences() {
    for row in rows() {
        for point in points(&row, 16) {
            check_tape(tape, &point, Tolerance::default(), |tape, x| weighted(tape, (row.build)(tape, x)))
                .unwrap_or_else(|error| panic!("{}: {error}", row.op));
        }
    }
}

/// Makes a correct gradient wrong.
type Wrong = fn(&ArrayD<f64>) -> ArrayD<f64>;

/// Every row refuses its own gradient after each of three changes: 0.01 % larger, of the opposite sign, and moved to the
/// neighbouring element.
#[test]
fn every_row_refuses_a_wrong_gradient() {
    let wrongs: [Wrong; 3] = [
        |g| g * 1.0001,
        |g| -g,
        |g| {
            let mut rotated: Vec<f64> = g.iter().copied().collect();
            rotated.rotate_right(1);
            ArrayD::from_shape_vec(IxDyn(g.shape()), rotated).expect("the same length")
        },
    ];
    for row in rows() {
        let point = points(&row, 1).remove(0);
        let value = |at: &[ArrayD<f64>]| {
            let tape = tape();
            let inputs: Vec<_> = at.iter().enumerate().map(|(i, x)| tape.input(i.to_string(), x)).collect();
            let root = weighted(&tape, (row.build)(&tape, &inputs));
            let gradients = tape.backward(root)?;
            Ok((root.scalar()?, gradients.into_named().into_iter().map(|(_, g)| g).collect::<Vec<_>>()))
        };
        let at: Vec<_> = point.iter().map(|(_, values)| values.clone()).collect();
        let (_, right) = value(&at).expect("a sound row");
        for wrong in wrongs {
            let claimed: Vec<_> = right.iter().map(wrong).collect();
            if claimed == right {
                continue;
            }
            let answer = check_gradient(&point, &claimed, Tolerance::default(), |at| {
                value(at).map(|(value, _)| value).map_err(|error: super::super::TapeError| error)
            });
            assert!(matches!(answer, Err(CheckError::Mismatch { .. })), "{}: {answer:?}", row.op);
        }
    }
}
