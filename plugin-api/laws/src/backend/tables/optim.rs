//! Global norm and AdamW.

use crate::backend::{
    case::Case,
    family::{Family, Wrong},
    tensor::Tensor,
};
use plugin_api::{
    Code,
    backend::{
        Op,
        ops::{AdamW, FLAT_ALIGN, GlobalNorm},
    },
};
use telos_random::SplitMix64;

/// The operations of this file.
pub const FAMILY: Family = Family {
    ops: &[GlobalNorm::SPEC, AdamW::SPEC],
    cases: |rng, _, _| Ok(cases(rng)),
    rules: &[],
    wrong: Wrong {
        offsets: &[("adamw", "bounds")],
        values: &[("adamw", "step", 0.0, &[Code::INVALID_ARGUMENT])],
        ..Wrong::NONE
    },
};

fn cases(rng: &mut SplitMix64) -> Vec<Case> {
    let mut cases = norms(rng);
    let plain = AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-8, ..AdamW::default() };
    let some = &[0, 2, 2, 3, 7];
    cases.push(adamw(rng, "fifth step", AdamW { step: 5, ..plain }, some, 1.0).vary());
    cases.push(adamw(rng, "first step", AdamW { step: 1, ..plain }, some, 1.0));
    cases.push(adamw(rng, "step 100000", AdamW { step: 100_000, ..plain }, some, 1.0));
    cases.push(adamw(rng, "large eps", AdamW { eps: 0.5, ..plain }, some, 1.0));
    cases.push(adamw(rng, "clipped", AdamW { clip: 0.5, step: 3, ..plain }, some, 1.0));
    cases.push(adamw(rng, "below the clip", AdamW { clip: 1e6, step: 3, ..plain }, some, 1.0));
    cases.push(adamw(rng, "not finite", AdamW { clip: 1.0, step: 3, ..plain }, some, 0.0));
    cases.push(adamw(rng, "many elements", AdamW { step: 4, ..plain }, &[0, 1, 300, 701], 1.0));
    cases.push(adamw(rng, "one segment", AdamW { step: 2, ..plain }, &[0, 33], 1.0));
    cases.push(adamw(rng, "nothing", plain, &[0], 1.0));
    cases
}

fn norms(rng: &mut SplitMix64) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut push = |name: String, x: Tensor| {
        cases.push(Case::new(name, &GlobalNorm::default()).with("x", x).out("norm", 1, 2));
    };
    for elements in [0, 1, 64, 1000, 100_003] {
        push(format!("{elements} elements"), Tensor::normal(rng, 1, elements));
    }
    // Their squares overflow f32: the sum must be kept in f64.
    push("squares beyond f32".into(), Tensor::row([1e30, -2e30, 2e30]));
    for (name, bad) in [("infinity", f64::INFINITY), ("not-a-number", f64::NAN)] {
        let mut x = Tensor::normal(rng, 1, 700);
        x.data[611] = bad;
        push(format!("{name} among 700"), x);
    }
    cases
}

/// `finite` is the flag next to the norm; if it is 0, the shadow already holds the parameters.
fn adamw(rng: &mut SplitMix64, name: &str, op: AdamW, bounds: &[u64], finite: f64) -> Case {
    let elements = (bounds.last().copied().unwrap_or(0) * FLAT_ALIGN) as usize;
    let params = Tensor::normal(rng, 1, elements);
    let shadow = if finite == 0.0 { params.clone() } else { Tensor::garbage(1, elements) };
    Case::new(format!("{name}, {} segments", bounds.len() - 1), &op)
        .with("grads", Tensor::normal(rng, 1, elements))
        .with("norm", Tensor::row([if finite == 0.0 { f64::INFINITY } else { 3.5 }, finite]))
        .with("bounds", Tensor::row(bounds.iter().map(|&b| b as f64)))
        .with("hyper", Tensor::generate(bounds.len() - 1, 2, || rng.between(0.0, 0.3)))
        .with("shadow", shadow)
        .with("params", params)
        .with("m", Tensor::normal(rng, 1, elements))
        .with("v", Tensor::generate(1, elements, || rng.normal().powi(2)))
}
