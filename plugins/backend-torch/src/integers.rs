//! Integer operands, on the host and on the device, and what operations derive from them.
//!
//! Integers lie in the host's memory, because every index is checked before it is used. Many operations of a step read the same
//! positions, targets and bounds, and all layers derive the same from them: both are kept until their buffer is written, so each is
//! uploaded once per micro-batch.

use crate::{TorchSession, fault::Attempt, queue};
use plugin_api::{
    Code, Error,
    backend::{Handle, View},
};
use std::{any::Any, collections::BTreeMap, ops::Range, sync::Arc};
use tch::{Kind, Tensor};

/// The location of integers: buffer, offset, rows, columns, distance between rows.
type Place = (Handle, [u64; 4]);

fn place(view: &View) -> Place {
    (view.buffer, [view.offset, view.rows, view.cols, view.row_stride])
}

/// Integers read from a buffer at one of its write versions.
struct Known {
    version: u64,
    values: Arc<[i32]>,
    /// `[n]`, 64 bits; absent until an operation needs it.
    on_device: Option<Tensor>,
}

/// What an operation derives from integer operands: its name, the operands at their write versions, and its attributes.
#[derive(PartialEq)]
pub(crate) struct Derivation {
    of: &'static str,
    operands: Vec<(Place, u64)>,
    attributes: Vec<i64>,
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

/// Refuses values outside `0..table`.
fn inside(operation: &str, name: &str, values: &[i32], table: u64) -> Attempt {
    let outside = |&value: &i32| u64::try_from(value).map_or(true, |value| value >= table);
    if let Some(at) = values.iter().position(outside) {
        let text = format!("{operation}: {name}[{at}] is {}, the table has {table} rows", values[at]);
        return Err(Error::new(Code::INDEX, text).into());
    }
    Ok(())
}

impl TorchSession {
    /// `read` of the values of an integer operand that are known, or read now.
    #[expect(clippy::disallowed_methods, reason = "integers lie in the host's memory: nothing is waited for")]
    fn known<T>(&self, view: &View, read: impl FnOnce(&mut Known) -> Attempt<T>) -> Attempt<T> {
        let version = self.write_version_of(view)?;
        let known = &mut self.integers.borrow_mut().known;
        if known.get(&place(view)).is_none_or(|known| known.version != version) {
            let tensor = self.at(view)?.f_contiguous()?;
            let mut values = vec![0; tensor.numel()];
            let count = values.len();
            tensor.f_copy_data(&mut values, count)?;
            if known.len() >= MOST_KNOWN {
                known.clear();
            }
            known.insert(place(view), Known { version, values: values.into(), on_device: None });
        }
        let known = known.get_mut(&place(view)).ok_or_else(|| Error::internal("integers that were just read"))?;
        read(known)
    }

    /// The values of an integer operand.
    pub(crate) fn ints(&self, view: &View) -> Attempt<Arc<[i32]>> {
        self.known(view, |known| Ok(Arc::clone(&known.values)))
    }

    /// An integer operand on the device, `[n]`, without a check of its values.
    pub(crate) fn index_unchecked(&self, view: &View) -> Attempt<Tensor> {
        self.known(view, |known| {
            if known.on_device.is_none() {
                let wide: Vec<i64> = known.values.iter().copied().map(i64::from).collect();
                known.on_device = Some(self.upload_indices(&wide)?);
            }
            let on_device = known.on_device.as_ref().map(Tensor::shallow_clone);
            Ok(on_device.ok_or_else(|| Error::internal("integers that were just uploaded"))?)
        })
    }

    /// An integer operand whose values must lie in `0..table`.
    ///
    /// # Errors
    /// `INDEX` naming the first that does not, and the table's size.
    pub(crate) fn indices(&self, operation: &str, name: &str, view: &View, table: u64) -> Attempt<Vec<i64>> {
        let values = self.ints(view)?;
        inside(operation, name, &values, table)?;
        Ok(values.iter().copied().map(i64::from).collect())
    }

    /// [`TorchSession::indices`] as a tensor on the device.
    pub(crate) fn index(&self, operation: &str, name: &str, view: &View, table: u64) -> Attempt<Tensor> {
        inside(operation, name, &self.ints(view)?, table)?;
        self.index_unchecked(view)
    }

    /// Indices as a tensor on the device, without waiting for it.
    pub(crate) fn upload_indices(&self, values: &[i64]) -> Attempt<Tensor> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
        let mut tensor = Tensor::f_empty([values.len() as i64], (Kind::Int64, self.device()))?;
        queue::upload(&mut tensor, &bytes)?;
        self.note_upload();
        Ok(tensor)
    }

    /// Offsets that must ascend from 0 to `end`, as ranges.
    ///
    /// # Errors
    /// `INDEX`.
    pub(crate) fn ranges(&self, operation: &str, name: &str, view: &View, end: u64) -> Attempt<Vec<Range<i64>>> {
        let offsets: Vec<i64> = self.ints(view)?.iter().copied().map(i64::from).collect();
        let ascends = offsets.windows(2).all(|pair| pair[0] <= pair[1]);
        let last = offsets.last().and_then(|&last| u64::try_from(last).ok());
        if !ascends || offsets.first() != Some(&0) || last != Some(end) {
            let text = format!("{operation}: {name} must ascend from 0 to {end}, they are {offsets:?}");
            return Err(Error::new(Code::INDEX, text).into());
        }
        Ok(offsets.windows(2).map(|pair| pair[0]..pair[1]).collect())
    }

    /// The description of what an operation derives from these operands as they are now, and from its attributes.
    ///
    /// # Errors
    /// A buffer that does not exist.
    pub(crate) fn derivation(&self, of: &'static str, operands: &[&View], attributes: Vec<i64>) -> Attempt<Derivation> {
        let versioned = |view: &&View| Ok((place(view), self.write_version_of(view)?));
        let operands = operands.iter().map(versioned).collect::<Attempt<_>>()?;
        Ok(Derivation { of, operands, attributes })
    }

    /// Takes what was kept under that description; whoever takes it keeps it again after use.
    pub(crate) fn take_derived<T: Any>(&self, key: &Derivation) -> Option<T> {
        let derived = &mut self.integers.borrow_mut().derived;
        let at = derived.iter().position(|(kept, _)| kept == key)?;
        derived.remove(at).1.downcast().ok().map(|kept| *kept)
    }

    /// Keeps a derived value until its operands are written, or until there are many newer ones.
    pub(crate) fn keep_derived<T: Any + Send>(&self, key: Derivation, value: T) {
        let derived = &mut self.integers.borrow_mut().derived;
        let current = |(place, version): &(Place, u64)| {
            self.pool.write_version(place.0).is_ok_and(|version_now| version_now == *version)
        };
        derived.retain(|(kept, _)| kept.operands.iter().all(current));
        if derived.len() >= MOST_DERIVED {
            derived.remove(0);
        }
        derived.push((key, Box::new(value)));
    }
}
