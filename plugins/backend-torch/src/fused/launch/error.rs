//! What can go wrong before a fused kernel runs.

use std::fmt;

/// Why kernels cannot be compiled or started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelError {
    /// A library is missing or lacks a function.
    Library {
        /// Its name.
        name: &'static str,
        /// Every place that was tried, with the reason.
        tried: String,
        /// What the user can do.
        remedy: &'static str,
    },
    /// NVRTC refused a source.
    Compile {
        /// The source's file name.
        source: &'static str,
        /// For example `sm_90`.
        architecture: String,
        /// NVRTC's messages.
        log: String,
    },
    /// A call of the driver or of NVRTC failed.
    Call {
        /// The function.
        function: &'static str,
        /// The library's own text.
        text: String,
    },
    /// The launch itself was refused.
    Launch {
        /// The kernel.
        kernel: &'static str,
        /// Why.
        text: String,
    },
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KernelError::Library { name, tried, remedy } => {
                write!(f, "the fused kernels need {name}, which cannot be opened ({tried}); {remedy}")
            }
            KernelError::Compile { source, architecture, log } => {
                let log = log.trim();
                write!(
                    f,
                    "NVRTC cannot compile {source} for {architecture}: {log}; `fused = false` avoids these kernels"
                )
            }
            KernelError::Call { function, text } => write!(f, "{function}: {text}"),
            KernelError::Launch { kernel, text } => write!(f, "kernel {kernel}: {text}"),
        }
    }
}

impl std::error::Error for KernelError {}

/// The outcome of such a step.
pub type Outcome<T = ()> = Result<T, KernelError>;
