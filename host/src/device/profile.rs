//! A layer around a session that counts and times every operation.
//!
//! It waits for the device after each operation, so that each time belongs to one operation: a profiled step is slower on
//! devices that work asynchronously. While its record is paused, the layer only forwards calls.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::Instant,
};

use plugin_api::Result;
use plugin_api::abi::{Call, DType, View};
use plugin_api::backend::{
    Session,
    catalogue::{OpSpec, read_attr},
    ops::{CATALOGUE, MaskKind},
};

/// The costs of one operation.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cost {
    /// Number of calls.
    pub calls: u64,
    /// Total nanoseconds.
    pub nanoseconds: u64,
    /// Total floating-point operations of its matrix products, a multiply-add counted as two; 0 for operations without matrix
    /// products. Attention counts the pairs of query and key that the mask allows.
    pub flops: f64,
}

/// Costs by operation name; clones share one record.
#[derive(Clone, Default)]
pub struct Record(Rc<Shared>);

#[derive(Default)]
struct Shared {
    costs: RefCell<BTreeMap<&'static str, Cost>>,
    paused: Cell<bool>,
}

impl Record {
    /// The costs so far.
    pub fn costs(&self) -> BTreeMap<&'static str, Cost> {
        self.0.costs.borrow().clone()
    }

    /// Resets the counts, e.g. after warming up.
    pub fn clear(&self) {
        self.0.costs.borrow_mut().clear();
    }

    /// Pauses counting and waiting, or resumes both.
    pub fn pause(&self, paused: bool) {
        self.0.paused.set(paused);
    }
}

/// The profiling layer.
pub struct Profile {
    inner: Box<dyn Session>,
    record: Record,
}

impl Profile {
    /// Wraps a session in the layer; returns both with the record, which fills as the session is used.
    pub fn wrap(inner: Box<dyn Session>) -> (Box<dyn Session>, Record) {
        let record = Record::default();
        (Box::new(Profile { inner, record: record.clone() }), record)
    }
}

impl Session for Profile {
    fn invoke(&mut self, call: &Call<'_>) -> Result<()> {
        if self.record.0.paused.get() {
            return self.inner.invoke(call);
        }
        let spec = CATALOGUE.iter().find(|spec| spec.id == call.op);
        let flops = spec.map_or(0.0, |spec| flops(spec, call, self.inner.as_mut()));
        let start = Instant::now();
        let result = self.inner.invoke(call).and_then(|()| self.inner.sync());
        let nanoseconds = start.elapsed().as_nanos() as u64;
        let mut costs = self.record.0.costs.borrow_mut();
        let cost = costs.entry(spec.map_or("unknown", |spec| spec.name)).or_default();
        cost.calls += 1;
        cost.nanoseconds += nanoseconds;
        cost.flops += flops;
        result
    }

    plugin_api::pass_on!(inner: alloc free upload download write_version supports workspace memory trim sync);
}

/// Floating-point operations of a call's matrix products.
fn flops(spec: &OpSpec, call: &Call<'_>, session: &mut dyn Session) -> f64 {
    let input = |name: &str| operand(spec, call, name);
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
        // Forward: scores and values. Backward: the scores again and the four products that follow.
        "attention" => 2.0 * 2.0 * size("q").1 * pairs(spec, call, session),
        "attention_backward" => 5.0 * 2.0 * size("q").1 * pairs(spec, call, session),
        "head_stats" | "head_candidates" | "head_topk" => product("x", "w"),
        "head_divergence" => product("x", "w") + product("x2", "w2"),
        "head_divergence_backward" => 3.0 * product("x", "w") + product("x2", "w2"),
        "head_backward" if input("logits").is_some() => 2.0 * product("x", "w"),
        "head_backward" | "head_fused" | "head_candidates_backward" => 3.0 * product("x", "w"),
        _ => 0.0,
    }
}

/// Number of pairs of a query and a key that it may see, over all sequences of an attention call; 0 for a call that will be
/// refused.
fn pairs(spec: &OpSpec, call: &Call<'_>, session: &mut dyn Session) -> f64 {
    let offsets = ints(operand(spec, call, "offsets"), session);
    let prefix = ints(operand(spec, call, "prefix"), session);
    let mask = read_attr(call, "mask", MaskKind::CAUSAL).unwrap_or(MaskKind::CAUSAL);
    let window = read_attr(call, "window", 0_i64).unwrap_or(0);
    let of_sequence = |(index, ends): (usize, &[i32])| {
        let length = i64::from(ends[1]) - i64::from(ends[0]);
        let prefix = prefix.get(index).map_or(0, |&prefix| i64::from(prefix));
        (0..length).map(|query| seen(query, length, prefix, mask, window)).sum::<i64>() as f64
    };
    offsets.windows(2).enumerate().map(of_sequence).sum()
}

