//! Integer operands, on the host and on the device, and what operations derive from them.
//!
//! Integers lie in the host's memory, because every index is checked before it is used. Many operations of a step read the same
//! positions, targets and bounds, and all layers derive the same from them: both are kept until their buffer is written, so each is
//! uploaded once per micro-batch.

use crate::{
    TorchSession,
    fault::Attempt,
    queue::{
        self,
        kept::{Derivation, Known},
    },
};
use plugin_api::{Code, Error, backend::View};
use std::{any::Any, ops::Range, sync::Arc};
use tch::{Kind, Tensor};

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
    /// `of` an integer operand that is known, or read now.
    #[expect(clippy::disallowed_methods, reason = "integers lie in the host's memory: nothing is waited for")]
    fn known<T>(&self, view: &View, of: impl FnOnce(&mut Known) -> Attempt<T>) -> Attempt<T> {
        let read = || {
            let tensor = self.at(view)?.f_contiguous()?;
            let mut values = vec![0; tensor.numel()];
            let count = values.len();
            tensor.f_copy_data(&mut values, count)?;
            Ok(values)
        };
        of(self.integers.borrow_mut().known(view, self.write_version_of(view)?, read)?)
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
    pub(crate) fn derivation<'a>(
        &self,
        of: &'static str,
        operands: &[&'a View],
        attributes: Vec<i64>,
    ) -> Attempt<Derivation> {
        let versioned = |view: &&'a View| Ok((*view, self.write_version_of(view)?));
        let operands = operands.iter().map(versioned).collect::<Attempt<Vec<_>>>()?;
        Ok(Derivation::new(of, &operands, attributes))
    }

    /// Takes what was kept under that description; whatever takes it keeps it again after use.
    pub(crate) fn take_derived<T: Any>(&self, key: &Derivation) -> Option<T> {
        self.integers.borrow_mut().take(key)
    }

    /// Keeps a derived value until its operands are written, or until there are many newer ones.
    pub(crate) fn keep_derived<T: Any + Send>(&self, key: Derivation, value: T) {
        let is_current = |buffer, version| self.pool.write_version(buffer).is_ok_and(|now| now == version);
        self.integers.borrow_mut().keep(key, value, is_current);
    }
}
