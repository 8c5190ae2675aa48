//! Small examples computed on paper, which the suite cannot check because it compares the reference with itself.

use backend_reference::Reference;
use plugin_api::{
    Result,
    abi::{DType, View},
    backend::{
        Op, Session,
        ops::{
            AdamW, Attention, AttentionBackward, DecodeAttention, GlobalNorm, HeadStats, MaskKind, Norm, NormBackward,
            NormKind, Rotary, Sample,
        },
    },
};

/// A session with helpers that put a matrix into a buffer of its own.
struct Desk(Reference);

impl Desk {
    fn new() -> Self {
        Desk(Reference::new(1))
    }

    fn f64s(&mut self, rows: u64, cols: u64, values: &[f64]) -> View {
        let buffer = self.0.alloc(DType::F64, rows * cols).unwrap();
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.0.upload(buffer, 0, &bytes).unwrap();
        View::dense(buffer, DType::F64, rows, cols)
    }

    fn i32s(&mut self, values: &[i32]) -> View {
        let buffer = self.0.alloc(DType::I32, values.len() as u64).unwrap();
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.0.upload(buffer, 0, &bytes).unwrap();
        View::dense(buffer, DType::I32, 1, values.len() as u64)
    }

    fn garbage(&mut self, rows: u64, cols: u64) -> View {
        self.f64s(rows, cols, &vec![f64::NAN; (rows * cols) as usize])
    }

    fn run(&mut self, op: impl Op) -> Result<()> {
        op.with_call(|call| self.0.invoke(call))
    }

    fn bytes<const N: usize>(&mut self, view: View) -> Vec<[u8; N]> {
        let mut bytes = vec![0; view.len() as usize * N];
        self.0.download(view.buffer, view.offset, &mut bytes).unwrap();
        bytes.chunks_exact(N).map(|b| b.try_into().unwrap()).collect()
    }

    #[track_caller]
    fn expect(&mut self, view: View, expected: &[f64]) {
        let found: Vec<f64> = self.bytes(view).into_iter().map(f64::from_le_bytes).collect();
        let close = found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 1e-12);
        assert!(close && found.len() == expected.len(), "expected {expected:?}, found {found:?}");
    }

    #[track_caller]
    fn expect_ints(&mut self, view: View, expected: &[i32]) {
        let found: Vec<i32> = self.bytes(view).into_iter().map(i32::from_le_bytes).collect();
        assert_eq!(found, expected);
    }
}

/// Keys 0 and ln 3 for a query of 1: weights 1/4 and 3/4 for the second token, so y = (8 + 3 * 4) / 4 = 5, and the log-sum-exp is
/// ln(1 + 3). With dy = 1 there: dscore = p (v - y) = (3/4, -3/4); dq = -3/4 ln 3; dk = dscore. The first token sees only itself:
/// y = 8, and only dv has a gradient.
#[test]
fn two_tokens_of_causal_attention() {
    let mut d = Desk::new();
    let ln3 = 3f64.ln();
    let (q, k) = (d.f64s(2, 1, &[7.0, 1.0]), d.f64s(2, 1, &[0.0, ln3]));
    let (v, offsets) = (d.f64s(2, 1, &[8.0, 4.0]), d.i32s(&[0, 2]));
    let (y, lse) = (d.garbage(2, 1), d.garbage(2, 1));
    let shape = Attention { head_dim: 1, ..Attention::default() };
    d.run(Attention { q, k, v, offsets, y, lse: Some(lse), ..shape }).unwrap();
    d.expect(y, &[8.0, 5.0]);
    d.expect(lse, &[0.0, 4f64.ln()]);

    let dy = d.f64s(2, 1, &[1.0, 1.0]);
    let (dq, dk, dv) = (d.garbage(2, 1), d.garbage(2, 1), d.garbage(2, 1));
    let backward = AttentionBackward { head_dim: 1, ..AttentionBackward::default() };
    d.run(AttentionBackward { q, k, v, y, lse, dy, offsets, dq, dk, dv, ..backward }).unwrap();
    d.expect(dq, &[0.0, -0.75 * ln3]);
    d.expect(dk, &[0.75, -0.75]);
    d.expect(dv, &[1.25, 0.75]);
}

