//! The backward pass: how each kind of node passes its cotangent to its operands, and the resulting gradients.

use ndarray::ArrayD;

use super::error::TapeError;
use super::graph::{NO_SEGMENT, Node, Rule, Tape, Var, array, chain, flat};
use super::ops::{logsumexp_backward, matmul_backward};

/// The derivatives of one scalar by every input of its tape.
#[derive(Debug, Clone)]
pub struct Gradients<'t> {
    tape: &'t Tape,
    /// In the order the inputs were declared.
    inputs: Vec<(usize, String, ArrayD<f64>)>,
}

impl<'t> Gradients<'t> {
    /// The gradient by `input`, of its shape; `None` if it was not created by [`Tape::input`] of this tape.
    pub fn get(&self, input: Var<'t>) -> Option<&ArrayD<f64>> {
        let found = self.inputs.iter().find(|(index, ..)| *index == input.index && std::ptr::eq(self.tape, input.tape));
        found.map(|(_, _, gradient)| gradient)
    }

    /// Every input's name and gradient, in the order in which the inputs were declared. An input that the scalar does not depend
    /// on has zeros.
    pub fn by_name(&self) -> impl Iterator<Item = (&str, &ArrayD<f64>)> {
        self.inputs.iter().map(|(_, name, gradient)| (name.as_str(), gradient))
    }

    /// The same as owned values, for use after the tape is dropped.
    pub fn into_named(self) -> Vec<(String, ArrayD<f64>)> {
        self.inputs.into_iter().map(|(_, name, gradient)| (name, gradient)).collect()
    }
}

impl Tape {
    /// The derivatives of the scalar `root` by all inputs. May be called for several terms in turn; the calls are independent.
    ///
    /// # Errors
    /// The first mistake made on the tape; a `root` that is not a scalar (`[1]` is a vector) or belongs to another tape.
    pub fn backward<'t>(&'t self, root: Var<'t>) -> Result<Gradients<'t>, TapeError> {
        self.finish()?;
        if !std::ptr::eq(root.tape, self) {
            return Err(TapeError::ForeignVar { op: "backward" });
        }
        let state = self.state();
        let nodes = &state.nodes;
        if nodes[root.index].value.ndim() != 0 {
            let found = nodes[root.index].value.shape().to_vec();
            return Err(TapeError::NotScalar { wanted: "a gradient", found });
        }
        let mut cotangents = Cotangents { nodes, slots: vec![None; nodes.len()] };
        cotangents.add(root.index, |cotangent| cotangent[0] = 1.0);
        for (index, node) in nodes.iter().enumerate().take(root.index + 1).rev() {
            if matches!(node.rule, Rule::Input { .. }) {
                continue;
            }
            // Moved out, not borrowed: an inner node's cotangent is freed as soon as it has been passed on.
            if let Some(cotangent) = cotangents.slots[index].take() {
                cotangents.propagate(node, &cotangent);
            }
        }
        let mut inputs = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            if let Rule::Input { name } = &node.rule {
                let cotangent = cotangents.slots[index].take().unwrap_or_else(|| vec![0.0; node.value.len()]);
                inputs.push((index, name.clone(), array(node.value.shape(), cotangent)));
            }
        }
        Ok(Gradients { tape: self, inputs })
    }
}

/// As [`chain`]; for functions that select, a derivative of zero blocks an infinite cotangent as well.
fn chain_selecting(selects: bool, cotangent: f64, derivative: f64) -> f64 {
    if selects && derivative == 0.0 { 0.0 } else { chain(cotangent, derivative) }
}

struct Cotangents<'a> {
    nodes: &'a [Node],
    slots: Vec<Option<Vec<f64>>>,
}

impl Cotangents<'_> {
    /// Lets `fill` add to the cotangent of node `index`, if the node depends on any input.
    fn add(&mut self, index: usize, fill: impl FnOnce(&mut [f64])) {
        let node = &self.nodes[index];
        if node.differentiable {
            fill(self.slots[index].get_or_insert_with(|| vec![0.0; node.value.len()]));
        }
    }

    /// The same for an operand of an elementwise function: `part(i)` is what output element `i` contributes to it; a broadcast
    /// scalar gets the sum of all.
    fn add_broadcast(&mut self, index: usize, length: usize, part: impl Fn(usize) -> f64) {
        let scalar = self.nodes[index].value.ndim() == 0;
        self.add(index, |slot| {
            if scalar {
                slot[0] += (0..length).map(part).sum::<f64>();
            } else {
                slot.iter_mut().enumerate().for_each(|(i, slot)| *slot += part(i));
            }
        });
    }

    fn propagate(&mut self, node: &Node, cotangent: &[f64]) {
        let nodes = self.nodes;
        let length = cotangent.len();
        match &node.rule {
            Rule::Input { .. } | Rule::Stop { .. } => {}
            Rule::Map { function, x } => {
                let (selects, values, y) = (function.selects(), flat(&nodes[*x].value), flat(&node.value));
                self.add(*x, |slot| {
                    for (((slot, g), x), y) in slot.iter_mut().zip(cotangent).zip(values).zip(y) {
                        *slot += chain_selecting(selects, *g, function.derivative(*x, *y));
                    }
                });
            }
            Rule::Pairwise { function, a, b } => {
                let (left, right) = (broadcast_reader(&nodes[*a]), broadcast_reader(&nodes[*b]));
                let derivatives = |i| function.derivatives(left(i), right(i));
                let selects = function.selects();
                self.add_broadcast(*a, length, |i| chain_selecting(selects, cotangent[i], derivatives(i).0));
                self.add_broadcast(*b, length, |i| chain_selecting(selects, cotangent[i], derivatives(i).1));
            }
            Rule::Select { bits, a, b } => {
                self.add_broadcast(*a, length, |i| if bits[i] { cotangent[i] } else { 0.0 });
                self.add_broadcast(*b, length, |i| if bits[i] { 0.0 } else { cotangent[i] });
            }
            Rule::Gather { x, index } => self.add(*x, |slot| {
                for (from, g) in index.iter().zip(cotangent) {
                    slot[*from] += g;
                }
            }),
            Rule::Scatter { x, segment, divisor } => self.add(*x, |slot| {
                for (slot, to) in slot.iter_mut().zip(segment) {
                    if *to != NO_SEGMENT {
                        *slot += cotangent[*to] / divisor[*to];
                    }
                }
            }),
            Rule::Concat { parts } => {
                let mut rest = cotangent;
                for part in parts {
                    let (own, after) = rest.split_at(nodes[*part].value.len());
                    self.add(*part, |slot| slot.iter_mut().zip(own).for_each(|(slot, g)| *slot += g));
                    rest = after;
                }
            }
            Rule::LogSumExp { x, width } => {
                let values = flat(&nodes[*x].value);
                self.add(*x, |slot| logsumexp_backward(cotangent, values, *width, slot));
            }
            Rule::Matmul { a, b, inner, columns } => {
                let (left, right) = (flat(&nodes[*a].value), flat(&nodes[*b].value));
                let (by_left, by_right) = matmul_backward(cotangent, left, right, *inner, *columns);
                self.add(*a, |slot| slot.iter_mut().zip(by_left).for_each(|(slot, g)| *slot += g));
                self.add(*b, |slot| slot.iter_mut().zip(by_right).for_each(|(slot, g)| *slot += g));
            }
        }
    }
}

/// Reads a node's elements; for a scalar, its one element at every index.
fn broadcast_reader(node: &Node) -> impl Fn(usize) -> f64 {
    let (values, step) = (flat(&node.value), usize::from(node.value.ndim() > 0));
    move |i| values[i * step]
}
