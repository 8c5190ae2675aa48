//! The cases of the suite: those in the tables, their variants, and the backward cases derived from them.

use super::{
    case::{Case, is_input},
    limits::Limits,
    rules::{Rule, Start},
    stage::{Layout, Outcome, run},
    tables::{self, SEED},
};
use plugin_api::{
    Result,
    abi::DType,
    backend::{
        Session,
        catalogue::{OpSpec, OperandSpec},
    },
};
use std::collections::BTreeMap;
use telos_random::SplitMix64;

/// A case, the reference's results, and the allowed distance from them.
pub(super) struct Prepared {
    pub(super) case: Case,
    pub(super) expected: Outcome,
    pub(super) limits: Limits,
}

/// The written cases, their variants and the backward cases derived from them, for the operations that `wanted` selects.
pub(super) fn cases(reference: &mut dyn Session, dtype: DType, wanted: &dyn Fn(&OpSpec) -> bool) -> Result<Vec<Case>> {
    // One generator per rule, so that a case does not depend on which other operations are wanted.
    let mut rngs = BTreeMap::new();
    let leads_there = |spec: &OpSpec| tables::rules().any(|rule| rule.forward.id == spec.id && wanted(rule.backward));
    let mut cases = Vec::new();
    for forward in tables::written(reference, dtype, &|spec| wanted(spec) || leads_there(spec))? {
        for (forward, rule) in backward_pairs(&forward) {
            if !wanted(rule.backward) {
                continue;
            }
            let out = run(reference, &forward, dtype, Layout::Dense)?;
            let rng = rngs.entry(rule.number).or_insert_with(|| SplitMix64::new(SEED + 1000 * rule.number));
            let backward = rule.derive(&forward, &out, rng, Start::Random)?;
            let of_forward = |operand: &OperandSpec| rule.forward.inputs.iter().any(|i| i.name == operand.name);
            if backward.vary {
                cases.extend(backward.variants(|operand| !of_forward(operand)));
            }
            cases.push(backward);
        }
        if !wanted(forward.spec) {
            continue;
        }
        if forward.vary {
            cases.extend(forward.variants(|_| true));
        }
        cases.push(forward);
    }
    Ok(cases)
}

/// A forward case and, if it requests variants, also those without an optional input, each with every rule that applies.
pub(super) fn backward_pairs(forward: &Case) -> Vec<(Case, &'static Rule)> {
    let mut forwards = vec![forward.clone()];
    if forward.vary {
        forwards.extend(forward.variants(is_input));
    }
    let rules = || tables::rules().filter(|rule| rule.forward.id == forward.spec.id);
    forwards.iter().flat_map(|case| rules().map(|rule| (case.clone(), rule))).collect()
}

/// The case that wrong calls are made from: filled, with as many operands as possible, and more than one element in them.
pub(super) fn canonical<'a>(cases: &[&'a Prepared]) -> Option<&'a Prepared> {
    let filled = cases.iter().copied().filter(|p| p.case.is_filled() && p.case.packed.is_empty());
    let wide = |case: &Case| case.operands.iter().filter(|(_, tensor)| tensor.data.len() > 1).count();
    filled.rev().max_by_key(|p| (p.case.operands.len(), p.case.vary, wide(&p.case)))
}
