//! One slightly wrong implementation of every operation, in f32, each of which the limits of the conformance suite must catch:
//! limits that follow from the size of the terms must not accept real mistakes. The mistakes are typical ones: a constant that is
//! off by a ten-thousandth, a term left out, a mask off by one, a cast that truncates.

use backend_reference::Reference;
use plugin_api::{
    Result,
    abi::{Attr, Call, DType, View},
    backend::{
        Session,
        catalogue::OpSpec,
        ops::{CATALOGUE, MaskKind},
    },
};
use plugin_api_laws::backend::Suite;
use std::collections::BTreeSet;

/// The mistake of an implementation.
#[derive(Clone, Copy)]
enum Mistake {
    /// Uses another number for an attribute.
    Number(&'static str, fn(f64) -> f64),
    /// Uses another integer, flag or named value for an attribute.
    Integer(&'static str, fn(i64) -> i64),
    /// Leaves an optional input out.
    Without(&'static str),
    /// Reads other numbers from an input: element number, value.
    Input(&'static str, fn(u64, f32) -> f32),
    /// Writes other numbers to an output: element number, value.
    Output(&'static str, fn(u64, f32) -> f32),
    /// The same for integers.
    Index(&'static str, fn(i32) -> i32),
    /// Writes another output's numbers to an output.
    Instead(&'static str, &'static str),
}

use Mistake::{Index, Input, Instead, Integer, Number, Output, Without};

/// Off by a ten-thousandth: visible in f32, and far below a thousandth.
fn off(x: f64) -> f64 {
    x * 1.0001
}

/// Without the lower half of the mantissa, as after a product in bf16 or TF32.
fn short(_: u64, x: f32) -> f32 {
    f32::from_bits(x.to_bits() & 0xffff_e000)
}

/// One unit in the last place.
fn next(_: u64, x: f32) -> f32 {
    f32::from_bits(x.to_bits() ^ 1)
}

/// Operation, what is wrong, how.
const MISTAKES: &[(&str, &str, Mistake)] = &[
    ("fill", "the value in the next place", Output("x", next)),
    ("copy", "the last bit is lost", Output("y", next)),
    ("cast", "an operand in the next place", Output("y", next)),
    ("axpy", "alpha off", Number("alpha", off)),
    ("scale", "alpha off", Number("alpha", off)),
    ("embedding", "scale off", Number("scale", off)),
    ("embedding", "the position row is rounded to short", Input("position_table", short)),
    ("embedding_backward", "scale off", Number("scale", off)),
    ("norm", "eps left out", Number("eps", |_| 0.0)),
    ("norm", "eps off", Number("eps", off)),
    ("norm", "the gain's offset is forgotten", Number("weight_offset", |_| 0.0)),
    ("norm", "the shift is forgotten", Without("bias")),
    ("norm_backward", "the gain's offset is forgotten", Number("weight_offset", |_| 0.0)),
    ("norm_backward", "the residual's cotangent is forgotten", Without("dsum")),
    ("norm_backward", "rstd off", Input("stats", |at, x| if at % 2 == 1 { x * 1.0001 } else { x })),
    ("linear", "the bias is forgotten", Without("bias")),
    ("linear", "inputs rounded to short", Input("x", short)),
    ("linear_backward_input", "overwrites", Integer("accumulate", |_| 0)),
    ("linear_backward_input", "weights rounded to short", Input("w", short)),
    ("linear_backward_weight", "cotangents rounded to short", Input("dy", short)),
    ("rotary", "the other pairing", Integer("interleaved", |flag| 1 - flag)),
    ("rotary", "tables rounded to short", Input("sin", short)),
    ("attention", "scale off", Number("scale", off)),
    ("attention", "window off by one", Integer("window", |window| if window > 0 { window + 1 } else { 0 })),
    ("attention", "prefixes are ignored", Integer("mask", |mask| if mask == MaskKind::PREFIX.0 { 1 } else { mask })),
    ("attention", "softcap off", Number("softcap", off)),
    ("attention_backward", "scale off", Number("scale", off)),
    ("attention_backward", "delta is forgotten", Input("y", |_, _| 0.0)),
    ("attention_backward", "delta from outputs rounded to short", Input("y", short)),
    ("attention_backward", "lse off", Input("lse", |_, x| x + 1e-4)),
    (
        "attention_backward",
        "window off by one",
        Integer("window", |window| if window > 1 { window - 1 } else { window }),
    ),
    (
        "attention_backward",
        "prefixes are ignored",
        Integer("mask", |mask| if mask == MaskKind::PREFIX.0 { 1 } else { mask }),
    ),
    ("attention_backward", "the cap's slope is off", Number("softcap", off)),
    ("activation", "SiLU for GELU", Integer("kind", |kind| if kind == 1 { 3 } else { kind })),
    ("activation", "the tanh form for the exact one", Integer("kind", |kind| if kind == 2 { 1 } else { kind })),
    ("activation", "inputs rounded to short", Input("x", short)),
    (
        "activation_backward",
        "the tanh form for the exact one",
        Integer("kind", |kind| if kind == 2 { 1 } else { kind }),
    ),
    ("activation_backward", "inputs rounded to short", Input("x", short)),
    ("glu", "the tanh form for the exact one", Integer("kind", |kind| if kind == 2 { 1 } else { kind })),
    ("glu", "gates rounded to short", Input("gate", short)),
    ("glu_backward", "the tanh form for the exact one", Integer("kind", |kind| if kind == 2 { 1 } else { kind })),
    ("glu_backward", "the gated rounded to short", Input("up", short)),
    ("head_stats", "temperature off", Number("temperature", off)),
    ("head_stats", "softcap off", Number("softcap", off)),
    ("head_stats", "scale off", Number("scale", off)),
    ("head_stats", "the bias is forgotten", Without("bias")),
    ("head_backward", "temperature off", Number("temperature", off)),
    ("head_backward", "the entropy's part is forgotten", Without("dentropy")),
    ("head_backward", "the mean's part is forgotten", Without("dmean_logit")),
    ("head_backward", "lse off", Input("lse", |_, x| x + 1e-4)),
    ("head_fused", "temperature off", Number("temperature", off)),
    ("head_fused", "the cotangent of lse is forgotten", Without("dlse")),
    ("decode_attention", "scale off", Number("scale", off)),
    ("decode_attention", "window off by one", Integer("window", |window| if window > 0 { window + 1 } else { 0 })),
    ("decode_attention", "the cache's last bit is lost", Output("k_cache", next)),
    ("head_divergence", "forward and reverse exchanged", Number("weight", |w| 1.0 - w)),
    ("head_divergence", "weight off", Number("weight", |w| if w > 0.0 && w < 1.0 { off(w) } else { w })),
    ("head_divergence", "the temperature is forgotten", Number("temperature", |_| 1.0)),
    ("head_divergence", "temperature off", Number("temperature", off)),
    ("head_divergence", "the other model's softcap off", Number("softcap2", off)),
    ("head_divergence", "the other model's scale off", Number("scale2", off)),
    ("head_divergence", "the other model's bias is forgotten", Without("bias2")),
    ("head_divergence", "the other model's states rounded to short", Input("x2", short)),
    ("head_divergence", "the models' log-sum-exps exchanged", Instead("lse", "lse2")),
    ("head_divergence_backward", "forward and reverse exchanged", Number("weight", |w| 1.0 - w)),
    ("head_divergence_backward", "the temperature is forgotten", Number("temperature", |_| 1.0)),
    ("head_divergence_backward", "the cap's slope is off", Number("softcap", off)),
    ("head_divergence_backward", "lse off", Input("lse", |_, x| x + 1e-4)),
    ("head_divergence_backward", "the other model's lse off", Input("lse2", |_, x| x + 1e-4)),
    ("head_divergence_backward", "the other model's bias is forgotten", Without("bias2")),
    ("head_candidates", "the temperature is forgotten", Number("temperature", |_| 1.0)),
    ("head_candidates", "softcap off", Number("softcap", off)),
    ("head_candidates", "the tail is that of the candidates", Output("tail", |_, x| (-x.exp_m1()).ln())),
    ("head_candidates", "the tail is a difference from 1", Output("tail", |_, x| (1.0 - (1.0 - x.exp())).ln())),
    ("head_candidates", "the tail has a floor", Output("tail", |_, x| x.max(-50.0))),
    ("head_candidates_backward", "the tail's part is forgotten", Without("dtail")),
    ("head_candidates_backward", "the candidates' part is forgotten", Without("dlogp")),
    ("head_candidates_backward", "the temperature is forgotten", Number("temperature", |_| 1.0)),
    ("head_candidates_backward", "the share of the rest is off", Input("tail", |_, x| x + 1e-4)),
    ("head_candidates_backward", "lse off", Input("lse", |_, x| x + 1e-4)),
    (
        "head_topk",
        "of equal ids the highest first",
        Input("bias", |at, x| f32::from_bits(x.to_bits() + at as u32 % 64)),
    ),
    ("head_topk", "the next id", Index("ids", |id| id ^ 1)),
    ("head_topk", "the temperature is forgotten", Number("temperature", |_| 1.0)),
    ("head_topk", "the tail is that of the candidates", Output("tail", |_, x| (-x.exp_m1()).ln())),
    ("sample", "the kept tokens are not renormalised", Instead("kept_logp", "logp")),
    ("sample", "the entropy in bits", Output("kept_entropy", |_, x| x * std::f32::consts::LOG2_E)),
    ("sample", "the surprise for the entropy", Instead("kept_entropy", "kept_logp")),
    ("sample", "temperature off", Number("temperature", |t| if t > 0.0 { off(t) } else { t })),
    ("sample", "the next token", Index("token", |token| token + 1)),
    ("global_norm", "the norm off by 1e-6", Output("norm", |at, x| if at == 0 { x * (1.0 + 1e-6) } else { x })),
    ("adamw", "eps left out", Number("eps", |_| 0.0)),
    ("adamw", "no correction of the first moment", Number("beta1", off)),
    ("adamw", "beta2 off", Number("beta2", off)),
    ("adamw", "a step too many", Integer("step", |step| step + 1)),
    ("adamw", "clip off", Number("clip", off)),
    ("adamw", "the decay is forgotten", Input("hyper", |at, x| if at % 2 == 1 { 0.0 } else { x })),
    ("gather_rows", "the last bit is lost", Output("y", next)),
    ("scatter_add_rows", "cotangents rounded to short", Input("dy", short)),
];

/// The reference with one mistake in one operation.
struct Mutant {
    inner: Reference,
    spec: &'static OpSpec,
    mistake: Mistake,
}

impl Mutant {
    fn view<'c>(&self, call: &'c Call<'_>, name: &str) -> Option<&'c View> {
        let at = |specs: &[plugin_api::backend::catalogue::OperandSpec]| specs.iter().position(|s| s.name == name);
        let view = match (at(self.spec.inputs), at(self.spec.outputs)) {
            (Some(at), _) => call.inputs.get(at),
            (None, Some(at)) => call.outputs.get(at),
            (None, None) => panic!("{} has no operand `{name}`", self.spec.name),
        };
        view.filter(|view| !view.is_none())
    }

    /// Rewrites a view's elements of f32 or i32 and returns the old ones.
    fn rewrite(&mut self, view: &View, f: impl Fn(u64, [u8; 4]) -> [u8; 4]) -> Result<Vec<Vec<u8>>> {
        let mut before = Vec::new();
        for r in 0..view.rows {
            let start = view.offset + r * view.row_stride;
            let mut row = vec![0; view.cols as usize * 4];
            self.inner.download(view.buffer, start, &mut row)?;
            before.push(row.clone());
            for (c, bytes) in row.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                *bytes = f(r * view.cols + c as u64, *bytes);
            }
            self.inner.upload(view.buffer, start, &row)?;
        }
        Ok(before)
    }

    fn rewrite_floats(&mut self, view: &View, f: fn(u64, f32) -> f32) -> Result<Vec<Vec<u8>>> {
        self.rewrite(view, |at, bytes| f(at, f32::from_le_bytes(bytes)).to_le_bytes())
    }

    fn wrong(&mut self, call: &Call<'_>) -> Result<()> {
        let (mut inputs, mut attrs) = (call.inputs.to_vec(), call.attrs.to_vec());
        let mut attr = |name: &str, f: &dyn Fn(&Attr<'_>) -> u64| {
            assert!(self.spec.attrs.iter().any(|spec| spec.name == name), "no attribute `{name}`");
            // One that is left out keeps its default.
            attrs.iter_mut().filter(|attr| attr.name.as_str() == name).for_each(|attr| attr.bits = f(attr));
        };
        match self.mistake {
            Number(name, f) => attr(name, &|attr| f(f64::from_bits(attr.bits)).to_bits()),
            Integer(name, f) => attr(name, &|attr| f(attr.bits as i64) as u64),
            Without(name) => {
                let at = self.spec.inputs.iter().position(|s| s.name == name).expect("an input");
                inputs.iter_mut().skip(at).take(1).for_each(|view| *view = View::NONE);
            }
            Input(name, f) => {
                // Wrong calls must still be refused, and their views may be anywhere.
                let Some(view) = self.view(call, name).copied().filter(|v| v.dtype == DType::F32) else {
                    return self.inner.invoke(call);
                };
                let Ok(before) = self.rewrite_floats(&view, f) else { return self.inner.invoke(call) };
                let done = self.inner.invoke(call);
                for (r, row) in before.iter().enumerate() {
                    self.inner.upload(view.buffer, view.offset + r as u64 * view.row_stride, row)?;
                }
                return done;
            }
            Output(name, f) => {
                self.inner.invoke(call)?;
                let view = self.view(call, name).copied().filter(|v| v.dtype == DType::F32);
                return view.map_or(Ok(()), |view| self.rewrite_floats(&view, f).map(drop));
            }
            Instead(name, other) => {
                self.inner.invoke(call)?;
                let views = [name, other].map(|name| self.view(call, name).copied().filter(|v| v.dtype == DType::F32));
                let [Some(to), Some(from)] = views else { return Ok(()) };
                let mut row = vec![0; from.cols as usize * 4];
                for r in 0..from.rows {
                    self.inner.download(from.buffer, from.offset + r * from.row_stride, &mut row)?;
                    self.inner.upload(to.buffer, to.offset + r * to.row_stride, &row)?;
                }
                return Ok(());
            }
            Index(name, f) => {
                self.inner.invoke(call)?;
                let view = self.view(call, name).copied();
                let new = |_, bytes| f(i32::from_le_bytes(bytes)).to_le_bytes();
                return view.map_or(Ok(()), |view| self.rewrite(&view, new).map(drop));
            }
        }
        self.inner.invoke(&Call {
            inputs: inputs.as_slice().into(),
            outputs: call.outputs,
            attrs: attrs.as_slice().into(),
            ..*call
        })
    }
}

impl Session for Mutant {
    fn invoke(&mut self, call: &Call<'_>) -> Result<()> {
        if call.op == self.spec.id { self.wrong(call) } else { self.inner.invoke(call) }
    }

    plugin_api::pass_on!(inner: alloc free upload download write_version supports workspace memory trim sync);
}

fn spec(name: &str) -> &'static OpSpec {
    CATALOGUE.iter().find(|spec| spec.name == name).copied().unwrap_or_else(|| panic!("no operation `{name}`"))
}

/// Catches limits so wide that a wrong backend passes, an operation without a mutant, and a mistake that is detected by something
/// other than its numbers.
#[test]
fn a_slightly_wrong_implementation_of_every_operation_exceeds_its_limits() {
    let suite = Suite::prepare(&mut Reference::new(2), DType::F32, |_| true).unwrap();
    let mut missed = Vec::new();
    for (name, what, mistake) in MISTAKES {
        let spec = spec(name);
        let mut mutant = Mutant { inner: Reference::new(1), spec, mistake: *mistake };
        let report = suite.verify(&mut mutant, |s| s.id == spec.id);
        let numbers = report.failures().filter(|line| line.agreement.is_some()).count();
        if numbers == 0 {
            missed.push(format!("{name}: {what}"));
        }
    }
    assert!(missed.is_empty(), "no limit catches:\n{}", missed.join("\n"));
    let tried: BTreeSet<&str> = MISTAKES.iter().map(|(name, ..)| *name).collect();
    let untried = CATALOGUE.iter().map(|spec| spec.name).filter(|name| *name != "nop" && !tried.contains(name));
    assert_eq!(untried.collect::<Vec<_>>(), Vec::<&str>::new(), "operations without a mutant");
}

/// Catches a wide limit for exact zeros: if each query sees one key, the cotangents of queries and keys are 0 by cancellation, and
/// a kernel that computes delta from a rounded output is wrong there and nowhere else.
#[test]
fn results_that_cancel_to_zero_have_a_limit_that_a_wrong_kernel_exceeds() {
    let backward = spec("attention_backward");
    let suite = Suite::prepare(&mut Reference::new(2), DType::F32, |s| s.id == backward.id).unwrap();
    let lines = |mistake| {
        let report = suite.verify(&mut Mutant { inner: Reference::new(1), spec: backward, mistake }, |s| s.id == 15);
        let of_zero = |line: &&plugin_api_laws::Line| {
            ["of forty sequences of one", "of PREFIX, window 1, softcap 0", "of CAUSAL, window 1, softcap 0"]
                .contains(&line.case.as_str())
        };
        report.lines.iter().filter(of_zero).cloned().collect::<Vec<_>>()
    };
    // Rounding of the values themselves, in the last places: within the limits.
    let last_bit = lines(Input("y", |at, x| if at % 3 == 0 { f32::from_bits(x.to_bits() ^ 1) } else { x }));
    assert!(last_bit.len() == 3 && last_bit.iter().all(|line| line.passed), "{last_bit:?}");
    let error = |line: &plugin_api_laws::Line| line.agreement.unwrap().error;
    assert!(last_bit.iter().all(|line| error(line) > 0.0), "the mistake shows nowhere: {last_bit:?}");
    let short = lines(Input("y", short));
    assert!(short.len() == 3 && short.iter().all(|line| !line.passed), "{short:?}");
}
