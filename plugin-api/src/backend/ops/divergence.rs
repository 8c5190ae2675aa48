//! The divergence between the distributions of two language models, forward and backward.

use crate::backend::catalogue::catalogue;

catalogue! {
    /// The divergence between the distributions of two language models, forward and backward.
    DivergenceOps

    /// Per token the generalised Jensen-Shannon divergence of weight w between the softmax p of one model and the softmax q of
    /// another, in nats:
    ///
    /// ```text
    /// w = 0          KL(q || p)
    /// w = 1          KL(p || q)
    /// otherwise      w KL(q || m) + (1 - w) KL(p || m),  m = w q + (1 - w) p
    /// ```
    ///
    /// p is the softmax over `z = cap(scale (x w^T + bias)) / temperature` as in [`HeadStats`](super::HeadStats), q the same with
    /// `x2`, `w2`, `bias2`, `softcap2` and `scale2`. A token of probability 0 adds nothing (0 log 0 = 0), and results are never
    /// below 0. Computed in chunks: no [N, V] exists.
    29 HeadDivergence head_divergence v 1 mandatory {
        in {
            /// Last hidden states of the first model.
            x: T[N, D],
            /// Its head weight.
            w: T[V, D],
            /// Last hidden states of the other model: row n is compared with row n of `x`.
            x2: T[N, E],
            /// Its head weight.
            w2: T[V, E],
        }
        opt {
            /// Head bias of the first model.
            bias: T[1, V],
            /// Head bias of the other model.
            bias2: T[1, V],
        }
        out {
            /// The divergence.
            kl: A[1, N],
        }
        opt_out {
            /// `log sum exp z` of the first model.
            lse: A[1, N],
            /// The same of the other model.
            lse2: A[1, N],
        }
        attr {
            /// The weight w, in 0..=1.
            weight: f64 = 0.0,
            /// Divides the capped logits of both models.
            temperature: f64 = 1.0,
            /// Soft cap of the first model; 0: none.
            softcap: f64 = 0.0,
            /// Factor of the first model's raw logits.
            scale: f64 = 1.0,
            /// Soft cap of the other model; 0: none.
            softcap2: f64 = 0.0,
            /// Factor of the other model's raw logits.
            scale2: f64 = 1.0,
        }
    }

    /// Backward of [`HeadDivergence`] for the first model; the other model has no gradient. For each token
    ///
    /// ```text
    /// w = 0          dz = dkl (p - q)
    /// otherwise      dz = dkl p (g - sum p g),  g = log p - log q (w = 1) or (1 - w) (log p - log m)
    /// ```
    30 HeadDivergenceBackward head_divergence_backward v 1 mandatory {
        in {
            /// Last hidden states of the first model.
            x: T[N, D],
            /// Its head weight.
            w: T[V, D],
            /// Last hidden states of the other model.
            x2: T[N, E],
            /// Its head weight.
            w2: T[V, E],
            /// The forward's `lse`.
            lse: A[1, N],
            /// The forward's `lse2`.
            lse2: A[1, N],
            /// Cotangent of `kl`.
            dkl: A[1, N],
        }
        opt {
            /// Head bias of the first model.
            bias: T[1, V],
            /// Head bias of the other model.
            bias2: T[1, V],
        }
        out {
            /// Cotangent of `x`.
            dx: T[N, D],
        }
        opt_update {
            /// Gradient of `w`.
            dw: A[V, D],
            /// Gradient of `bias`.
            dbias: A[1, V],
        }
        attr {
            /// As in the forward.
            weight: f64 = 0.0,
            /// As in the forward.
            temperature: f64 = 1.0,
            /// As in the forward.
            softcap: f64 = 0.0,
            /// As in the forward.
            scale: f64 = 1.0,
            /// As in the forward.
            softcap2: f64 = 0.0,
            /// As in the forward.
            scale2: f64 = 1.0,
        }
    }
}
