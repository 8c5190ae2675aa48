//! The forward cases, a file per family. A new case is a new row; backward cases are derived by [`super::rules`].
//!
//! Each operation has one case marked `vary` with every optional operand.

mod activation;
mod attention;
mod data;
mod decode;
mod embed;
mod head;
mod linear;
mod norm;
mod optim;
mod rotary;
mod sample;

use super::case::Case;
use plugin_api::{
    Result,
    abi::DType,
    backend::{
        Op, Session,
        catalogue::OpSpec,
        ops::{
            Activation, AdamW, Attention, Axpy, Cast, Copy, DecodeAttention, Embedding, Fill, GatherRows, GlobalNorm,
            Glu, HeadStats, Linear, LinearBackwardInput, Nop, Norm, Rotary, Sample, Scale,
        },
    },
};
use telos_random::SplitMix64;

/// The seed of every input.
pub const SEED: u64 = 20_26;

/// Operations whose cases are written in one file.
struct Family {
    ops: &'static [&'static OpSpec],
    cases: fn(&mut SplitMix64, &mut dyn Session, DType) -> Result<Vec<Case>>,
}

const FAMILIES: &[Family] = &[
    Family {
        ops: &[Nop::SPEC, Fill::SPEC, Copy::SPEC, Axpy::SPEC, Scale::SPEC, Cast::SPEC, GatherRows::SPEC],
        cases: |rng, _, compute| Ok(data::cases(rng, compute)),
    },
    Family { ops: &[Embedding::SPEC], cases: |rng, _, _| Ok(embed::cases(rng)) },
    Family { ops: &[Norm::SPEC], cases: |rng, _, _| Ok(norm::cases(rng)) },
    Family { ops: &[Linear::SPEC, LinearBackwardInput::SPEC], cases: |rng, _, _| Ok(linear::cases(rng)) },
    Family { ops: &[Rotary::SPEC], cases: |rng, _, _| Ok(rotary::cases(rng)) },
    Family { ops: &[Attention::SPEC], cases: |rng, _, _| Ok(attention::cases(rng)) },
    Family { ops: &[Activation::SPEC, Glu::SPEC], cases: |rng, _, _| Ok(activation::cases(rng)) },
    Family { ops: &[HeadStats::SPEC], cases: |rng, _, _| Ok(head::cases(rng)) },
    Family { ops: &[DecodeAttention::SPEC], cases: |rng, _, _| Ok(decode::cases(rng)) },
    Family { ops: &[Sample::SPEC], cases: sample::cases },
    Family { ops: &[GlobalNorm::SPEC, AdamW::SPEC], cases: |rng, _, _| Ok(optim::cases(rng)) },
];

/// The written cases for `compute` of the operations that `wanted` selects. Each family has a generator of its own, so that a case
/// does not depend on which other operations are wanted. The reference is used for cases whose result must not depend on rounding.
pub fn written(reference: &mut dyn Session, compute: DType, wanted: &dyn Fn(&OpSpec) -> bool) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (family, seed) in FAMILIES.iter().zip(SEED..) {
        if family.ops.iter().any(|spec| wanted(spec)) {
            let all = (family.cases)(&mut SplitMix64::new(seed), reference, compute)?;
            cases.extend(all.into_iter().filter(|case| wanted(case.spec)));
        }
    }
    Ok(cases)
}
