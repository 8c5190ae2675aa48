//! The language-model head: statistics of the softmax, their backward, and sampling.

use crate::backend::catalogue::catalogue;

catalogue! {
    /// The language-model head, forward and backward, and sampling.
    HeadOps

    /// Language-model head, statistics per token of the softmax over `z = cap(scale (x w^T + bias)) / temperature`, `cap(s) =
    /// softcap tanh(s / softcap)` where `softcap > 0`. Computed in chunks: [N, V] exists only if `logits` is given.
    20 HeadStats head_stats v 1 mandatory {
        in {
            /// Last hidden states.
            x: T[N, D],
            /// Head weight.
            w: T[V, D],
            /// Target ids in `0..V`.
            targets: I[1, N],
        }
        opt {
            /// Head bias.
            bias: T[1, V],
        }
        out {
            /// `z[target] - lse`: log-probability of the target.
            logp: A[1, N],
        }
        opt_out {
            /// `log sum exp z`.
            lse: A[1, N],
            /// `-sum p log p`, in nats.
            entropy: A[1, N],
            /// `mean z`.
            mean_logit: A[1, N],
            /// Index of the largest `z`, the lowest on ties.
            top1: I[1, N],
            /// `z` itself.
            logits: T[N, V],
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

    /// Backward of [`HeadStats`]: for each token
    /// `dz = dlogp (1[target] - p) + dlse p + dmean_logit / V - dentropy p (log p + entropy)`.
    21 HeadBackward head_backward v 1 mandatory {
        in {
            /// Last hidden states.
            x: T[N, D],
            /// Head weight.
            w: T[V, D],
            /// Target ids.
            targets: I[1, N],
            /// The forward's `lse`.
            lse: A[1, N],
        }
        opt {
            /// Head bias.
            bias: T[1, V],
            /// The forward's `z`, if it was kept; recomputed in chunks otherwise.
            logits: T[N, V],
            /// The forward's entropy; needed with `dentropy`.
            entropy: A[1, N],
            /// Cotangent of `logp`.
            dlogp: A[1, N],
            /// Cotangent of `lse`.
            dlse: A[1, N],
            /// Cotangent of `mean_logit`.
            dmean_logit: A[1, N],
            /// Cotangent of `entropy`.
            dentropy: A[1, N],
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

    /// [`HeadStats`] and [`HeadBackward`] in one pass, for cotangents that are known beforehand: one chunk of logits is used for
    /// both.
    22 HeadFused head_fused v 1 mandatory {
        in {
            /// Last hidden states.
            x: T[N, D],
            /// Head weight.
            w: T[V, D],
            /// Target ids.
            targets: I[1, N],
            /// Cotangent of `logp`.
            dlogp: A[1, N],
        }
        opt {
            /// Head bias.
            bias: T[1, V],
            /// Cotangent of `lse`.
            dlse: A[1, N],
            /// Cotangent of `mean_logit`.
            dmean_logit: A[1, N],
        }
        out {
            /// Log-probability of the target.
            logp: A[1, N],
            /// Cotangent of the hidden states.
            dx: T[N, D],
        }
        opt_out {
            /// `log sum exp z`.
            lse: A[1, N],
            /// `-sum p log p`.
            entropy: A[1, N],
            /// `mean z`.
            mean_logit: A[1, N],
            /// Index of the largest `z`.
            top1: I[1, N],
        }
        opt_update {
            /// Gradient of the head weight.
            dw: A[V, D],
            /// Gradient of the head bias.
            dbias: A[1, V],
        }
        attr {
            /// As in [`HeadStats`].
            temperature: f64 = 1.0,
            /// As in [`HeadStats`].
            softcap: f64 = 0.0,
            /// As in [`HeadStats`].
            scale: f64 = 1.0,
        }
    }

    /// Draws one token per row. Temperature 0 takes the largest logit (lowest index on ties). Otherwise tokens are ranked by
    /// descending logit (lower index first on ties) and truncated to the shorter of two prefixes: the first `top_k`, and the
    /// shortest prefix whose probability (under the whole softmax) reaches `top_p`. The result is the first remaining token whose
    /// cumulative share of the remaining probability exceeds the noise.
    24 Sample sample v 1 mandatory {
        in {
            /// Logits.
            logits: T[B, V],
            /// Uniform in [0, 1), from the host.
            noise: A[1, B],
        }
        out {
            /// Drawn ids.
            token: I[1, B],
            /// Log-probability of the drawn id under the whole softmax at `temperature` (at 1 if that is 0), without
            /// renormalisation by top-k or top-p.
            logp: A[1, B],
        }
        opt_out {
            /// Log-probability of the drawn id under the distribution that it was drawn from: the softmax at `temperature`,
            /// truncated by `top_k` and `top_p` and renormalised over the remaining tokens. 0 at temperature 0. Without truncation
            /// it is `logp`.
            kept_logp: A[1, B],
            /// Entropy of that distribution in nats; 0 at temperature 0.
            kept_entropy: A[1, B],
        }
        attr {
            /// Divides the logits; 0: greedy.
            temperature: f64 = 1.0,
            /// Keep this many; 0: all.
            top_k: i64 = 0,
            /// Keep this much probability; 1: all.
            top_p: f64 = 1.0,
        }
    }
}
