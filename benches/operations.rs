//! The most frequent operations at the shapes of two models, by backend, through the loaded library.
#![allow(missing_docs, reason = "criterion's macros")]

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use plugin_api::backend::{Op, ops::*};
use telos::device::{Device, Tensor};
use telos_benches::{THREADS, backends, on};

/// A model's shape and the tokens of a step.
struct Shape {
    name: &'static str,
    tokens: u64,
    length: u64,
    dim: u64,
    hidden: u64,
    heads: u64,
    vocab: u64,
}

const SHAPES: [Shape; 2] = [
    Shape { name: "small", tokens: 768, length: 64, dim: 128, hidden: 384, heads: 4, vocab: 257 },
    Shape { name: "medium", tokens: 2048, length: 256, dim: 384, hidden: 1024, heads: 6, vocab: 4096 },
];

/// A matrix of ordinary values, in the dtype of the computation.
fn filled(device: &Device, rows: u64, cols: u64) -> Tensor {
    with_values(device.tensor(rows, cols).expect("memory"))
}

/// The same in the dtype of gradients.
fn gradient(device: &Device, rows: u64, cols: u64) -> Tensor {
    with_values(device.tensor_of(device.accumulator(), rows, cols).expect("memory"))
}

fn with_values(tensor: Tensor) -> Tensor {
    let values: Vec<f32> = (0..tensor.buffer().len()).map(|i| ((i * 37 % 101) as f32 - 50.0) / 100.0).collect();
    tensor.buffer().upload_f32(0, &values).expect("upload");
    tensor
}

/// `work` is the number of floating-point operations of a product, or of elements of a pointwise operation.
fn run<O: Op>(group: &mut BenchmarkGroup<'_, WallTime>, device: &Device, name: String, work: u64, op: &O) {
    group.throughput(Throughput::Elements(work));
    let once = || {
        device.call(op).expect("operation");
        device.sync().expect("work that is done");
    };
    group.bench_function(name, |b| b.iter(once));
}

fn operations(c: &mut Criterion) {
    for spec in backends() {
        let (device, _) = on(&spec, THREADS).device(false).expect("a device");
        for shape in &SHAPES {
            let mut group = c.benchmark_group(format!("operations/{spec}/{}", shape.name));
            group.sample_size(20);
            matrix_products(&mut group, &device, shape);
            attention(&mut group, &device, shape);
            head(&mut group, &device, shape);
            pointwise(&mut group, &device, shape);
            group.finish();
        }
    }
}

fn matrix_products(group: &mut BenchmarkGroup<'_, WallTime>, device: &Device, s: &Shape) {
    let (x, w) = (filled(device, s.tokens, s.dim), filled(device, s.hidden, s.dim));
    let (y, dx, dw) =
        (filled(device, s.tokens, s.hidden), filled(device, s.tokens, s.dim), gradient(device, s.hidden, s.dim));
    let flops = 2 * s.tokens * s.dim * s.hidden;
    run(group, device, "linear".into(), flops, &Linear { x: x.view(), w: w.view(), bias: None, y: y.view() });
    let op = LinearBackwardInput { dy: y.view(), w: w.view(), dx: dx.view(), accumulate: false };
    run(group, device, "linear_backward_input".into(), flops, &op);
    let op = LinearBackwardWeight { x: x.view(), dy: y.view(), dw: dw.view(), dbias: None };
    run(group, device, "linear_backward_weight".into(), flops, &op);
}

fn attention(group: &mut BenchmarkGroup<'_, WallTime>, device: &Device, s: &Shape) {
    let new = || filled(device, s.tokens, s.dim);
    let (q, k, v, y, dy, dq, dk, dv) = (new(), new(), new(), new(), new(), new(), new(), new());
    let lse = gradient(device, s.tokens, s.heads);
    let offsets: Vec<i32> = (0..=s.tokens / s.length).map(|i| (i * s.length) as i32).collect();
    let offsets = device.ints(&offsets).expect("memory");
    let (heads, head_dim) = (s.heads as i64, (s.dim / s.heads) as i64);
    let forward = Attention {
        q: q.view(),
        k: k.view(),
        v: v.view(),
        offsets: offsets.view(),
        y: y.view(),
        lse: Some(lse.view()),
        heads,
        kv_heads: heads,
        head_dim,
        scale: 0.1,
        ..Default::default()
    };
    let pairs = s.tokens * (s.length + 1) / 2;
    run(group, device, "attention".into(), 4 * pairs * s.dim, &forward);
    let backward = AttentionBackward {
        q: q.view(),
        k: k.view(),
        v: v.view(),
        y: y.view(),
        lse: lse.view(),
        dy: dy.view(),
        offsets: offsets.view(),
        dq: dq.view(),
        dk: dk.view(),
        dv: dv.view(),
        heads,
        kv_heads: heads,
        head_dim,
        scale: 0.1,
        ..Default::default()
    };
    run(group, device, "attention_backward".into(), 10 * pairs * s.dim, &backward);
}

fn head(group: &mut BenchmarkGroup<'_, WallTime>, device: &Device, s: &Shape) {
    let (x, w, dx, dw) = (
        filled(device, s.tokens, s.dim),
        filled(device, s.vocab, s.dim),
        filled(device, s.tokens, s.dim),
        gradient(device, s.vocab, s.dim),
    );
    let targets: Vec<i32> = (0..s.tokens).map(|i| (i % s.vocab) as i32).collect();
    let targets = device.ints(&targets).expect("memory");
    let dlogp = device.floats(&vec![-1e-3; s.tokens as usize]).expect("memory");
    let logp = gradient(device, 1, s.tokens);
    let op = HeadFused {
        x: x.view(),
        w: w.view(),
        targets: targets.view(),
        dlogp: dlogp.view(),
        logp: logp.view(),
        dx: dx.view(),
        dw: Some(dw.view()),
        ..Default::default()
    };
    run(group, device, "head_fused".into(), 6 * s.tokens * s.dim * s.vocab, &op);
}

fn pointwise(group: &mut BenchmarkGroup<'_, WallTime>, device: &Device, s: &Shape) {
    let (x, residual, y, sum) = (
        filled(device, s.tokens, s.dim),
        filled(device, s.tokens, s.dim),
        filled(device, s.tokens, s.dim),
        filled(device, s.tokens, s.dim),
    );
    let weight = filled(device, 1, s.dim);
    let stats = gradient(device, s.tokens, 2);
    let op = Norm {
        x: x.view(),
        residual: Some(residual.view()),
        weight: Some(weight.view()),
        y: y.view(),
        sum: Some(sum.view()),
        stats: Some(stats.view()),
        ..Default::default()
    };
    run(group, device, "norm".into(), s.tokens * s.dim, &op);
    let (gate, up, out) =
        (filled(device, s.tokens, s.hidden), filled(device, s.tokens, s.hidden), filled(device, s.tokens, s.hidden));
    let op = Glu { gate: gate.view(), up: up.view(), y: out.view(), kind: ActivationKind::SILU };
    run(group, device, "glu".into(), s.tokens * s.hidden, &op);
}

criterion_group!(benches, operations);
criterion_main!(benches);
