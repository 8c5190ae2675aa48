//! Which operation is the backward of which: every forward case yields backward cases and gradient checks by these rules.

use super::{case::Case, stage::Outcome, tensor::Tensor};
use plugin_api::{
    Error, Result,
    backend::{
        catalogue::{Op, OpSpec, Usage},
        ops,
    },
};
use telos_random::SplitMix64;

type Pairs = &'static [(&'static str, &'static str)];

/// How a backward call is derived from a forward call.
pub struct Rule {
    /// The forward operation.
    pub forward: &'static OpSpec,
    /// The backward operation.
    pub backward: &'static OpSpec,
    /// Forward outputs that are backward inputs.
    pub saved: Pairs,
    /// Forward outputs and the backward inputs that hold their cotangents.
    pub cotangents: Pairs,
    /// Forward inputs and the backward outputs that hold their gradients.
    pub gradients: Pairs,
    /// A boolean attribute that the backward inverts.
    pub flips: Option<&'static str>,
    /// Column blocks of the backward, if the forward has them.
    pub packed: &'static [&'static [&'static str]],
}

const PLAIN: Rule = Rule {
    forward: ops::Nop::SPEC,
    backward: ops::Nop::SPEC,
    saved: &[],
    cotangents: &[("y", "dy")],
    gradients: &[("x", "dx")],
    flips: None,
    packed: &[],
};

/// All pairs of a forward and a backward operation.
pub const RULES: &[Rule] = &[
    Rule {
        forward: ops::Embedding::SPEC,
        backward: ops::EmbeddingBackward::SPEC,
        gradients: &[("table", "dtable")],
        ..PLAIN
    },
    Rule {
        forward: ops::Norm::SPEC,
        backward: ops::NormBackward::SPEC,
        saved: &[("sum", "x"), ("stats", "stats")],
        cotangents: &[("y", "dy"), ("sum", "dsum")],
        gradients: &[("x", "dx"), ("residual", "dx"), ("weight", "dweight"), ("bias", "dbias")],
        ..PLAIN
    },
    Rule { forward: ops::Linear::SPEC, backward: ops::LinearBackwardInput::SPEC, ..PLAIN },
    Rule {
        forward: ops::Linear::SPEC,
        backward: ops::LinearBackwardWeight::SPEC,
        gradients: &[("w", "dw"), ("bias", "dbias")],
        ..PLAIN
    },
    Rule {
        forward: ops::Rotary::SPEC,
        backward: ops::Rotary::SPEC,
        cotangents: &[("y", "x")],
        gradients: &[("x", "y")],
        flips: Some("inverse"),
        ..PLAIN
    },
    Rule {
        forward: ops::Attention::SPEC,
        backward: ops::AttentionBackward::SPEC,
        saved: &[("y", "y"), ("lse", "lse")],
        gradients: &[("q", "dq"), ("k", "dk"), ("v", "dv")],
        packed: &[&["q", "k", "v"], &["dq", "dk", "dv"]],
        ..PLAIN
    },
    Rule { forward: ops::Activation::SPEC, backward: ops::ActivationBackward::SPEC, ..PLAIN },
    Rule {
        forward: ops::Glu::SPEC,
        backward: ops::GluBackward::SPEC,
        gradients: &[("gate", "dgate"), ("up", "dup")],
        packed: &[&["gate", "up"], &["dgate", "dup"]],
        ..PLAIN
    },
    Rule {
        forward: ops::HeadStats::SPEC,
        backward: ops::HeadBackward::SPEC,
        saved: &[("lse", "lse"), ("entropy", "entropy"), ("logits", "logits")],
        cotangents: &[("logp", "dlogp"), ("lse", "dlse"), ("mean_logit", "dmean_logit"), ("entropy", "dentropy")],
        gradients: &[("x", "dx"), ("w", "dw"), ("bias", "dbias")],
        ..PLAIN
    },
    Rule {
        forward: ops::HeadStats::SPEC,
        backward: ops::HeadFused::SPEC,
        cotangents: &[("logp", "dlogp"), ("lse", "dlse"), ("mean_logit", "dmean_logit")],
        gradients: &[("x", "dx"), ("w", "dw"), ("bias", "dbias")],
        ..PLAIN
    },
    Rule { forward: ops::GatherRows::SPEC, backward: ops::ScatterAddRows::SPEC, ..PLAIN },
];

fn partner(pairs: Pairs, second: &str) -> Option<&'static str> {
    pairs.iter().find(|(_, b)| *b == second).map(|(a, _)| *a)
}

/// The content of gradients before the call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Zeros.
    Zero,
    /// Random values to which the call adds.
    Random,
}

impl Rule {
    /// The backward case of `forward`, whose outputs were `out`, with random cotangents.
    pub fn derive(&self, forward: &Case, out: &Outcome, rng: &mut SplitMix64, start: Start) -> Result<Case> {
        let mut case = Case {
            spec: self.backward,
            name: format!("of {}", forward.name),
            attrs: Vec::new(),
            operands: Vec::new(),
            packed: if forward.packed.is_empty() { &[] } else { self.packed },
            vary: forward.vary,
        };
        for spec in self.backward.attrs {
            let bits = forward.attr(spec.name).unwrap_or(0);
            let bits = if self.flips == Some(spec.name) { 1 - bits } else { bits };
            case.attrs.push((spec.name, spec.kind, bits));
        }
        for spec in self.backward.inputs {
            let tensor = if let Some(output) = partner(self.cotangents, spec.name) {
                out.output(output).map(|t| Tensor::normal(rng, t.rows, t.cols))
            } else if let Some(output) = partner(self.saved, spec.name) {
                out.output(output).cloned()
            } else {
                forward.operand(spec.name).cloned()
            };
            case = self.add(case, spec.name, tensor, spec.optional)?;
        }
        for spec in self.backward.outputs {
            let of = partner(self.gradients, spec.name).unwrap_or(spec.name);
            // Read only if `accumulate` is set, which no rule does.
            let overwrites = spec.usage == Usage::Output || self.backward.name == "linear_backward_input";
            let shape = forward.operand(of);
            let tensor = shape.map(|t| match start {
                _ if overwrites => Tensor::garbage(t.rows, t.cols),
                Start::Zero => Tensor::generate(t.rows, t.cols, || 0.0),
                Start::Random => Tensor::normal(rng, t.rows, t.cols),
            });
            case = self.add(case, spec.name, tensor, spec.optional)?;
        }
        Ok(case)
    }

    fn add(&self, case: Case, name: &'static str, tensor: Option<Tensor>, optional: bool) -> Result<Case> {
        match tensor {
            Some(tensor) => Ok(case.with(name, tensor)),
            None if optional => Ok(case),
            None => Err(Error::internal(format!(
                "{}: `{name}` of {} comes from nowhere",
                self.forward.name, self.backward.name
            ))),
        }
    }
}