/// Number of keys of its sequence that a query sees.
fn seen(query: i64, length: i64, prefix: i64, mask: MaskKind, window: i64) -> i64 {
    let end = match mask {
        MaskKind::BIDIRECTIONAL => length,
        MaskKind::PREFIX => prefix.clamp(query + 1, length),
        _ => query + 1,
    };
    let start = if window > 0 { (query - window + 1).max(0) } else { 0 };
    end - start
}

/// Returns the values of a row of integers; empty if they cannot be read.
fn ints(view: Option<&View>, session: &mut dyn Session) -> Vec<i32> {
    let Some(view) = view.filter(|view| view.rows == 1 && view.dtype == DType::I32) else { return Vec::new() };
    let mut values = vec![0_i32; view.cols as usize];
    match session.download(view.buffer, view.offset, bytemuck::cast_slice_mut(&mut values)) {
        Ok(()) => values,
        Err(_) => Vec::new(),
    }
}

fn operand<'a>(spec: &OpSpec, call: &'a Call<'_>, name: &str) -> Option<&'a View> {
    let index = spec.inputs.iter().position(|operand| operand.name == name)?;
    call.inputs.get(index).filter(|view| !view.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::session::Device;
    use backend_reference::Reference;
    use plugin_api::backend::ops::Attention;

    /// Returns the operations of one attention call over sequences of these lengths, with 2 heads of width 3.
    fn counted(lengths: &[i32], mask: MaskKind, window: i64, prefix: Option<&[i32]>, paused: bool) -> f64 {
        let (session, record) = Profile::wrap(Box::new(Reference::new(1)));
        let device = Device::new(session, DType::F32).unwrap();
        record.pause(paused);
        let tokens = lengths.iter().sum::<i32>() as u64;
        let ends: Vec<i32> = (0..=lengths.len()).map(|n| lengths[..n].iter().sum()).collect();
        let [q, k, v, y] = std::array::from_fn(|_| device.tensor(tokens, 6).unwrap());
        for tensor in [&q, &k, &v] {
            tensor.buffer().upload(0, &vec![0.5; 6 * tokens as usize]).unwrap();
        }
        let offsets = device.ints(&ends).unwrap();
        let prefix = prefix.map(|prefix| device.ints(prefix).unwrap());
        let (q, k, v, y, offsets) = (q.view(), k.view(), v.view(), y.view(), offsets.view());
        let prefix = prefix.as_ref().map(|p| p.view());
        let op = Attention {
            q,
            k,
            v,
            y,
            offsets,
            prefix,
            mask,
            window,
            heads: 2,
            kv_heads: 2,
            head_dim: 3,
            ..Default::default()
        };
        device.call(&op).unwrap();
        record.costs().get("attention").map_or(0.0, |cost| cost.flops)
    }

    /// Catches sequences that are assumed to be equally long, squares counted instead of triangles, and masks that are ignored.
    #[test]
    fn attention_counts_the_pairs_that_see_each_other() {
        let of = |pairs: f64| 2.0 * 2.0 * 6.0 * pairs;
        assert_eq!(counted(&[3, 5], MaskKind::CAUSAL, 0, None, false), of(6.0 + 15.0));
        assert_eq!(counted(&[3, 5], MaskKind::BIDIRECTIONAL, 0, None, false), of(9.0 + 25.0));
        assert_eq!(counted(&[3, 5], MaskKind::CAUSAL, 2, None, false), of(5.0 + 9.0));
        assert_eq!(counted(&[3, 5], MaskKind::PREFIX, 0, Some(&[2, 9]), false), of(2.0 + 2.0 + 3.0 + 25.0));
    }

    /// Catches a pause that continues to count.
    #[test]
    fn a_paused_record_counts_nothing() {
        assert_eq!(counted(&[3, 5], MaskKind::CAUSAL, 0, None, true), 0.0);
    }
}
