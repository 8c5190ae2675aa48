//! The session: buffers in the contract's pool, operations through its dispatcher, operands as strided views.

use crate::{
    Settings,
    fault::{Attempt, Fault},
    ops::workspace,
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
    collections::BTreeMap,
    ops::Range,
    sync::{Mutex, PoisonError},
};
use tch::{Device, Kind, Tensor};

/// Buffers and operations on one of libtorch's devices.
pub struct TorchSession {
    pool: Pool<Buffer>,
    threads: i32,
    settings: Settings,
    downloads: BTreeMap<u64, Vec<u8>>,
    tickets: u64,
}

impl TorchSession {
    /// A session on `device`.
    ///
    /// # Errors
    /// What libtorch answers to its switches.
    pub(crate) fn new(device: Device, options: &SessionOptions, settings: Settings) -> Result<Self> {
        let session = TorchSession {
            pool: Pool::new(device, options.tag),
            threads: i32::try_from(options.threads.max(1)).unwrap_or(i32::MAX),
            settings,
            downloads: BTreeMap::new(),
            tickets: 0,
        };
        session.take_over().map_err(|e| e.named("open"))?;
        Ok(session)
    }

    /// The device it computes on.
    pub(crate) fn device(&self) -> Device {
        *self.pool.device()
    }

    /// Whether it computes on the processor.
    pub(crate) fn on_cpu(&self) -> bool {
        self.device() == Device::Cpu
    }

    /// Makes libtorch's process-wide switches and this thread's thread count this session's; another session may have
    /// had others.
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

    /// An operand as a matrix; writing to it writes to the buffer.
    pub(crate) fn at(&self, view: &View) -> Attempt<Tensor> {
        let (rows, cols) = (storage::size(view.rows)?, storage::size(view.cols)?);
        self.shaped(view, &[rows, cols], &[storage::row_stride(view)?, 1], 0)
    }

    /// An optional operand as a matrix.
    pub(crate) fn at_opt(&self, view: &Option<View>) -> Attempt<Option<Tensor>> {
        view.as_ref().map(|view| self.at(view)).transpose()
    }

    /// An operand under another shape: element 0 lies `skip` elements behind the view's first.
    pub(crate) fn shaped(&self, view: &View, size: &[i64], stride: &[i64], skip: i64) -> Attempt<Tensor> {
        let buffer = self.pool.check(view)?;
        let offset = storage::size(view.offset)?;
        Ok(buffer.0.f_as_strided(size, stride, offset + skip)?)
    }

    /// The values of an integer operand.
    pub(crate) fn ints(&self, view: &View) -> Attempt<Vec<i32>> {
        let tensor = self.at(view)?.f_contiguous()?;
        let mut values = vec![0; tensor.numel()];
        let count = values.len();
        tensor.f_copy_data(&mut values, count)?;
        Ok(values)
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
        let outside = |&value: &i32| u64::try_from(value).map_or(true, |value| value >= table);
        if let Some(at) = values.iter().position(outside) {
            let text = format!("{operation}: {name}[{at}] is {}, the table has {table} rows", values[at]);
            return Err(Error::new(Code::INDEX, text).into());
        }
        Ok(values.into_iter().map(i64::from).collect())
    }

    /// [`TorchSession::indices`] as a tensor on the device.
    pub(crate) fn index(&self, operation: &str, name: &str, view: &View, table: u64) -> Attempt<Tensor> {
        self.upload_indices(&self.indices(operation, name, view, table)?)
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
        let offsets: Vec<i64> = self.ints(view)?.into_iter().map(i64::from).collect();
        let ascends = offsets.windows(2).all(|pair| pair[0] <= pair[1]);
        let last = offsets.last().and_then(|&last| u64::try_from(last).ok());
        if !ascends || offsets.first() != Some(&0) || last != Some(end) {
            let text = format!("{operation}: {name} must ascend from 0 to {end}, they are {offsets:?}");
            return Err(Error::new(Code::INDEX, text).into());
        }
        Ok(offsets.windows(2).map(|pair| pair[0]..pair[1]).collect())
    }

