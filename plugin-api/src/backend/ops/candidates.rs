//! Log-probabilities of several ids per token, forward and backward, and the most probable ids.

use crate::backend::catalogue::catalogue;

catalogue! {
    /// Log-probabilities of several ids per token, forward and backward, and the most probable ids.
    CandidateOps

    /// Log-probabilities of K given ids per token under the softmax p over `z = cap(scale (x w^T + bias)) / temperature`, as in
    /// [`HeadStats`](super::HeadStats). Computed in chunks: no [N, V] exists.
    ///
    /// The ids of a row are distinct; a row with an id twice is an error (`Code::INVALID_ARGUMENT`) that names the row.
    31 HeadCandidates head_candidates v 1 mandatory {
        in {
            /// Last hidden states.
            x: T[N, D],
            /// Head weight.
            w: T[V, D],
            /// The candidates, in `0..V`, distinct within a row, in any order.
            ids: I[N, K],
        }
        opt {
            /// Head bias.
            bias: T[1, V],
        }
        out {
            /// `z[id] - lse`: log-probabilities of the candidates.
            logp: A[N, K],
        }
        opt_out {
            /// Logarithm of the sum of the probabilities of all ids that are not among the K. It is the log-sum-exp of their own
            /// `z` minus `lse`, so it is accurate and finite however small that sum is. Minus infinity if K = V: there is no other
            /// id.
            tail: A[1, N],
            /// `log sum exp z`.
            lse: A[1, N],
        }
        attr {
            /// Divides the capped logits.
            temperature: f64 = 1.0,
            /// Soft cap; 0: none.
            softcap: f64 = 0.0,
            /// Factor of the raw logits.
            scale: f64 = 1.0,
        }
    }

    /// Backward of [`HeadCandidates`]: for each token and id v, with `rest` the ids that are not candidates,
    /// `dz[v] = sum_k dlogp[k] (1[v = ids[k]] - p[v]) + dtail (1[v in rest] p[v] / exp(tail) - p[v])`.
    /// If K = V, `dtail` is ignored: the tail is then constant.
    32 HeadCandidatesBackward head_candidates_backward v 1 mandatory {
        in {
            /// Last hidden states.
            x: T[N, D],
            /// Head weight.
            w: T[V, D],
            /// The candidates.
            ids: I[N, K],
            /// The forward's `lse`.
            lse: A[1, N],
        }
        opt {
            /// Head bias.
            bias: T[1, V],
            /// The forward's `tail`; needed with `dtail`.
            tail: A[1, N],
            /// Cotangent of `logp`.
            dlogp: A[N, K],
            /// Cotangent of `tail`.
            dtail: A[1, N],
        }
        out {
            /// Cotangent of the hidden states.
            dx: T[N, D],
        }
        opt_update {
            /// Gradient of the head weight.
            dw: A[V, D],
            /// Gradient of the head bias.
            dbias: A[1, V],
        }
        attr {
            /// As in the forward.
            temperature: f64 = 1.0,
            /// As in the forward.
            softcap: f64 = 0.0,
            /// As in the forward.
            scale: f64 = 1.0,
        }
    }

    /// The K most probable ids per token, with their log-probabilities as in [`HeadCandidates`]. K is at most V. Has no backward:
    /// [`HeadCandidates`] gives the same log-probabilities for the ids found. Computed in chunks: no [N, V] exists.
    33 HeadTopk head_topk v 1 mandatory {
        in {
            /// Last hidden states.
            x: T[N, D],
            /// Head weight.
            w: T[V, D],
        }
        opt {
            /// Head bias.
            bias: T[1, V],
        }
        out {
            /// The ids, the most probable first; of equally probable ids the lowest first.
            ids: I[N, K],
            /// Their log-probabilities.
            logp: A[N, K],
        }
        opt_out {
            /// As in [`HeadCandidates`].
            tail: A[1, N],
        }
        attr {
            /// As in [`HeadCandidates`].
            temperature: f64 = 1.0,
            /// As in [`HeadCandidates`].
            softcap: f64 = 0.0,
            /// As in [`HeadCandidates`].
            scale: f64 = 1.0,
        }
    }
}
