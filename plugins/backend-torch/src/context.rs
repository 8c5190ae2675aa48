//! Whether the device's context is alive. Some CUDA errors (a misaligned or illegal address, a failed assertion in a kernel, an
//! uncorrectable memory error) end it: every later call of the process on that device returns the same error. The first one is
//! reported as such; afterwards sessions of that device return `LOST` at once.

use crate::{fault::Attempt, shim};
use plugin_api::{Code, Error, Result};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};
use tch::Device;

/// Devices whose context has ended in this process, with the error that ended it.
static LOST: Mutex<BTreeMap<usize, String>> = Mutex::new(BTreeMap::new());

/// The context of a session's device. The processor has none, so its sessions are never lost.
#[derive(Clone, Copy, Debug)]
pub struct Context(pub Device);

impl Context {
    fn index(self) -> Option<usize> {
        match self.0 {
            Device::Cuda(index) => Some(index),
            _ => None,
        }
    }

    /// The error that ended it, if one did.
    fn ended_by(self) -> Option<String> {
        let lost = LOST.lock().unwrap_or_else(PoisonError::into_inner);
        lost.get(&self.index()?).cloned()
    }

    /// Whether calls can be made.
    pub fn is_alive(self) -> bool {
        self.ended_by().is_none()
    }

    /// Refuses a call in a context that has ended.
    ///
    /// # Errors
    /// `LOST` naming the error that ended it.
    pub fn check(self, operation: &str) -> Result<()> {
        match self.ended_by() {
            None => Ok(()),
            Some(first) => Err(Error::new(Code::LOST, format!("{operation}: the device is lost since: {first}"))),
        }
    }

    /// The outcome of a call. After an error of libtorch without a code of its own, waits for the device: if that fails too, the
    /// context has ended, and the error becomes `LOST`.
    ///
    /// # Errors
    /// The call's.
    pub fn after<T>(self, outcome: Result<T>) -> Result<T> {
        match self.index() {
            None => outcome,
            Some(index) => self.after_probe(outcome, || shim::synchronize(index)),
        }
    }

    fn after_probe<T>(self, outcome: Result<T>, probe: impl FnOnce() -> Attempt) -> Result<T> {
        let (Err(error), Some(index)) = (&outcome, self.index()) else { return outcome };
        if error.code != Code::INTERNAL || probe().is_ok() {
            return outcome;
        }
        let first = error.message.clone();
        LOST.lock().unwrap_or_else(PoisonError::into_inner).entry(index).or_insert_with(|| first.clone());
        let why = "this ended the device's context (kernels run behind the calls that start them, so an earlier operation \
                   may be the cause); nothing more can be computed on it in this process";
        Err(Error::new(Code::LOST, format!("{first}: {why}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Fault;

    fn misaligned() -> Fault {
        Fault::Torch("CUDA error: misaligned address".into())
    }

    /// Catches a session that reports the first error again as that of every later operation, and one that treats an error as
    /// fatal although the context survives.
    #[test]
    fn an_error_that_ends_the_context_is_reported_once_and_everything_after_it_is_lost() {
        let (context, other) = (Context(Device::Cuda(900)), Context(Device::Cuda(901)));
        let failed = || Err::<(), _>(misaligned().named("attention"));
        let survived = context.after_probe(failed(), || Ok(())).unwrap_err();
        assert_eq!((survived.code, context.is_alive()), (Code::INTERNAL, true));
        let ended = context.after_probe(failed(), || Err(misaligned())).unwrap_err();
        assert_eq!(ended.code, Code::LOST);
        assert!(ended.message.starts_with("attention: libtorch: CUDA error: misaligned address: this ended"));
        let later = context.check("linear").unwrap_err();
        assert_eq!(later.code, Code::LOST);
        assert_eq!(
            later.message,
            "linear: the device is lost since: attention: libtorch: CUDA error: misaligned address"
        );
        assert!(other.is_alive() && other.check("linear").is_ok());
    }

    /// Catches a probe after our own refusals and after exhausted memory, which do not harm the context.
    #[test]
    fn refusals_and_exhausted_memory_are_not_probed() {
        let context = Context(Device::Cuda(902));
        for code in [Code::SHAPE, Code::OUT_OF_MEMORY, Code::INDEX] {
            let refused = context.after_probe(Err::<(), _>(Error::new(code, "x")), || unreachable!());
            assert_eq!(refused.unwrap_err().code, code);
        }
        assert!(Context(Device::Cpu).after(Err::<(), _>(Error::internal("x"))).is_err());
    }
}
