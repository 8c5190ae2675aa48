//! Laws of the encoded call, for every operation of the catalogue: decoding reverses encoding, and no call, however hostile, makes
//! a decoder panic or accept what the description forbids.

use plugin_api::{
    Code, Error, Result,
    abi::{RSlice, RStr},
    backend::{
        Attr, Call, DType, Handle, Op, View,
        catalogue::{Class, OpSpec, Usage, overlap},
        ops::{self, CATALOGUE, dispatch},
    },
};
use proptest::prelude::*;

/// An owned call, to borrow a [`Call`] from.
#[derive(Debug, Clone, PartialEq)]
struct Owned {
    op: u32,
    version: u32,
    inputs: Vec<View>,
    outputs: Vec<View>,
    attrs: Vec<(String, u32, u64)>,
}

impl Owned {
    fn of(call: &Call<'_>) -> Owned {
        Owned {
            op: call.op,
            version: call.version,
            inputs: call.inputs.to_vec(),
            outputs: call.outputs.to_vec(),
            attrs: call.attrs.iter().map(|a| (a.name.as_str().to_owned(), a.kind, a.bits)).collect(),
        }
    }

    fn lend<R>(&self, f: impl FnOnce(&Call<'_>) -> R) -> R {
        let attr = |(name, kind, bits): &(String, u32, u64)| (name.clone(), *kind, *bits);
        let attrs: Vec<_> = self.attrs.iter().map(attr).collect();
        let attrs: Vec<Attr<'_>> = attrs
            .iter()
            .map(|(name, kind, bits)| Attr { name: RStr::from_str(name), kind: *kind, reserved: 0, bits: *bits })
            .collect();
        f(&Call {
            op: self.op,
            version: self.version,
            inputs: RSlice::from_slice(&self.inputs),
            outputs: RSlice::from_slice(&self.outputs),
            attrs: RSlice::from_slice(&attrs),
        })
    }
}

/// A call of `spec` in which every symbol has a size and every operand a buffer of its own, with the optional operands
/// that `present` has bits for. Attributes that determine symbols agree with `heads` and `head_dim`.
fn sound(spec: &OpSpec, sizes: &[u64; 8], dtype: DType, present: u32, heads: u64, head_dim: u64) -> Owned {
    let mut symbols: Vec<(&str, u64)> = vec![("Q", heads * head_dim), ("K", heads * head_dim), ("H", heads)];
    let mut size_of = |dim: &'static str| -> u64 {
        if let Ok(number) = dim.parse() {
            return number;
        }
        let (symbol, extra) = match dim.trim_matches(['(', ')']).split_once('+') {
            Some((symbol, extra)) => (symbol.trim(), extra.trim().parse().unwrap()),
            None => (dim, 0),
        };
        let known = symbols.iter().find(|(name, _)| *name == symbol).map(|(_, size)| *size);
        let size = known.unwrap_or_else(|| {
            let size = sizes[symbols.len() % sizes.len()];
            symbols.push((symbol, size));
            size
        });
        size + extra
    };
    let mut number = 0;
    let mut view = |operand: &plugin_api::backend::catalogue::OperandSpec| {
        number += 1;
        if operand.optional && present >> (number % 32) & 1 == 0 {
            return View::NONE;
        }
        let dtype = match operand.class {
            Class::I => DType::I32,
            Class::T | Class::F => dtype,
            Class::A => dtype.accumulator(),
        };
        View::dense(Handle(number), dtype, size_of(operand.dims[0]), size_of(operand.dims[1]))
    };
    let inputs = spec.inputs.iter().map(&mut view).collect();
    let outputs = spec.outputs.iter().map(&mut view).collect();
    let value = |name: &str, kind: u32| match (name, kind) {
        ("heads" | "kv_heads", _) => heads,
        ("head_dim", _) => head_dim,
        (_, Attr::FLOAT) => 0.75f64.to_bits(),
        _ => 1,
    };
    let attrs = spec.attrs.iter().map(|a| (a.name.to_owned(), a.kind, value(a.name, a.kind))).collect();
    Owned { op: spec.id, version: spec.version, inputs, outputs, attrs }
}

