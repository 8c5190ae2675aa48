//! Moving data.

use crate::backend::{
    case::Case,
    family::{Family, Wrong},
    rules::{PLAIN, Rule},
    tensor::Tensor,
};
use plugin_api::{
    abi::DType,
    backend::{
        Op,
        ops::{Axpy, Cast, Copy, Fill, GatherRows, Nop, Scale, ScatterAddRows},
    },
};
use telos_random::SplitMix64;

/// The operations of this file.
pub const FAMILY: Family = Family {
    ops: &[Nop::SPEC, Fill::SPEC, Copy::SPEC, Axpy::SPEC, Scale::SPEC, Cast::SPEC, GatherRows::SPEC],
    cases: |rng, _, compute| Ok(cases(rng, compute)),
    rules: &[Rule { number: 11, forward: GatherRows::SPEC, backward: ScatterAddRows::SPEC, ..PLAIN }],
    wrong: Wrong {
        indices: &[("gather_rows", "index", Some("x")), ("scatter_add_rows", "index", Some("dx"))],
        ..Wrong::NONE
    },
};

const SHAPES: &[(usize, usize)] = &[(0, 4), (1, 1), (7, 13), (1, 1000), (300, 33), (3, 32_003)];

/// Values that are easily lost: signed zero, subnormal numbers, infinities, NaN, ties between two bfloat16s.
fn special() -> Tensor {
    let tie = 1.0 / 256.0;
    Tensor::row([0.0, -0.0, 1e-40, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1.0 + tie, 1.0 + 3.0 * tie, 3e38])
}

fn cases(rng: &mut SplitMix64, compute: DType) -> Vec<Case> {
    let mut cases = vec![Case::new("does nothing", &Nop {})];
    for (i, &(rows, cols)) in SHAPES.iter().enumerate() {
        let name = format!("{rows} x {cols}");
        let alpha = [1.0, -0.5, 3.25, 0.0, 1.5, -2.5][i];
        cases.push(
            Case::new(&name, &Fill { value: [0.1, 0.0, -7.3, f64::INFINITY, 1e-3, 2.5][i], ..Fill::default() })
                .out("x", rows, cols),
        );
        cases.push(Case::new(&name, &Copy::default()).with("x", Tensor::normal(rng, rows, cols)).out("y", rows, cols));
        cases.push(
            Case::new(format!("{name}, alpha {alpha}"), &Axpy { alpha, ..Axpy::default() })
                .with("x", Tensor::normal(rng, rows, cols))
                .with("y", Tensor::normal(rng, rows, cols)),
        );
        cases.push(
            Case::new(format!("{name}, alpha {alpha}"), &Scale { alpha, ..Scale::default() })
                .with("x", Tensor::normal(rng, rows, cols)),
        );
    }
    cases.push(Case::new("special values", &Copy::default()).with("x", special()).out("y", 1, 9));
    cases.extend(casts(rng, compute));
    cases.extend(gathers(rng));
    cases
}

/// Every pair of the float types that a session of `compute` must support.
fn casts(rng: &mut SplitMix64, compute: DType) -> Vec<Case> {
    let known: &[DType] = match compute {
        DType::F64 => &[DType::F64, DType::F32, DType::BF16],
        _ => &[DType::F32, DType::BF16],
    };
    let mut cases = Vec::new();
    for &from in known {
        for &to in known {
            for (name, x) in [
                ("special values", special()),
                ("17 x 31", Tensor::normal(rng, 17, 31)),
                ("empty", Tensor::normal(rng, 0, 3)),
            ] {
                let y = Tensor::garbage(x.rows, x.cols).typed(to);
                let case = Case::new(format!("{from} to {to}, {name}"), &Cast::default());
                cases.push(case.with("x", x.typed(from)).with("y", y));
            }
        }
    }
    cases
}

fn gathers(rng: &mut SplitMix64) -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, cols, picked) in [(5, 3, 0), (1, 1, 1), (4, 7, 9), (200, 16, 64), (32_003, 3, 41)] {
        cases.push(
            Case::new(format!("{picked} of {rows} rows, some twice"), &GatherRows::default())
                .with("x", Tensor::normal(rng, rows, cols))
                .with("index", Tensor::indices(rng, picked, rows))
                .out("y", picked, cols),
        );
    }
    cases
}
