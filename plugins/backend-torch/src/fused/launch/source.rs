//! The sources of the kernels, and their names.

/// A source of kernels in `src/kernels/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Norms.
    Norm,
    /// Activation functions.
    Activation,
    /// Rotary position embedding.
    Rotary,
    /// The language-model head.
    Head,
    /// Global norm and optimizer.
    Optimizer,
}

impl Source {
    /// All of them.
    #[cfg(test)]
    pub const ALL: [Source; 5] = [Source::Norm, Source::Activation, Source::Rotary, Source::Head, Source::Optimizer];

    /// The file's name and text.
    pub fn file(self) -> (&'static str, &'static str) {
        match self {
            Source::Norm => ("norm.cu", include_str!("../../kernels/norm.cu")),
            Source::Activation => ("activation.cu", include_str!("../../kernels/activation.cu")),
            Source::Rotary => ("rotary.cu", include_str!("../../kernels/rotary.cu")),
            Source::Head => ("head.cu", include_str!("../../kernels/head.cu")),
            Source::Optimizer => ("optimizer.cu", include_str!("../../kernels/optimizer.cu")),
        }
    }
}

/// A kernel: its source and its name there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kernel(pub Source, pub &'static str);
