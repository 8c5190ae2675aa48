//! The operations of a training step never make the host wait for the device.

use crate::{TorchSession, queue::traced, settings::AttentionPath, testing::session};
use plugin_api::backend::{
    DType, View,
    ops::{
        Activation, ActivationBackward, ActivationKind, Attention, AttentionBackward, Axpy, Cast, Embedding,
        EmbeddingBackward, Fill, Glu, GluBackward, HeadBackward, HeadFused, HeadStats, Linear, LinearBackwardInput,
        LinearBackwardWeight, Norm, NormBackward, Rotary, Sample,
    },
};

const F32: DType = DType::F32;
const TOKENS: u64 = 12;
const WIDTH: u64 = 16;
const VOCABULARY: u64 = 20;

/// The integer operands of a micro-batch.
struct Batch {
    ids: View,
    positions: View,
    targets: View,
    offsets: View,
}

impl Batch {
    fn new(s: &mut TorchSession) -> Batch {
        let ids: Vec<u64> = (0..TOKENS).map(|at| at * 7 % VOCABULARY).collect();
        let positions: Vec<u64> = (0..TOKENS).map(|at| at % 5).collect();
        let (offsets, targets) =
            ([0, 5, 5, 10, TOKENS], ids.iter().map(|id| (id + 1) % VOCABULARY).collect::<Vec<_>>());
        Batch {
            ids: s.integers(&ids),
            positions: s.integers(&positions),
            targets: s.integers(&targets),
            offsets: s.integers(&offsets),
        }
    }

    /// The next micro-batch, with the same values.
    fn upload(&self, s: &mut TorchSession) {
        for view in [&self.ids, &self.positions, &self.targets, &self.offsets] {
            let values = s.values(view);
            s.set(view, &values);
        }
    }
}

/// The operations of a step of a decoder with one layer, except the optimizer.
fn step(s: &mut TorchSession, batch: &Batch, activations: DType) {
    let Batch { ids, positions, targets, offsets } = *batch;
    let mut seed = 0;
    let mut fresh = |s: &mut TorchSession, dtype: DType, rows: u64, cols: u64| {
        seed += 1;
        s.random(seed, dtype, rows, cols)
    };
    let mut hidden = |s: &mut TorchSession| fresh(s, activations, TOKENS, WIDTH);
    let [x, y, z, sum, q, k, v, dx, dy, dq, dk, dv] = [(); 12].map(|()| hidden(s));
    let table = fresh(s, activations, VOCABULARY, WIDTH);
    let (w, gain, bias) =
        (fresh(s, activations, WIDTH, WIDTH), fresh(s, activations, 1, WIDTH), fresh(s, activations, 1, WIDTH));
    let (dtable, dw) = (fresh(s, F32, VOCABULARY, WIDTH), fresh(s, F32, WIDTH, WIDTH));
    let (dgain, dbias, stats) = (fresh(s, F32, 1, WIDTH), fresh(s, F32, 1, WIDTH), fresh(s, F32, TOKENS, 2));
    let (cos, sin, lse) = (fresh(s, F32, 5, 4), fresh(s, F32, 5, 4), fresh(s, F32, TOKENS, 2));
    let [logp, head_lse, entropy, dlogp, dlse] = [(); 5].map(|()| fresh(s, F32, 1, TOKENS));
    let eps = 1e-5;
    s.run(&Fill { x: dtable, value: 0.0 });
    s.run(&Cast { x: dw, y: w });
    s.run(&Embedding { ids, table, positions: Some(positions), position_table: Some(table), y: x, scale: 2.0 });
    let norm = Norm { x, residual: Some(z), weight: Some(gain), bias: Some(bias), y, ..Norm::default() };
    s.run(&Norm { sum: Some(sum), stats: Some(stats), eps, ..norm });
    s.run(&Linear { x: y, w, bias: Some(bias), y: q });
    s.run(&Rotary { x: q, positions, cos, sin, y: q, head_dim: 8, ..Rotary::default() });
    let heads = Attention { heads: 2, kv_heads: 2, head_dim: 8, scale: 0.3, ..Attention::default() };
    for softcap in [0.0, 5.0] {
        s.run(&Attention { q, k, v, offsets, y: z, lse: Some(lse), softcap, ..heads });
    }
    s.run(&Glu { gate: z, up: x, y, kind: ActivationKind::SILU });
    s.run(&Activation { x: z, y, kind: ActivationKind::GELU_TANH });
    s.run(&Axpy { x: z, y, alpha: 0.5 });
    let fused = HeadFused { x: y, w: table, targets, dlogp, logp, dx, dw: Some(dtable), ..HeadFused::default() };
    s.run(&HeadFused { lse: Some(head_lse), ..fused });
    let stat = HeadStats { x: y, w: table, targets, logp, ..HeadStats::default() };
    s.run(&HeadStats { lse: Some(head_lse), entropy: Some(entropy), ..stat });
    let back =
        HeadBackward { x: y, w: table, targets, lse: head_lse, entropy: Some(entropy), ..HeadBackward::default() };
    s.run(&HeadBackward { dlogp: Some(dlogp), dentropy: Some(dlse), dx, dw: Some(dtable), ..back });
    s.run(&GluBackward { gate: z, up: x, dy: dx, dgate: dq, dup: dk, kind: ActivationKind::SILU });
    s.run(&ActivationBackward { x: z, dy: dx, dx: dy, kind: ActivationKind::GELU_TANH });
    for softcap in [0.0, 5.0] {
        let back = AttentionBackward { q, k, v, y: z, lse, dy, offsets, dq, dk, dv, ..AttentionBackward::default() };
        s.run(&AttentionBackward { heads: 2, kv_heads: 2, head_dim: 8, scale: 0.3, softcap, ..back });
    }
    s.run(&LinearBackwardInput { dy: dq, w, dx, accumulate: true });
    s.run(&LinearBackwardWeight { x: y, dy: dq, dw, dbias: Some(dbias) });
    let back = NormBackward { x: sum, stats, dy, weight: Some(gain), dx, ..NormBackward::default() };
    s.run(&NormBackward { dweight: Some(dgain), dbias: Some(dbias), ..back });
    s.run(&EmbeddingBackward { ids, dy: dx, dtable, scale: 2.0 });
}

