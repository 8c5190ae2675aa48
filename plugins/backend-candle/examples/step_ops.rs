//! Times the operations of one training step, one by one, and adds them up.
//!
//!     cargo run --release -p backend-candle --example step_ops -- [threads [path [small|large [only]]]]
//!
//! By default the shape is 4 layers, width 128, 4 heads, 12 sequences of 64 tokens, 96 tokens of vocabulary, hidden width 384;
//! with `large` it is 6 layers, width 384, 6 heads, 8 sequences of 256, 4096, 1024. Each figure is the best of many runs of the
//! operation alone; time lost between operations is not included.

use backend_candle::{Candle, CandleSession};
use plugin_api::{
    Result,
    backend::{Backend, DType, Op, Session, SessionOptions, View, ops::*},
};
use std::time::Instant;

struct Shape {
    layers: usize,
    dim: usize,
    heads: usize,
    context: usize,
    sequences: usize,
    vocabulary: usize,
    hidden: usize,
}

const SMALL: Shape = Shape { layers: 4, dim: 128, heads: 4, context: 64, sequences: 12, vocabulary: 96, hidden: 384 };
const LARGE: Shape =
    Shape { layers: 6, dim: 384, heads: 6, context: 256, sequences: 8, vocabulary: 4096, hidden: 1024 };

struct Bench {
    session: CandleSession,
    /// Milliseconds of one step so far.
    total: f64,
    seed: u64,
    /// Times only operations whose name contains this.
    only: String,
}

impl Bench {
    fn mat(&mut self, rows: usize, cols: usize) -> Result<View> {
        let buffer = self.session.alloc(DType::F32, (rows * cols) as u64)?;
        let mut bytes = Vec::with_capacity(rows * cols * 4);
        for _ in 0..rows * cols {
            self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let uniform = (self.seed >> 40) as f32 / (1u64 << 24) as f32;
            bytes.extend_from_slice(&((uniform - 0.5) * 0.2).to_le_bytes());
        }
        self.session.upload(buffer, 0, &bytes)?;
        Ok(View::dense(buffer, DType::F32, rows as u64, cols as u64))
    }

    fn ints(&mut self, values: &[i32]) -> Result<View> {
        let buffer = self.session.alloc(DType::I32, values.len() as u64)?;
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.session.upload(buffer, 0, &bytes)?;
        Ok(View::dense(buffer, DType::I32, 1, values.len() as u64))
    }

    /// Times `op`, which a step runs `times` times and which takes `flops` floating-point operations.
    fn time(&mut self, name: &str, times: usize, flops: usize, op: impl Op) -> Result<()> {
        if !name.contains(&self.only) {
            return Ok(());
        }
        let mut best = f64::INFINITY;
        let begun = Instant::now();
        let mut runs = 0;
        while runs < 20 || begun.elapsed().as_secs_f64() < 0.3 {
            let start = Instant::now();
            op.with_call(|call| self.session.invoke(call))?;
            self.session.sync()?;
            best = best.min(start.elapsed().as_secs_f64());
            runs += 1;
        }
        self.total += best * 1e3 * times as f64;
        let rate = if flops > 0 { format!("{:7.1} GFLOP/s", flops as f64 / best / 1e9) } else { String::new() };
        println!("{name:<28} {times:>3} x {:>9.1} us {rate}", best * 1e6);
        Ok(())
    }

    fn linear(&mut self, name: &str, times: usize, n: usize, i: usize, o: usize) -> Result<()> {
        let (x, w, y) = (self.mat(n, i)?, self.mat(o, i)?, self.mat(n, o)?);
        let (dx, dw) = (self.mat(n, i)?, self.mat(o, i)?);
        let flops = 2 * n * i * o;
        self.time(&format!("{name} {n}x{o}x{i}"), times, flops, Linear { x, w, bias: None, y })?;
        self.time("  backward input", times, flops, LinearBackwardInput { dy: y, w, dx, accumulate: false })?;
        self.time("  backward weight", times, flops, LinearBackwardWeight { x, dy: y, dw, dbias: None })
    }
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let threads = args.first().and_then(|a| a.parse().ok()).unwrap_or(2);
    let mut options = SessionOptions { threads, ..SessionOptions::default() };
    options.options.insert("path".into(), args.get(1).map_or("kernels", String::as_str).into());
    let shape = if args.get(2).is_some_and(|a| a == "large") { LARGE } else { SMALL };
    let only = args.get(3).cloned().unwrap_or_default();
    let mut bench = Bench { session: Candle::open(&options)?, total: 0.0, seed: 1, only };
    step(&mut bench, &shape)?;
    let tokens = (shape.context * shape.sequences) as f64;
    println!("one step {:.2} ms, {:.0} tokens/s", bench.total, tokens / bench.total * 1e3);
    Ok(())
}

