//! The global norm and AdamW.

use super::support::{Bench, accumulator, numbers, same};
use plugin_api::backend::{
    DType,
    ops::{AdamW, GlobalNorm},
};

/// Catches pieces that are left out or counted twice, and a flag that is wrong.
#[test]
fn norms_of_any_length() {
    for dtype in [DType::F32, DType::F64] {
        for (count, offset) in [(0, 0), (1, 0), (4095, 0), (4097, 1), (100_003, 0), (8_400_001, 3)] {
            for bad in [None, Some(1e30), Some(f64::NAN), Some(f64::INFINITY), Some(3e38)] {
                if bad.is_some() && !(2..=200_000).contains(&count) {
                    continue;
                }
                same(&format!("{count} elements from {offset}, {bad:?}"), dtype, |bench| {
                    let mut values = numbers(1, count as usize);
                    if let Some(bad) = bad {
                        values[1] = bad;
                        values[count as usize - 1] = bad;
                    }
                    let x = bench.strided(dtype, (1, count), (offset, count), &values);
                    let norm = bench.dense(dtype, (1, 2), &[7.0, 7.0]);
                    bench.run(GlobalNorm { x, norm });
                    vec![("norm", norm)]
                });
            }
        }
    }
}

/// Catches rates of another segment, a forgotten clip, a shadow of old parameters, and an update although the norm is not finite.
#[test]
fn adamw_with_segments_and_shadows() {
    let segments: [&[i32]; 4] = [&[0, 5], &[0, 0, 2, 2, 3, 9], &[0, 1, 2, 3, 4, 5, 6, 7], &[0, 17, 17]];
    for (dtype, shadow_type) in [(DType::F32, DType::BF16), (DType::F32, DType::F32), (DType::F64, DType::F64)] {
        assert_eq!(accumulator(dtype), dtype);
        for bounds in segments {
            for (norm, clip) in [([3.5, 1.0], 0.0), ([3.5, 1.0], 0.5), ([3.5, 1.0], 10.0), ([f64::NAN, 0.0], 1.0)] {
                same(&format!("{bounds:?}, norm {norm:?}, clip {clip}, {shadow_type}"), dtype, |bench: &mut Bench| {
                    let count = 64 * *bounds.last().unwrap() as u64;
                    let mut seed = 0;
                    let mut row = |bench: &mut Bench, dtype: DType, square: bool| {
                        seed += 1;
                        let values = numbers(seed, count as usize);
                        let values: Vec<f64> = values.iter().map(|x| if square { x * x } else { *x }).collect();
                        bench.dense(dtype, (1, count), &values)
                    };
                    let (params, grads, m) =
                        (row(bench, dtype, false), row(bench, dtype, false), row(bench, dtype, false));
                    let (v, shadow) = (row(bench, dtype, true), row(bench, shadow_type, false));
                    let groups = bounds.len() as u64 - 1;
                    let hyper: Vec<f64> = numbers(9, 2 * groups as usize).iter().map(|x| 0.1 * x.abs()).collect();
                    let hyper = bench.strided(dtype, (groups, 2), (1, 3), &hyper);
                    let norm = bench.dense(dtype, (1, 2), &norm);
                    let bounds = bench.integers(bounds);
                    let op =
                        AdamW { grads, norm, bounds, hyper, shadow: Some(shadow), params, m, v, ..AdamW::default() };
                    bench.run(AdamW { beta2: 0.95, clip, step: 3, ..op });
                    vec![("params", params), ("m", m), ("v", v), ("shadow", shadow)]
                });
            }
        }
    }
}
