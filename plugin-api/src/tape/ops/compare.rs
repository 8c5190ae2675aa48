//! Operations without gradient: detached values and comparisons.

use super::operators::{Operand, elementwise};
use crate::tape::detached;
use crate::tape::graph::{Rule, State, Var};
use crate::tape::kind::OpKind;
use crate::tape::mask::Mask;

impl<'t> Var<'t> {
    /// The same value as a constant of the gradient.
    #[must_use]
    pub fn detach(self) -> Var<'t> {
        self.detach_as("")
    }

    /// The same value as a constant of the gradient. `name` is one of
    /// [`ObjectiveManifest::stop_gradients`](crate::manifest::ObjectiveManifest::stop_gradients); a law checks that it is
    /// detached.
    #[must_use]
    pub fn detach_as(self, name: &str) -> Var<'t> {
        self.tape.record(OpKind::Detach, &[self], |state: &State| {
            let mut value = state.value(self).clone();
            if let Some(values) = value.as_slice_mut() {
                detached::pass(name, values);
            }
            Ok((value, Rule::Stop { operands: vec![self.index] }))
        })
    }

    /// A mask of the elements that are greater than `other`; NaN is not. Scalars broadcast. For masks and for metrics such as a
    /// clip fraction.
    #[must_use]
    pub fn gt(self, other: impl Into<Operand<'t>>) -> Mask {
        self.compare(other.into(), |a, b| a > b)
    }

    /// A mask of the elements that are greater than or equal to `other`.
    #[must_use]
    pub fn ge(self, other: impl Into<Operand<'t>>) -> Mask {
        self.compare(other.into(), |a, b| a >= b)
    }

    /// A mask of the elements that are less than `other`.
    #[must_use]
    pub fn lt(self, other: impl Into<Operand<'t>>) -> Mask {
        self.compare(other.into(), |a, b| a < b)
    }

    /// A mask of the elements that are less than or equal to `other`.
    #[must_use]
    pub fn le(self, other: impl Into<Operand<'t>>) -> Mask {
        self.compare(other.into(), |a, b| a <= b)
    }

    fn compare(self, other: Operand<'t>, holds: impl Fn(f64, f64) -> bool) -> Mask {
        let other = other.on(self.tape);
        let indicator = self.tape.record(OpKind::Compare, &[self, other], |state| {
            let value = elementwise(OpKind::Compare, state, self, other, |a, b| f64::from(u8::from(holds(a, b))))?;
            Ok((value, Rule::Stop { operands: vec![self.index, other.index] }))
        });
        match indicator.read(|state| Mask::from(state.flat(indicator))) {
            Ok(mask) => mask,
            // The tape keeps the error; using the broken mask on any other tape is an error too.
            Err(error) => Mask::broken(error.to_string()),
        }
    }
}