    /// The part of a buffer that `bytes` bytes from element `offset` on are.
    fn part(&self, buffer: Handle, offset: u64, bytes: usize) -> Result<(Tensor, Kind)> {
        let (storage, dtype, _) = self.pool.buffer(buffer)?;
        let size = dtype.size().unwrap_or(1);
        if !bytes.is_multiple_of(size) {
            return Err(Error::new(Code::HANDLE, format!("{bytes} bytes are no whole number of {dtype}")));
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
        // Every view that is given must lie in a live buffer, one that this call does not look at included.
        for view in call.inputs.iter().chain(call.outputs.iter()).filter(|view| !view.is_none()) {
            self.pool.check(view)?;
        }
        self.take_over().map_err(|e| e.named("invoke"))?;
        let _no_graph = tch::no_grad_guard();
        let done = dispatch(self, call);
        // After an error the outputs are undefined, so they count as written then too.
        for view in call.outputs.iter().filter(|view| !view.is_none()) {
            self.pool.written(view.buffer)?;
        }
        done
    }

    fn alloc(&mut self, dtype: DType, elements: u64) -> Result<Handle> {
        self.pool.alloc(dtype, elements)
    }

    fn free(&mut self, buffer: Handle) -> Result<()> {
        self.pool.free(buffer)
    }

    fn upload(&mut self, buffer: Handle, offset: u64, bytes: &[u8]) -> Result<()> {
        let (mut part, kind) = self.part(buffer, offset, bytes.len())?;
        let mut copy = || -> Attempt {
            let source = Tensor::f_from_data_size(bytes, &part.size(), kind)?;
            Ok(part.f_copy_(&source)?)
        };
        let copied = copy().map_err(|e| e.named("upload"));
        self.pool.written(buffer)?;
        copied
    }

    fn download(&mut self, buffer: Handle, offset: u64, bytes: &mut [u8]) -> Result<()> {
        let (part, _) = self.part(buffer, offset, bytes.len())?;
        let count = part.numel();
        part.f_copy_data_u8(bytes, count).map_err(|e| Fault::from(e).named("download"))
    }

    fn begin_download(&mut self, buffer: Handle, offset: u64, length: u64) -> Result<u64> {
        let dtype = self.pool.check_range(buffer, offset, length)?;
        let mut bytes = vec![0; length as usize * dtype.size().unwrap_or(1)];
        self.download(buffer, offset, &mut bytes)?;
        self.tickets += 1;
        self.downloads.insert(self.tickets, bytes);
        Ok(self.tickets)
    }

    fn finish_download(&mut self, ticket: u64, bytes: &mut [u8]) -> Result<()> {
        let held =
            self.downloads.get(&ticket).ok_or_else(|| Error::invalid(format!("download {ticket} is not open")))?;
        if held.len() != bytes.len() {
            let text = format!("download {ticket} holds {} bytes, {} were asked for", held.len(), bytes.len());
            return Err(Error::invalid(text));
        }
        bytes.copy_from_slice(held);
        self.downloads.remove(&ticket);
        Ok(())
    }

    fn write_version(&self, buffer: Handle) -> Result<u64> {
        self.pool.write_version(buffer)
    }

    fn supports(&self, op: u32, dtype: DType) -> bool {
        dtype.is_float() && storage::kind(dtype).is_some() && CATALOGUE.iter().any(|spec| spec.id == op)
    }

    fn workspace(&self, call: &Call<'_>) -> u64 {
        workspace::bytes(call, self.on_cpu())
    }

    fn memory(&self) -> Memory {
        self.pool.memory()
    }

    fn trim(&mut self) {
        self.pool.trim();
        if !self.on_cpu() {
            // What is not given back now is given back when it is needed: libtorch tries again by itself.
            let _ = shim::trim();
        }
    }

    fn sync(&mut self) -> Result<()> {
        match self.device() {
            Device::Cuda(index) => shim::synchronize(index).map_err(|e| e.named("sync")),
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
