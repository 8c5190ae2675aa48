//! Attention over packed sequences and over a cache, and the rotary embedding of its operands.

use crate::backend::catalogue::{attr_enum, catalogue, product};

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
    /// Attention and rotary embedding, forward and backward, and one step of decoding.
    AttentionOps

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
}
