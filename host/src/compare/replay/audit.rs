//! Wraps a session and repeats every operation on the f64 reference with exactly the same inputs.
//!
//! Each operation's inputs are read from the session itself, so the first operation beyond its limit is itself
//! wrong: it did not merely receive a wrong input.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use half::bf16;
use plugin_api::{
    Result,
    abi::{Call, DType, View},
    backend::{
        Session,
        catalogue::{OpSpec, Usage},
        ops::CATALOGUE,
    },
};
use plugin_api_laws::backend::distance;
use serde::Serialize;

/// The largest number of elements, over all operands, of an operation that is replayed: what an ordinary machine
/// can hold in f64.
const MOST_ELEMENTS: u64 = 1 << 28;

/// Factor by which the limits of the operation laws are widened for real data: its sums cancel more than those of
/// the laws' random numbers do, most of all in attention's backward. Errors of wrong operations are larger than
/// that.
fn slack(compute: DType) -> f64 {
    if compute == DType::BF16 { 4.0 } else { 10.0 }
}

/// An output that differs from the reference's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// The operation.
    pub operation: &'static str,
    /// Which of the step's operations, counted from 1.
    pub ordinal: u64,
    /// The name of the output.
    pub operand: &'static str,
    /// Row of the element that differs most.
    pub row: u64,
    /// Its column.
    pub column: u64,
    /// The reference's value.
    pub expected: f64,
    /// The backend's value.
    pub found: f64,
    /// The error, in the measure of the operation laws.
    pub error: f64,
    /// The largest allowed error.
    pub limit: f64,
}

impl Finding {
    /// The error divided by the limit.
    pub fn excess(&self) -> f64 {
        if self.error == 0.0 { 0.0 } else { self.error / self.limit }
    }
}

/// The result of an audit.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Verdict {
    /// Number of operations that were replayed.
    pub operations: u64,
    /// The first one beyond its limit.
    pub first: Option<Finding>,
    /// The one with the largest error relative to its limit.
    pub largest: Option<Finding>,
    /// How many were beyond their limits.
    pub beyond: u64,
    /// The names of those operations, each once, in the order of the step.
    pub beyond_names: Vec<&'static str>,
    /// Operations that were not replayed, with the reason; each reason once.
    pub skipped: Vec<String>,
}

/// The audit so far; clones share it.
#[derive(Clone, Default)]
pub struct Audit(Rc<Shared>);

#[derive(Default)]
struct Shared {
    on: Cell<bool>,
    calls: Cell<u64>,
    verdict: RefCell<Verdict>,
}

impl Audit {
    /// Starts or stops replaying operations.
    pub fn replay(&self, on: bool) {
        self.0.on.set(on);
    }

    /// The result so far.
    pub fn verdict(&self) -> Verdict {
        self.0.verdict.borrow().clone()
    }

    fn skip(&self, name: &str, why: &str) {
        let line = format!("{name}: {why}");
        let mut verdict = self.0.verdict.borrow_mut();
        if !verdict.skipped.contains(&line) {
            verdict.skipped.push(line);
        }
    }

    fn note(&self, findings: Vec<Finding>) {
        let mut verdict = self.0.verdict.borrow_mut();
        verdict.operations += 1;
        let worst = findings.into_iter().reduce(|a, b| if b.excess() > a.excess() { b } else { a });
        let Some(worst) = worst else { return };
        if worst.error > worst.limit {
            verdict.beyond += 1;
            if !verdict.beyond_names.contains(&worst.operation) {
                verdict.beyond_names.push(worst.operation);
            }
            verdict.first.get_or_insert_with(|| worst.clone());
        }
        if verdict.largest.as_ref().is_none_or(|largest| worst.excess() > largest.excess()) {
            verdict.largest = Some(worst);
        }
    }
}

/// The wrapped session.
pub struct Audited {
    inner: Box<dyn Session>,
    reference: Box<dyn Session>,
    compute: DType,
    audit: Audit,
}

impl Audited {
    /// Wraps a session that computes in `compute`. Calls are only passed through until the audit is turned on.
    pub fn wrap(inner: Box<dyn Session>, reference: Box<dyn Session>, compute: DType) -> (Box<dyn Session>, Audit) {
        let audit = Audit::default();
        (Box::new(Audited { inner, reference, compute, audit: audit.clone() }), audit)
    }