/// ATen functions that return values of a tensor to the host, or whose result has a size that depends on them.
const WAITING: &[&str] = &[
    "item",
    "_local_scalar_dense",
    "is_nonzero",
    "equal",
    "allclose",
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_consecutive",
    "unique_dim",
    "repeat_interleave",
    "bincount",
];

fn waiting(names: &[String]) -> Vec<&String> {
    let is_waiting = |name: &&String| WAITING.contains(&name.trim_start_matches("aten::"));
    names.iter().filter(is_waiting).collect()
}

/// Catches an operation that reads values of the device, through the session or through ATen, and integers that are uploaded more
/// often than once for each operand of a micro-batch.
#[test]
fn a_training_step_never_waits_for_the_device() {
    for path in [AttentionPath::Fastest, AttentionPath::Batched] {
        for activations in [F32, DType::BF16] {
            let mut s = session(path);
            let batch = Batch::new(&mut s);
            let mut uploads = Vec::new();
            for _ in 0..3 {
                let before = s.counts().uploads.get();
                let names = traced(|| step(&mut s, &batch, activations));
                assert_eq!(waiting(&names), Vec::<&String>::new());
                uploads.push(s.counts().uploads.get() - before);
                batch.upload(&mut s);
            }
            // Ids, positions and targets; the batches of sequences where they are used.
            let expected = if path == AttentionPath::Batched { 4 } else { 3 };
            assert_eq!(uploads, [expected; 3], "{path:?}");
            assert_eq!(s.counts().host_reads.get(), 0, "{path:?}");
            step(&mut s, &batch, activations);
            let after = s.counts().uploads.get();
            step(&mut s, &batch, activations);
            assert_eq!(s.counts().uploads.get(), after, "nothing has changed");
        }
    }
}

/// Catches counts that never count.
#[test]
fn what_waits_is_counted() {
    let mut s = session(AttentionPath::Fastest);
    let (logits, noise) = (s.random(1, F32, 2, 5), s.operand(F32, 1, 2, &[0.1, 0.9]));
    let (token, logp) = (s.integers(&[0, 0]), s.random(2, F32, 1, 2));
    s.run(&Sample { logits, noise, token, logp, temperature: 1.0, top_p: 1.0, ..Sample::default() });
    let sampled = s.counts().host_reads.get();
    assert!(sampled >= 3);
    let (x, w, targets) = (s.random(3, F32, 2, 4), s.random(4, F32, 5, 4), s.integers(&[1, 2]));
    s.run(&HeadStats { x, w, targets, logp, top1: Some(token), ..HeadStats::default() });
    assert_eq!(s.counts().host_reads.get(), sampled + 1, "ids that the host receives");
    let flag = s.at(&logits).unwrap();
    assert_eq!(waiting(&traced(|| _ = flag.double_value(&[0, 0]))).len(), 2);
}
