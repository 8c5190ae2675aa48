//! Integers that lie on the device too, and what operations derive from them, kept until their buffers are written.

use crate::fault::Attempt;
use plugin_api::{
    Error,
    backend::{Handle, View},
};
use std::{any::Any, collections::BTreeMap, sync::Arc};
use tch::Tensor;

/// The location of integers: buffer, offset, rows, columns, distance between rows.
type Place = (Handle, [u64; 4]);

fn place(view: &View) -> Place {
    (view.buffer, [view.offset, view.rows, view.cols, view.row_stride])
}

/// Integers read from a buffer at one of its write versions.
pub(crate) struct Known {
    version: u64,
    pub(crate) values: Arc<[i32]>,
    /// `[n]`, 64 bits; absent until an operation needs it.
    pub(crate) on_device: Option<Tensor>,
}

/// What an operation derives from integer operands: its name, the operands at their write versions, and its attributes.
#[derive(PartialEq)]
pub(crate) struct Derivation {
    of: &'static str,
    operands: Vec<(Place, u64)>,
    attributes: Vec<i64>,
}

impl Derivation {
    /// Of operands, each with the write version of its buffer.
    pub(crate) fn new(of: &'static str, operands: &[(&View, u64)], attributes: Vec<i64>) -> Derivation {
        let operands = operands.iter().map(|(view, version)| (place(view), *version)).collect();
        Derivation { of, operands, attributes }
    }
}

/// Maximum number of integer operands kept; a step has a few per micro-batch.
const MOST_KNOWN: usize = 64;
/// Maximum number of derived values kept: attention of two kinds of layers, of two models.
const MOST_DERIVED: usize = 4;

/// The integers of a session.
#[derive(Default)]
pub(crate) struct Integers {
    known: BTreeMap<Place, Known>,
    derived: Vec<(Derivation, Box<dyn Any + Send>)>,
}

impl Integers {
    /// An operand's integers, read by `read` unless they are known at this write version.
    ///
    /// # Errors
    /// Those of `read`.
    pub(crate) fn known(
        &mut self,
        view: &View,
        version: u64,
        read: impl FnOnce() -> Attempt<Vec<i32>>,
    ) -> Attempt<&mut Known> {
        let place = place(view);
        if self.known.get(&place).is_none_or(|known| known.version != version) {
            let values = read()?.into();
            if self.known.len() >= MOST_KNOWN {
                self.known.clear();
            }
            self.known.insert(place, Known { version, values, on_device: None });
        }
        Ok(self.known.get_mut(&place).ok_or_else(|| Error::internal("integers that were just read"))?)
    }

    /// Takes what was kept under that description.
    pub(crate) fn take<T: Any>(&mut self, key: &Derivation) -> Option<T> {
        let at = self.derived.iter().position(|(kept, _)| kept == key)?;
        self.derived.remove(at).1.downcast().ok().map(|kept| *kept)
    }

    /// Keeps a value, and drops those whose operands do not have their write versions any more.
    pub(crate) fn keep<T: Any + Send>(&mut self, key: Derivation, value: T, is_current: impl Fn(Handle, u64) -> bool) {
        let current = |(place, version): &(Place, u64)| is_current(place.0, *version);
        self.derived.retain(|(kept, _)| kept.operands.iter().all(current));
        if self.derived.len() >= MOST_DERIVED {
            self.derived.remove(0);
        }
        self.derived.push((key, Box::new(value)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::backend::DType;

    /// Catches values that are kept without a bound, a value of one key returned for another, and one that stays although its
    /// operand was written.
    #[test]
    fn only_the_latest_current_values_are_kept() {
        let view = View::dense(Handle(7), DType::I32, 1, 4);
        let key = |attribute: i64, version: u64| Derivation::new("test", &[(&view, version)], vec![attribute]);
        let mut integers = Integers::default();
        let most = MOST_DERIVED as i64;
        for attribute in 0..=most {
            integers.keep(key(attribute, 1), attribute, |_, version| version == 1);
        }
        assert_eq!(integers.derived.len(), MOST_DERIVED);
        assert_eq!(integers.take::<i64>(&key(0, 1)), None);
        assert_eq!(integers.take::<i64>(&key(most, 1)), Some(most));
        assert_eq!(integers.take::<i64>(&key(most, 1)), None);
        integers.keep(key(7, 2), 70i64, |_, version| version == 2);
        assert_eq!(integers.derived.len(), 1);
        assert_eq!(integers.take::<i64>(&key(7, 2)), Some(70));
    }
}
