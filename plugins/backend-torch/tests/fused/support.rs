//! Two sessions with the same operands: one uses the fused kernels, the other ATen's.

use backend_torch::{Torch, TorchSession};
use plugin_api::backend::{Backend, DType, Op, Session, SessionOptions, View};

/// The float types.
pub const DTYPES: [DType; 3] = [DType::F32, DType::BF16, DType::F64];

/// The accumulator of `dtype`.
pub fn accumulator(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}

/// Numbers in -1..1 that look random, the same for the same seed.
pub fn numbers(seed: u64, count: usize) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / f64::from(1 << 23) - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// A session and its operands.
pub struct Bench(pub TorchSession);

impl Bench {
    pub fn open(fused: bool) -> Bench {
        let mut options = SessionOptions { threads: 1, ..SessionOptions::default() };
        options.options.insert("fused".into(), fused.into());
        Bench(Torch::open(&options).unwrap())
    }

    /// A matrix whose rows lie `stride` apart, from element `offset` of its buffer on; the rest of the buffer holds 7s.
    pub fn strided(&mut self, dtype: DType, shape: (u64, u64), (offset, stride): (u64, u64), values: &[f64]) -> View {
        let (rows, cols) = shape;
        assert_eq!(values.len() as u64, rows * cols);
        let mut all = vec![7.0; (offset + rows * stride.max(cols)) as usize];
        for (row, values) in values.chunks_exact((cols as usize).max(1)).enumerate() {
            let at = offset as usize + row * stride as usize;
            all[at..at + values.len()].copy_from_slice(values);
        }
        let buffer = self.0.alloc(dtype, all.len() as u64).unwrap();
        self.0.upload(buffer, 0, &encoded(dtype, &all)).unwrap();
        View { offset, row_stride: stride, ..View::dense(buffer, dtype, rows, cols) }
    }

    /// A matrix without gaps.
    pub fn dense(&mut self, dtype: DType, shape: (u64, u64), values: &[f64]) -> View {
        self.strided(dtype, shape, (0, shape.1), values)
    }

    /// Integers in a row.
    pub fn integers(&mut self, values: &[i32]) -> View {
        let values: Vec<f64> = values.iter().copied().map(f64::from).collect();
        self.dense(DType::I32, (1, values.len() as u64), &values)
    }

    pub fn run<O: Op>(&mut self, op: O) {
        op.with_call(|call| self.0.invoke(call)).unwrap();
    }

    /// The whole buffer of a view, gaps included.
    pub fn buffer(&mut self, view: &View) -> Vec<f64> {
        let count = view.offset + view.rows * view.row_stride.max(view.cols);
        let mut bytes = vec![0; count as usize * view.dtype.size().unwrap()];
        self.0.download(view.buffer, 0, &mut bytes).unwrap();
        decoded(view.dtype, &bytes)
    }
}

fn encoded(dtype: DType, values: &[f64]) -> Vec<u8> {
    let bf16 = |x: f64| {
        let bits = (x as f32).to_bits();
        let rounded = if x.is_nan() { 0x7fc0 } else { ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16 };
        rounded.to_le_bytes().to_vec()
    };
    let bytes = |x: &f64| match dtype {
        DType::F64 => x.to_le_bytes().to_vec(),
        DType::F32 => (*x as f32).to_le_bytes().to_vec(),
        DType::BF16 => bf16(*x),
        _ => (*x as i32).to_le_bytes().to_vec(),
    };
    values.iter().flat_map(bytes).collect()
}

fn decoded(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    let four = |b: &[u8]| [b[0], b[1], b[2], b[3]];
    match dtype {
        DType::F64 => bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
        DType::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes(four(b)).into()).collect(),
        DType::BF16 => bytes.chunks_exact(2).map(|b| f32::from_le_bytes([0, 0, b[0], b[1]]).into()).collect(),
        _ => bytes.chunks_exact(4).map(|b| i32::from_le_bytes(four(b)).into()).collect(),
    }
}

/// The outputs of `work`, of both sessions compared; twice with the fused kernels, which must give the same bits.
pub fn same(name: &str, dtype: DType, work: impl Fn(&mut Bench) -> Vec<(&'static str, View)>) {
    let results = |fused: bool| {
        let mut bench = Bench::open(fused);
        let outputs = work(&mut bench);
        outputs.into_iter().map(|(name, view)| (name, view.dtype, bench.buffer(&view))).collect::<Vec<_>>()
    };
    let (fused, again, aten) = (results(true), results(true), results(false));
    for (((output, own, found), (_, _, again)), (_, _, expected)) in fused.iter().zip(&again).zip(&aten) {
        let bits = |values: &[f64]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert!(bits(found) == bits(again), "{name}, {dtype}: {output} has other bits the second time");
        let largest = expected.iter().filter(|x| x.is_finite()).fold(0.0, |most: f64, x| most.max(x.abs()));
        // Sums are added in another order, and ATen rounds some intermediate values to the compute type.
        let share = match (dtype, *own) {
            (DType::F64, _) => 1e-12,
            (DType::BF16, _) => 1.0 / 64.0,
            _ => 1e-5,
        };
        for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
            let equal = found == expected || (found.is_nan() && expected.is_nan());
            let close = (found - expected).abs() <= share * largest;
            assert!(
                equal || close,
                "{name}, {dtype}: {output}[{at}] is {found}, expected {expected} (largest {largest})"
            );
        }
    }
    assert_eq!(fused.len(), aten.len());
}