fn step(b: &mut Bench, s: &Shape) -> Result<()> {
    let (n, d, l) = (s.context * s.sequences, s.dim, s.layers);
    b.linear("linear qkv", l, n, d, 3 * d)?;
    b.linear("linear out", l, n, d, d)?;
    b.linear("linear gate, up", l, n, d, 2 * s.hidden)?;
    b.linear("linear down", l, n, s.hidden, d)?;
    norms(b, l, n, d)?;
    attention(b, s)?;
    let [gate, up, y, dgate, dup] = [0; 5].map(|_| b.mat(n, s.hidden));
    let (gate, up, y, dgate, dup) = (gate?, up?, y?, dgate?, dup?);
    let kind = ActivationKind::SILU;
    b.time("glu", l, 0, Glu { gate, up, y, kind })?;
    b.time("glu backward", l, 0, GluBackward { gate, up, dy: y, dgate, dup, kind })?;
    head(b, s)?;
    let parameters = l * (4 * d * d + 3 * d * s.hidden + 2 * d) + 2 * s.vocabulary * d + d;
    optimizer(b, parameters.next_multiple_of(64))
}

fn norms(b: &mut Bench, layers: usize, n: usize, d: usize) -> Result<()> {
    let (x, y, dx, weight) = (b.mat(n, d)?, b.mat(n, d)?, b.mat(n, d)?, Some(b.mat(1, d)?));
    let (stats, dweight) = (b.mat(n, 2)?, Some(b.mat(1, d)?));
    let residual = Some(b.mat(n, d)?);
    let forward = Norm { x, residual, weight, y, sum: Some(x), stats: Some(stats), ..Norm::default() };
    b.time("norm", 2 * layers + 1, 0, forward)?;
    let backward = NormBackward { x, stats, dy: y, weight, dsum: Some(dx), dx, dweight, ..NormBackward::default() };
    b.time("norm backward", 2 * layers + 1, 0, backward)
}

fn attention(b: &mut Bench, s: &Shape) -> Result<()> {
    let (n, d, heads, head_dim) = (s.context * s.sequences, s.dim, s.heads as i64, (s.dim / s.heads) as i64);
    let ends: Vec<i32> = (0..=s.sequences).map(|i| (i * s.context) as i32).collect();
    let positions: Vec<i32> = (0..n).map(|i| (i % s.context) as i32).collect();
    let (offsets, positions) = (b.ints(&ends)?, b.ints(&positions)?);
    let (fused, dfused) = (b.mat(n, 3 * d)?, b.mat(n, 3 * d)?);
    let part = |f: View, i: usize| View { offset: (i * d) as u64, cols: d as u64, ..f };
    let parts = |f: View| (part(f, 0), part(f, 1), part(f, 2));
    let ((q, k, v), (dq, dk, dv)) = (parts(fused), parts(dfused));
    let pairs = s.dim / s.heads / 2;
    let (cos, sin) = (b.mat(s.context, pairs)?, b.mat(s.context, pairs)?);
    b.time("rotary", 4 * s.layers, 0, Rotary { x: q, positions, cos, sin, y: q, head_dim, ..Rotary::default() })?;
    let (y, lse, dy) = (b.mat(n, d)?, b.mat(n, s.heads)?, b.mat(n, d)?);
    let scale = 1.0 / (head_dim as f64).sqrt();
    let (kv_heads, flops) = (heads, 2 * n * s.context * d);
    let forward =
        Attention { q, k, v, offsets, y, lse: Some(lse), heads, kv_heads, head_dim, scale, ..Attention::default() };
    b.time("attention (half of)", s.layers, flops, forward)?;
    let backward = AttentionBackward {
        q,
        k,
        v,
        y,
        lse,
        dy,
        offsets,
        dq,
        dk,
        dv,
        heads,
        kv_heads,
        head_dim,
        scale,
        ..AttentionBackward::default()
    };
    b.time("attention backward", s.layers, 5 * flops / 2, backward)
}

fn head(b: &mut Bench, s: &Shape) -> Result<()> {
    let (n, d, v) = (s.context * s.sequences, s.dim, s.vocabulary);
    let ids: Vec<i32> = (0..n).map(|i| (i * 7 % v) as i32).collect();
    let targets = b.ints(&ids)?;
    let (x, w, dx, dw) = (b.mat(n, d)?, b.mat(v, d)?, b.mat(n, d)?, Some(b.mat(v, d)?));
    let (dlogp, logp) = (b.mat(1, n)?, b.mat(1, n)?);
    let fused = HeadFused { x, w, targets, dlogp, logp, dx, dw, ..HeadFused::default() };
    b.time("head, one pass", 1, 6 * n * d * v, fused)?;
    b.time("embedding", 1, 0, Embedding { ids: targets, table: w, y: x, ..Embedding::default() })?;
    b.time("embedding backward", 1, 0, EmbeddingBackward { ids: targets, dy: x, dtable: w, scale: 1.0 })
}

fn optimizer(b: &mut Bench, n: usize) -> Result<()> {
    let (params, m, v, grads) = (b.mat(1, n)?, b.mat(1, n)?, b.mat(1, n)?, b.mat(1, n)?);
    let (norm, hyper) = (b.mat(1, 2)?, b.mat(1, 2)?);
    let bounds = b.ints(&[0, (n / 64) as i32])?;
    b.time("fill (zero gradients)", 1, 0, Fill { x: grads, value: 0.0 })?;
    b.time("global norm", 1, 0, GlobalNorm { x: grads, norm })?;
    b.time("adamw", 1, 0, AdamW { grads, norm, bounds, hyper, params, m, v, clip: 1.0, ..AdamW::default() })
}
