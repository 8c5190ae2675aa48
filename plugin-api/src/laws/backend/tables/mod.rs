//! The forward cases, a file per family. A newcomer adds a row; backward cases follow by [`super::rules`].
//!
//! Each operation has one case marked `vary` that carries every optional operand.

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
use crate::{Result, abi::DType, backend::Session, laws::SplitMix64};

/// Every written case for `compute`. The reference helps where a case must stay clear of rounding.
pub fn written(rng: &mut SplitMix64, reference: &mut dyn Session, compute: DType) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    cases.extend(data::cases(rng, compute));
    cases.extend(embed::cases(rng));
    cases.extend(norm::cases(rng));
    cases.extend(linear::cases(rng));
    cases.extend(rotary::cases(rng));
    cases.extend(attention::cases(rng));
    cases.extend(activation::cases(rng));
    cases.extend(head::cases(rng));
    cases.extend(decode::cases(rng));
    cases.extend(sample::cases(rng, reference, compute)?);
    cases.extend(optim::cases(rng));
    Ok(cases)
}
