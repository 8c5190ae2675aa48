//! The session: buffers in the contract's pool, operations through its dispatcher, operands as strided views.

use crate::{
    context::Context,
    fault::{Attempt, Fault},
    fused::launch::Kernels,
    ops::workspace,
    settings::Settings,
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
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};
use tch::{Device, Kind, Tensor};

/// Buffers and operations on one of libtorch's devices.
pub struct TorchSession {
    pool: Pool<Buffer>,
    threads: i32,
    settings: Settings,
    /// The fused kernels, if they are used.
    kernels: Option<Kernels>,
    integers: RefCell<BTreeMap<Place, Known>>,
}

/// The location of integers: buffer, offset, rows, columns, distance between rows.
type Place = (Handle, [u64; 4]);

/// Integers read from a buffer at one of its write versions.
struct Known {
    version: u64,
    values: Arc<[i32]>,
    /// `[n]`, 64 bits.
    on_device: Tensor,
}

impl Known {
    fn share(&self) -> Known {
        let Known { version, values, on_device } = self;
        Known { version: *version, values: Arc::clone(values), on_device: on_device.shallow_clone() }
    }
}

/// Maximum number of integer operands kept; a step has a few per micro-batch.
const MOST_KNOWN: usize = 64;

/// The name of an operation.
fn name_of(op: u32) -> &'static str {
    CATALOGUE.iter().find(|spec| spec.id == op).map_or("an unknown operation", |spec| spec.name)
}

/// Refuses values outside `0..table`.
fn inside(operation: &str, name: &str, values: &[i32], table: u64) -> Attempt {
    let outside = |&value: &i32| u64::try_from(value).map_or(true, |value| value >= table);
    if let Some(at) = values.iter().position(outside) {
        let text = format!("{operation}: {name}[{at}] is {}, the table has {table} rows", values[at]);
        return Err(Error::new(Code::INDEX, text).into());
    }
    Ok(())
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
        };
        session.take_over().map_err(|e| e.named("open"))?;
        Ok(session)
    }

    /// The device it computes on.
    pub(crate) fn device(&self) -> Device {
        *self.pool.device()
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

    /// The values of an integer operand, and the same on the device.
    ///
    /// Many operations of a step read positions, targets and bounds; they are kept until their buffer is written.
    fn known(&self, view: &View) -> Attempt<Known> {
        let version = self.pool.write_version(view.buffer)?;
        let place = (view.buffer, [view.offset, view.rows, view.cols, view.row_stride]);
        let mut integers = self.integers.borrow_mut();
        if let Some(known) = integers.get(&place).filter(|known| known.version == version) {
            return Ok(known.share());
        }
        let tensor = self.at(view)?.f_contiguous()?;
        let mut values = vec![0; tensor.numel()];
        let count = values.len();
        tensor.f_copy_data(&mut values, count)?;
        let on_device = tensor.f_flatten(0, -1)?.f_to_kind(Kind::Int64)?.f_to_device(self.device())?;
        let known = Known { version, values: values.into(), on_device };
        let shared = known.share();
        if integers.len() >= MOST_KNOWN {
            integers.clear();
        }
        integers.insert(place, known);
        Ok(shared)
    }

    /// The values of an integer operand.
    pub(crate) fn ints(&self, view: &View) -> Attempt<Arc<[i32]>> {
        Ok(self.known(view)?.values)
    }

    /// An integer operand on the device, without a check of its values.
    pub(crate) fn index_unchecked(&self, view: &View) -> Attempt<Tensor> {
        Ok(self.known(view)?.on_device)
    }

    /// The values of a small float operand.
    pub(crate) fn floats(&self, view: &View) -> Attempt<Vec<f64>> {
        let tensor = self.at(view)?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?.f_contiguous()?;
        let mut values = vec![0.0; tensor.numel()];
        let count = values.len();
        tensor.f_copy_data(&mut values, count)?;
        Ok(values)
    }

    /// An integer operand whose values must lie in `0..table`.
    ///
    /// # Errors
    /// `INDEX` naming the first that does not, and the table's size.
    pub(crate) fn indices(&self, operation: &str, name: &str, view: &View, table: u64) -> Attempt<Vec<i64>> {
        let values = self.ints(view)?;
        inside(operation, name, &values, table)?;
        Ok(values.iter().copied().map(i64::from).collect())
    }

    /// [`TorchSession::indices`] as a tensor on the device.
    pub(crate) fn index(&self, operation: &str, name: &str, view: &View, table: u64) -> Attempt<Tensor> {
        let known = self.known(view)?;
        inside(operation, name, &known.values, table)?;
        Ok(known.on_device)
    }

    /// Indices as a tensor on the device.
    pub(crate) fn upload_indices(&self, values: &[i64]) -> Attempt<Tensor> {
        Ok(Tensor::f_from_slice(values)?.f_to_device(self.device())?)
    }

    /// Offsets that must ascend from 0 to `end`, as ranges.
    ///
    /// # Errors
    /// `INDEX`.
    pub(crate) fn ranges(&self, operation: &str, name: &str, view: &View, end: u64) -> Attempt<Vec<Range<i64>>> {
        let offsets: Vec<i64> = self.ints(view)?.iter().copied().map(i64::from).collect();
        let ascends = offsets.windows(2).all(|pair| pair[0] <= pair[1]);
        let last = offsets.last().and_then(|&last| u64::try_from(last).ok());
        if !ascends || offsets.first() != Some(&0) || last != Some(end) {
            let text = format!("{operation}: {name} must ascend from 0 to {end}, they are {offsets:?}");
            return Err(Error::new(Code::INDEX, text).into());
        }
        Ok(offsets.windows(2).map(|pair| pair[0]..pair[1]).collect())
    }

    /// The part of a buffer with `bytes` bytes that starts at element `offset`.
    fn part(&self, buffer: Handle, offset: u64, bytes: usize) -> Result<(Tensor, Kind)> {
        let (storage, dtype, _) = self.pool.buffer(buffer)?;
        let size = dtype.size().unwrap_or(1);
        if !bytes.is_multiple_of(size) {
            return Err(Error::new(Code::HANDLE, format!("{bytes} bytes are not a whole number of {dtype}")));
        }
        let elements = (bytes / size) as u64;
        self.pool.check_range(buffer, offset, elements)?;
        let narrowed =
            || -> Attempt<Tensor> { Ok(storage.0.f_narrow(0, storage::size(offset)?, storage::size(elements)?)?) };
        let kind = storage::kind(dtype).ok_or_else(|| Error::new(Code::DTYPE, format!("torch has no {dtype}")))?;
        Ok((narrowed().map_err(|e| e.named("transfer"))?, kind))
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
        let done = dispatch(self, call);
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
        let (mut part, kind) = self.part(buffer, offset, bytes.len())?;
        let mut copy = || -> Attempt {
            let source = Tensor::f_from_data_size(bytes, &part.size(), kind)?;
            Ok(part.f_copy_(&source)?)
        };
        let copied = copy().map_err(|e| e.named("upload"));
        self.pool.written(buffer)?;
        self.context().after(copied)
    }

    fn download(&mut self, buffer: Handle, offset: u64, bytes: &mut [u8]) -> Result<()> {
        self.context().check("download")?;
        let (part, _) = self.part(buffer, offset, bytes.len())?;
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
        self.integers.borrow_mut().clear();
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
