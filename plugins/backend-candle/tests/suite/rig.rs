//! Several sessions in parallel: the reference, the kernels with 1, 2 and 3 threads, and the generic path. Buffers are created in
//! all of them in the same order, so that handles and operations are valid in each.

use backend_candle::{Candle, CandleSession};
use backend_reference::{Reference, ReferenceBackend};
use plugin_api::{
    Code,
    backend::{Backend, DType, Handle, Op, Session, SessionOptions, View},
};

/// A small generator of test data (splitmix64).
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        telos_random::step(&mut self.0)
    }

    pub fn uniform(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// Approximately normal: a sum of uniforms.
    pub fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.uniform()).sum::<f32>() - 6.0
    }
}

pub struct Rig {
    oracle: Reference,
    kernels: Vec<CandleSession>,
    generic: CandleSession,
    buffers: Vec<(Handle, DType, usize)>,
    pub rng: Rng,
    /// Gap between the rows, and before the first row, of all matrices created afterwards.
    pub gap: usize,
    /// Largest difference allowed, relative to the buffer's largest value.
    pub tolerance: f64,
}

fn session(path: &str, threads: usize) -> CandleSession {
    let mut options = SessionOptions { threads, ..SessionOptions::default() };
    options.options.insert("path".into(), path.into());
    Candle::open(&options).unwrap()
}

impl Rig {
    pub fn new(seed: u64) -> Self {
        Rig {
            oracle: ReferenceBackend::open(&SessionOptions::default()).unwrap(),
            kernels: [1, 2, 3].map(|threads| session("kernels", threads)).into(),
            generic: session("generic", 1),
            buffers: Vec::new(),
            rng: Rng(seed),
            gap: 0,
            tolerance: 4e-6,
        }
    }

    fn buffer(&mut self, dtype: DType, bytes: &[u8]) -> Handle {
        let elements = bytes.len() / dtype.size().unwrap();
        let mut handles = Vec::new();
        for s in self.all() {
            let handle = s.alloc(dtype, elements as u64).unwrap();
            s.upload(handle, 0, bytes).unwrap();
            handles.push(handle);
        }
        assert!(handles.windows(2).all(|w| w[0] == w[1]), "sessions number their handles equally");
        self.buffers.push((handles[0], dtype, elements));
        handles[0]
    }

    fn all(&mut self) -> impl Iterator<Item = &mut dyn Session> {
        let oracle = std::iter::once(&mut self.oracle as &mut dyn Session);
        let kernels = self.kernels.iter_mut().map(|s| s as &mut dyn Session);
        oracle.chain(kernels).chain(std::iter::once(&mut self.generic as &mut dyn Session))
    }

    /// A matrix of these values in f32 or, truncated, in bf16; rows `gap` apart.
    fn matrix(&mut self, dtype: DType, rows: usize, cols: usize, mut f: impl FnMut(&mut Rng) -> f32) -> View {
        let (offset, stride, size) = (self.gap, cols + self.gap, dtype.size().unwrap());
        // Noise between the rows, so that reads outside them change the result.
        let data: Vec<f32> = (0..offset + rows * stride).map(|_| f(&mut self.rng)).collect();
        // The upper bytes of an f32 are a bf16.
        let bytes: Vec<u8> = data.iter().flat_map(|v| v.to_le_bytes().into_iter().skip(4 - size)).collect();
        let buffer = self.buffer(dtype, &bytes);
        let row_stride = stride as u64;
        View { offset: offset as u64, row_stride, ..View::dense(buffer, dtype, rows as u64, cols as u64) }
    }

    /// A matrix of these values.
    pub fn values(&mut self, rows: usize, cols: usize, f: impl FnMut(&mut Rng) -> f32) -> View {
        self.matrix(DType::F32, rows, cols, f)
    }

    /// A matrix of normal numbers in bf16.
    pub fn half_mat(&mut self, rows: usize, cols: usize) -> View {
        self.matrix(DType::BF16, rows, cols, Rng::normal)
    }

