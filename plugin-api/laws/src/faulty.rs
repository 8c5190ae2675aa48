//! A session with one fault in one operation, to test that the suite finds it.

use super::backend::{decode, encode, size_of};
use plugin_api::{
    Error, Result,
    abi::{Call, DType, View},
    backend::{Session, catalogue::Usage, ops::CATALOGUE},
};

/// The fault. Outputs are numbered among those that are present.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// That output is multiplied (integers: one is added); an operation without outputs fails.
    Scale(usize, f64),
    /// The last element of that output is wrong by its own magnitude.
    LastElement(usize),
    /// Nothing is computed, but success is reported.
    Skip,
    /// Operands that accumulate are overwritten.
    Forget,
    /// The element after the first row of the first output is written too.
    Trespass,
    /// Every second call is off by a thousandth.
    Flutter,
    /// Errors are ignored.
    Accept,
}

/// `inner` with `fault` in operation `op`.
pub struct Faulty<S> {
    inner: S,
    op: u32,
    fault: Fault,
    calls: u64,
}

impl<S: Session> Faulty<S> {
    /// Wraps `inner`.
    pub fn new(inner: S, op: u32, fault: Fault) -> Self {
        Faulty { inner, op, fault, calls: 0 }
    }

    /// Replaces a view's elements by a function of index and value.
    fn edit(&mut self, view: &View, f: impl Fn(u64, f64) -> f64) -> Result<()> {
        let size = size_of(view.dtype);
        let mut row = vec![0; view.cols as usize * size];
        for r in 0..view.rows {
            let start = view.offset + r * view.row_stride;
            self.inner.download(view.buffer, start, &mut row)?;
            let mut edited = Vec::with_capacity(row.len());
            for (c, bytes) in row.chunks_exact(size).enumerate() {
                let value = f(r * view.cols + c as u64, decode(view.dtype, bytes));
                encode(view.dtype, value, &mut edited);
            }
            self.inner.upload(view.buffer, start, &edited)?;
        }
        Ok(())
    }

    /// Multiplies a view, or adds one to integers.
    fn scale(&mut self, view: &View, factor: f64) -> Result<()> {
        let whole = view.dtype == DType::I32;
        self.edit(view, |_, x| if whole { x + 1.0 } else { x * factor })
    }

    fn broken(&mut self, call: &Call<'_>) -> Result<()> {
        let outputs: Vec<View> = call.outputs.iter().copied().filter(|v| !v.is_none()).collect();
        match self.fault {
            Fault::Scale(at, factor) => {
                self.inner.invoke(call)?;
                match outputs.get(at) {
                    Some(view) => self.scale(view, factor),
                    None => Err(Error::internal("faulty: no such output")),
                }
            }
            Fault::LastElement(at) => {
                self.inner.invoke(call)?;
                let Some(view) = outputs.get(at) else { return Ok(()) };
                self.edit(view, |place, x| if place + 1 == view.len() { 2.0 * x + 1.0 } else { x })
            }
            Fault::Skip => Ok(()),
            Fault::Forget => {
                let specs = CATALOGUE.iter().find(|spec| spec.id == call.op).map_or(&[][..], |spec| spec.outputs);
                for (spec, view) in specs.iter().zip(call.outputs.iter()) {
                    if spec.usage == Usage::Update && !view.is_none() {
                        self.edit(view, |_, _| 0.0)?;
                    }
                }
                self.inner.invoke(call)
            }
            Fault::Trespass => {
                self.inner.invoke(call)?;
                let Some(view) = outputs.first().filter(|v| !v.is_empty()) else { return Ok(()) };
                let behind = View { offset: view.offset + view.cols, rows: 1, cols: 1, ..*view };
                self.edit(&behind, |_, _| 0.0)
            }
            Fault::Flutter => {
                self.inner.invoke(call)?;
                self.calls += 1;
                match outputs.first().filter(|_| self.calls.is_multiple_of(2)) {
                    Some(view) => self.scale(view, 1.001),
                    None => Ok(()),
                }
            }
            Fault::Accept => self.inner.invoke(call).or(Ok(())),
        }
    }
}

impl<S: Session> Session for Faulty<S> {
    fn invoke(&mut self, call: &Call<'_>) -> Result<()> {
        if call.op == self.op { self.broken(call) } else { self.inner.invoke(call) }
    }

    plugin_api::pass_on!(inner: alloc free upload download write_version supports workspace memory trim sync);
}
