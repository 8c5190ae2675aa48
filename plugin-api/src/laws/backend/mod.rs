//! The conformance suite of backends: the table a backend's author runs until it passes.
//!
//! [`verify`] holds a session against a reference session on the very same inputs: every operation over empty, single,
//! odd, packed, strided and large operands, with and without each optional one, forward and backward; that the same call
//! gives the same bits; that nothing outside the outputs changes; that wrong calls are refused with the right code and
//! leave the session whole; that nothing leaks. [`verify_gradients`] holds the backward operations of an f64 session
//! against finite differences of its forward ones.
//!
//! Adding an operation to the catalogue without a row in `tables` (and, for a backward, in `rules`) fails the suite.

mod aliases;
mod case;
mod compare;
mod conduct;
mod errors;
mod gradients;
mod numbers;
mod rules;
mod stage;
mod tables;
mod tensor;

pub use compare::{Distance, distance};
pub use gradients::verify_gradients;
pub(crate) use tensor::{decode, encode, size_of};

use super::{Report, SplitMix64};
use crate::{
    Code, Error, Result,
    abi::DType,
    backend::{
        Session,
        catalogue::{OpSpec, OperandSpec},
        ops::CATALOGUE,
    },
};
use case::{Case, is_input};
use rules::{RULES, Start};
use stage::{Layout, Outcome, run};

/// The seed of every input.
const SEED: u64 = 20_26;

/// A case and what the reference says of it.
struct Prepared {
    case: Case,
    expected: Outcome,
}

/// Every case for one compute dtype with the reference's results, to hold candidates against.
pub struct Suite {
    dtype: DType,
    cases: Vec<Prepared>,
}

impl Suite {
    /// Builds the cases and runs them on `reference`, which must compute with operands stored in `dtype` (the reference
    /// backend does, in f64, for every float type).
    ///
    /// # Errors
    /// What the reference refuses.
    pub fn prepare(reference: &mut dyn Session, dtype: DType) -> Result<Suite> {
        let mut prepared = Vec::new();
        for case in cases(reference, dtype)? {
            let expected = run(reference, &case, dtype, Layout::Dense)
                .map_err(|e| Error { message: format!("{}: {}", case.name, e.message), ..e })?;
            prepared.push(Prepared { case, expected });
        }
        Ok(Suite { dtype, cases: prepared })
    }

    /// Runs the operations that `wanted` names, and the lines of the session itself.
    pub fn verify(&self, candidate: &mut dyn Session, wanted: impl Fn(&OpSpec) -> bool) -> Report {
        let mut report = Report::default();
        let held = candidate.memory().handles;
        for spec in CATALOGUE.iter().copied().filter(|spec| wanted(spec)) {
            let own: Vec<&Prepared> = self.cases.iter().filter(|p| p.case.spec.id == spec.id).collect();
            verify_op(candidate, self.dtype, spec, &own, &mut report);
        }
        conduct::session(candidate, self.dtype, &mut report);
        let left = candidate.memory().handles;
        report.push("session", "every handle of the suite was given back", same(held, left));
        report
    }
}

/// Runs the whole suite for compute dtype `dtype`, with results from `reference` (see [`Suite::prepare`]).
///
/// Lines are grouped by operation; what belongs to none is under `session`.
pub fn verify(candidate: &mut dyn Session, reference: &mut dyn Session, dtype: DType) -> Report {
    match Suite::prepare(reference, dtype) {
        Ok(suite) => suite.verify(candidate, |_| true),
        Err(e) => {
            let mut report = Report::default();
            report.push("session", "the reference prepares the cases", Err(e.to_string()));
            report
        }
    }
}

/// Agreement of two counts.
fn same<T: PartialEq + std::fmt::Debug>(expected: T, found: T) -> Result<String, String> {
    if expected == found { Ok(String::new()) } else { Err(format!("expected {expected:?}, found {found:?}")) }
}

fn verify_op(
    candidate: &mut dyn Session,
    dtype: DType,
    spec: &'static OpSpec,
    cases: &[&Prepared],
    report: &mut Report,
) {
    report.push(spec.name, "the suite has cases with and without every operand", complete(spec, cases));
    let Some(canonical) = canonical(cases) else { return };
    report.push(spec.name, "what is denied is unsupported", denials(candidate, &canonical.case));
    if !candidate.supports(spec.id, dtype) {
        match spec.mandatory {
            true => report.push(spec.name, "offered", Err(format!("mandatory, but not offered for {dtype}"))),
            false => report.push(spec.name, "offered", Ok("not offered, and need not be".into())),
        }
        return;
    }
    for prepared in cases {
        report.push(spec.name, &prepared.case.name, numbers::check(candidate, prepared, dtype));
    }
    aliases::verify(candidate, dtype, cases, report);
    errors::verify(candidate, dtype, canonical, report);
    conduct::operation(candidate, dtype, &canonical.case, report);
}

