//! Filling, copying and scaling, element by element.

use crate::backend::catalogue::catalogue;

catalogue! {
    /// Operations element by element.
    ElementwiseOps

    /// Does nothing; measures the cost of a call across the ABI.
    0 Nop nop v 1 mandatory {}

    /// `x = value`.
    1 Fill fill v 1 mandatory {
        out {
            /// Filled.
            x: F[_, _],
        }
        attr {
            /// The value.
            value: f64 = 0.0,
        }
    }

    /// `y = x`.
    2 Copy copy v 1 mandatory {
        in {
            /// Source.
            x: T[R, C],
        }
        out {
            /// Destination, of the same dtype.
            y: T[R, C],
        }
    }

    /// `y = x` in another float type, rounded to nearest even.
    3 Cast cast v 1 mandatory {
        in {
            /// Source.
            x: F[R, C],
        }
        out {
            /// Destination.
            y: F[R, C],
        }
    }

    /// `y += alpha x`.
    4 Axpy axpy v 1 mandatory {
        in {
            /// Addend.
            x: T[R, C],
        }
        update {
            /// Sum.
            y: T[R, C],
        }
        attr {
            /// Factor of `x`.
            alpha: f64 = 1.0,
        }
    }

    /// `x *= alpha`.
    5 Scale scale v 1 mandatory {
        update {
            /// Scaled in place.
            x: F[R, C],
        }
        attr {
            /// The factor.
            alpha: f64 = 1.0,
        }
    }
}
