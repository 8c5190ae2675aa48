//! Activation functions, plain and gated.

use crate::backend::catalogue::{attr_enum, catalogue};

attr_enum! {
    /// Which activation function.
    ActivationKind {
        /// `0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))` (`gelu_new`, `gelu_pytorch_tanh`).
        GELU_TANH = 1,
        /// `0.5 x (1 + erf(x / sqrt 2))`.
        GELU_ERF = 2,
        /// `x sigmoid(x)`.
        SILU = 3,
        /// `max(x, 0)`, derivative 0 at 0.
        RELU = 4,
    }
}

catalogue! {
    /// Activation functions, forward and backward.
    ActivationOps

    /// `y = f(x)`.
    16 Activation activation v 1 mandatory {
        in {
            /// Input.
            x: T[N, F],
        }
        out {
            /// Output.
            y: T[N, F],
        }
        attr {
            /// Which function.
            kind: ActivationKind = ActivationKind::SILU,
        }
        alias { y = x, }
    }

    /// `dx = dy f'(x)`.
    17 ActivationBackward activation_backward v 1 mandatory {
        in {
            /// Input of the forward.
            x: T[N, F],
            /// Cotangent of the output.
            dy: T[N, F],
        }
        out {
            /// Cotangent of the input.
            dx: T[N, F],
        }
        attr {
            /// Which function.
            kind: ActivationKind = ActivationKind::SILU,
        }
        alias { dx = dy, dx = x, }
    }

    /// `y = f(gate) * up` (Shazeer 2020).
    18 Glu glu v 1 mandatory {
        in {
            /// Gate.
            gate: T[N, F],
            /// The factor that is gated.
            up: T[N, F],
        }
        out {
            /// Output.
            y: T[N, F],
        }
        attr {
            /// Which function.
            kind: ActivationKind = ActivationKind::SILU,
        }
        alias { y = gate, y = up, }
    }

    /// `dgate = dy * up * f'(gate)`, `dup = dy * f(gate)`.
    19 GluBackward glu_backward v 1 mandatory {
        in {
            /// Gate of the forward.
            gate: T[N, F],
            /// The gated factor of the forward.
            up: T[N, F],
            /// Cotangent of the output.
            dy: T[N, F],
        }
        out {
            /// Cotangent of the gate.
            dgate: T[N, F],
            /// Cotangent of the gated factor.
            dup: T[N, F],
        }
        attr {
            /// Which function.
            kind: ActivationKind = ActivationKind::SILU,
        }
        alias { dgate = gate, dup = up, dgate = dy, }
    }
}
