//! A session: buffers, and the path on which its operations run.

use crate::{
    generic::Generic,
    kernels::{Context, Kernels},
    storage::Storage,
    workspace,
};
use candle_core::Device;
use plugin_api::{
    Code, Error, Result,
    backend::{Call, DType, Handle, Memory, Pool, Session, ops},
};

/// The code that runs the operations.
pub enum Path {
    /// The processor's own kernels.
    Kernels(Box<Context>),
    /// candle's tensor operations, on any device.
    Generic,
}

/// Buffers on one device and the path that computes on them.
pub struct CandleSession {
    pool: Pool<Storage>,
    path: Path,
}

impl CandleSession {
    /// An empty session.
    pub fn new(device: Device, tag: u16, path: Path) -> Self {
        CandleSession { pool: Pool::new(device, tag), path }
    }

    /// Checks the range of `bytes` bytes that starts at element `offset`.
    fn range(&self, buffer: Handle, offset: u64, bytes: usize) -> Result<()> {
        let (_, dtype, _) = self.pool.buffer(buffer)?;
        let size = dtype.size().unwrap_or(1);
        if !bytes.is_multiple_of(size) {
            return Err(Error::new(Code::HANDLE, format!("{bytes} bytes are not a whole number of {dtype}")));
        }
        self.pool.check_range(buffer, offset, (bytes / size) as u64)?;
        Ok(())
    }
}

impl Session for CandleSession {
    fn invoke(&mut self, call: &Call<'_>) -> Result<()> {
        match &mut self.path {
            Path::Kernels(cx) => ops::dispatch(&mut Kernels { pool: &mut self.pool, cx }, call),
            Path::Generic => ops::dispatch(&mut Generic { pool: &mut self.pool }, call),
        }
    }

    fn alloc(&mut self, dtype: DType, elements: u64) -> Result<Handle> {
        self.pool.alloc(dtype, elements)
    }

    fn free(&mut self, buffer: Handle) -> Result<()> {
        self.pool.free(buffer)
    }

    fn upload(&mut self, buffer: Handle, offset: u64, bytes: &[u8]) -> Result<()> {
        self.range(buffer, offset, bytes.len())?;
        let (storage, ..) = self.pool.buffer_mut(buffer)?;
        storage.write(offset as usize, bytes)
    }

    fn download(&mut self, buffer: Handle, offset: u64, bytes: &mut [u8]) -> Result<()> {
        self.range(buffer, offset, bytes.len())?;
        let (storage, ..) = self.pool.buffer(buffer)?;
        storage.read(offset as usize, bytes)
    }

    fn write_version(&self, buffer: Handle) -> Result<u64> {
        self.pool.write_version(buffer)
    }

    fn supports(&self, op: u32, dtype: DType) -> bool {
        workspace::supports(op, dtype)
    }

    fn workspace(&self, call: &Call<'_>) -> u64 {
        match &self.path {
            Path::Kernels(cx) => workspace::kernels(call, cx.par.isa()),
            Path::Generic => workspace::generic(call),
        }
    }

    fn memory(&self) -> Memory {
        self.pool.memory()
    }

    fn trim(&mut self) {
        self.pool.trim();
        if let Path::Kernels(cx) = &mut self.path {
            cx.trim();
        }
    }

