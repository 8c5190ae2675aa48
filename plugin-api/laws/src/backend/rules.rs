//! How an operation's backward is derived: every forward case yields backward cases and gradient checks by the rules of its
//! family in `tables`.

use super::{case::Case, stage::Outcome, tensor::Tensor};
use plugin_api::{
    Error, Result,
    backend::{
        catalogue::{Op, OpSpec, OperandSpec, Usage},
        ops,
    },
};
use telos_random::SplitMix64;

type Pairs = &'static [(&'static str, &'static str)];

/// How a backward call is derived from a forward call.
pub struct Rule {
    /// The number of its generator of random inputs. It stays, so that a new rule leaves the inputs of the others as they are.
    pub number: u64,
    /// The forward operation.
    pub forward: &'static OpSpec,
    /// The backward operation.
    pub backward: &'static OpSpec,
    /// Forward outputs that are backward inputs.
    pub saved: Pairs,
    /// Forward outputs and the backward inputs that hold their cotangents; empty: `o` and `do`, by name.
    pub cotangents: Pairs,
    /// Forward inputs and the backward outputs that hold their gradients; empty: `x` and `dx`, by name.
    pub gradients: Pairs,
    /// A boolean attribute that the backward inverts.
    pub flips: Option<&'static str>,
    /// Column blocks of the backward, if the forward has them.
    pub packed: &'static [&'static [&'static str]],
}

/// A rule for operands that are related by their names, from which the others are written.
pub const PLAIN: Rule = Rule {
    number: 0,
    forward: ops::Nop::SPEC,
    backward: ops::Nop::SPEC,
    saved: &[],
    cotangents: &[],
    gradients: &[],
    flips: None,
    packed: &[],
};

fn partner(pairs: &[(&'static str, &'static str)], second: &str) -> Option<&'static str> {
    pairs.iter().find(|(_, b)| *b == second).map(|(a, _)| *a)
}

/// The pairs that are `given`, or else each operand of `forward` with the operand of `backward` that is named after it.
fn named(given: Pairs, forward: &[OperandSpec], backward: &[OperandSpec]) -> Vec<(&'static str, &'static str)> {
    if !given.is_empty() {
        return given.to_vec();
    }
    let of = |d: &OperandSpec| {
        let name = d.name.strip_prefix('d')?;
        forward.iter().find(|operand| operand.name == name).map(|operand| (operand.name, d.name))
    };
    backward.iter().filter_map(of).collect()
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
    /// Forward outputs with the backward inputs that hold their cotangents.
    pub fn cotangents(&self) -> Vec<(&'static str, &'static str)> {
        named(self.cotangents, self.forward.outputs, self.backward.inputs)
    }

    /// Forward inputs with the backward outputs that hold their gradients.
    pub fn gradients(&self) -> Vec<(&'static str, &'static str)> {
        named(self.gradients, self.forward.inputs, self.backward.outputs)
    }

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
        let (cotangents, gradients) = (self.cotangents(), self.gradients());
        for spec in self.backward.inputs {
            let tensor = if let Some(output) = partner(&cotangents, spec.name) {
                out.output(output).map(|t| Tensor::normal(rng, t.rows, t.cols))
            } else if let Some(output) = partner(self.saved, spec.name) {
                out.output(output).cloned()
            } else {
                forward.operand(spec.name).cloned()
            };
            case = self.add(case, spec.name, tensor, spec.optional)?;
        }
        for spec in self.backward.outputs {
            let of = partner(&gradients, spec.name).unwrap_or(spec.name);
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
