//! Buffers behind generational handles, with reuse: the memory of every backend.
//!
//! Freed buffers go to a list by size class and are reused for the next allocation of that class or of a slightly smaller one, so
//! that a training step in its steady state allocates nothing on the device. Spare buffers are bounded: together with the live
//! ones they never exceed the peak in use by more than an eighth of the working memory. That is the peak in use less what stays
//! in use all the time, such as weights and moments, which no spare buffer replaces. Those that were unused longest are dropped
//! first.

use crate::{
    Code, Error, Result,
    abi::{DType, Handle, Memory, View},
};
use std::collections::BTreeMap;

/// Device memory of one buffer.
pub trait Storage: Sized {
    /// What allocating needs besides the size: the device.
    type Device;

    /// Memory for `elements` of `dtype`, content undefined.
    ///
    /// # Errors
    /// [`Code::OUT_OF_MEMORY`], [`Code::DTYPE`].
    fn allocate(device: &Self::Device, dtype: DType, elements: u64) -> Result<Self>;
}

struct Entry<B> {
    storage: B,
    dtype: DType,
    elements: u64,
    capacity: u64,
    version: u64,
}

struct Slot<B> {
    generation: u32,
    entry: Option<Entry<B>>,
}

/// A session's buffers.
pub struct Pool<B: Storage> {
    device: B::Device,
    tag: u16,
    slots: Vec<Slot<B>>,
    vacant: Vec<u32>,
    spare: BTreeMap<(DType, u64), Spare<B>>,
    /// Counts the buffers that were freed, to order spare ones by age.
    freed: u64,
    /// The least memory in use since the peak was last raised: what stays in use.
    stays: u64,
    memory: Memory,
}

/// Spare buffers of one size class.
struct Spare<B> {
    buffers: Vec<B>,
    /// [`Pool::freed`] when the last of them was added.
    since: u64,
}

const FIELD: u64 = 0xff_ffff;

/// Rounds a size up to its class: eighths of the power of two below, so that at most an eighth is wasted; large buffers
/// (above 16 Mi elements) are kept exact.
fn size_class(elements: u64) -> u64 {
    let least = elements.max(64);
    if least > 1 << 24 {
        return least.next_multiple_of(64);
    }
    let step = (least.next_power_of_two() / 16).max(64);
    least.next_multiple_of(step)
}

impl<B: Storage> Pool<B> {
    /// An empty pool for the session of `tag`.
    pub fn new(device: B::Device, tag: u16) -> Self {
        Pool {
            device,
            tag: tag.max(1),
            slots: Vec::new(),
            vacant: Vec::new(),
            spare: BTreeMap::new(),
            freed: 0,
            stays: 0,
            memory: Memory::default(),
        }
    }

    /// The device it allocates on.
    pub fn device(&self) -> &B::Device {
        &self.device
    }

    /// A buffer of `elements`, reused or fresh.
    ///
    /// # Errors
    /// Those of [`Storage::allocate`]; also [`Code::OUT_OF_MEMORY`] if the size overflows.
    pub fn alloc(&mut self, dtype: DType, elements: u64) -> Result<Handle> {
        let size = dtype.size().ok_or_else(|| Error::new(Code::DTYPE, format!("alloc: {dtype} is unknown here")))?;
        let too_large = || Error::new(Code::OUT_OF_MEMORY, format!("alloc: {elements} elements of {dtype}"));
        if elements > (isize::MAX as u64) / (2 * size as u64) {
            return Err(too_large());
        }
        let (mut capacity, size) = (size_class(elements), size as u64);
        let storage = match self.take_spare(dtype, capacity) {
            Some((larger, storage)) => {
                capacity = larger;
                self.memory.cached -= capacity * size;
                storage
            }
            None => self.fresh(dtype, capacity, capacity * size)?,
        };
        let bytes = capacity * size;
        self.memory.in_use += bytes;
        if self.memory.in_use > self.memory.peak {
            (self.memory.peak, self.stays) = (self.memory.in_use, self.memory.in_use);
        }
        self.memory.handles += 1;
        self.place(Entry { storage, dtype, elements, capacity, version: 0 })
    }

    /// The smallest spare buffer that holds `capacity` elements and at most a quarter more, with its capacity.
    fn take_spare(&mut self, dtype: DType, capacity: u64) -> Option<(u64, B)> {
        let fits = (dtype, capacity)..=(dtype, capacity + capacity / 4);
        let (key, spare) = self.spare.range_mut(fits).next()?;
        let (key, storage) = (*key, spare.buffers.pop());
        if spare.buffers.is_empty() {
            self.spare.remove(&key);
        }
        storage.map(|storage| (key.1, storage))
    }

    /// Drops spare buffers until `bytes` more fit within the bound.
    fn make_room(&mut self, bytes: u64) {
        let live = self.memory.in_use + bytes;
        let most = self.memory.peak.max(live);
        while live + self.memory.cached > most + (most - self.stays) / 8 {
            let Some((key, oldest)) = self.spare.iter_mut().min_by_key(|(_, spare)| spare.since) else { return };
            let (dtype, capacity) = *key;
            oldest.buffers.pop();
            if oldest.buffers.is_empty() {
                self.spare.remove(&(dtype, capacity));
            }
            self.memory.cached -= capacity * dtype.size().unwrap_or(0) as u64;
        }
    }

    /// Allocates new memory; if the device is out of memory, frees the spare buffers and retries once.
    fn fresh(&mut self, dtype: DType, capacity: u64, bytes: u64) -> Result<B> {
        self.memory.fresh_allocations += 1;
        self.make_room(bytes);
        match B::allocate(&self.device, dtype, capacity) {
            Err(e) if e.code == Code::OUT_OF_MEMORY && !self.spare.is_empty() => {
                self.trim();
                B::allocate(&self.device, dtype, capacity)
            }
            other => other,
        }
    }

