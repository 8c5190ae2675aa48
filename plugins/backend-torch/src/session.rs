//! The session: buffers in the contract's pool, operations through its dispatcher, operands as strided views.

use crate::{
    context::Context,
    fault::{Attempt, Fault},
    fused::launch::Kernels,
    ops::workspace,
    queue::{
        self,
        kept::Integers,
        profile::{Counts, Profile},
    },
    settings::{AttentionPath, Settings},
    shim,
    storage::{self, Buffer},
};
use plugin_api::{
    Code, Error, Result,
    backend::{
        Call, DType, Handle, Memory, Pool, Session, SessionOptions, View,
        ops::{CATALOGUE, dispatch},
    },
};
use std::{
    cell::RefCell,
    sync::{Mutex, PoisonError},
};
use tch::{Device, Kind, Tensor};

/// Buffers and operations on one of libtorch's devices.
pub struct TorchSession {
    pub(crate) pool: Pool<Buffer>,
    threads: i32,
    settings: Settings,
    /// The fused kernels, if they are used.
    kernels: Option<Kernels>,
    pub(crate) integers: RefCell<Integers>,
    counts: Counts,
    profile: Option<Profile>,
}

/// The name of an operation.
fn name_of(op: u32) -> &'static str {
    CATALOGUE.iter().find(|spec| spec.id == op).map_or("an unknown operation", |spec| spec.name)
}

impl TorchSession {
    /// A session on `device`.
    ///
    /// # Errors
    /// libtorch's errors when its switches are set.
    pub(crate) fn new(
        device: Device,
        options: &SessionOptions,
        settings: Settings,
        kernels: Option<Kernels>,
    ) -> Result<Self> {
        let session = TorchSession {
            pool: Pool::new(device, options.tag),
            threads: i32::try_from(options.threads.max(1)).unwrap_or(i32::MAX),
            settings,
            kernels,
            integers: RefCell::default(),
            counts: Counts::default(),
            profile: Profile::from_environment(device)?,
        };
        session.take_over().map_err(|e| e.named("open"))?;
        Ok(session)
    }

    /// The device it computes on.
    pub(crate) fn device(&self) -> Device {
        *self.pool.device()
    }

    /// Which code computes attention.
    pub(crate) fn attention_path(&self) -> AttentionPath {
        self.settings.attention
    }

    fn context(&self) -> Context {
        Context(self.device())
    }

    /// The fused kernels, if they are used.
    pub(crate) fn kernels(&self) -> Option<&Kernels> {
        self.kernels.as_ref()
    }

    /// Whether it computes on the processor.
    pub(crate) fn on_cpu(&self) -> bool {
        self.device() == Device::Cpu
    }

    /// Sets libtorch's process-wide switches and this thread's thread count to this session's; another session may have changed
    /// them.
    fn take_over(&self) -> Attempt {
        static CURRENT: Mutex<Option<Settings>> = Mutex::new(None);
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        if *current != Some(self.settings) {
            shim::configure(self.settings.tf32, self.settings.deterministic)?;
            *current = Some(self.settings);
        }
        if tch::get_num_threads() != self.threads {
            tch::set_num_threads(self.threads);
        }
        Ok(())
    }

    /// An operand as a matrix; writing to the matrix writes to the buffer.
    pub(crate) fn at(&self, view: &View) -> Attempt<Tensor> {
        let (rows, cols) = (storage::size(view.rows)?, storage::size(view.cols)?);
        self.shaped(view, &[rows, cols], &[storage::row_stride(view)?, 1], 0)
    }

    /// The address of an operand's first element, on the device.
    pub(crate) fn address(&self, view: &View) -> Attempt<usize> {
        let buffer = self.pool.check(view)?;
        let skip = usize::try_from(view.offset).unwrap_or(usize::MAX).saturating_mul(view.dtype.size().unwrap_or(1));
        Ok((buffer.0.data_ptr() as usize).saturating_add(skip))
    }

    /// An optional operand as a matrix.
    pub(crate) fn at_opt(&self, view: &Option<View>) -> Attempt<Option<Tensor>> {
        view.as_ref().map(|view| self.at(view)).transpose()
    }

    /// An operand with another shape: element 0 lies `skip` elements after the view's first.
    pub(crate) fn shaped(&self, view: &View, size: &[i64], stride: &[i64], skip: i64) -> Attempt<Tensor> {
        let buffer = self.pool.check(view)?;
        let offset = storage::size(view.offset)?;
        Ok(buffer.0.f_as_strided(size, stride, offset + skip)?)
    }

    /// A tensor's values on the host. On a device this waits for all work before it, so no operation of a training step may do it.
    #[expect(clippy::disallowed_methods, reason = "the place where it is counted")]
    pub(crate) fn to_host(&self, tensor: &Tensor) -> Attempt<Tensor> {
        self.counts.count_reads(1);
        Ok(tensor.f_to_device(Device::Cpu)?)
    }

    /// Host reads and uploads so far.
    #[cfg(test)]
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Counts an upload of integers.
    pub(crate) fn note_upload(&self) {
        self.counts.uploads.set(self.counts.uploads.get() + 1);
    }

