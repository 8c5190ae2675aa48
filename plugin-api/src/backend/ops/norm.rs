//! Normalisation.

use crate::backend::catalogue::{attr_enum, catalogue};

attr_enum! {
    /// Which normalisation.
    NormKind {
        /// `x / sqrt(mean(x^2) + eps)` (Zhang and Sennrich 2019).
        RMS = 1,
        /// `(x - mean) / sqrt(var + eps)`, biased variance (Ba et al. 2016).
        LAYER = 2,
    }
}

catalogue! {
    /// Normalisation, forward and backward.
    NormOps

    /// Residual add and norm: `s = x + residual; y = norm(s) * (weight_offset + weight) + bias`.
    8 Norm norm v 1 mandatory {
        in {
            /// Branch input.
            x: T[N, D],
        }
        opt {
            /// Residual stream; absent: `s = x`.
            residual: T[N, D],
            /// Gain; absent: the whole factor is 1, whatever the offset.
            weight: T[1, D],
            /// Shift; absent: 0.
            bias: T[1, D],
        }
        out {
            /// Normalised.
            y: T[N, D],
        }
        opt_out {
            /// `s`, the new residual stream.
            sum: T[N, D],
            /// Mean (0 for RMS) and reciprocal standard deviation per token, for the backward.
            stats: A[N, 2],
        }
        attr {
            /// RMS or layer norm.
            kind: NormKind = NormKind::RMS,
            /// Added to the variance.
            eps: f64 = 1e-5,
            /// Added to the gain (1 for families that store `gain - 1`).
            weight_offset: f64 = 0.0,
        }
        alias { sum = x, sum = residual, }
    }

    /// Backward of [`Norm`]: `dx` is the cotangent of `s`, `dsum` included.
    9 NormBackward norm_backward v 1 mandatory {
        in {
            /// `s` of the forward.
            x: T[N, D],
            /// The forward's statistics.
            stats: A[N, 2],
            /// Cotangent of `y`.
            dy: T[N, D],
        }
        opt {
            /// Gain of the forward.
            weight: T[1, D],
            /// Cotangent of `s` from another path (the residual stream); added to `dx`.
            dsum: T[N, D],
        }
        out {
            /// Cotangent of `s`.
            dx: T[N, D],
        }
        opt_update {
            /// Gradient of the gain.
            dweight: A[1, D],
            /// Gradient of the shift.
            dbias: A[1, D],
        }
        attr {
            /// RMS or layer norm.
            kind: NormKind = NormKind::RMS,
            /// As in the forward.
            weight_offset: f64 = 0.0,
        }
        alias { dx = dsum, dx = dy, }
    }
}
