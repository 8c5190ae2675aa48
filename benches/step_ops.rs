//! Times the operations of one training step on one or several backends in turns, each through its library.
//!
//!     cargo run --release -p telos-benches --example step_ops -- small|large f32|bf16 THREADS BACKEND...
//!
//! A backend is named as for `telos compare`: `candle`, `candle?path=generic`, `torch`.
//!
//! `small` is 4 layers, width 128, 4 heads, 12 sequences of 64 tokens, 96 tokens of vocabulary, hidden width 384; `large` is 6
//! layers, width 384, 6 heads, 8 sequences of 256, 4096, 1024. Backends take turns run by run, so that noise of the machine
//! affects all alike. Each figure is the best of many runs of the operation alone; time lost between operations is not included.

use plugin_api::{
    Error, Result,
    backend::{DType, Op, Session, View, ops::*},
};
use std::time::Instant;
use telos_benches::{on, spec};

#[derive(Clone, Copy)]
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

/// Sessions whose buffers are created in the same order, so that handles and operations are valid in each.
struct Bench {
    sessions: Vec<(String, Box<dyn Session>)>,
    /// Milliseconds of one step so far, by session.
    totals: Vec<f64>,
    dtype: DType,
    seed: u64,
}

fn open(backend: &str, threads: usize) -> Result<(String, Box<dyn Session>)> {
    let session =
        on(&spec(backend), threads).session(1).map_err(|why| Error::invalid(format!("{backend}: {why:?}")))?;
    Ok((backend.to_owned(), session))
}

impl Bench {
    fn buffer(&mut self, dtype: DType, bytes: &[u8]) -> Result<plugin_api::backend::Handle> {
        let elements = bytes.len() / dtype.size().unwrap_or(1);
        let mut handles = Vec::new();
        for (_, session) in &mut self.sessions {
            let handle = session.alloc(dtype, elements as u64)?;
            session.upload(handle, 0, bytes)?;
            handles.push(handle);
        }
        match handles.windows(2).all(|pair| pair[0] == pair[1]) {
            true => handles.first().copied().ok_or_else(|| Error::invalid("no backend was given")),
            false => Err(Error::internal("the sessions number their handles differently")),
        }
    }

    fn typed(&mut self, dtype: DType, rows: usize, cols: usize) -> Result<View> {
        let mut bytes = Vec::new();
        for _ in 0..rows * cols {
            self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let uniform = (self.seed >> 40) as f32 / (1u64 << 24) as f32;
            let value = (uniform - 0.5) * 0.2;
            match dtype {
                DType::BF16 => bytes.extend_from_slice(&((value.to_bits() >> 16) as u16).to_le_bytes()),
                _ => bytes.extend_from_slice(&value.to_le_bytes()),
            }
        }
        Ok(View::dense(self.buffer(dtype, &bytes)?, dtype, rows as u64, cols as u64))
    }

    /// A matrix of the compute type.
    fn mat(&mut self, rows: usize, cols: usize) -> Result<View> {
        self.typed(self.dtype, rows, cols)
    }

    /// A matrix of the accumulator.
    fn acc(&mut self, rows: usize, cols: usize) -> Result<View> {
        self.typed(self.dtype.accumulator(), rows, cols)
    }

    fn ints(&mut self, values: impl Iterator<Item = usize>) -> Result<View> {
        let bytes: Vec<u8> = values.flat_map(|v| (v as i32).to_le_bytes()).collect();
        let count = bytes.len() as u64 / 4;
        Ok(View::dense(self.buffer(DType::I32, &bytes)?, DType::I32, 1, count))
    }

    /// Times `op`, which a step runs `times` times and which takes `flops` floating-point operations.
    fn time(&mut self, name: &str, times: usize, flops: usize, op: impl Op) -> Result<()> {
        let mut best = vec![f64::INFINITY; self.sessions.len()];
        let (begun, mut runs) = (Instant::now(), 0);
        while runs < 10 || begun.elapsed().as_secs_f64() < 0.3 * best.len() as f64 {
            for ((_, session), best) in self.sessions.iter_mut().zip(&mut best) {
                let start = Instant::now();
                op.with_call(|call| session.invoke(call))?;
                session.sync()?;
                *best = best.min(start.elapsed().as_secs_f64());
            }
            runs += 1;
        }
        print!("{name:<26} {times:>3} x");
        for (best, total) in best.iter().zip(&mut self.totals) {
            *total += best * 1e3 * times as f64;
            let rate = if flops > 0 { format!("{:6.0} GF/s", flops as f64 / best / 1e9) } else { " ".repeat(11) };
            print!(" {:>10.1} us {rate}", best * 1e6);
        }
        println!();
        Ok(())
    }