/// A backend that computes nothing: it keeps the last operation it got, encoded again with the operation's own type.
#[derive(Default)]
struct Accepting {
    called: u32,
    last: Option<Owned>,
}

macro_rules! accept {
    ($($Group:ident: $($method:ident $Op:ident),*;)*) => {
        $(impl ops::$Group for Accepting {
            $(fn $method(&mut self, op: &ops::$Op) -> Result<()> {
                self.called += 1;
                self.last = Some(op.with_call(Owned::of));
                Ok(())
            })*
        })*
    };
}

accept! {
    ElementwiseOps: nop Nop, fill Fill, copy Copy, cast Cast, axpy Axpy, scale Scale;
    RowOps: embedding Embedding, embedding_backward EmbeddingBackward, gather_rows GatherRows,
        scatter_add_rows ScatterAddRows;
    NormOps: norm Norm, norm_backward NormBackward;
    LinearOps: linear Linear, linear_backward_input LinearBackwardInput, linear_backward_weight LinearBackwardWeight;
    AttentionOps: rotary Rotary, attention Attention, attention_backward AttentionBackward,
        decode_attention DecodeAttention;
    ActivationOps: activation Activation, activation_backward ActivationBackward, glu Glu, glu_backward GluBackward;
    HeadOps: head_stats HeadStats, head_backward HeadBackward, head_fused HeadFused, sample Sample;
    DivergenceOps: head_divergence HeadDivergence, head_divergence_backward HeadDivergenceBackward;
    CandidateOps: head_candidates HeadCandidates, head_candidates_backward HeadCandidatesBackward, head_topk HeadTopk;
    OptimizerOps: global_norm GlobalNorm, adamw AdamW;
}

/// Decodes with the operation's own type and encodes again.
fn again(call: &Owned) -> Result<Owned> {
    let mut accepting = Accepting::default();
    call.lend(|c| dispatch(&mut accepting, c))?;
    Ok(accepting.last.expect("an operation that is not in this test's list: append it"))
}

fn float() -> impl Strategy<Value = DType> {
    prop_oneof![Just(DType::F32), Just(DType::BF16), Just(DType::F64)]
}

/// Numbers at the edges of their range, where sums and products overflow.
fn edge() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..8, Just(u64::MAX), Just(u64::MAX / 2), Just(1 << 32), Just(i64::MIN as u64), any::<u64>()]
}

fn hostile_view() -> impl Strategy<Value = View> {
    (edge(), edge(), edge(), edge(), edge(), 0u32..7, any::<u32>()).prop_map(
        |(buffer, offset, rows, cols, row_stride, dtype, reserved)| View {
            buffer: Handle(buffer % 5),
            offset,
            rows,
            cols,
            row_stride,
            dtype: DType(dtype),
            reserved,
        },
    )
}

fn attr_name() -> impl Strategy<Value = String> {
    let names: Vec<String> = CATALOGUE.iter().flat_map(|op| op.attrs).map(|a| a.name.to_owned()).collect();
    prop_oneof![4 => proptest::sample::select(names), 1 => "\\PC{0,12}"]
}

fn hostile_attr() -> impl Strategy<Value = (String, u32, u64)> {
    let bits = prop_oneof![edge(), Just(f64::NAN.to_bits()), Just(f64::INFINITY.to_bits())];
    (attr_name(), 0u32..5, bits)
}

fn hostile_call() -> impl Strategy<Value = Owned> {
    let views = || proptest::collection::vec(hostile_view(), 0..14);
    let op = prop_oneof![9 => 0..CATALOGUE.len() as u32, 1 => any::<u32>()];
    (op, 0u32..3, views(), views(), proptest::collection::vec(hostile_attr(), 0..9))
        .prop_map(|(op, version, inputs, outputs, attrs)| Owned { op, version, inputs, outputs, attrs })
}