/// Equal scores make the weights uniform, so each output is the mean of the visible values: values 1, 2, 4, 8 in one sequence, 100
/// in the next. Catches a window that excludes the query, and attention across sequences.
#[test]
fn gotcha_06_masks_keep_the_right_keys() {
    let mut d = Desk::new();
    let zeros = d.f64s(5, 1, &[0.0; 5]);
    let (v, offsets) = (d.f64s(5, 1, &[1.0, 2.0, 4.0, 8.0, 100.0]), d.i32s(&[0, 4, 5]));
    let prefix = d.i32s(&[3, 0]);
    for (mask, window, expected) in [
        (MaskKind::CAUSAL, 0, [1.0, 1.5, 7.0 / 3.0, 3.75, 100.0]),
        (MaskKind::CAUSAL, 2, [1.0, 1.5, 3.0, 6.0, 100.0]),
        (MaskKind::CAUSAL, 1, [1.0, 2.0, 4.0, 8.0, 100.0]),
        (MaskKind::BIDIRECTIONAL, 0, [3.75, 3.75, 3.75, 3.75, 100.0]),
        (MaskKind::BIDIRECTIONAL, 2, [3.75, 3.75, 14.0 / 3.0, 6.0, 100.0]),
        (MaskKind::PREFIX, 0, [7.0 / 3.0, 7.0 / 3.0, 7.0 / 3.0, 3.75, 100.0]),
        (MaskKind::PREFIX, 1, [7.0 / 3.0, 3.0, 4.0, 8.0, 100.0]),
    ] {
        let y = d.garbage(5, 1);
        let op = Attention { q: zeros, k: zeros, v, offsets, y, prefix: Some(prefix), ..Attention::default() };
        d.run(Attention { head_dim: 1, mask, window, ..op }).unwrap();
        d.expect(y, &expected);
    }
}

/// A soft cap of 1 turns the score 1 into tanh 1.
#[test]
fn scores_are_capped_before_the_softmax() {
    let mut d = Desk::new();
    let (q, k) = (d.f64s(2, 1, &[0.0, 1.0]), d.f64s(2, 1, &[0.0, 1.0]));
    let (v, offsets) = (d.f64s(2, 1, &[0.0, 1.0]), d.i32s(&[0, 2]));
    let (y, lse) = (d.garbage(2, 1), d.garbage(2, 1));
    let op = Attention { head_dim: 1, softcap: 1.0, ..Attention::default() };
    d.run(Attention { q, k, v, offsets, y, lse: Some(lse), ..op }).unwrap();
    let e = 1f64.tanh().exp();
    d.expect(y, &[0.0, e / (1.0 + e)]);
    d.expect(lse, &[0.0, (1.0 + e).ln()]);
}

/// Query heads 0 and 1 read the first key-value head, 2 and 3 the second: a modulo instead of a quotient mixes them.
#[test]
fn grouped_heads_share_keys_and_values() {
    let mut d = Desk::new();
    let (q, k) = (d.f64s(1, 4, &[0.0; 4]), d.f64s(1, 2, &[0.0; 2]));
    let (v, offsets, y) = (d.f64s(1, 2, &[1.0, 2.0]), d.i32s(&[0, 1]), d.garbage(1, 4));
    let op = Attention { heads: 4, kv_heads: 2, head_dim: 1, ..Attention::default() };
    d.run(Attention { q, k, v, offsets, y, ..op }).unwrap();
    d.expect(y, &[1.0, 1.0, 2.0, 2.0]);
}