    /// The write version of an operand's buffer.
    pub(crate) fn write_version_of(&self, view: &View) -> Attempt<u64> {
        Ok(self.pool.write_version(view.buffer)?)
    }

    /// The values of a small float operand.
    #[expect(clippy::disallowed_methods, reason = "already on the host")]
    pub(crate) fn floats(&self, view: &View) -> Attempt<Vec<f64>> {
        let tensor = self.to_host(&self.at(view)?)?.f_to_kind(Kind::Double)?.f_contiguous()?;
        let mut values = vec![0.0; tensor.numel()];
        let count = values.len();
        tensor.f_copy_data(&mut values, count)?;
        Ok(values)
    }

    /// The part of a buffer with `bytes` bytes that starts at element `offset`.
    fn part(&self, buffer: Handle, offset: u64, bytes: usize) -> Result<Tensor> {
        let (storage, dtype, _) = self.pool.buffer(buffer)?;
        let size = dtype.size().unwrap_or(1);
        if !bytes.is_multiple_of(size) {
            return Err(Error::new(Code::HANDLE, format!("{bytes} bytes are not a whole number of {dtype}")));
        }
        let elements = (bytes / size) as u64;
        self.pool.check_range(buffer, offset, elements)?;
        let narrowed =
            || -> Attempt<Tensor> { Ok(storage.0.f_narrow(0, storage::size(offset)?, storage::size(elements)?)?) };
        narrowed().map_err(|e| e.named("transfer"))
    }
}

impl Session for TorchSession {
    fn invoke(&mut self, call: &Call<'_>) -> Result<()> {
        // Every given view must lie in a live buffer, including those that this operation does not read.
        for view in call.inputs.iter().chain(call.outputs.iter()).filter(|view| !view.is_none()) {
            self.pool.check(view)?;
        }
        self.context().check(name_of(call.op))?;
        self.take_over().map_err(|e| e.named("invoke"))?;
        let _no_graph = tch::no_grad_guard();
        if let Some(profile) = &mut self.profile {
            profile.begin(&self.counts);
        }
        let done = dispatch(self, call);
        // Integers lie in the host's memory: an operation that computes some copies them there, and waits for them.
        let is_integer = |view: &&View| !view.is_none() && view.dtype == DType::I32;
        if call.inputs.iter().any(|view| view.dtype.is_float()) {
            self.counts.count_reads(call.outputs.iter().filter(is_integer).count() as u64);
        }
        if let Some(profile) = &mut self.profile {
            profile.end(name_of(call.op), &self.counts);
        }
        let done = self.context().after(done);
        // After an error the outputs are undefined, so they count as written then too.
        for view in call.outputs.iter().filter(|view| !view.is_none()) {
            self.pool.written(view.buffer)?;
        }
        done
    }

    fn alloc(&mut self, dtype: DType, elements: u64) -> Result<Handle> {
        self.context().check("alloc")?;
        let allocated = self.pool.alloc(dtype, elements);
        self.context().after(allocated)
    }

    fn free(&mut self, buffer: Handle) -> Result<()> {
        self.pool.free(buffer)
    }

    fn upload(&mut self, buffer: Handle, offset: u64, bytes: &[u8]) -> Result<()> {
        self.context().check("upload")?;
        let mut part = self.part(buffer, offset, bytes.len())?;
        let copied = queue::upload(&mut part, bytes).map_err(|e| e.named("upload"));
        self.pool.written(buffer)?;
        self.context().after(copied)
    }

    #[expect(clippy::disallowed_methods, reason = "the host requests the values")]
    fn download(&mut self, buffer: Handle, offset: u64, bytes: &mut [u8]) -> Result<()> {
        self.context().check("download")?;
        let part = self.part(buffer, offset, bytes.len())?;
        let count = part.numel();
        let copied = part.f_copy_data_u8(bytes, count).map_err(|e| Fault::from(e).named("download"));
        self.context().after(copied)
    }

    fn write_version(&self, buffer: Handle) -> Result<u64> {
        self.pool.write_version(buffer)
    }

    fn supports(&self, op: u32, dtype: DType) -> bool {
        let known = CATALOGUE.iter().any(|spec| spec.id == op);
        dtype.is_float() && storage::kind(dtype).is_some() && known && self.context().is_alive()
    }

    fn workspace(&self, call: &Call<'_>) -> u64 {
        workspace::bytes(call, self.on_cpu())
    }

    fn memory(&self) -> Memory {
        self.pool.memory()
    }

    fn trim(&mut self) {
        self.pool.trim();
        *self.integers.borrow_mut() = Integers::default();
        if !self.on_cpu() {
            // If this fails, memory is freed when it is needed: libtorch then retries by itself.
            let _ = shim::trim();
        }
    }

    fn sync(&mut self) -> Result<()> {
        match self.device() {
            Device::Cuda(index) => {
                self.context().check("sync")?;
                let done = shim::synchronize(index).map_err(|e| e.named("sync"));
                self.context().after(done)
            }
            _ => Ok(()),
        }
    }
}

impl std::fmt::Debug for TorchSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TorchSession")
            .field("device", &self.device())
            .field("memory", &self.pool.memory())
            .finish_non_exhaustive()
    }
}
