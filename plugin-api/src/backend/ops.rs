//! The operation catalogue: this file alone defines what a backend computes.
//!
//! The host's typed calls, the SDK's [`Ops`] trait, the shape, dtype and alias checks, and the lines of `abi.lock` are generated
//! from it. Ids, names, operand order and attribute names are permanent; a changed meaning gets a new version.
//!
//! # Reading it
//! Every operand is a matrix `[rows, columns]`; a vector is `[1, n]`. Shape letters: N tokens, D model width, I and O
//! a linear layer's widths, F feed-forward width, V vocabulary, S sequences, H query heads, Q = H x head width,
//! K = key-value heads x head width, P positions, R half the rotated width, B decoding rows, C cache rows,
//! M elements of a flat buffer, G parameter segments. Classes: `T` compute dtype, `A` its accumulator (f32, or f64 for
//! f64), `I` i32, `F` any float. `update` operands are accumulated into or stepped in place. Every reduction, norm and softmax
//! accumulates in f32 or better, whatever `T` is.
//!
//! Zero-sized operands are legal and have no effect (an empty sum is 0).

use super::catalogue::{
    AttrSpec, AttrValue, Class, Op, OpSpec, OperandSpec, Usage, attr_enum, catalogue, check, product, read_attr, within,
};
use crate::{
    Error, Result,
    abi::{Attr, Call, View},
};
use abi_stable::std_types::{RSlice, RStr};

/// Every tensor in a flat parameter buffer starts at a multiple of this many elements; the gaps hold zeros.
pub const FLAT_ALIGN: u64 = 64;

attr_enum! {
    /// Which normalisation.
    NormKind {
        /// `x / sqrt(mean(x^2) + eps)` (Zhang and Sennrich 2019).
        RMS = 1,
        /// `(x - mean) / sqrt(var + eps)`, biased variance (Ba et al. 2016).
        LAYER = 2,
    }
}

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

attr_enum! {
    /// Which keys of its own sequence a query attends to.
    MaskKind {
        /// Keys at or before the query.
        CAUSAL = 1,
        /// All keys.
        BIDIRECTIONAL = 2,
        /// Keys at or before the query, and all keys before the sequence's `prefix` length.
        PREFIX = 3,
    }
}

