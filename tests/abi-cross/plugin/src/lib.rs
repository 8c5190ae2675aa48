//! One plugin of each kind; each of their calls returns a value that the loader can recognise.

use plugin_api::{
    backend::{
        Backend, Call, DType, Handle, Memory, Pool, Session, SessionOptions, Storage,
        ops::{self, ElementwiseOps, Nop, dispatch},
    },
    export_backend, export_reward,
    manifest::{BackendManifest, RewardManifest},
    objective::MetricPart,
    prelude::*,
    reward::{Column, Reward, RewardPlugin, Sample},
};

options! {
    /// Options of the objective and the reward.
    pub struct CrossOptions {
        /// A factor.
        factor: f64 = 2.0, in 0.0..=10.0;
    }
}

/// `factor * -logp`, with a distinct result in every call.
pub struct Cross {
    factor: f64,
    steps: u8,
}

impl ObjectivePlugin for Cross {
    type Options = CrossOptions;

    fn manifest() -> ObjectiveManifest {
        ObjectiveManifest {
            summary: "crossing".into(),
            terms: vec![TermSpec::new("nll", Normaliser::CUSTOM, "A term")],
            ..Default::default()
        }
    }

    fn create(options: CrossOptions) -> Result<Self> {
        Ok(Cross { factor: options.factor, steps: 0 })
    }
}

impl Objective for Cross {
    fn requirements(&self) -> Result<Requirements> {
        Ok(Requirements { linear: true, temperature: self.factor, ..Default::default() })
    }

