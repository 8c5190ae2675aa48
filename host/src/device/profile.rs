//! A layer around a session that counts and times every operation.
//!
//! It waits for the device after each operation, so that the time is the operation's own: a profiled run is slower on
//! devices that work asynchronously.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Instant};

use plugin_api::Result;
use plugin_api::abi::{Call, DType, Handle, Memory, View};
use plugin_api::backend::{Session, catalogue::OpSpec, ops::CATALOGUE};

/// What one operation has cost.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cost {
    /// How often it ran.
    pub calls: u64,
    /// Nanoseconds in all.
    pub nanoseconds: u64,
    /// Floating-point operations of its matrix products in all, a multiply-add counted as two; 0 for operations that
    /// have none. Attention assumes causal sequences of equal length.
    pub flops: f64,
}

/// Costs by operation name; clones share one record.
#[derive(Clone, Default)]
pub struct Record(Rc<RefCell<BTreeMap<&'static str, Cost>>>);

impl Record {
    /// The costs so far.
    pub fn costs(&self) -> BTreeMap<&'static str, Cost> {
        self.0.borrow().clone()
    }

    /// Forgets what was counted, e.g. after warming up.
    pub fn clear(&self) {
        self.0.borrow_mut().clear();
    }
}

/// The layer.
pub struct Profile {
    inner: Box<dyn Session>,
    record: Record,
}

impl Profile {
    /// Puts the layer around a session; the record fills as the session works.
    pub fn wrap(inner: Box<dyn Session>) -> (Box<dyn Session>, Record) {
        let record = Record::default();
        (Box::new(Profile { inner, record: record.clone() }), record)
    }
}

impl Session for Profile {
    fn invoke(&mut self, call: &Call<'_>) -> Result<()> {
        let start = Instant::now();
        let result = self.inner.invoke(call).and_then(|()| self.inner.sync());
        let nanoseconds = start.elapsed().as_nanos() as u64;
        let spec = CATALOGUE.iter().find(|spec| spec.id == call.op);
        let mut costs = self.record.0.borrow_mut();
        let cost = costs.entry(spec.map_or("unknown", |spec| spec.name)).or_default();
        cost.calls += 1;
        cost.nanoseconds += nanoseconds;
        cost.flops += spec.map_or(0.0, |spec| flops(spec, call));
        result
    }

    fn alloc(&mut self, dtype: DType, elements: u64) -> Result<Handle> {
        self.inner.alloc(dtype, elements)
    }

    fn free(&mut self, buffer: Handle) -> Result<()> {
        self.inner.free(buffer)
    }

    fn upload(&mut self, buffer: Handle, offset: u64, bytes: &[u8]) -> Result<()> {
        self.inner.upload(buffer, offset, bytes)
    }

    fn download(&mut self, buffer: Handle, offset: u64, bytes: &mut [u8]) -> Result<()> {
        self.inner.download(buffer, offset, bytes)
    }

    fn begin_download(&mut self, buffer: Handle, offset: u64, length: u64) -> Result<u64> {
        self.inner.begin_download(buffer, offset, length)
    }

    fn finish_download(&mut self, ticket: u64, bytes: &mut [u8]) -> Result<()> {
        self.inner.finish_download(ticket, bytes)
    }

    fn write_version(&self, buffer: Handle) -> Result<u64> {
        self.inner.write_version(buffer)
    }

    fn supports(&self, op: u32, dtype: DType) -> bool {
        self.inner.supports(op, dtype)
    }

    fn workspace(&self, call: &Call<'_>) -> u64 {
        self.inner.workspace(call)
    }

    fn memory(&self) -> Memory {
        self.inner.memory()
    }

    fn trim(&mut self) {
        self.inner.trim();
    }

    fn sync(&mut self) -> Result<()> {
        self.inner.sync()
    }
}

/// Floating-point operations of a call's matrix products.
fn flops(spec: &OpSpec, call: &Call<'_>) -> f64 {
    let input = |name: &str| operand(spec.inputs, call.inputs.as_slice(), name);
    let size = |name: &str| input(name).map_or((0.0, 0.0), |v| (v.rows as f64, v.cols as f64));
    let product = |a: &str, b: &str| {
        let ((rows, _), (outer, inner)) = (size(a), size(b));
        2.0 * rows * outer * inner
    };
    match spec.name {
        "linear" => product("x", "w"),
        "linear_backward_input" => product("dy", "w"),
        "linear_backward_weight" => {
            let ((tokens, outputs), (_, inputs)) = (size("dy"), size("x"));
            2.0 * tokens * outputs * inputs
        }
        "attention" => 2.0 * pairs(size("q"), size("offsets")),
        "attention_backward" => 5.0 * pairs(size("q"), size("offsets")),
        "head_stats" => product("x", "w"),
        "head_backward" if input("logits").is_some() => 2.0 * product("x", "w"),
        "head_backward" | "head_fused" => 3.0 * product("x", "w"),
        _ => 0.0,
    }
}

/// Multiply-adds of one score or value product over all visible pairs, counted as two operations each.
fn pairs((tokens, width): (f64, f64), (_, offsets): (f64, f64)) -> f64 {
    let sequences = (offsets - 1.0).max(1.0);
    width * tokens * (tokens / sequences)
}

fn operand<'a>(
    specs: &[plugin_api::backend::catalogue::OperandSpec],
    views: &'a [View],
    name: &str,
) -> Option<&'a View> {
    let index = specs.iter().position(|spec| spec.name == name)?;
    views.get(index).filter(|view| !view.is_none())
}