/// The cached row ln 3 and the new row 0 for a query of 1, values 4 and 8: 5, as in the two tokens above; afterwards the cache
/// holds the new row behind the old one, and the other slot is unchanged.
#[test]
fn gotcha_34_decoding_equals_the_full_forward() {
    let mut d = Desk::new();
    let ln3 = 3f64.ln();
    let (q, k, v) = (d.f64s(1, 1, &[1.0]), d.f64s(1, 1, &[0.0]), d.f64s(1, 1, &[8.0]));
    let k_cache = d.f64s(4, 1, &[9.0, 9.0, ln3, f64::NAN]);
    let v_cache = d.f64s(4, 1, &[9.0, 9.0, 4.0, f64::NAN]);
    let (slots, lengths, y) = (d.i32s(&[1]), d.i32s(&[1]), d.garbage(1, 1));
    let op = DecodeAttention { head_dim: 1, capacity: 2, ..DecodeAttention::default() };
    d.run(DecodeAttention { q, k, v, slots, lengths, y, k_cache, v_cache, ..op }).unwrap();
    d.expect(y, &[5.0]);
    d.expect(k_cache, &[9.0, 9.0, ln3, 0.0]);
    d.expect(v_cache, &[9.0, 9.0, 4.0, 8.0]);
}

/// x = (3, 4): mean square 12.5, mean 3.5, deviation 0.5.
#[test]
fn norms_of_three_and_four() {
    let mut d = Desk::new();
    let (x, residual) = (d.f64s(1, 2, &[1.0, 1.0]), d.f64s(1, 2, &[2.0, 3.0]));
    let (weight, bias) = (d.f64s(1, 2, &[2.0, 10.0]), d.f64s(1, 2, &[0.5, 0.0]));
    let (y, sum, stats) = (d.garbage(1, 2), d.garbage(1, 2), d.garbage(1, 2));
    let op = Norm { residual: Some(residual), sum: Some(sum), stats: Some(stats), x, y, eps: 0.0, ..Norm::default() };
    let rms = 12.5f64.sqrt();
    d.run(op).unwrap();
    d.expect(y, &[3.0 / rms, 4.0 / rms]);
    d.expect(sum, &[3.0, 4.0]);
    d.expect(stats, &[0.0, 1.0 / rms]);
    let gain = Norm { weight: Some(weight), bias: Some(bias), weight_offset: 1.0, ..op };
    d.run(Norm { kind: NormKind::LAYER, ..gain }).unwrap();
    d.expect(y, &[0.5 - 3.0, 11.0]);
    d.expect(stats, &[3.5, 2.0]);
    // Biased variance 1/4 and eps 2 under the root: rstd 2/3.
    d.run(Norm { kind: NormKind::LAYER, eps: 2.0, ..op }).unwrap();
    d.expect(stats, &[3.5, 2.0 / 3.0]);
}

/// Two columns of a layer norm are always -1 and 1: the gradient of s comes from the residual only, and dweight is dy xhat.
#[test]
fn layer_norm_of_two_columns_has_zero_gradient() {
    let mut d = Desk::new();
    let (x, stats, dy) = (d.f64s(1, 2, &[3.0, 4.0]), d.f64s(1, 2, &[3.5, 2.0]), d.f64s(1, 2, &[5.0, -7.0]));
    let (dsum, dx) = (d.f64s(1, 2, &[0.25, 0.5]), d.garbage(1, 2));
    let (dweight, dbias) = (d.f64s(1, 2, &[100.0, 100.0]), d.f64s(1, 2, &[100.0, 100.0]));
    let op = NormBackward { x, stats, dy, dsum: Some(dsum), dx, kind: NormKind::LAYER, ..NormBackward::default() };
    d.run(NormBackward { dweight: Some(dweight), dbias: Some(dbias), ..op }).unwrap();
    d.expect(dx, &[0.25, 0.5]);
    d.expect(dweight, &[95.0, 93.0]);
    d.expect(dbias, &[105.0, 93.0]);
}

