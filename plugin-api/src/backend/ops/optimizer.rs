//! Gradient norm and optimizer step over flat buffers.

use crate::backend::catalogue::catalogue;

/// Every tensor in a flat parameter buffer starts at a multiple of this many elements; the gaps hold zeros.
pub const FLAT_ALIGN: u64 = 64;

catalogue! {
    /// Gradient norm and optimizer step.
    OptimizerOps

    /// `norm = (sqrt(sum x^2), 1 if that is finite else 0)`, summed in f64 in fixed chunks.
    25 GlobalNorm global_norm v 1 mandatory {
        in {
            /// Flat gradients.
            x: A[1, M],
        }
        out {
            /// Norm and finite flag.
            norm: A[1, 2],
        }
    }

    /// AdamW with decoupled decay (Loshchilov and Hutter 2019) over a flat buffer, as `torch.optim.AdamW` orders it:
    /// `p *= 1 - lr wd; m += (1 - b1)(g - m); v = b2 v + (1 - b2) g^2;
    /// p -= lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + eps)`, with `g` scaled by
    /// `min(1, clip / (norm + 1e-6))` where `clip > 0`. Nothing changes where the finite flag is 0.
    26 AdamW adamw v 1 mandatory {
        in {
            /// Flat gradients.
            grads: A[1, M],
            /// The output of [`GlobalNorm`].
            norm: A[1, 2],
            /// Segment g holds elements `64 bounds[g]..64 bounds[g + 1]`; ascending from 0 to M / 64.
            bounds: I[1, (G + 1)],
            /// Learning rate and weight decay per segment.
            hyper: A[G, 2],
        }
        opt_out {
            /// Copy of the new parameters in the compute dtype.
            shadow: F[1, M],
        }
        update {
            /// Flat master parameters.
            params: A[1, M],
            /// First moments.
            m: A[1, M],
            /// Second moments.
            v: A[1, M],
        }
        attr {
            /// Decay of the first moment.
            beta1: f64 = 0.9,
            /// Decay of the second moment.
            beta2: f64 = 0.999,
            /// Added to the denominator.
            eps: f64 = 1e-8,
            /// Largest norm; 0: no clipping.
            clip: f64 = 0.0,
            /// Number of this update, from 1.
            step: i64 = 1,
        }
    }
}