/// Makes one mistake in a sound call; returns the code with which the call must be refused.
fn spoil(call: &mut Owned, spec: &OpSpec, which: usize) -> Option<Code> {
    let required = spec.inputs.iter().position(|o| !o.optional);
    match which {
        0 => {
            call.version += 1;
            Some(Code::UNSUPPORTED)
        }
        1 => {
            call.attrs.push(("no_such_attribute".into(), Attr::INT, 1));
            Some(Code::UNSUPPORTED)
        }
        2 => {
            call.attrs.first_mut()?.1 += 7;
            Some(Code::INVALID_ARGUMENT)
        }
        3 => {
            *call.inputs.get_mut(required?)? = View::NONE;
            Some(Code::INVALID_ARGUMENT)
        }
        4 => {
            call.inputs.get_mut(required?)?.dtype = DType(99);
            Some(Code::DTYPE)
        }
        5 => {
            let view = *call.inputs.get(required?)?;
            call.outputs.push(view);
            Some(Code::UNSUPPORTED)
        }
        // An accumulator in the storage type, in which the sums would lose digits.
        6 => {
            let at = spec.outputs.iter().position(|o| o.class == Class::A && !o.optional)?;
            call.outputs.get_mut(at).filter(|v| v.dtype == DType::F32)?.dtype = DType::BF16;
            Some(Code::DTYPE)
        }
        7 => {
            let input = *call.inputs.get(required?).filter(|v| !v.is_empty())?;
            let name = spec.inputs.get(required?)?.name;
            let at = spec.outputs.iter().position(|o| o.usage == Usage::Output && !o.optional)?;
            let output = call.outputs.get_mut(at).filter(|v| !v.is_empty())?;
            output.buffer = input.buffer;
            let legal = output == &input && spec.aliases.contains(&(spec.outputs[at].name, name));
            (overlap(output, &input) && !legal).then_some(Code::ALIAS)
        }
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Catches an encoder and a decoder that order operands or attributes differently, and a description that its own calls do not
    /// satisfy.
    #[test]
    fn every_operation_survives_encoding(
        id in 0..CATALOGUE.len(), sizes in any::<[u8; 8]>(), dtype in float(), present in any::<u32>(),
        heads in 1u64..5, head_dim in 1u64..9,
    ) {
        let call = sound(CATALOGUE[id], &sizes.map(|s| u64::from(s % 9)), dtype, present, heads, head_dim);
        let mut accepting = Accepting::default();
        let accepted = call.lend(|c| dispatch(&mut accepting, c));
        accepted.map_err(|e| TestCaseError::fail(format!("{e}: {call:?}")))?;
        prop_assert_eq!(Some(&call), accepting.last.as_ref());
        prop_assert_eq!(accepting.called, 1);
    }

    /// Catches a decoder that panics (overflow, index, division by zero), and one that accepts a wrong dtype or a missing operand.
    #[test]
    fn no_call_panics_and_accepted_calls_match_their_description(call in hostile_call()) {
        let mut accepting = Accepting::default();
        if call.lend(|c| dispatch(&mut accepting, c)).is_ok() {
            let spec = CATALOGUE.iter().find(|op| op.id == call.op);
            let spec = spec.ok_or_else(|| TestCaseError::fail("an unknown operation was accepted"))?;
            for (views, operands) in [(&call.inputs, spec.inputs), (&call.outputs, spec.outputs)] {
                for (at, operand) in operands.iter().enumerate() {
                    let view = views.get(at).copied().unwrap_or(View::NONE);
                    prop_assert!(operand.optional || !view.is_none());
                    prop_assert!(view.is_none() || (operand.class == Class::I) == (view.dtype == DType::I32));
                }
                prop_assert!(views.iter().skip(operands.len()).all(View::is_none));
            }
        }
    }

    /// Hostile views in a call that is otherwise sound, which reach the checks behind the count of operands.
    #[test]
    fn no_view_panics(
        id in 0..CATALOGUE.len(), at in 0usize..12, view in hostile_view(), attr in hostile_attr(), which in 0usize..9,
    ) {
        let mut call = sound(CATALOGUE[id], &[3; 8], DType::F32, u32::MAX, 2, 4);
        let count = call.inputs.len() + call.outputs.len();
        if let Some(place) = call.inputs.iter_mut().chain(&mut call.outputs).nth(at % count.max(1)) {
            *place = view;
        }
        if let Some(place) = call.attrs.get_mut(which) {
            *place = (place.0.clone(), place.1, attr.2);
        }
        _ = again(&call);
    }

    /// Catches a backend that a host of a later minor version cannot call: such a host knows more operands, and leaves them absent; one
    /// of an earlier version leaves out those at the end.
    #[test]
    fn absent_operands_at_the_end_may_be_sent_or_not(id in 0..CATALOGUE.len(), more in 0usize..3) {
        let spec = CATALOGUE[id];
        let call = sound(spec, &[3, 4, 5, 6, 7, 8, 9, 10], DType::F32, 0, 2, 4);
        let (mut longer, mut shorter) = (call.clone(), call);
        longer.inputs.extend(vec![View::NONE; more]);
        longer.outputs.extend(vec![View::NONE; more]);
        for views in [&mut shorter.inputs, &mut shorter.outputs] {
            while views.last().is_some_and(View::is_none) {
                views.pop();
            }
        }
        let [longer, shorter] = [longer, shorter].map(|call| again(&call).map_err(|e| e.message));
        prop_assert!(longer.is_ok() && longer == shorter, "{longer:?} {shorter:?}");
    }

    /// Catches a missing check. Each change is one mistake in a sound call, with its own code.
    #[test]
    fn each_mistake_is_refused_with_its_code(id in 0..CATALOGUE.len(), which in 0usize..8) {
        let spec = CATALOGUE[id];
        let mut call = sound(spec, &[3, 4, 5, 6, 7, 8, 9, 10], DType::F32, u32::MAX, 2, 4);
        prop_assert!(again(&call).is_ok());
        if let Some(code) = spoil(&mut call, spec, which) {
            let refused: Option<Error> = again(&call).err();
            prop_assert_eq!(refused.as_ref().map(|e| e.code), Some(code), "{:?}", refused);
            prop_assert!(refused.is_some_and(|e| e.message.contains(spec.name)), "the message names the operation");
        }
    }
}

/// Catches products that wrap around: 2^32 x 2^32 elements would count as 0, and two negative numbers would make a width.
#[test]
fn sizes_do_not_wrap_around() {
    let huge = View::dense(Handle(1), DType::F32, 1 << 32, 1 << 32);
    assert!(!huge.is_empty() && huge.len() == u64::MAX);
    assert!(overlap(&huge, &View::dense(Handle(1), DType::F32, 2, 2)));
    let spec = ops::Attention::SPEC;
    for (heads, head_dim) in [(-2, -4), (1 << 61, 64), (i64::MIN, i64::MIN)] {
        let mut call = sound(spec, &[3; 8], DType::F32, 0, 2, 4);
        for (name, _, bits) in &mut call.attrs {
            match name.as_str() {
                "heads" | "kv_heads" => *bits = heads as u64,
                "head_dim" => *bits = head_dim as u64,
                _ => {}
            }
        }
        let wrapped = (heads as u64).wrapping_mul(head_dim as u64);
        call.inputs
            .iter_mut()
            .take(3)
            .chain(&mut call.outputs[..1])
            .for_each(|v| (v.cols, v.row_stride) = (wrapped, wrapped));
        let error = again(&call).map(|_| ()).expect_err("a width that does not exist");
        assert_eq!(error.code, Code::SHAPE, "{error}");
    }
}
