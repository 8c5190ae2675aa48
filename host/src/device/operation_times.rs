//! How often the operations of a device were called and how long the calls took, by the host's clock.
//!
//! Unlike [`profile`](super::profile) this does not wait for the device, so that it costs two readings of the clock per call (about
//! 0.15 us) and may stay on in a run. The times are right only on devices that have computed an operation when its call returns:
//! the processor.

use std::{cell::RefCell, collections::BTreeMap, time::Instant};

use plugin_api::backend::catalogue::OpSpec;

/// Calls of one operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OperationTime {
    /// Its name.
    pub name: &'static str,
    /// Number of calls.
    pub calls: u64,
    /// Total nanoseconds.
    pub nanoseconds: u64,
}

/// The calls of all operations since they were last taken; off until [`OperationTimes::begin`].
#[derive(Default)]
pub(super) struct OperationTimes(RefCell<Option<BTreeMap<u32, OperationTime>>>);

impl OperationTimes {
    /// Measures from now on.
    pub(super) fn begin(&self) {
        *self.0.borrow_mut() = Some(BTreeMap::new());
    }

    /// Runs `call`, a call of the operation `spec`, and adds its time if measuring has begun.
    pub(super) fn measure<R>(&self, spec: &'static OpSpec, call: impl FnOnce() -> R) -> R {
        if self.0.borrow().is_none() {
            return call();
        }
        let start = Instant::now();
        let result = call();
        let nanoseconds = start.elapsed().as_nanos() as u64;
        if let Some(all) = self.0.borrow_mut().as_mut() {
            let own = all.entry(spec.id).or_default();
            *own = OperationTime { name: spec.name, calls: own.calls + 1, nanoseconds: own.nanoseconds + nanoseconds };
        }
        result
    }

    /// Returns and resets the recorded calls; none if nothing is measured.
    pub(super) fn take(&self) -> Vec<OperationTime> {
        self.0.borrow_mut().as_mut().map(std::mem::take).unwrap_or_default().into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use plugin_api::backend::ops::CATALOGUE;

    use super::*;

    /// Catches times that are measured before they are wanted, are taken twice, or belong to another operation.
    #[test]
    fn calls_are_counted_by_operation_until_they_are_taken() {
        let times = OperationTimes::default();
        let [first, second] = [&CATALOGUE[0], &CATALOGUE[1]];
        assert_eq!((times.measure(first, || 7), times.take()), (7, Vec::new()));
        times.begin();
        times.measure(second, || std::thread::sleep(Duration::from_millis(2)));
        times.measure(second, || ());
        times.measure(first, || ());
        let all = times.take();
        let of = |spec: &OpSpec| *all.iter().find(|one| one.name == spec.name).unwrap();
        assert_eq!((all.len(), of(first).calls, of(second).calls), (2, 1, 2));
        assert!(of(second).nanoseconds >= 2_000_000 && of(first).nanoseconds < of(second).nanoseconds, "{all:?}");
        assert!(times.take().is_empty());
    }
}