    /// Runs the call on both sessions. An error of the inner session is returned; an error of the reference only
    /// leaves the call unaudited.
    fn both(&mut self, spec: &'static OpSpec, call: &Call<'_>, ordinal: u64) -> Result<()> {
        let views = || call.inputs.iter().chain(call.outputs.iter()).filter(|view| !view.is_none());
        if views().map(View::len).fold(0, u64::saturating_add) > MOST_ELEMENTS {
            self.audit.skip(spec.name, "its operands are too large");
            return self.inner.invoke(call);
        }
        let before = Operands::read(self.inner.as_mut(), spec, call)?;
        self.inner.invoke(call)?;
        let found = outputs(self.inner.as_mut(), call.outputs.as_slice())?;
        match before.replay(self.reference.as_mut(), call) {
            Ok(expected) => self.audit.note(before.compare(spec, self.compute, ordinal, &expected, &found)),
            Err(error) => self.audit.skip(spec.name, &error.to_string()),
        }
        Ok(())
    }
}

/// A call's operands, read before the call.
struct Operands {
    views: Vec<View>,
    /// Dense rows; `None` for operands that are absent or only written.
    bytes: Vec<Option<Vec<u8>>>,
    inputs: usize,
    /// The magnitude of the values that the outputs are computed from: see [`order`].
    order: f64,
}

impl Operands {
    fn read(session: &mut dyn Session, spec: &OpSpec, call: &Call<'_>) -> Result<Operands> {
        let views: Vec<View> = call.inputs.iter().chain(call.outputs.iter()).copied().collect();
        let specs = spec.inputs.iter().chain(spec.outputs);
        let bytes = views.iter().zip(specs).map(|(view, operand)| {
            (!view.is_none() && operand.usage != Usage::Output).then(|| download(session, view)).transpose()
        });
        let bytes: Vec<Option<Vec<u8>>> = bytes.collect::<Result<_>>()?;
        let order = order(spec, &views, &bytes);
        Ok(Operands { views, bytes, inputs: call.inputs.len(), order })
    }

    /// Runs the call on another session with copies of the operands; returns the outputs' bytes.
    fn replay(&self, session: &mut dyn Session, call: &Call<'_>) -> Result<Vec<Option<Vec<u8>>>> {
        let mut own = Vec::with_capacity(self.views.len());
        let result = self.place(session, &mut own).and_then(|()| {
            let (inputs, outputs) = own.split_at(self.inputs);
            session.invoke(&Call { inputs: inputs.into(), outputs: outputs.into(), ..*call })?;
            self::outputs(session, outputs)
        });
        for view in own.iter().filter(|view| !view.is_none()) {
            session.free(view.buffer)?;
        }
        result
    }

    fn place(&self, session: &mut dyn Session, own: &mut Vec<View>) -> Result<()> {
        for (view, bytes) in self.views.iter().zip(&self.bytes) {
            if view.is_none() {
                own.push(View::NONE);
                continue;
            }
            let buffer = session.alloc(view.dtype, view.len())?;
            own.push(View::dense(buffer, view.dtype, view.rows, view.cols));
            if let Some(bytes) = bytes {
                session.upload(buffer, 0, bytes)?;
            }
        }
        Ok(())
    }

    /// Returns one finding for each output that is present.
    fn compare(
        &self,
        spec: &'static OpSpec,
        compute: DType,
        ordinal: u64,
        expected: &[Option<Vec<u8>>],
        found: &[Option<Vec<u8>>],
    ) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (index, (expected, found)) in expected.iter().zip(found).enumerate() {
            let (view, operand) = (&self.views[self.inputs + index], &spec.outputs[index]);
            let (Some(expected), Some(found)) = (expected, found) else { continue };
            let (expected, found) = (values(view.dtype, expected), values(view.dtype, found));
            let (error, at, limit) = if view.dtype == DType::I32 {
                disagreement(compute, &expected, &found)
            } else {
                let (dtypes, cols) = ((compute, view.dtype), view.cols as usize);
                let distance = distance(spec, dtypes, cols, (&expected, &found), self.order);
                (distance.error, distance.at, distance.limit * slack(compute))
            };
            let (Some(&expected), Some(&found)) = (expected.get(at), found.get(at)) else { continue };
            let (row, column) = (at as u64 / view.cols.max(1), at as u64 % view.cols.max(1));
            findings.push(Finding {
                operation: spec.name,
                ordinal,
                operand: operand.name,
                row,
                column,
                expected,
                found,
                error,
                limit,
            });
        }
        findings
    }
}