/// A quarter turn takes (1, 2) to (-2, 1); halves pair columns 0 and 2, the last column is beyond the rotated width.
#[test]
fn rotary_by_a_quarter_turn() {
    let mut d = Desk::new();
    let x = d.f64s(1, 5, &[1.0, 10.0, 2.0, 20.0, 7.0]);
    let (cos, sin) = (d.f64s(2, 2, &[1.0, 1.0, 0.0, -1.0]), d.f64s(2, 2, &[0.0, 0.0, 1.0, 0.0]));
    let (positions, y) = (d.i32s(&[1]), d.garbage(1, 5));
    let op = Rotary { x, positions, cos, sin, y, head_dim: 5, ..Rotary::default() };
    d.run(op).unwrap();
    d.expect(y, &[-2.0, -10.0, 1.0, -20.0, 7.0]);
    d.run(Rotary { interleaved: true, ..op }).unwrap();
    d.expect(y, &[-10.0, 1.0, -2.0, -20.0, 7.0]);
    d.run(Rotary { inverse: true, ..op }).unwrap();
    d.expect(y, &[2.0, -10.0, -1.0, -20.0, 7.0]);
}

/// Logits 0, 0, ln 2 have probabilities 1/4, 1/4, 1/2; at temperature 1/2 they are 1/6, 1/6, 2/3.
#[test]
fn gotcha_10_head_statistics_of_three_tokens() {
    let mut d = Desk::new();
    let ln2 = 2f64.ln();
    let (x, w) = (d.f64s(1, 1, &[1.0]), d.f64s(3, 1, &[0.0, 0.0, ln2]));
    let (targets, logp, lse) = (d.i32s(&[1]), d.garbage(1, 1), d.garbage(1, 1));
    let (entropy, mean_logit, top1) = (d.garbage(1, 1), d.garbage(1, 1), d.i32s(&[-1]));
    let op = HeadStats { x, w, targets, logp, lse: Some(lse), entropy: Some(entropy), ..HeadStats::default() };
    let op = HeadStats { mean_logit: Some(mean_logit), top1: Some(top1), ..op };
    d.run(op).unwrap();
    d.expect(logp, &[-2.0 * ln2]);
    d.expect(lse, &[2.0 * ln2]);
    d.expect(entropy, &[1.5 * ln2]);
    d.expect(mean_logit, &[ln2 / 3.0]);
    d.expect_ints(top1, &[2]);
    d.run(HeadStats { temperature: 0.5, ..op }).unwrap();
    d.expect(logp, &[-6f64.ln()]);
    // Uniform logits: ln V, and the lowest index wins the tie.
    d.run(HeadStats { scale: 0.0, ..op }).unwrap();
    d.expect(logp, &[-3f64.ln()]);
    d.expect(entropy, &[3f64.ln()]);
    d.expect_ints(top1, &[0]);
}

/// Probabilities 1/4, 1/2, 1/4: ranked 1, 0, 2. A share equal to the noise does not exceed it.
#[test]
fn sampling_walks_the_ranking() {
    let mut d = Desk::new();
    let ln2 = 2f64.ln();
    let logits = d.f64s(5, 3, &[0.0, ln2, 0.0].repeat(5));
    let noise = d.f64s(1, 5, &[0.0, 0.49, 0.5, 0.74, 0.99]);
    let (token, logp) = (d.i32s(&[-1; 5]), d.garbage(1, 5));
    let op = Sample { logits, noise, token, logp, ..Sample::default() };
    d.run(op).unwrap();
    d.expect_ints(token, &[1, 1, 0, 0, 2]);
    d.expect(logp, &[-ln2, -ln2, -2.0 * ln2, -2.0 * ln2, -2.0 * ln2]);
    // Two tokens remain, with shares 2/3 and 1/3; the log-probability is still under the whole softmax.
    for cut in [Sample { top_k: 2, ..op }, Sample { top_p: 0.6, ..op }, Sample { top_k: 2, top_p: 0.99, ..op }] {
        d.run(cut).unwrap();
        d.expect_ints(token, &[1, 1, 1, 0, 0]);
        d.expect(logp, &[-ln2, -ln2, -ln2, -2.0 * ln2, -2.0 * ln2]);
    }
    d.run(Sample { temperature: 0.0, ..op }).unwrap();
    d.expect_ints(token, &[1; 5]);
    d.expect(logp, &[-ln2; 5]);
}

