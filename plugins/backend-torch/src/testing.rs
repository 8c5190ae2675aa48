//! Sessions and operands for unit tests.

use crate::{
    TorchSession,
    settings::{AttentionPath, Settings},
    storage,
};
use plugin_api::backend::{DType, Op, Session, SessionOptions, View};
use tch::{Device, Tensor};

/// A session on the processor with one thread.
pub(crate) fn session(attention: AttentionPath) -> TorchSession {
    let settings = Settings { tf32: false, deterministic: true, fused: false, attention };
    let options = SessionOptions { threads: 1, ..SessionOptions::default() };
    TorchSession::new(Device::Cpu, &options, settings, None).unwrap()
}

/// Numbers in about -1 to 1 that depend on `seed`.
pub(crate) fn numbers(seed: u64, count: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / f64::from(1 << 23) - 1.0
    };
    (0..count).map(|_| next()).collect()
}

impl TorchSession {
    /// A dense operand with these values.
    pub(crate) fn operand(&mut self, dtype: DType, rows: u64, cols: u64, values: &[f64]) -> View {
        let view = View::dense(self.alloc(dtype, rows * cols).unwrap(), dtype, rows, cols);
        self.set(&view, values);
        view
    }

    /// Uploads values to a dense operand.
    pub(crate) fn set(&mut self, view: &View, values: &[f64]) {
        let tensor = Tensor::from_slice(values).to_kind(storage::kind(view.dtype).unwrap());
        let mut bytes = vec![0; values.len() * view.dtype.size().unwrap()];
        tensor.copy_data_u8(&mut bytes, values.len());
        self.upload(view.buffer, view.offset, &bytes).unwrap();
    }

    /// A dense operand of [`numbers`].
    pub(crate) fn random(&mut self, seed: u64, dtype: DType, rows: u64, cols: u64) -> View {
        self.operand(dtype, rows, cols, &numbers(seed, rows * cols))
    }

    /// Integers in a row.
    pub(crate) fn integers(&mut self, values: &[u64]) -> View {
        let values: Vec<f64> = values.iter().map(|&value| value as f64).collect();
        self.operand(DType::I32, 1, values.len() as u64, &values)
    }

    /// The operand's values.
    pub(crate) fn values(&self, view: &View) -> Vec<f64> {
        let tensor = self.at(view).unwrap().to_kind(tch::Kind::Double).contiguous();
        let mut values = vec![0.0; tensor.numel()];
        let count = values.len();
        tensor.copy_data(&mut values, count);
        values
    }

    /// Runs an operation.
    pub(crate) fn run(&mut self, op: &impl Op) {
        op.with_call(|call| self.invoke(call)).unwrap();
    }
}
