//! Activation functions.

use super::support::{Bench, DTYPES, numbers, same};
use plugin_api::backend::{
    DType, View,
    ops::{Activation, ActivationBackward, ActivationKind, Glu, GluBackward},
};

const KINDS: [ActivationKind; 4] =
    [ActivationKind::GELU_TANH, ActivationKind::GELU_ERF, ActivationKind::SILU, ActivationKind::RELU];

fn all(
    bench: &mut Bench,
    dtype: DType,
    shape: (u64, u64),
    layout: (u64, u64),
    kind: ActivationKind,
) -> Vec<(&'static str, View)> {
    let count = (shape.0 * shape.1) as usize;
    let mut seed = 0;
    let mut matrix = |bench: &mut Bench, factor: f64| {
        seed += 1;
        let values: Vec<f64> = numbers(seed, count).iter().map(|x| factor * x).collect();
        // Operands with gaps have gaps of their own.
        let stride = if layout.1 == shape.1 { layout.1 } else { layout.1 + 16 * seed };
        bench.strided(dtype, shape, (layout.0, stride), &values)
    };
    let (x, gate, up, dy) = (matrix(bench, 8.0), matrix(bench, 8.0), matrix(bench, 1.0), matrix(bench, 1.0));
    let [y, dx, gated, dgate, dup] = [(); 5].map(|()| matrix(bench, 1.0));
    bench.run(Activation { x, y, kind });
    bench.run(ActivationBackward { x, dy, dx, kind });
    bench.run(Glu { gate, up, y: gated, kind });
    bench.run(GluBackward { gate, up, dy, dgate, dup, kind });
    vec![("y", y), ("dx", dx), ("glu", gated), ("dgate", dgate), ("dup", dup)]
}

/// Catches elements that are left out at the end of a row or a block, and writes into the gaps between rows.
#[test]
fn activations_of_any_layout() {
    for kind in KINDS {
        for (shape, layout) in [
            ((1, 1), (0, 1)),
            ((3, 7), (0, 7)),
            ((1025, 4), (0, 4)),
            ((5, 64), (16, 128)),
            ((5, 64), (3, 70)),
            ((4, 4096), (0, 8192)),
            ((0, 16), (0, 16)),
        ] {
            for dtype in DTYPES {
                same(&format!("{kind:?} {shape:?} {layout:?}"), dtype, |bench| all(bench, dtype, shape, layout, kind));
            }
        }
    }
}

/// Catches infinities and NaN that ATen's kernels treat otherwise.
#[test]
fn activations_of_numbers_that_are_not_finite() {
    let values = [f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 0.0, -0.0, 80.0, -80.0, 1e30, -1e30];
    for kind in KINDS {
        // ATen's error function of infinity is NaN on the processor, and 1 on CUDA, as it is here.
        let finite = |x: &f64| if kind == ActivationKind::GELU_ERF && x.is_infinite() { x.signum() * 1e30 } else { *x };
        let values = values.each_ref().map(finite);
        same(&format!("{kind:?}"), DType::F32, |bench| {
            let row = |bench: &mut Bench| bench.dense(DType::F32, (1, 9), &values);
            let (x, y) = (row(bench), row(bench));
            bench.run(Activation { x, y, kind });
            vec![("y", y)]
        });
    }
    same("relu backward", DType::F32, |bench| {
        let row = |bench: &mut Bench| bench.dense(DType::F32, (1, 9), &values);
        let (x, dx) = (row(bench), row(bench));
        let dy = bench.dense(DType::F32, (1, 9), &[2.0; 9]);
        bench.run(ActivationBackward { x, dy, dx, kind: ActivationKind::RELU });
        vec![("dx", dx)]
    });
}