/// The first step of Adam from zero moments moves by lr times the sign of g for any size of g (eps 0): the corrections cancel the
/// decays. Before that the parameter shrinks by lr wd.
#[test]
fn the_first_step_of_adamw() {
    let mut d = Desk::new();
    let spread = |a: f64, b: f64| [vec![a; 64], vec![b; 64]].concat();
    let (params, grads) = (d.f64s(1, 128, &spread(2.0, 2.0)), d.f64s(1, 128, &spread(4.0, -0.5)));
    let (m, v) = (d.f64s(1, 128, &[0.0; 128]), d.f64s(1, 128, &[0.0; 128]));
    let (norm, bounds) = (d.f64s(1, 2, &[8.0, 1.0]), d.i32s(&[0, 1, 2]));
    let (hyper, shadow) = (d.f64s(2, 2, &[0.1, 0.5, 0.01, 0.0]), d.garbage(1, 128));
    let op = AdamW { params, grads, m, v, norm, bounds, hyper, shadow: Some(shadow), eps: 0.0, ..AdamW::default() };
    d.run(op).unwrap();
    d.expect(params, &spread(2.0 * 0.95 - 0.1, 2.01));
    d.expect(m, &spread(0.4, -0.05));
    d.expect(v, &spread(0.016, 0.00025));
    d.expect(shadow, &spread(1.8, 2.01));
}

/// A norm of 3 with clip 1.5 halves g (to one part in a million); a norm below the clip leaves it unchanged; if the flag is 0
/// nothing moves.
#[test]
fn gotcha_43_clipping_and_a_norm_that_is_not_finite() {
    let mut d = Desk::new();
    let (params, grads) = (d.f64s(1, 64, &[1.0; 64]), d.f64s(1, 64, &[3.0; 64]));
    let (m, v) = (d.f64s(1, 64, &[0.0; 64]), d.f64s(1, 64, &[0.0; 64]));
    let (bounds, hyper) = (d.i32s(&[0, 1]), d.f64s(1, 2, &[0.0, 0.0]));
    let norm = d.f64s(1, 2, &[3.0, 1.0]);
    let op = AdamW { params, grads, m, v, norm, bounds, hyper, clip: 1.5, ..AdamW::default() };
    d.run(op).unwrap();
    let clipped = 0.1 * 3.0 * 1.5 / (3.0 + 1e-6);
    d.expect(m, &[clipped; 64]);
    d.run(AdamW { clip: 30.0, beta1: 0.0, ..op }).unwrap();
    d.expect(m, &[3.0; 64]);
    let refused = d.f64s(1, 2, &[f64::INFINITY, 0.0]);
    let hyper = d.f64s(1, 2, &[1.0, 1.0]);
    d.run(AdamW { norm: refused, hyper, ..op }).unwrap();
    d.expect(m, &[3.0; 64]);
    d.expect(params, &[1.0; 64]);
}

/// 3-4-5, and the flag.
#[test]
fn global_norm_of_three_and_four() {
    let mut d = Desk::new();
    let (x, norm) = (d.f64s(1, 2, &[3.0, 4.0]), d.garbage(1, 2));
    d.run(GlobalNorm { x, norm }).unwrap();
    d.expect(norm, &[5.0, 1.0]);
    let x = d.f64s(1, 2, &[3.0, f64::NAN]);
    d.run(GlobalNorm { x, norm }).unwrap();
    let flag = View { offset: 1, cols: 1, ..norm };
    d.expect(flag, &[0.0]);
}
