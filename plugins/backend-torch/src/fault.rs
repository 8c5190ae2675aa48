//! Errors inside an operation, and how libtorch's messages become the contract's codes.

use crate::fused::launch::KernelError;
use plugin_api::{Code, Error, backend::ops};
use tch::TchError;

/// The result of work on tensors.
pub type Attempt<T = ()> = std::result::Result<T, Fault>;

/// A refusal of our own, or an error of libtorch.
#[derive(Debug)]
pub enum Fault {
    /// An error with code and text.
    Refused(Error),
    /// libtorch's message.
    Torch(String),
    /// An error of the fused kernels.
    Kernel(KernelError),
}

impl From<KernelError> for Fault {
    fn from(error: KernelError) -> Self {
        Fault::Kernel(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Fault::Refused(error)
    }
}

impl ops::Fault for Fault {
    fn named(self, operation: &str) -> Error {
        Fault::named(self, operation)
    }
}

impl From<TchError> for Fault {
    fn from(error: TchError) -> Self {
        Fault::Torch(match error {
            TchError::Torch(text) => text,
            other => other.to_string(),
        })
    }
}

/// For calls whose effect is what they write: libtorch returns another handle to the tensor that was written.
pub trait Done {
    /// The outcome without that handle.
    ///
    /// # Errors
    /// Those of the call.
    fn done(self) -> Attempt;
}

impl Done for std::result::Result<tch::Tensor, TchError> {
    fn done(self) -> Attempt {
        self.map(drop).map_err(Fault::from)
    }
}

/// Messages of CUDA's and the processor's allocators if memory is exhausted.
const EXHAUSTED: &[&str] = &[
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "failed to allocate",
    "storage size calculation overflowed",
];

/// The code of a message of libtorch or of CUDA's driver.
fn code_of(text: &str) -> Code {
    let lower = text.to_lowercase();
    let exhausted = EXHAUSTED.iter().any(|sign| lower.contains(sign)) || lower.contains("std::bad_alloc");
    if exhausted { Code::OUT_OF_MEMORY } else { Code::INTERNAL }
}

impl Fault {
    /// The contract's error for this fault in `operation`.
    pub fn named(self, operation: &str) -> Error {
        match self {
            Fault::Refused(error) => error,
            Fault::Kernel(error) => {
                let text = error.to_string();
                Error::new(code_of(&text), format!("{operation}: {text}"))
            }
            Fault::Torch(text) => {
                let code = code_of(&text);
                // The lines below the first are libtorch's own backtrace.
                Error::new(code, format!("{operation}: libtorch: {}", text.lines().next().unwrap_or_default()))
            }
        }
    }
}

/// Refuses attributes and operands that contradict each other.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub fn require(holds: bool, operation: &str, what: impl FnOnce() -> String) -> Attempt {
    if holds { Ok(()) } else { Err(Error::invalid(format!("{operation}: {}", what())).into()) }
}

/// Refuses shapes that contradict the attributes.
///
/// # Errors
/// `SHAPE`.
pub fn require_shape(holds: bool, operation: &str, what: impl FnOnce() -> String) -> Attempt {
    if holds { Ok(()) } else { Err(Error::new(Code::SHAPE, format!("{operation}: {}", what())).into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exhausted_memory_is_distinguished_from_every_other_message() {
        let code = |text: &str| Fault::Torch(text.into()).named("linear").code;
        assert_eq!(code("CUDA out of memory. Tried to allocate 20.00 GiB"), Code::OUT_OF_MEMORY);
        assert_eq!(code("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), Code::OUT_OF_MEMORY);
        assert_eq!(code("The size of tensor a (3) must match"), Code::INTERNAL);
    }

    #[test]
    fn a_message_names_the_operation_instead_of_a_backtrace() {
        let error = Fault::Torch("shapes differ\nException raised from".into()).named("linear");
        assert_eq!(error.message, "linear: libtorch: shapes differ");
    }
}
