//! Work that a device does later than the host enqueues it: uploads that the host does not wait for, what is kept of them, events,
//! and the profile that is made of events. Rust's side of `queue.cpp`.

pub mod kept;
pub mod profile;

use crate::{fault::Attempt, shim::outcome};
use std::ffi::{c_char, c_void};
use tch::Tensor;

type Raw = torch_sys::C_tensor;

/// `c10::Event`.
#[repr(C)]
struct RawEvent {
    _private: [u8; 0],
}

unsafe extern "C" {
    fn telos_torch_upload(into: *mut Raw, bytes: *const c_void, count: i64) -> *mut c_char;
    fn telos_torch_event_new(event: *mut *mut RawEvent) -> *mut c_char;
    fn telos_torch_event_free(event: *mut RawEvent);
    fn telos_torch_event_record(event: *mut RawEvent, index: i64) -> *mut c_char;
    fn telos_torch_event_done(event: *const RawEvent, done: *mut bool) -> *mut c_char;
    fn telos_torch_event_wait(event: *const RawEvent) -> *mut c_char;
    fn telos_torch_event_between(from: *const RawEvent, to: *const RawEvent, ms: *mut f64) -> *mut c_char;
}

/// Copies bytes into a contiguous tensor of as many bytes. The bytes may change as soon as this returns, although a device reads
/// them later: they are copied to pinned memory first.
///
/// # Errors
/// libtorch's errors.
pub fn upload(into: &mut Tensor, bytes: &[u8]) -> Attempt {
    // SAFETY: a live tensor, and as many readable bytes as are named; the shim keeps no pointer.
    outcome(unsafe { telos_torch_upload(into.as_mut_ptr(), bytes.as_ptr().cast(), bytes.len() as i64) })
}

/// A point in the work of a CUDA device, with its time.
struct Event(*mut RawEvent);

// SAFETY: the pointer is owned and an event may be used from any thread, one at a time, which `&mut` and the missing `Sync` ensure.
unsafe impl Send for Event {}

impl Event {
    fn new() -> Attempt<Event> {
        let mut event = std::ptr::null_mut();
        // SAFETY: a local pointer, which receives an event of its own or stays null with a message.
        outcome(unsafe { telos_torch_event_new(&mut event) })?;
        Ok(Event(event))
    }

    /// Moves it to the end of the work enqueued by this thread on CUDA device `index`.
    fn record(&mut self, index: usize) -> Attempt {
        // SAFETY: a live event, borrowed exclusively.
        outcome(unsafe { telos_torch_event_record(self.0, index as i64) })
    }

    /// Whether the device has reached it.
    fn is_done(&self) -> Attempt<bool> {
        let mut done = false;
        // SAFETY: a live event and a local variable.
        outcome(unsafe { telos_torch_event_done(self.0, &mut done) })?;
        Ok(done)
    }

    /// Waits until the device reaches it.
    fn wait(&self) -> Attempt {
        // SAFETY: a live event.
        outcome(unsafe { telos_torch_event_wait(self.0) })
    }

    /// Milliseconds from this event to a later one; the device has reached both.
    fn ms_until(&self, later: &Event) -> Attempt<f64> {
        let mut ms = 0.0;
        // SAFETY: two live events and a local variable.
        outcome(unsafe { telos_torch_event_between(self.0, later.0, &mut ms) })?;
        Ok(ms)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: the event was created by the shim, is owned, and is not used again.
        unsafe { telos_torch_event_free(self.0) };
    }
}

/// The ATen functions that `work` calls on this thread, in order.
#[cfg(test)]
pub fn traced(work: impl FnOnce()) -> Vec<String> {
    use std::ffi::CStr;
    unsafe extern "C" {
        fn telos_torch_trace() -> *mut c_char;
        fn telos_torch_traced(names: *mut *mut c_char) -> *mut c_char;
        fn telos_torch_free(message: *mut c_char);
    }
    // SAFETY: takes nothing.
    outcome(unsafe { telos_torch_trace() }).unwrap();
    work();
    let mut names = std::ptr::null_mut();
    // SAFETY: a local pointer, which receives a C string.
    outcome(unsafe { telos_torch_traced(&mut names) }).unwrap();
    // SAFETY: the C string of the call above, which is freed on the next line and not used again.
    let text = unsafe { CStr::from_ptr(names) }.to_string_lossy().into_owned();
    // SAFETY: as above.
    unsafe { telos_torch_free(names) };
    text.lines().map(String::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    /// Catches bytes that land elsewhere, and a length that is not compared with the tensor's.
    #[test]
    fn bytes_are_uploaded_whole_or_not_at_all() {
        let whole = Tensor::zeros([4], (Kind::Int64, Device::Cpu));
        let bytes: Vec<u8> = [5i64, -6].into_iter().flat_map(i64::to_ne_bytes).collect();
        upload(&mut whole.narrow(0, 1, 2), &bytes).unwrap();
        assert!(whole.equal(&Tensor::from_slice(&[0i64, 5, -6, 0])));
        assert!(upload(&mut whole.narrow(0, 0, 3), &bytes).is_err());
        upload(&mut whole.narrow(0, 0, 0), &[]).unwrap();
    }

    /// Catches a trace that misses calls, and one that does not end.
    #[test]
    fn a_trace_has_the_calls_in_between() {
        let x = Tensor::zeros([4], (Kind::Float, Device::Cpu));
        let names = traced(|| drop(x.exp()));
        assert!(names.contains(&"aten::exp".to_owned()), "{names:?}");
        drop(x.tanh());
        assert_eq!(traced(|| ()), Vec::<String>::new());
    }
}
