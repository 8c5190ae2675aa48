//! The forward cases, a file per family, with the rules by which backward cases are derived and what makes a call wrong. A new
//! case is a new row.
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

use super::{
    case::Case,
    family::{Family, Wrong},
    rules::Rule,
};
use plugin_api::{
    Result,
    abi::DType,
    backend::{Session, catalogue::OpSpec},
};
use telos_random::SplitMix64;

/// The seed of every input.
pub const SEED: u64 = 20_26;

/// The place of a family determines its seed: new ones are appended.
const FAMILIES: &[Family] = &[
    data::FAMILY,
    embed::FAMILY,
    norm::FAMILY,
    linear::FAMILY,
    rotary::FAMILY,
    attention::FAMILY,
    activation::FAMILY,
    head::FAMILY,
    decode::FAMILY,
    head::sample::FAMILY,
    optim::FAMILY,
    head::divergence::FAMILY,
    head::candidates::FAMILY,
];

/// All pairs of a forward and a backward operation.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    FAMILIES.iter().flat_map(|family| family.rules)
}

/// Mistakes that make a call wrong, family by family.
pub fn wrong() -> impl Iterator<Item = &'static Wrong> {
    FAMILIES.iter().map(|family| &family.wrong)
}

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

#[cfg(test)]
mod tests {
    use super::rules;

    /// Catches a new rule that draws the inputs of another one.
    #[test]
    fn every_rule_has_a_unique_number() {
        let mut numbers: Vec<u64> = rules().map(|rule| rule.number).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    }
}