    /// A dense matrix of bf16, zero.
    pub fn halves(&mut self, rows: usize, cols: usize) -> View {
        let buffer = self.buffer(DType::BF16, &vec![0; 2 * rows * cols]);
        View::dense(buffer, DType::BF16, rows as u64, cols as u64)
    }

    /// A matrix of normal numbers.
    pub fn mat(&mut self, rows: usize, cols: usize) -> View {
        self.values(rows, cols, Rng::normal)
    }

    pub fn some(&mut self, rows: usize, cols: usize) -> Option<View> {
        Some(self.mat(rows, cols))
    }

    pub fn ints(&mut self, values: &[i32]) -> View {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let buffer = self.buffer(DType::I32, &bytes);
        View::dense(buffer, DType::I32, 1, values.len() as u64)
    }

    pub fn ids(&mut self, n: usize, below: usize) -> View {
        let ids: Vec<i32> = (0..n).map(|_| (self.rng.next() % below as u64) as i32).collect();
        self.ints(&ids)
    }

    /// Runs the operation everywhere and compares every buffer: thread counts bitwise, paths with the reference.
    #[track_caller]
    pub fn check(&mut self, op: impl Op) {
        for s in self.all() {
            op.with_call(|call| s.invoke(call)).unwrap_or_else(|e| panic!("{op:?}: {e}"));
        }
        for i in 0..self.buffers.len() {
            let (handle, dtype, elements) = self.buffers[i];
            let expected = download(&mut self.oracle, handle, dtype, elements);
            let one = download(&mut self.kernels[0], handle, dtype, elements);
            for threads in [1, 2] {
                let other = download(&mut self.kernels[threads], handle, dtype, elements);
                assert!(one == other, "{op:?}: {} threads give other bits than one", threads + 1);
            }
            let generic = download(&mut self.generic, handle, dtype, elements);
            for (path, found) in [("kernels", one), ("generic", generic)] {
                self.compare(&format!("{path} {op:?} buffer {i}"), dtype, &found, &expected);
            }
        }
    }

    #[track_caller]
    fn compare(&self, what: &str, dtype: DType, found: &[u32], expected: &[u32]) {
        if dtype == DType::I32 {
            return assert_eq!(found, expected, "{what}");
        }
        let value = |bits: u32| f64::from(f32::from_bits(bits));
        let size = expected.iter().map(|b| value(*b).abs()).filter(|v| v.is_finite()).fold(1e-30, f64::max);
        for (i, (f, e)) in found.iter().zip(expected).enumerate() {
            let (f, e) = (value(*f), value(*e));
            let same = f == e || (f.is_nan() && e.is_nan()) || (f - e).abs() <= self.tolerance * size;
            assert!(same, "{what}: element {i} is {f}, expected {e} (largest {size})");
        }
    }

    /// Runs the operation on both paths and expects this code, with these words in the message.
    #[track_caller]
    pub fn refused(&mut self, op: impl Op, code: Code, words: &[&str]) {
        for s in self.all().skip(3) {
            let error = op.with_call(|call| s.invoke(call)).expect_err("refused");
            assert_eq!(error.code, code, "{error}");
            for word in words {
                assert!(error.message.contains(word), "`{word}` is not in: {error}");
            }
        }
    }
}

/// The bits of a buffer's elements, bf16 as the f32 of that value.
fn download(s: &mut dyn Session, handle: Handle, dtype: DType, elements: usize) -> Vec<u32> {
    let mut bytes = vec![0; elements * dtype.size().unwrap()];
    s.download(handle, 0, &mut bytes).unwrap();
    if dtype == DType::BF16 {
        return bytes.chunks_exact(2).map(|b| u32::from(u16::from_le_bytes([b[0], b[1]])) << 16).collect();
    }
    bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// Calls `f` with one rig per gap: dense, and with gaps between rows.
pub fn each_layout(f: impl Fn(&mut Rig)) {
    for gap in [0, 3] {
        let mut rig = Rig::new(7 + gap as u64);
        rig.gap = gap;
        f(&mut rig);
    }
}