/// The magnitude of the values that an operation's outputs are computed from, at most 1: the root mean square of
/// the cotangents that it reads, since a backward operation is linear in them; otherwise that of its first
/// floating-point input. Real cotangents are divided by the number of tokens; compared with inputs of magnitude 1,
/// a wrong cotangent would look like rounding.
fn order(spec: &OpSpec, views: &[View], bytes: &[Option<Vec<u8>>]) -> f64 {
    let inputs = spec.inputs.iter().zip(views).zip(bytes);
    let floats = inputs.filter(|((_, view), bytes)| bytes.is_some() && view.dtype.is_float());
    let mean_square = |(view, bytes): (&View, &Option<Vec<u8>>)| {
        let values = values(view.dtype, bytes.as_deref().unwrap_or_default());
        values.iter().map(|x| x * x).sum::<f64>() / values.len().max(1) as f64
    };
    let mut first = None;
    let mut cotangents: Option<f64> = None;
    for ((operand, view), bytes) in floats {
        // In the catalogue, the names of all cotangents start with `d`, and no other input's name does.
        if operand.name.starts_with('d') {
            cotangents = Some(cotangents.unwrap_or(0.0).max(mean_square((view, bytes))));
        } else if first.is_none() {
            first = Some(mean_square((view, bytes)));
        }
    }
    let order = cotangents.or(first).unwrap_or(1.0).sqrt();
    if order.is_finite() { order.min(1.0) } else { 1.0 }
}

/// Indices are equal or not. Returns the share of indices that differ, the position of the first one, and the
/// allowed share. If the two largest logits of a token are equal up to rounding, either index is right.
fn disagreement(compute: DType, expected: &[f64], found: &[f64]) -> (f64, usize, f64) {
    let differs = |(a, b): (&f64, &f64)| a != b;
    let at = expected.iter().zip(found).position(differs).unwrap_or(0);
    let count = expected.iter().zip(found).filter(|(a, b)| a != b).count();
    let limit = if compute == DType::BF16 { 0.1 } else { 0.01 };
    (count as f64 / expected.len().max(1) as f64, at, limit)
}

fn outputs(session: &mut dyn Session, views: &[View]) -> Result<Vec<Option<Vec<u8>>>> {
    views.iter().map(|view| (!view.is_none()).then(|| download(session, view)).transpose()).collect()
}

/// Returns the elements of a view, row after row.
fn download(session: &mut dyn Session, view: &View) -> Result<Vec<u8>> {
    let size = view.dtype.size().unwrap_or(1);
    let span = view.end().unwrap_or(view.offset).saturating_sub(view.offset) as usize;
    let mut bytes = vec![0; span * size];
    session.download(view.buffer, view.offset, &mut bytes)?;
    if view.is_dense() {
        return Ok(bytes);
    }
    let (width, stride) = (view.cols as usize * size, view.row_stride as usize * size);
    Ok((0..view.rows as usize).flat_map(|row| &bytes[row * stride..row * stride + width]).copied().collect())
}

fn values(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    match dtype {
        DType::F64 => bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
        DType::F32 => bytes.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
        DType::BF16 => bytes.as_chunks::<2>().0.iter().map(|b| bf16::from_le_bytes(*b).to_f64()).collect(),
        _ => bytes.as_chunks::<4>().0.iter().map(|b| f64::from(i32::from_le_bytes(*b))).collect(),
    }
}

impl Session for Audited {
    fn invoke(&mut self, call: &Call<'_>) -> Result<()> {
        if !self.audit.0.on.get() {
            return self.inner.invoke(call);
        }
        let ordinal = self.audit.0.calls.get() + 1;
        self.audit.0.calls.set(ordinal);
        match CATALOGUE.iter().find(|spec| spec.id == call.op) {
            Some(spec) => self.both(spec, call, ordinal),
            None => self.inner.invoke(call),
        }
    }

    plugin_api::pass_on!(inner: alloc free upload download write_version supports workspace memory trim sync);
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