    fn place(&mut self, entry: Entry<B>) -> Result<Handle> {
        let index = match self.vacant.pop() {
            Some(index) => index,
            None if self.slots.len() as u64 >= FIELD => {
                return Err(Error::new(Code::OUT_OF_MEMORY, "alloc: no handle left"));
            }
            None => {
                self.slots.push(Slot { generation: 0, entry: None });
                (self.slots.len() - 1) as u32
            }
        };
        let slot = &mut self.slots[index as usize];
        slot.generation += 1;
        slot.entry = Some(entry);
        Ok(Handle(u64::from(self.tag) << 48 | u64::from(slot.generation) << 24 | u64::from(index)))
    }

    /// Takes a freed buffer for reuse.
    ///
    /// # Errors
    /// [`Code::HANDLE`] for a stale or foreign handle.
    pub fn free(&mut self, handle: Handle) -> Result<()> {
        self.entry(handle)?;
        let index = (handle.0 & FIELD) as usize;
        if let Some(entry) = self.slots[index].entry.take() {
            let bytes = entry.capacity * entry.dtype.size().unwrap_or(0) as u64;
            self.memory.in_use -= bytes;
            self.stays = self.stays.min(self.memory.in_use);
            self.memory.cached += bytes;
            self.memory.handles -= 1;
            self.freed += 1;
            let spare = self.spare.entry((entry.dtype, entry.capacity));
            let spare = spare.or_insert(Spare { buffers: Vec::new(), since: 0 });
            spare.buffers.push(entry.storage);
            spare.since = self.freed;
            // A slot whose generations are used up stays empty, because an old handle would name its next buffer.
            if u64::from(self.slots[index].generation) < FIELD {
                self.vacant.push(index as u32);
            }
        }
        Ok(())
    }

    fn entry(&self, handle: Handle) -> Result<&Entry<B>> {
        if handle.0 >> 48 != u64::from(self.tag) {
            return Err(Error::new(Code::HANDLE, format!("handle {handle:?} is not of this session")));
        }
        let slot = self.slots.get((handle.0 & FIELD) as usize);
        match slot {
            Some(Slot { generation, entry: Some(entry) }) if u64::from(*generation) == (handle.0 >> 24) & FIELD => {
                Ok(entry)
            }
            _ => Err(Error::new(Code::HANDLE, format!("handle {handle:?} is stale: its buffer was freed"))),
        }
    }

    fn entry_mut(&mut self, handle: Handle) -> Result<&mut Entry<B>> {
        self.entry(handle)?;
        self.slots[(handle.0 & FIELD) as usize]
            .entry
            .as_mut()
            .ok_or_else(|| Error::new(Code::HANDLE, format!("handle {handle:?} is stale: its buffer was freed")))
    }

    /// A buffer's storage, dtype and element count.
    ///
    /// # Errors
    /// [`Code::HANDLE`].
    pub fn buffer(&self, handle: Handle) -> Result<(&B, DType, u64)> {
        self.entry(handle).map(|e| (&e.storage, e.dtype, e.elements))
    }

    /// A buffer's storage to write to; counts as a write.
    ///
    /// # Errors
    /// [`Code::HANDLE`].
    pub fn buffer_mut(&mut self, handle: Handle) -> Result<(&mut B, DType, u64)> {
        let entry = self.entry_mut(handle)?;
        entry.version += 1;
        Ok((&mut entry.storage, entry.dtype, entry.elements))
    }

    /// Checks that a view lies in a live buffer of its dtype and returns the storage.
    ///
    /// # Errors
    /// [`Code::HANDLE`], [`Code::DTYPE`].
    pub fn check(&self, view: &View) -> Result<&B> {
        let entry = self.entry(view.buffer)?;
        if entry.dtype != view.dtype {
            return Err(Error::new(Code::DTYPE, format!("{view:?} lies in a buffer of {}", entry.dtype)));
        }
        match view.end() {
            Some(end) if end <= entry.elements => Ok(&entry.storage),
            _ => Err(Error::new(Code::HANDLE, format!("{view:?} leaves its buffer of {} elements", entry.elements))),
        }
    }

    /// Checks a range of `length` elements that starts at `offset` and returns the buffer's dtype.
    ///
    /// # Errors
    /// [`Code::HANDLE`].
    pub fn check_range(&self, handle: Handle, offset: u64, length: u64) -> Result<DType> {
        let entry = self.entry(handle)?;
        match offset.checked_add(length) {
            Some(end) if end <= entry.elements => Ok(entry.dtype),
            _ => Err(Error::new(
                Code::HANDLE,
                format!("elements {offset}..+{length} leave a buffer of {}", entry.elements),
            )),
        }
    }

    /// Counts a write to a buffer.
    ///
    /// # Errors
    /// [`Code::HANDLE`].
    pub fn written(&mut self, handle: Handle) -> Result<()> {
        self.entry_mut(handle).map(|entry| entry.version += 1)
    }

    /// How often a buffer has been written.
    ///
    /// # Errors
    /// [`Code::HANDLE`].
    pub fn write_version(&self, handle: Handle) -> Result<u64> {
        self.entry(handle).map(|e| e.version)
    }

    /// Drops the spare buffers.
    pub fn trim(&mut self) {
        self.spare.clear();
        self.memory.cached = 0;
    }

    /// Memory in use and cached.
    pub fn memory(&self) -> Memory {
        self.memory
    }
}

#[cfg(test)]
mod tests;
