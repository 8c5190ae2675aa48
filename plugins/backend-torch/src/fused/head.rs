//! The language-model head over a chunk of raw logits: statistics of the softmax, and the cotangent in the compute type.

use super::{
    BLOCK, Rows,
    launch::{Grid, Kernel, Kernels, Source},
    params::{HeadCotangent, HeadStats, Shape},
    wide,
};
use crate::{fault::Attempt, storage};
use plugin_api::backend::DType;
use tch::{Kind, Tensor};

/// Threads of a block that reads a row.
const ROW_THREADS: u32 = 512;
/// Packs that a thread of the cotangent's kernel writes: `ROUNDS` of `head.cu`.
const ROUNDS: u64 = 4;

/// A chunk of raw logits, and how they become logits: `z = cap(scale (raw + bias)) / temperature`.
pub struct Chunk<'a> {
    /// `[tokens, vocabulary]`, dense, in the accumulator of `dtype`.
    pub raw: &'a Tensor,
    /// `[1, vocabulary]`, of `dtype`.
    pub bias: Option<&'a Tensor>,
    /// The target of each token, inside the vocabulary; 64 bits, dense.
    pub targets: &'a Tensor,
    /// The compute type.
    pub dtype: DType,
    /// Divides the capped logits.
    pub temperature: f64,
    /// 0: none.
    pub softcap: f64,
    /// Factor of the raw logits.
    pub scale: f64,
}

/// Where statistics are written: one number per token, side by side.
pub struct Statistics {
    /// Log-probability of the target.
    pub logp: Tensor,
    /// Log of the sum of exponentials.
    pub lse: Option<Tensor>,
    /// Entropy in nats.
    pub entropy: Option<Tensor>,
    /// Mean logit.
    pub mean_logit: Option<Tensor>,
    /// Index of the largest logit, 64 bits.
    pub top1: Option<Tensor>,
    /// The logits themselves, `[tokens, vocabulary]` in the compute type.
    pub logits: Option<Tensor>,
}

/// What the cotangent is computed from: one number per token, side by side, in the accumulator.
#[derive(Default)]
pub struct Cotangents<'a> {
    /// The forward's entropy; needed with `dentropy`.
    pub entropy: Option<&'a Tensor>,
    /// Cotangent of `logp`.
    pub dlogp: Option<&'a Tensor>,
    /// Cotangent of `lse`.
    pub dlse: Option<&'a Tensor>,
    /// Cotangent of `mean_logit`.
    pub dmean_logit: Option<&'a Tensor>,
    /// Cotangent of `entropy`.
    pub dentropy: Option<&'a Tensor>,
}

fn address(tensor: Option<&Tensor>) -> usize {
    tensor.map_or(0, |tensor| tensor.data_ptr() as usize)
}

/// The accumulator of `dtype`.
fn accumulator(dtype: DType) -> (DType, Kind) {
    if dtype == DType::F64 { (DType::F64, Kind::Double) } else { (DType::F32, Kind::Float) }
}

impl Chunk<'_> {
    fn tokens(&self) -> u64 {
        self.raw.size()[0].unsigned_abs()
    }

    fn vocabulary(&self) -> u64 {
        self.raw.size()[1].unsigned_abs()
    }

    fn raw_rows(&self) -> Rows {
        Rows::at(address(Some(self.raw)), self.raw.stride()[0], self.tokens(), accumulator(self.dtype).0)
    }

    fn shape(&self, wide: bool) -> Shape {
        let capped = self.softcap > 0.0;
        let (inner, outer) = match capped {
            true => (self.scale / self.softcap, self.softcap / self.temperature),
            false => (1.0, self.scale / self.temperature),
        };
        Shape {
            raw: address(Some(self.raw)),
            bias: address(self.bias),
            raw_stride: self.raw.stride()[0],
            inner,
            outer,
            vocab: self.vocabulary(),
            capped: i32::from(capped),
            wide: i32::from(wide),
        }
    }

    /// Computes the statistics in one read of the logits.
    ///
    /// # Errors
    /// Those of the launch.
    pub fn statistics(&self, kernels: &Kernels, out: &Statistics) -> Attempt {
        let params = HeadStats {
            shape: self.shape(self.raw_rows().aligned),
            targets: address(Some(self.targets)),
            logp: address(Some(&out.logp)),
            lse: address(out.lse.as_ref()),
            entropy: address(out.entropy.as_ref()),
            mean_logit: address(out.mean_logit.as_ref()),
            top1: address(out.top1.as_ref()),
            logits: address(out.logits.as_ref()),
            logits_stride: out.logits.as_ref().map_or(0, |logits| logits.stride()[0]),
        };
        let grid = Grid { blocks: self.tokens(), threads: ROW_THREADS };
        // SAFETY: live tensors on the kernels' device, of the shapes that their fields state; a block reads one of the tokens' rows
        // and writes one number to each output. The targets lie in the vocabulary.
        unsafe { kernels.launch(Kernel(Source::Head, "head_stats"), self.dtype, grid, &params) }
    }

    /// The cotangent of the raw logits, `[tokens, vocabulary]` in the compute type, from the statistics' cotangents. `ready`: `raw`
    /// holds logits, not raw ones. Overwrites `raw` if that may be (`own`) and the types are the same.
    ///
    /// # Errors
    /// Those of libtorch and of the launch.
    pub fn cotangent(
        &self,
        kernels: &Kernels,
        lse: &Tensor,
        d: &Cotangents<'_>,
        own: bool,
        ready: bool,
    ) -> Attempt<Tensor> {
        let (tokens, vocabulary) = (self.raw.size()[0], self.raw.size()[1]);
        let pack = wide(self.dtype);
        let dz = if own && self.dtype == accumulator(self.dtype).0 && self.raw_rows().aligned {
            self.raw.shallow_clone()
        } else {
            // Rows start at multiples of 16 bytes, which the products that read them need to be fast.
            let kind = storage::kind(self.dtype).unwrap_or(accumulator(self.dtype).1);
            let padded = storage::size(self.vocabulary().next_multiple_of(pack))?;
            Tensor::f_empty([tokens, padded], (kind, self.raw.device()))?.f_narrow(1, 0, vocabulary)?
        };
        let stride = dz.stride()[0];
        let aligned =
            self.raw_rows().aligned && Rows::at(address(Some(&dz)), stride, self.tokens(), self.dtype).aligned;
        let packs = if aligned { self.vocabulary().div_ceil(pack) } else { self.vocabulary() };
        let pieces = packs.div_ceil(u64::from(BLOCK) * ROUNDS);
        let params = HeadCotangent {
            shape: self.shape(aligned),
            dz: address(Some(&dz)),
            dz_stride: stride,
            targets: address(Some(self.targets)),
            lse: address(Some(lse)),
            entropy: address(d.entropy),
            dlogp: address(d.dlogp),
            dlse: address(d.dlse),
            dmean_logit: address(d.dmean_logit),
            dentropy: address(d.dentropy),
            factor: self.scale / self.temperature,
            pieces,
            ready: i32::from(ready),
        };
        let grid = Grid { blocks: self.tokens() * pieces, threads: BLOCK };
        // SAFETY: as in `statistics`; a thread writes elements of `dz` in its rows, each after reading the logit at its place.
        unsafe { kernels.launch(Kernel(Source::Head, "head_cotangent"), self.dtype, grid, &params)? };
        Ok(dz)
    }
}