    fn linear(&mut self, name: &str, times: usize, n: usize, i: usize, o: usize) -> Result<()> {
        let (x, w, y, dx, dw) = (self.mat(n, i)?, self.mat(o, i)?, self.mat(n, o)?, self.mat(n, i)?, self.acc(o, i)?);
        let flops = 2 * n * i * o;
        self.time(name, times, flops, Linear { x, w, bias: None, y })?;
        self.time("  backward input", times, flops, LinearBackwardInput { dy: y, w, dx, accumulate: false })?;
        self.time("  backward weight", times, flops, LinearBackwardWeight { x, dy: y, dw, dbias: None })
    }
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [shape, dtype, threads, backends @ ..] = args.as_slice() else {
        return Err(Error::invalid("usage: step_ops small|large f32|bf16 THREADS BACKEND..."));
    };
    let s = if shape == "large" { LARGE } else { SMALL };
    let dtype = DType::from_name(dtype).ok_or_else(|| Error::invalid(format!("`{dtype}` is not a dtype")))?;
    let threads = threads.parse().map_err(|e| Error::invalid(format!("threads `{threads}`: {e}")))?;
    let sessions = backends.iter().map(|backend| open(backend, threads)).collect::<Result<Vec<_>>>()?;
    let totals = vec![0.0; sessions.len()];
    let b = &mut Bench { sessions, totals, dtype, seed: 1 };
    step(b, &s)?;
    for ((id, _), total) in b.sessions.iter().zip(&b.totals) {
        println!("{id}: one step {total:.2} ms, {:.0} tokens/s", (s.context * s.sequences) as f64 / total * 1e3);
    }
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
    let (gate, up, y) = (b.mat(n, s.hidden)?, b.mat(n, s.hidden)?, b.mat(n, s.hidden)?);
    let (dgate, dup, kind) = (b.mat(n, s.hidden)?, b.mat(n, s.hidden)?, ActivationKind::SILU);
    b.time("glu", l, 0, Glu { gate, up, y, kind })?;
    b.time("glu backward", l, 0, GluBackward { gate, up, dy: y, dgate, dup, kind })?;
    head(b, s)?;
    let parameters = l * (4 * d * d + 3 * d * s.hidden + 2 * d) + 2 * s.vocabulary * d + d;
    optimizer(b, parameters.next_multiple_of(FLAT_ALIGN as usize))
}

fn norms(b: &mut Bench, layers: usize, n: usize, d: usize) -> Result<()> {
    let (x, y, dx, weight) = (b.mat(n, d)?, b.mat(n, d)?, b.mat(n, d)?, Some(b.mat(1, d)?));
    let (stats, dweight, residual) = (b.acc(n, 2)?, Some(b.acc(1, d)?), Some(b.mat(n, d)?));
    let forward = Norm { x, residual, weight, y, sum: Some(x), stats: Some(stats), ..Norm::default() };
    b.time("norm", 2 * layers + 1, 0, forward)?;
    let backward = NormBackward { x, stats, dy: y, weight, dsum: Some(dx), dx, dweight, ..NormBackward::default() };
    b.time("norm backward", 2 * layers + 1, 0, backward)
}

fn attention(b: &mut Bench, s: &Shape) -> Result<()> {
    let (n, d, heads, head_dim) = (s.context * s.sequences, s.dim, s.heads as i64, (s.dim / s.heads) as i64);
    let offsets = b.ints((0..=s.sequences).map(|i| i * s.context))?;
    let positions = b.ints((0..n).map(|i| i % s.context))?;
    let (fused, dfused) = (b.mat(n, 3 * d)?, b.mat(n, 3 * d)?);
    let part = |f: View, i: usize| View { offset: (i * d) as u64, cols: d as u64, ..f };
    let parts = |f: View| (part(f, 0), part(f, 1), part(f, 2));
    let ((q, k, v), (dq, dk, dv)) = (parts(fused), parts(dfused));
    let pairs = s.dim / s.heads / 2;
    let (cos, sin) = (b.acc(s.context, pairs)?, b.acc(s.context, pairs)?);
    b.time("rotary", 4 * s.layers, 0, Rotary { x: q, positions, cos, sin, y: q, head_dim, ..Rotary::default() })?;
    let (y, lse, dy) = (b.mat(n, d)?, b.acc(n, s.heads)?, b.mat(n, d)?);
    let (scale, kv_heads, flops) = (1.0 / (head_dim as f64).sqrt(), heads, 2 * n * s.context * d);
    let forward =
        Attention { q, k, v, offsets, y, lse: Some(lse), heads, kv_heads, head_dim, scale, ..Attention::default() };
    b.time("attention (half of)", s.layers, flops, forward)?;
    let plain = AttentionBackward::default();
    let backward = AttentionBackward { q, k, v, y, lse, dy, offsets, dq, dk, dv, heads, kv_heads, head_dim, ..plain };
    b.time("attention backward", s.layers, 5 * flops / 2, AttentionBackward { scale, ..backward })
}

fn head(b: &mut Bench, s: &Shape) -> Result<()> {
    let (n, d, v) = (s.context * s.sequences, s.dim, s.vocabulary);
    let targets = b.ints((0..n).map(|i| i * 7 % v))?;
    let (x, w, dx, dw) = (b.mat(n, d)?, b.mat(v, d)?, b.mat(n, d)?, b.acc(v, d)?);
    let (dlogp, logp) = (b.acc(1, n)?, b.acc(1, n)?);
    let fused = HeadFused { x, w, targets, dlogp, logp, dx, dw: Some(dw), ..HeadFused::default() };
    b.time("head, one pass", 1, 6 * n * d * v, fused)?;
    b.time("embedding", 1, 0, Embedding { ids: targets, table: w, y: x, ..Embedding::default() })?;
    b.time("embedding backward", 1, 0, EmbeddingBackward { ids: targets, dy: x, dtable: dw, scale: 1.0 })
}

fn optimizer(b: &mut Bench, n: usize) -> Result<()> {
    let (params, m, v, grads) = (b.acc(1, n)?, b.acc(1, n)?, b.acc(1, n)?, b.acc(1, n)?);
    let (norm, hyper, bounds) = (b.acc(1, 2)?, b.acc(1, 2)?, b.ints([0, n / FLAT_ALIGN as usize].into_iter())?);
    b.time("fill (zero gradients)", 1, 0, Fill { x: grads, value: 0.0 })?;
    b.time("global norm", 1, 0, GlobalNorm { x: grads, norm })?;
    b.time("adamw", 1, 0, AdamW { grads, norm, bounds, hyper, params, m, v, clip: 1.0, ..AdamW::default() })
}
