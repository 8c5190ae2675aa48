//! Norms and rotary embedding.

use super::support::{Bench, DTYPES, accumulator, numbers, same};
use plugin_api::backend::{
    DType, View,
    ops::{Norm, NormBackward, NormKind, Rotary},
};

/// How far apart rows lie and where the first starts, for rows of `cols`.
type Layout = fn(u64) -> (u64, u64);

/// The layout of one operand of several: without gaps, or with gaps that differ from the other operands'.
fn own(layout: Layout, cols: u64, seed: u64) -> (u64, u64) {
    let (offset, stride) = layout(cols);
    (offset, if stride == cols { stride } else { stride + 16 * seed })
}

const DENSE: Layout = |cols| (0, cols);
const ALIGNED_GAPS: Layout = |cols| (16, cols.next_multiple_of(16) + 32);
const UNALIGNED: Layout = |cols| (3, cols + 5);

fn norm(
    bench: &mut Bench,
    dtype: DType,
    (rows, cols): (u64, u64),
    op: Norm,
    layout: Layout,
) -> Vec<(&'static str, View)> {
    let count = (rows * cols) as usize;
    let matrix =
        |bench: &mut Bench, seed| bench.strided(dtype, (rows, cols), own(layout, cols, seed), &numbers(seed, count));
    let vector = |bench: &mut Bench, seed| {
        bench.strided(dtype, (1, cols), (layout(cols).0, cols), &numbers(seed, cols as usize))
    };
    let (x, residual, dy, dsum) = (matrix(bench, 1), matrix(bench, 2), matrix(bench, 3), matrix(bench, 4));
    let (y, sum, dx) = (matrix(bench, 5), matrix(bench, 6), matrix(bench, 7));
    let (weight, bias) = (vector(bench, 8), vector(bench, 9));
    let acc = accumulator(dtype);
    let stats = bench.dense(acc, (rows, 2), &vec![7.0; 2 * rows as usize]);
    let dweight = bench.dense(acc, (1, cols), &numbers(10, cols as usize));
    let dbias = bench.dense(acc, (1, cols), &numbers(11, cols as usize));
    let (weight, bias) = (Some(weight), Some(bias));
    bench.run(Norm { x, residual: Some(residual), weight, bias, y, sum: Some(sum), stats: Some(stats), ..op });
    let (dweight, dbias) = (Some(dweight), Some(dbias));
    let backward =
        NormBackward { x: sum, stats, dy, weight, dsum: Some(dsum), dx, dweight, dbias, ..NormBackward::default() };
    bench.run(NormBackward { kind: op.kind, weight_offset: op.weight_offset, ..backward });
    let gradients = [("dweight", dweight), ("dbias", dbias)].map(|(name, view)| (name, view.unwrap()));
    [("y", y), ("sum", sum), ("stats", stats), ("dx", dx)].into_iter().chain(gradients).collect()
}

/// Catches columns or rows that are left out or read twice where a row is not a multiple of the packs, of the threads or of what the
/// threads hold, and writes into the gaps between rows.
#[test]
fn norms_of_any_width_and_layout() {
    let shapes =
        [(3, 1), (3, 31), (2, 33), (2, 1000), (2, 1025), (2, 2049), (3, 4096), (2, 4097), (2, 8192), (2, 8200)];
    for (rows, cols) in shapes.into_iter().chain([(2500, 8), (1025, 3)]) {
        for kind in [NormKind::RMS, NormKind::LAYER] {
            for layout in [DENSE, ALIGNED_GAPS, UNALIGNED] {
                for dtype in DTYPES {
                    let op = Norm { kind, eps: 1e-5, weight_offset: 0.5, ..Norm::default() };
                    let name = format!("{kind:?} {rows} x {cols}, {:?}", layout(cols));
                    same(&name, dtype, |bench| norm(bench, dtype, (rows, cols), op, layout));
                }
            }
        }
    }
}

/// Catches a kernel that hides an infinity or NaN of its row, or spreads it to other rows.
#[test]
fn norms_of_rows_that_are_not_finite() {
    for kind in [NormKind::RMS, NormKind::LAYER] {
        for bad in [f64::INFINITY, f64::NAN] {
            same(&format!("{kind:?} with {bad}"), DType::F32, |bench| {
                let mut values = numbers(1, 3 * 40);
                values[47] = bad;
                let x = bench.dense(DType::F32, (3, 40), &values);
                let y = bench.dense(DType::F32, (3, 40), &values);
                bench.run(Norm { x, y, kind, ..Norm::default() });
                vec![("y", y)]
            });
        }
    }
}

/// Catches pairs that are rotated by another pair's angle, a rest that is not copied, and packs across the end of a half.
#[test]
fn rotary_of_any_layout() {
    for (tokens, heads, head_dim, pairs) in
        [(5, 3, 64, 32), (4, 2, 64, 16), (3, 2, 48, 12), (2, 3, 10, 3), (300, 1, 8, 4)]
    {
        for interleaved in [false, true] {
            for (layout, in_place) in [(DENSE, false), (ALIGNED_GAPS, true), (UNALIGNED, false), (UNALIGNED, true)] {
                for dtype in DTYPES {
                    let name = format!("{tokens} x {heads} x {head_dim}, {pairs} pairs, {interleaved}, {in_place}");
                    same(&name, dtype, |bench| {
                        let cols = heads * head_dim;
                        let matrix = |bench: &mut Bench, seed| {
                            bench.strided(
                                dtype,
                                (tokens, cols),
                                own(layout, cols, seed),
                                &numbers(seed, (tokens * cols) as usize),
                            )
                        };
                        let x = matrix(bench, 1);
                        let y = if in_place { x } else { matrix(bench, 2) };
                        let table = |bench: &mut Bench, seed| {
                            bench.dense(accumulator(dtype), (9, pairs), &numbers(seed, (9 * pairs) as usize))
                        };
                        let (cos, sin) = (table(bench, 3), table(bench, 4));
                        let positions: Vec<i32> = (0..tokens as i32).map(|token| token * 5 % 9).collect();
                        let positions = bench.integers(&positions);
                        bench.run(Rotary {
                            x,
                            positions,
                            cos,
                            sin,
                            y,
                            head_dim: head_dim as i64,
                            interleaved,
                            inverse: in_place,
                        });
                        vec![("y", y)]
                    });
                }
            }
        }
    }
}
