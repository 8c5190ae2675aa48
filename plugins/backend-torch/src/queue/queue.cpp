// Work that a device does later than the host enqueues it: uploads that the host does not wait for, and events that tell when the
// device reached a point. Written with the generic interfaces, so that no CUDA header is needed.

#include <ATen/ATen.h>
#include <ATen/record_function.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "../guarded.h"

#include <cstring>
#include <string>

namespace {

// Maximum number of bytes that are uploaded through pinned memory.
constexpr int64_t kMostPinned = 1 << 24;

// The stream on which this thread's operations on CUDA device `index` run.
c10::Stream current(int64_t index) {
  const c10::impl::VirtualGuardImpl device(c10::DeviceType::CUDA);
  return device.getStream(c10::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index)));
}

// The names of the ATen functions that this thread has called since tracing began, one per line.
thread_local std::string called;
thread_local at::CallbackHandle tracing = 0;

std::unique_ptr<at::ObserverContext> note(const at::RecordFunction& function) {
  called += function.name();
  called += '\n';
  return nullptr;
}

}  // namespace

extern "C" {

// Copies bytes of the host into a contiguous tensor. To a device they go through pinned memory and the host does not wait:
// libtorch reuses the pinned memory only when the device has read it. It also never returns it to the system, so weights, which are
// uploaded once, go through ordinary memory, for which the host waits.
char* telos_torch_upload(at::Tensor* into, const void* bytes, int64_t count) {
  return guarded([&] {
    TORCH_CHECK(into->is_contiguous() && int64_t(into->nbytes()) == count, count, " bytes for a tensor of ",
                into->nbytes());
    if (count == 0) return;
    const bool pinned = !into->is_cpu() && count <= kMostPinned;
    auto staged = at::empty(into->sizes(), at::device(at::kCPU).dtype(into->scalar_type()).pinned_memory(pinned));
    std::memcpy(staged.mutable_data_ptr(), bytes, count);
    into->copy_(staged, /*non_blocking=*/pinned);
  });
}

// An event with a time. The caller owns it.
char* telos_torch_event_new(c10::Event** event) {
  return guarded([&] { *event = new c10::Event(c10::DeviceType::CUDA, c10::EventFlag::BACKEND_DEFAULT); });
}

void telos_torch_event_free(c10::Event* event) { delete event; }

// Enqueues the event behind the work of this thread on CUDA device `index`.
char* telos_torch_event_record(c10::Event* event, int64_t index) {
  return guarded([&] { event->record(current(index)); });
}

// Whether the device has reached the event.
char* telos_torch_event_done(const c10::Event* event, bool* done) {
  return guarded([&] { *done = event->query(); });
}

char* telos_torch_event_wait(const c10::Event* event) {
  return guarded([&] { event->synchronize(); });
}

// Milliseconds between two events that the device has reached.
char* telos_torch_event_between(const c10::Event* from, const c10::Event* to, double* ms) {
  return guarded([&] { *ms = from->elapsedTime(*to); });
}

// For tests: notes the ATen functions that this thread calls from now on.
char* telos_torch_trace() {
  return guarded([&] {
    called.clear();
    if (tracing != 0) at::removeCallback(tracing);
    tracing = at::addThreadLocalCallback(at::RecordFunctionCallback(&note).scopes({at::RecordScope::FUNCTION}));
  });
}

// Ends that; `names` has one per line, and `telos_torch_free` takes it back.
char* telos_torch_traced(char** names) {
  return guarded([&] {
    if (tracing != 0) at::removeCallback(tracing);
    tracing = 0;
    *names = strdup(called.c_str());
  });
}
}
