//! Inputs and outputs of a forward pass: batches, the choice of what is kept, and the activations that the backward pass reads.

use super::head_norms::UnnormedHeads;
use crate::device::Tensor;

/// Packed sequences: N tokens, one sequence after the other, without gaps.
#[derive(Debug, Clone, Copy)]
pub struct BatchView<'a> {
    /// Token ids, `[N]`.
    pub tokens: &'a [i32],
    /// Position of each token in its sequence, `[N]`; restarts with each sequence.
    pub positions: &'a [i32],
    /// cu_seqlens, `[S + 1]`: sequence s holds tokens `offsets[s]..offsets[s + 1]`.
    pub offsets: &'a [i32],
    /// How many tokens each sequence's prompt has, `[S]`. Only models whose attention mask is `prefix` read it; it may be empty
    /// for others.
    pub prompts: &'a [i32],
}

/// Which activations the backward pass recomputes instead of keeping them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Recompute {
    /// None: fastest, most memory.
    None,
    /// Those that are cheap to compute: outputs of norms and activation functions.
    #[default]
    Auto,
    /// All but each layer's input: one more forward pass, least memory.
    All,
}

/// What a forward pass keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Nothing: buffers are freed as soon as they are no longer needed.
    Nothing,
    /// What the backward pass needs.
    ForBackward(Recompute),
}

/// Which of a layer's activations are kept, in the order of the operations.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept {
    /// The layer's input.
    pub stream: bool,
    /// Statistics of the norms.
    pub stats: bool,
    /// Outputs of the norms.
    pub normed: bool,
    /// Rotated queries and keys, and values.
    pub qkv: bool,
    /// Attention's output and log-sum-exp.
    pub attended: bool,
    /// The stream between attention and feed-forward block, and outputs of the two before their norms.
    pub middle: bool,
    /// Input of the activation function.
    pub up: bool,
    /// Output of the activation function.
    pub active: bool,
}

impl Kept {
    const NOTHING: Kept = Kept {
        stream: false,
        stats: false,
        normed: false,
        qkv: false,
        attended: false,
        middle: false,
        up: false,
        active: false,
    };
    pub(super) const EVERYTHING: Kept = Kept {
        stream: true,
        stats: true,
        normed: true,
        qkv: true,
        attended: true,
        middle: true,
        up: true,
        active: true,
    };
}

impl From<Keep> for Kept {
    fn from(keep: Keep) -> Kept {
        match keep {
            Keep::Nothing => Kept::NOTHING,
            Keep::ForBackward(Recompute::None) => Kept::EVERYTHING,
            Keep::ForBackward(Recompute::Auto) => Kept { normed: false, active: false, ..Kept::EVERYTHING },
            Keep::ForBackward(Recompute::All) => Kept { stream: true, ..Kept::NOTHING },
        }
    }
}

/// The activations of a layer that exist. Shapes: N tokens, D width, Q and K widths of query and key heads, F feed-forward
/// width.
#[derive(Default)]
pub(super) struct Activations {
    /// Residual stream at the layer's input, `[N, D]`.
    pub stream: Option<Tensor>,
    pub stats1: Option<Tensor>,
    /// First norm's output, `[N, D]`, if the family has one.
    pub normed1: Option<Tensor>,
    /// Queries, keys (both rotated) and values, `[N, Q + 2K]`.
    pub qkv: Option<Tensor>,
    /// Queries and keys before their norms, if they have any.
    pub unnormed: Option<UnnormedHeads>,
    /// Attention's output, `[N, Q]`.
    pub attended: Option<Tensor>,
    pub lse: Option<Tensor>,
    /// Residual stream after attention, `[N, D]`. With parallel branches the backward pass does not read it.
    pub middle: Option<Tensor>,
    pub stats2: Option<Tensor>,
    /// Second norm's output, `[N, D]`, if the family has one.
    pub normed2: Option<Tensor>,
    /// Gate and up side by side, `[N, 2F]`, or up alone, `[N, F]`.
    pub up: Option<Tensor>,
    /// After the activation, `[N, F]`.
    pub active: Option<Tensor>,
    /// Outputs of attention and of the feed-forward block before their norms, if they have any, `[N, D]` each.
    pub after: [Option<Tensor>; 2],
    /// Statistics of these norms.
    pub after_stats: [Option<Tensor>; 2],
}

/// A batch on the device.
pub(super) struct DeviceBatch {
    pub tokens: u64,
    pub ids: Tensor,
    pub positions: Tensor,
    pub offsets: Tensor,
    /// Lengths of the prompts, if the attention mask reads them.
    pub prompts: Option<Tensor>,
}

/// The activations that the backward pass reads.
pub(super) struct Tape {
    pub layers: Vec<Activations>,
    /// Input of the last norm.
    pub stream: Tensor,
    pub stats: Tensor,
}

/// The result of a forward pass.
pub struct Forward {
    pub(super) batch: DeviceBatch,
    pub(super) hidden: Tensor,
    pub(super) tape: Option<Tape>,
}

impl Forward {
    /// Last hidden states after the last norm, `[N, D]`.
    pub fn hidden(&self) -> &Tensor {
        &self.hidden
    }

    /// Number of tokens.
    pub fn tokens(&self) -> u64 {
        self.batch.tokens
    }
}