    fn sync(&mut self) -> Result<()> {
        self.pool.device().synchronize().map_err(|e| crate::storage::candle_error("sync", e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::backend::{Backend, Op, SessionOptions, View, ops::*};

    const VOCABULARY: u64 = 49_152;

    fn tensor(s: &mut CandleSession, dtype: DType, rows: u64, cols: u64) -> View {
        View::dense(s.alloc(dtype, rows * cols).unwrap(), dtype, rows, cols)
    }

    /// Runs an operation; returns the reported and the actual bytes of its scratch, in a session without other scratch.
    fn scratch(s: &mut CandleSession, op: impl Op) -> (u64, u64) {
        s.trim();
        let reported = op.with_call(|call| {
            s.invoke(call).unwrap();
            s.workspace(call)
        });
        let Path::Kernels(cx) = &s.path else { panic!("not the kernels") };
        let of_eight = cx.keys.capacity() + cx.sums.capacity();
        (reported, 4 * (cx.logits.capacity() + cx.partials.capacity() + 2 * of_eight + cx.par.held()) as u64)
    }

    /// The scratch of divergence, candidates and the most probable ids, forward and backward, for `n` tokens.
    fn all(n: u64, dtype: DType) -> Vec<(u64, u64)> {
        let s = &mut crate::Candle::open(&SessionOptions { threads: 2, ..SessionOptions::default() }).unwrap();
        let [x, w, x2, w2, dx] =
            [(n, 2), (VOCABULARY, 2), (n, 1), (VOCABULARY, 1), (n, 2)].map(|(rows, cols)| tensor(s, dtype, rows, cols));
        let mut floats = |rows, cols| tensor(s, DType::F32, rows, cols);
        let [kl, lse, lse2, dkl] = [0; 4].map(|_| floats(1, n));
        let (dw, dlogp) = (Some(floats(VOCABULARY, 2)), floats(n, 3));
        let (logp, ids) = (floats(n, 3), tensor(s, DType::I32, n, 3));
        let (weight, some) = (0.5, Some(lse2));
        // The most probable ids are distinct, as the candidates after them must be.
        vec![
            scratch(s, HeadDivergence { x, w, x2, w2, kl, weight, ..HeadDivergence::default() }),
            scratch(s, HeadDivergenceBackward { x, w, x2, w2, lse, lse2, dkl, dx, dw, weight, ..Default::default() }),
            scratch(s, HeadTopk { x, w, ids, logp, tail: some, ..HeadTopk::default() }),
            scratch(s, HeadCandidates { x, w, ids, logp, tail: some, lse: Some(lse), ..HeadCandidates::default() }),
            scratch(s, HeadCandidatesBackward { x, w, ids, lse, dlogp: Some(dlogp), dx, dw, ..Default::default() }),
        ]
    }

    /// The scratch of linear layers and of attention, forward and backward.
    fn products(dtype: DType) -> Vec<(&'static str, (u64, u64))> {
        const TOKENS: u64 = 4200;
        let s = &mut crate::Candle::open(&SessionOptions { threads: 2, ..SessionOptions::default() }).unwrap();
        let [x, w, y] = [(TOKENS, 70), (90, 70), (TOKENS, 90)].map(|(rows, cols)| tensor(s, dtype, rows, cols));
        // Sums with more terms than are added up at a time.
        let [long, wide, short] =
            [(40, TOKENS), (50, TOKENS), (40, 50)].map(|(rows, cols)| tensor(s, dtype, rows, cols));
        let dw = tensor(s, DType::F32, 90, 70);
        // Several tasks, and more columns than a task packs at a time.
        let [x2, w2, y2] = [(TOKENS, 230), (250, 230), (TOKENS, 250)].map(|(rows, cols)| tensor(s, dtype, rows, cols));
        let dw2 = tensor(s, DType::F32, 250, 230);
        let [q, k, v, out, dout, dq, dk, dv] = [0; 8].map(|_| tensor(s, dtype, TOKENS, 24));
        let (lse, offsets) = (tensor(s, DType::F32, TOKENS, 1), tensor(s, DType::I32, 1, 3));
        let ends = [0, 100, TOKENS as i32].map(i32::to_le_bytes).concat();
        s.upload(offsets.buffer, 0, &ends).unwrap();
        let (head_dim, accumulate) = (24, false);
        let forward = Attention { q, k, v, offsets, y: out, lse: Some(lse), head_dim, ..Default::default() };
        let dy = dout;
        let backward =
            AttentionBackward { q, k, v, y: out, lse, dy, offsets, dq, dk, dv, head_dim, ..Default::default() };
        vec![
            ("linear", scratch(s, Linear { x, w, bias: None, y })),
            ("linear, long sums", scratch(s, Linear { x: long, w: wide, bias: None, y: short })),
            ("linear_backward_input", scratch(s, LinearBackwardInput { dy: y, w, dx: x, accumulate })),
            ("linear_backward_weight", scratch(s, LinearBackwardWeight { x, dy: y, dw, dbias: None })),
            ("linear, large", scratch(s, Linear { x: x2, w: w2, bias: None, y: y2 })),
            ("linear_backward_input, large", scratch(s, LinearBackwardInput { dy: y2, w: w2, dx: x2, accumulate })),
            ("linear_backward_weight, large", scratch(s, LinearBackwardWeight { x: x2, dy: y2, dw: dw2, dbias: None })),
            ("attention", scratch(s, forward)),
            ("attention_backward", scratch(s, backward)),
        ]
    }

    /// Catches scratch of a product that is not reported, as by another orientation or type of the result.
    #[test]
    fn scratch_of_products_is_reported() {
        for dtype in [DType::F32, DType::BF16] {
            for (what, (reported, actual)) in products(dtype) {
                assert!(actual <= reported, "{what} {dtype}: {actual} bytes, {reported} reported");
                // A product of few rows in f32 is computed in place.
                assert!(actual > 0 || (dtype == DType::F32 && what == "linear, long sums"), "{what} {dtype}");
            }
        }
    }

    /// Catches a buffer of `[N, V]`, scratch that grows with the number of tokens, and scratch that is not reported.
    #[test]
    fn scratch_of_the_head_does_not_grow_with_the_tokens() {
        for dtype in [DType::F32, DType::BF16] {
            let (few, many) = (all(150, dtype), all(600, dtype));
            assert_eq!(few, many);
            for (reported, actual) in many {
                assert!(actual > 0 && actual <= reported, "{dtype}: {actual} bytes, {reported} reported");
                assert!(reported < 600 * VOCABULARY * 4 / 2, "{dtype}: {reported} bytes");
            }
        }
    }
}
