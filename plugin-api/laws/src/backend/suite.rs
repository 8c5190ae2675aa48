//! Runs all cases: the checks of each operation, and those of a session outside its operations.

use super::{
    case::Case,
    cases::{Prepared, canonical, cases},
    checks::{aliases, conduct, errors, numbers, same},
    limits::Limits,
    stage::{Layout, run},
};
use crate::Report;
use plugin_api::{
    Code, Error, Result,
    abi::DType,
    backend::{
        Session,
        catalogue::{OpSpec, OperandSpec},
        ops::CATALOGUE,
    },
};

/// Every case for one compute dtype with the reference's results, to compare candidates with.
pub struct Suite {
    pub(super) dtype: DType,
    cases: Vec<Prepared>,
    pub(super) watch: Box<dyn Fn(&str) -> bool + Send + Sync>,
}

impl Suite {
    /// Builds the cases of the operations that `wanted` selects and runs them on `reference`, which must compute with operands
    /// stored in `dtype` (the reference backend does, in f64, for every float type). An operation's cases do not depend on the
    /// other selected operations.
    ///
    /// # Errors
    /// A refusal of the reference, or a result of it that contradicts the laws' own evaluation.
    pub fn prepare(reference: &mut dyn Session, dtype: DType, wanted: impl Fn(&OpSpec) -> bool) -> Result<Suite> {
        let mut prepared = Vec::new();
        for case in cases(reference, dtype, &wanted)? {
            let expected = run(reference, &case, dtype, Layout::Dense)
                .map_err(|e| Error { message: format!("{}: {}", case.name, e.message), ..e })?;
            let limits = Limits::of_case(&case, dtype, &expected)?;
            prepared.push(Prepared { case, expected, limits });
        }
        Ok(Suite { dtype, cases: prepared, watch: Box::new(|_| true) })
    }

    /// Calls `watch` with the name of each check before it runs, so that the last call of a candidate that ended the process is
    /// known. If `watch` returns false, the check is skipped.
    #[must_use]
    pub fn watched(self, watch: impl Fn(&str) -> bool + Send + Sync + 'static) -> Suite {
        Suite { watch: Box::new(watch), ..self }
    }

    /// Checks the operations that `wanted` selects.
    pub fn verify(&self, candidate: &mut dyn Session, wanted: impl Fn(&OpSpec) -> bool) -> Report {
        let mut report = Report::default();
        for (spec, cases) in self.by_operation(wanted) {
            let held = candidate.memory().handles;
            self.verify_op(candidate, spec, &cases, &mut report);
            let left = candidate.memory().handles;
            report.push(spec.name, "every handle was freed", same(held, left));
        }
        report
    }

    fn verify_op(&self, candidate: &mut dyn Session, spec: &'static OpSpec, cases: &[&Prepared], report: &mut Report) {
        let dtype = self.dtype;
        report.push(spec.name, "the suite has cases with and without every operand", complete(spec, cases));
        let Some(canonical) = canonical(cases) else { return };
        let offered = candidate.supports(spec.id, dtype);
        let support = "its reported support is correct";
        if (self.watch)(support) {
            report.push(spec.name, support, truthful(candidate, &canonical.case));
        }
        if !offered {
            match spec.mandatory {
                true => report.push(spec.name, "offered", Err(format!("mandatory, but not offered for {dtype}"))),
                false => report.push(spec.name, "offered", Ok("not offered (optional)".into())),
            }
            return;
        }
        for prepared in cases {
            // A session that panicked or lost its device supports nothing afterwards; one line about that is enough.
            if !candidate.supports(spec.id, dtype) {
                return;
            }
            if (self.watch)(&prepared.case.name) {
                report.measure(spec.name, &prepared.case.name, numbers::check(candidate, prepared, dtype));
            }
        }
        if (self.watch)("an output in the place of an input") {
            aliases::verify(candidate, dtype, cases, report);
        }
        if (self.watch)("wrong calls") {
            errors::verify(candidate, dtype, canonical, report);
        }
        if (self.watch)("repeated calls") {
            conduct::operation(candidate, dtype, &canonical.case, report);
        }
    }

    /// The operations that `wanted` selects, with their cases.
    pub(super) fn by_operation(
        &self,
        wanted: impl Fn(&OpSpec) -> bool,
    ) -> impl Iterator<Item = (&'static OpSpec, Vec<&Prepared>)> {
        let specs = CATALOGUE.iter().copied().filter(move |spec| wanted(spec));
        specs.map(|spec| (spec, self.cases.iter().filter(|p| p.case.spec.id == spec.id).collect()))
    }
}

/// Checks a session outside its operations: transfers, tickets, handles, memory. Its lines are under `session`.
pub fn verify_session(candidate: &mut dyn Session, dtype: DType) -> Report {
    let mut report = Report::default();
    conduct::session(candidate, dtype, &mut report);
    report
}

/// Runs the whole suite for compute dtype `dtype`, with results from `reference` (see [`Suite::prepare`]).
///
/// Lines are grouped by operation; those that belong to no operation are under `session`.
pub fn verify(candidate: &mut dyn Session, reference: &mut dyn Session, dtype: DType) -> Report {
    match Suite::prepare(reference, dtype, |_| true) {
        Ok(suite) => {
            let mut report = suite.verify(candidate, |_| true);
            report.lines.extend(verify_session(candidate, dtype).lines);
            report
        }
        Err(e) => {
            let mut report = Report::default();
            report.push("session", "the reference prepares the cases", Err(e.to_string()));
            report
        }
    }
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

/// An operation for which `supports` is true works, and any other returns [`Code::UNSUPPORTED`], for every float type, for i32
/// and for an operation that does not exist.
fn truthful(candidate: &mut dyn Session, case: &Case) -> Result<String, String> {
    if candidate.supports(u32::MAX, DType::F32) || candidate.supports(case.spec.id, DType::I32) {
        return Err("reports support for an unknown operation, or for i32 as a compute dtype".into());
    }
    let mut denied = Vec::new();
    for dtype in [DType::F64, DType::F32, DType::BF16] {
        let affirmed = candidate.supports(case.spec.id, dtype);
        match run(candidate, case, dtype, Layout::Dense) {
            Ok(_) if affirmed => {}
            Err(e) if affirmed => {
                return Err(format!("{dtype} is reported as supported, but the call returns {:?}: {e}", e.code));
            }
            Err(e) if e.code == Code::UNSUPPORTED || has_no_buffers(candidate, dtype) => denied.push(dtype),
            Err(e) => {
                return Err(format!("{dtype} is reported as unsupported, but the call returns {:?}: {e}", e.code));
            }
            Ok(_) => return Err(format!("{dtype} is reported as unsupported, but the call works")),
        }
    }
    Ok(if denied.is_empty() { String::new() } else { format!("unsupported: {denied:?}") })
}

/// Whether buffers of that dtype do not exist.
fn has_no_buffers(session: &mut dyn Session, dtype: DType) -> bool {
    match session.alloc(dtype, 1) {
        Ok(handle) => session.free(handle).is_err(),
        Err(e) => e.code == Code::DTYPE,
    }
}
