// The kernels as C++ on the processor, for tests on machines without a GPU; compiled only with the feature `emulated-kernels`.
//
// The threads of a block are contexts that run one after the other, each to the next barrier. The order of the threads changes from
// barrier to barrier, so that a missing barrier gives other numbers. Blocks run one after the other.

#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#define TELOS_EMULATED
#define __device__
#define __global__
#define __forceinline__ inline
#define __shared__ static

namespace {

struct Index {
  unsigned x;
};
Index threadIdx, blockIdx, blockDim, gridDim;

using Body = void (*)(const void*);

constexpr size_t kStack = 64 << 10;

// One thread of a block.
struct Thread {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  bool done;
};

ucontext_t scheduler;
std::vector<Thread> threads;
Body body;
const void* parameters;

void run_thread() {
  body(parameters);
  threads[threadIdx.x].done = true;
  // The context continues at `scheduler`.
}

void __syncthreads() { swapcontext(&threads[threadIdx.x].context, &scheduler); }

// Runs all threads of a block; false if some wait at a barrier that others never reach.
bool run_block(unsigned count, unsigned order) {
  for (unsigned i = 0; i < count; ++i) {
    Thread& thread = threads[i];
    thread.done = false;
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.get();
    thread.context.uc_stack.ss_size = kStack;
    thread.context.uc_link = &scheduler;
    makecontext(&thread.context, run_thread, 0);
  }
  for (unsigned done = 0; done < count; ++order) {
    done = 0;
    for (unsigned i = 0; i < count; ++i) {
      threadIdx.x = order % 2 ? count - 1 - i : i;
      swapcontext(&scheduler, &threads[threadIdx.x].context);
      done += threads[threadIdx.x].done;
    }
    if (done != 0 && done != count) return false;
  }
  return true;
}

float __uint_as_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
uint32_t __float_as_uint(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

}  // namespace

#define STORAGE 0
namespace emulated_f32 {
#include "emulated_table.h"
}
#undef STORAGE
#define STORAGE 1
namespace emulated_bf16 {
#include "emulated_table.h"
}
#undef STORAGE
#define STORAGE 2
namespace emulated_f64 {
#include "emulated_table.h"
}

extern "C" {

// Runs a kernel for a type of element (STORAGE). Returns null, or what went wrong.
const char* telos_emulated_launch(const char* name, int32_t storage, uint32_t blocks, uint32_t count, const void* p) {
  static std::mutex one_at_a_time;
  static unsigned launches = 0;
  const std::lock_guard<std::mutex> guard(one_at_a_time);
  body = storage == 1 ? emulated_bf16::find(name) : storage == 2 ? emulated_f64::find(name) : emulated_f32::find(name);
  if (!body) return "there is no such kernel";
  while (threads.size() < count) threads.push_back(Thread{{}, std::make_unique<char[]>(kStack), false});
  parameters = p;
  gridDim.x = blocks;
  blockDim.x = count;
  ++launches;
  for (unsigned block = 0; block < blocks; ++block) {
    blockIdx.x = block;
    if (!run_block(count, block + launches)) return "some threads of a block wait at a barrier that others do not reach";
  }
  return nullptr;
}

// The size of a kernel's parameters in bytes; 0 if there is no such kernel.
uint64_t telos_emulated_size(const char* name) { return emulated_f32::size(name); }
}