/// The case that wrong calls are made from: filled, with as many operands as can be, and more than one element in them.
fn canonical<'a>(cases: &[&'a Prepared]) -> Option<&'a Prepared> {
    let filled = cases.iter().copied().filter(|p| p.case.is_filled() && p.case.packed.is_empty());
    let wide = |case: &Case| case.operands.iter().filter(|(_, tensor)| tensor.data.len() > 1).count();
    filled.rev().max_by_key(|p| (p.case.operands.len(), p.case.vary, wide(&p.case)))
}

/// Whether the tables cover an operation.
fn complete(spec: &OpSpec, cases: &[&Prepared]) -> Result<String, String> {
    if cases.is_empty() {
        return Err("no case: add a row to the suite's tables".into());
    }
    let lacks = |operand: &&OperandSpec| {
        let present = cases.iter().filter(|p| p.case.operand(operand.name).is_some()).count();
        present == 0 || (operand.optional && present == cases.len())
    };
    match spec.inputs.iter().chain(spec.outputs).find(lacks) {
        Some(operand) => Err(format!("`{}` is never given or, being optional, never left out", operand.name)),
        None => Ok(format!("{} cases", cases.len())),
    }
}

/// What `supports` denies answers Unsupported, for every float type, for i32 and for an operation that is not there.
fn denials(candidate: &mut dyn Session, case: &Case) -> Result<String, String> {
    if candidate.supports(u32::MAX, DType::F32) || candidate.supports(case.spec.id, DType::I32) {
        return Err("affirms an unknown operation, or i32 as a compute dtype".into());
    }
    let mut denied = Vec::new();
    for dtype in [DType::F64, DType::F32, DType::BF16] {
        if candidate.supports(case.spec.id, dtype) {
            continue;
        }
        match run(candidate, case, dtype, Layout::Dense) {
            Err(e) if e.code == Code::UNSUPPORTED || has_no_buffers(candidate, dtype) => denied.push(dtype),
            Err(e) => return Err(format!("{dtype} is denied, but the call answers {:?}: {e}", e.code)),
            Ok(_) => return Err(format!("{dtype} is denied, but the call works")),
        }
    }
    Ok(if denied.is_empty() { String::new() } else { format!("denied: {denied:?}") })
}

/// Written cases, their variants, and the backward cases that follow from them.
fn cases(reference: &mut dyn Session, dtype: DType) -> Result<Vec<Case>> {
    let rng = &mut SplitMix64::new(SEED);
    let mut cases = Vec::new();
    for forward in tables::written(rng, reference, dtype)? {
        for (forward, rule) in backward_pairs(&forward) {
            let out = run(reference, &forward, dtype, Layout::Dense)?;
            let backward = rule.derive(&forward, &out, rng, Start::Random)?;
            let of_forward = |operand: &OperandSpec| rule.forward.inputs.iter().any(|i| i.name == operand.name);
            if backward.vary {
                cases.extend(backward.variants(|operand| !of_forward(operand)));
            }
            cases.push(backward);
        }
        if forward.vary {
            cases.extend(forward.variants(|_| true));
        }
        cases.push(forward);
    }
    Ok(cases)
}

/// A forward case, and where it asks for variants also those without an optional input, with every rule they fit.
fn backward_pairs(forward: &Case) -> Vec<(Case, &'static rules::Rule)> {
    let mut forwards = vec![forward.clone()];
    if forward.vary {
        forwards.extend(forward.variants(is_input));
    }
    let rules = || RULES.iter().filter(|rule| rule.forward.id == forward.spec.id);
    forwards.iter().flat_map(|case| rules().map(|rule| (case.clone(), rule))).collect()
}

/// Whether there are no buffers of that dtype at all.
fn has_no_buffers(session: &mut dyn Session, dtype: DType) -> bool {
    match session.alloc(dtype, 1) {
        Ok(handle) => session.free(handle).is_err(),
        Err(e) => e.code == Code::DTYPE,
    }
}
