//! Matrix products.

use crate::backend::catalogue::catalogue;

catalogue! {
    /// Linear layers, forward and backward.
    LinearOps

    /// `y = x w^T + bias`.
    10 Linear linear v 1 mandatory {
        in {
            /// Input.
            x: T[N, I],
            /// Weight, one row per output.
            w: T[O, I],
        }
        opt {
            /// Bias.
            bias: T[1, O],
        }
        out {
            /// Output.
            y: T[N, O],
        }
    }

    /// `dx = dy w`, or `dx += dy w`.
    11 LinearBackwardInput linear_backward_input v 1 mandatory {
        in {
            /// Cotangent of the output.
            dy: T[N, O],
            /// Weight.
            w: T[O, I],
        }
        update {
            /// Cotangent of the input; read only if `accumulate`.
            dx: T[N, I],
        }
        attr {
            /// Add to `dx` instead of overwriting it.
            accumulate: bool = false,
        }
    }

    /// `dw += dy^T x`, `dbias += sum_n dy[n]`.
    12 LinearBackwardWeight linear_backward_weight v 1 mandatory {
        in {
            /// Input of the forward.
            x: T[N, I],
            /// Cotangent of the output.
            dy: T[N, O],
        }
        update {
            /// Gradient of the weight.
            dw: A[O, I],
        }
        opt_update {
            /// Gradient of the bias.
            dbias: A[1, O],
        }
    }
}