catalogue! {
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

    /// `y[n] = scale * table[ids[n]] + position_table[positions[n]]` (the second term only if given).
    6 Embedding embedding v 1 mandatory {
        in {
            /// Token ids in `0..V`.
            ids: I[1, N],
            /// Embedding rows.
            table: T[V, D],
        }
        opt {
            /// Positions in `0..P`; needs `position_table`.
            positions: I[1, N],
            /// Learned position rows.
            position_table: T[P, D],
        }
        out {
            /// Embedded tokens.
            y: T[N, D],
        }
        attr {
            /// Factor of the token row.
            scale: f64 = 1.0,
        }
    }

    /// `dtable[ids[n]] += scale * dy[n]`, summed in ascending n for each row.
    7 EmbeddingBackward embedding_backward v 1 mandatory {
        in {
            /// Ids (or positions) in `0..V`.
            ids: I[1, N],
            /// Cotangent of the output.
            dy: T[N, D],
        }
        update {
            /// Gradient of the table.
            dtable: A[V, D],
        }
        attr {
            /// The forward's factor.
            scale: f64 = 1.0,
        }
    }

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

    /// Rotary embedding (Su et al. 2021) of each head's first 2R dimensions by the angle of the token's position:
    /// pairs (i, i + R), or (2i, 2i + 1) where `interleaved`; the rest is copied. `inverse` rotates back (the backward).
    13 Rotary rotary v 1 mandatory {
        in {
            /// Heads side by side.
            x: T[N, Q],
            /// Positions in `0..P`.
            positions: I[1, N],
            /// Cosines by position and pair.
            cos: A[P, R],
            /// Sines by position and pair.
            sin: A[P, R],
        }
        out {
            /// Rotated.
            y: T[N, Q],
        }
        attr {
            /// Width of a head; divides Q, at least 2R.
            head_dim: i64 = 0,
            /// Adjacent pairs instead of halves.
            interleaved: bool = false,
            /// Rotate by the negative angle.
            inverse: bool = false,
        }
        alias { y = x, }
    }

    /// Softmax attention inside each sequence (`offsets` are cu_seqlens), grouped heads:
    /// query head h reads key-value head `h / (heads / kv_heads)`.
    /// Scores `scale q.k`, soft-capped (`softcap tanh(s / softcap)`) where `softcap > 0`; a window W > 0 also hides the
    /// keys W or more positions before the query, under every mask. A query that sees no key yields 0.
    14 Attention attention v 1 mandatory {
        in {
            /// Queries.
            q: T[N, Q],
            /// Keys.
            k: T[N, K],
            /// Values.
            v: T[N, K],
            /// Sequence s holds tokens `offsets[s]..offsets[s + 1]`; ascending from 0 to N.
            offsets: I[1, (S + 1)],
        }
        opt {
            /// Prefix lengths, required by `MaskKind::PREFIX` and ignored otherwise; a length beyond the sequence means all of it.
            prefix: I[1, S],
        }
        out {
            /// Attended values.
            y: T[N, Q],
        }
        opt_out {
            /// Log-sum-exp of the scores per token and head, for the backward.
            lse: A[N, H],
        }
        attr {
            /// Query heads.
            heads: i64 = 1,
            /// Key-value heads; divides `heads`.
            kv_heads: i64 = 1,
            /// Width of a head.
            head_dim: i64 = 0,
            /// Factor of the scores.
            scale: f64 = 1.0,
            /// Which keys are visible.
            mask: MaskKind = MaskKind::CAUSAL,
            /// Sliding window; 0: none.
            window: i64 = 0,
            /// Soft cap of the scores; 0: none.
            softcap: f64 = 0.0,
        }
        fixed {
            Q = |o: &Self| product(o.heads, o.head_dim),
            K = |o: &Self| product(o.kv_heads, o.head_dim),
            H = |o: &Self| product(o.heads, 1),
        }
    }

    /// Backward of [`Attention`], recomputing the probabilities from `lse`.
    15 AttentionBackward attention_backward v 1 mandatory {
        in {
            /// Queries.
            q: T[N, Q],
            /// Keys.
            k: T[N, K],
            /// Values.
            v: T[N, K],
            /// Output of the forward.
            y: T[N, Q],
            /// Log-sum-exp of the forward.
            lse: A[N, H],
            /// Cotangent of the output.
            dy: T[N, Q],
            /// cu_seqlens.
            offsets: I[1, (S + 1)],
        }
        opt {
            /// Prefix lengths.
            prefix: I[1, S],
        }
        out {
            /// Cotangent of the queries.
            dq: T[N, Q],
            /// Cotangent of the keys.
            dk: T[N, K],
            /// Cotangent of the values.
            dv: T[N, K],
        }
        attr {
            /// As in the forward.
            heads: i64 = 1,
            /// As in the forward.
            kv_heads: i64 = 1,
            /// As in the forward.
            head_dim: i64 = 0,
            /// As in the forward.
            scale: f64 = 1.0,
            /// As in the forward.
            mask: MaskKind = MaskKind::CAUSAL,
            /// As in the forward.
            window: i64 = 0,
            /// As in the forward.
            softcap: f64 = 0.0,
        }
        fixed {
            Q = |o: &Self| product(o.heads, o.head_dim),
            K = |o: &Self| product(o.kv_heads, o.head_dim),
            H = |o: &Self| product(o.heads, 1),
        }
    }

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

    /// Causal attention of one new token per row over its cache slot, which it extends in place: the new key and value are written
    /// to cache row `slots[b] * capacity + lengths[b]`, then the query attends to the slot's first `lengths[b] + 1` rows.
    23 DecodeAttention decode_attention v 1 mandatory {
        in {
            /// Queries.
            q: T[B, Q],
            /// New keys.
            k: T[B, K],
            /// New values.
            v: T[B, K],
            /// Each row's slot; a slot that occurs twice is an invalid argument.
            slots: I[1, B],
            /// Tokens the slot holds before this one, in `0..capacity`.
            lengths: I[1, B],
        }
        out {
            /// Attended values.
            y: T[B, Q],
        }
        update {
            /// Keys, `capacity` rows a slot.
            k_cache: T[C, K],
            /// Values, `capacity` rows a slot.
            v_cache: T[C, K],
        }
        attr {
            /// Query heads.
            heads: i64 = 1,
            /// Key-value heads.
            kv_heads: i64 = 1,
            /// Width of a head.
            head_dim: i64 = 0,
            /// Factor of the scores.
            scale: f64 = 1.0,
            /// Rows a slot has.
            capacity: i64 = 0,
            /// Sliding window; 0: none.
            window: i64 = 0,
            /// Soft cap of the scores; 0: none.
            softcap: f64 = 0.0,
        }
        fixed {
            Q = |o: &Self| product(o.heads, o.head_dim),
            K = |o: &Self| product(o.kv_heads, o.head_dim),
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
        attr {
            /// Divides the logits; 0: greedy.
            temperature: f64 = 1.0,
            /// Keep this many; 0: all.
            top_k: i64 = 0,
            /// Keep this much probability; 1: all.
            top_p: f64 = 1.0,
        }
    }

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

    /// `y[m] = x[index[m]]`.
    27 GatherRows gather_rows v 1 mandatory {
        in {
            /// Rows.
            x: T[N, D],
            /// Row numbers in `0..N`.
            index: I[1, M],
        }
        out {
            /// Selected rows.
            y: T[M, D],
        }
    }

    /// `dx[index[m]] += dy[m]`, in ascending m for each row.
    28 ScatterAddRows scatter_add_rows v 1 mandatory {
        in {
            /// Row numbers in `0..N`.
            index: I[1, M],
            /// Cotangent of the selected rows.
            dy: T[M, D],
        }
        update {
            /// Cotangent of the rows.
            dx: T[N, D],
        }
    }
}