    fn compose(&self, rows: &Batch<'_>, seed: u64) -> Result<Option<Batch<'static>>> {
        let tokens = rows.get("token")?.iter().rev().copied().collect::<Vec<f64>>();
        Ok(Some(Batch::new().with("token", Scope::TOKEN, tokens).with("seed", Scope::BATCH, vec![seed as f64])))
    }

    fn prepare(&mut self, rollouts: &Batch<'_>) -> Result<Batch<'static>> {
        let advantage: Vec<f64> = rollouts.get("logp")?.iter().map(|l| l + 1.0).collect();
        Ok(Batch::new().with("advantage", Scope::TOKEN, advantage))
    }

    fn weigh(&self, batch: &Batch<'_>) -> Result<Vec<(String, f64)>> {
        Ok(vec![("nll".into(), batch.mask()?.iter().sum())])
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        let tape = batch.tape()?;
        let nll = (-batch.var(&tape, "logp")?).masked_sum(batch.mask()?);
        let mut loss = Loss::new().term(&tape, "nll", self.factor, nll)?;
        loss.metrics.push(MetricPart { name: "count".into(), value: 7.0, weight: 8.0 });
        Ok(loss)
    }

    fn after_step(&mut self, metrics: &[(String, f64)]) -> Result<Verdict> {
        self.steps += 1;
        Ok(if metrics.iter().any(|(name, value)| name == "kl" && *value > 1.0) {
            Verdict::STOP
        } else {
            Verdict::CONTINUE
        })
    }

    fn state(&self) -> Result<Vec<u8>> {
        Ok(vec![self.steps])
    }

    fn restore(&mut self, state: &[u8]) -> Result<()> {
        self.steps = *state.first().ok_or_else(|| Error::new(Code::STATE, "one byte was expected"))?;
        Ok(())
    }
}

export_objective!("cross-objective", Cross);

/// Bytes.
struct Bytes(Vec<u8>);

impl Storage for Bytes {
    type Device = ();

    fn allocate(_: &(), dtype: DType, elements: u64) -> Result<Self> {
        Ok(Bytes(vec![0; elements as usize * dtype.size().unwrap_or(1)]))
    }
}

/// Buffers of bytes, and the operation that does nothing.
pub struct CrossSession {
    pool: Pool<Bytes>,
}

impl ElementwiseOps for CrossSession {
    fn nop(&mut self, _: &Nop) -> Result<()> {
        Ok(())
    }
}

impl ops::RowOps for CrossSession {}
impl ops::NormOps for CrossSession {}
impl ops::LinearOps for CrossSession {}
impl ops::AttentionOps for CrossSession {}
impl ops::ActivationOps for CrossSession {}
impl ops::HeadOps for CrossSession {}
impl ops::DivergenceOps for CrossSession {}
impl ops::CandidateOps for CrossSession {}
impl ops::OptimizerOps for CrossSession {}

impl CrossSession {
    fn range(&self, buffer: Handle, offset: u64, length: usize) -> Result<std::ops::Range<usize>> {
        let (storage, dtype, _) = self.pool.buffer(buffer)?;
        let start = offset as usize * dtype.size().unwrap_or(1);
        let end = start.checked_add(length).filter(|end| *end <= storage.0.len());
        end.map(|end| start..end).ok_or_else(|| Error::new(Code::HANDLE, "outside of the buffer"))
    }
}

impl Session for CrossSession {
    fn invoke(&mut self, call: &Call<'_>) -> Result<()> {
        dispatch(self, call)
    }

    fn alloc(&mut self, dtype: DType, elements: u64) -> Result<Handle> {
        self.pool.alloc(dtype, elements)
    }

    fn free(&mut self, buffer: Handle) -> Result<()> {
        self.pool.free(buffer)
    }

    fn upload(&mut self, buffer: Handle, offset: u64, bytes: &[u8]) -> Result<()> {
        let range = self.range(buffer, offset, bytes.len())?;
        let (storage, _, _) = self.pool.buffer_mut(buffer)?;
        storage.0[range].copy_from_slice(bytes);
        Ok(())
    }

    fn download(&mut self, buffer: Handle, offset: u64, bytes: &mut [u8]) -> Result<()> {
        let range = self.range(buffer, offset, bytes.len())?;
        let (storage, _, _) = self.pool.buffer(buffer)?;
        bytes.copy_from_slice(&storage.0[range]);
        Ok(())
    }

    fn write_version(&self, buffer: Handle) -> Result<u64> {
        self.pool.write_version(buffer)
    }

    fn supports(&self, op: u32, dtype: DType) -> bool {
        op == 0 && dtype == DType::F32
    }

    fn workspace(&self, call: &Call<'_>) -> u64 {
        100 + u64::from(call.op)
    }

    fn memory(&self) -> Memory {
        self.pool.memory()
    }

    fn trim(&mut self) {
        self.pool.trim();
    }

    fn sync(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Opens [`CrossSession`]s.
pub struct CrossBackend;

impl Backend for CrossBackend {
    type Session = CrossSession;

    fn manifest() -> BackendManifest {
        BackendManifest { summary: "crossing".into(), ..Default::default() }
    }

    fn open(options: &SessionOptions) -> Result<CrossSession> {
        if options.device != "cpu" {
            return Err(Error::new(Code::DEVICE, format!("no device `{}`", options.device)));
        }
        Ok(CrossSession { pool: Pool::new((), options.tag) })
    }
}

export_backend!("cross-backend", CrossBackend);

/// The completion's length times a factor, plus the row's number.
pub struct Length(f64);

impl Reward for Length {
    fn score(&self, samples: &[Sample]) -> Result<Vec<f64>> {
        let one = |s: &Sample| {
            let text = s.text("note").map_or(0, str::len) + s.completion.len() + usize::from(s.ended);
            let number = s.columns.iter().find_map(|(_, c)| if let Column::Number(n) = c { Some(*n) } else { None });
            self.0 * text as f64 + number.unwrap_or(0.0)
        };
        Ok(samples.iter().map(one).collect())
    }
}

impl RewardPlugin for Length {
    type Options = CrossOptions;

    fn manifest() -> RewardManifest {
        RewardManifest { summary: "crossing".into(), columns: vec!["note".into()], ..Default::default() }
    }

    fn create(options: CrossOptions) -> Result<Self> {
        Ok(Length(options.factor))
    }
}

export_reward!("cross-reward", Length);
