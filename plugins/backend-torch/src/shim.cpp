// What tch leaves out of libtorch: the fused optimizer step and the global norm on flat buffers, process-wide switches,
// waiting for a device and giving its cached memory back.
//
// Every function returns null, or a message that `telos_torch_free` takes back: no exception crosses.

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/headeronly/version.h>

#include "guarded.h"

#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

// The loops below have no reduction across lanes, so a wider vector unit gives the same bits, only sooner.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define WIDEST __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define WIDEST
#endif

namespace {

// Elements of one piece of a reduction: fixed, so that the number of threads never shows in a sum.
constexpr int64_t kPiece = 1 << 14;

struct Step {
  double beta1, beta2, eps, lr, decay, clip, correction1, correction2;
};

// Each element's update reads and writes that element alone.
#define ADAMW_PIECE(NAME, T)                                                                              \
  WIDEST void NAME(T* p, const T* grads, T* m, T* v, int64_t n, const Step& s) {                          \
    const T keep = T(1.0 - s.lr * s.decay), clip = T(s.clip);                                             \
    const T rest1 = T(1.0 - s.beta1), beta2 = T(s.beta2), rest2 = T(1.0 - s.beta2);                       \
    const T rate = T(s.lr / s.correction1), root = T(std::sqrt(s.correction2)), eps = T(s.eps);           \
    for (int64_t i = 0; i < n; ++i) {                                                                     \
      const T g = grads[i] * clip;                                                                        \
      const T mi = m[i] + rest1 * (g - m[i]);                                                             \
      const T vi = beta2 * v[i] + rest2 * g * g;                                                          \
      m[i] = mi;                                                                                          \
      v[i] = vi;                                                                                          \
      p[i] = p[i] * keep - rate * mi / (std::sqrt(vi) / root + eps);                                      \
    }                                                                                                     \
  }

#define SQUARES_PIECE(NAME, T)                                             \
  WIDEST double NAME(const T* x, int64_t n) {                              \
    double lanes[16] = {0};                                                \
    int64_t i = 0;                                                         \
    for (; i + 16 <= n; i += 16)                                           \
      for (int j = 0; j < 16; ++j) lanes[j] += double(x[i + j]) * x[i + j]; \
    for (int j = 0; i < n; ++i, ++j) lanes[j] += double(x[i]) * x[i];      \
    double sum = 0;                                                        \
    for (double lane : lanes) sum += lane;                                 \
    return sum;                                                            \
  }

ADAMW_PIECE(adamw_f32, float)
ADAMW_PIECE(adamw_f64, double)
SQUARES_PIECE(squares_f32, float)
SQUARES_PIECE(squares_f64, double)

void adamw_cpu(at::Tensor& p, const at::Tensor& g, at::Tensor& m, at::Tensor& v, const Step& step) {
  const int64_t n = p.numel();
  at::parallel_for(0, n, kPiece, [&](int64_t begin, int64_t end) {
    if (p.scalar_type() == at::kFloat) {
      adamw_f32(p.data_ptr<float>() + begin, g.const_data_ptr<float>() + begin, m.data_ptr<float>() + begin,
                v.data_ptr<float>() + begin, end - begin, step);
    } else {
      adamw_f64(p.data_ptr<double>() + begin, g.const_data_ptr<double>() + begin, m.data_ptr<double>() + begin,
                v.data_ptr<double>() + begin, end - begin, step);
    }
  });
}

// All pieces in one launch.
void adamw_device(at::TensorList p, std::vector<at::Tensor> g, at::TensorList m, at::TensorList v, const Step& s,
                  double step) {
  const std::vector<at::Tensor> counts(p.size(), at::full({}, step, p[0].options().dtype(at::kFloat)));
  if (s.clip != 1.0) g = at::_foreach_mul(g, s.clip);
  at::_fused_adamw_(p, g, m, v, {}, counts, s.lr, s.beta1, s.beta2, s.decay, s.eps, false, false);
}

// The flash kernels' windows: tokens seen before and after one's own; none is all.
std::optional<int64_t> before(int64_t window) {
  return window > 0 ? std::optional<int64_t>(window - 1) : std::nullopt;
}
std::optional<int64_t> after(bool causal, int64_t window) {
  return causal && window > 0 ? std::optional<int64_t>(0) : std::nullopt;
}

double squares_cpu(const at::Tensor& x) {
  const int64_t n = x.numel(), pieces = (n + kPiece - 1) / kPiece;
  std::vector<double> sums(pieces);
  at::parallel_for(0, pieces, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t from = i * kPiece, length = std::min(kPiece, n - from);
      sums[i] = x.scalar_type() == at::kFloat ? squares_f32(x.const_data_ptr<float>() + from, length)
                                              : squares_f64(x.const_data_ptr<double>() + from, length);
    }
  });
  double sum = 0;
  for (double part : sums) sum += part;
  return sum;
}

}  // namespace

extern "C" {

// The version of libtorch this file was compiled with, and of the one that is loaded; a byte each for major, minor, patch.
uint64_t telos_torch_compiled() { return TORCH_ABI_VERSION; }
uint64_t telos_torch_loaded() { return aoti_torch_abi_version(); }

void telos_torch_free(char* message) { std::free(message); }

// One AdamW step of `count` contiguous pieces with the same rates, all tensors f32 or all f64; `step` counts from 1.
// `tensors` holds the pieces' parameters, gradients, first and second moments, one kind after the other.
char* telos_torch_adamw(at::Tensor** tensors, int64_t count, double beta1, double beta2, double eps, double lr,
                        double decay, double clip, double step) {
  return guarded([&] {
    const Step s{beta1, beta2, eps, lr, decay, clip, 1 - std::pow(beta1, step), 1 - std::pow(beta2, step)};
    const auto kind = [&](int64_t which) {
      std::vector<at::Tensor> list;
      for (int64_t i = 0; i < count; ++i) list.push_back(*tensors[which * count + i]);
      return list;
    };
    auto p = kind(0), g = kind(1), m = kind(2), v = kind(3);
    if (count > 0 && !p[0].is_cpu()) return adamw_device(p, std::move(g), m, v, s, step);
    for (int64_t i = 0; i < count; ++i) adamw_cpu(p[i], g[i], m[i], v[i], s);
  });
}

// The sum of squares of a contiguous f32 or f64 tensor on the processor, in f64.
char* telos_torch_squares(const at::Tensor* x, double* sum) {
  return guarded([&] { *sum = squares_cpu(*x); });
}

// Attention of packed sequences on CUDA. `y` and `lse` are tensors the caller takes over. A window of 0 is none; one of n
// shows a token itself and the n - 1 before it.
char* telos_torch_packed_attention(const at::Tensor* q, const at::Tensor* k, const at::Tensor* v,
                                   const at::Tensor* bounds, int64_t longest, bool causal, int64_t window,
                                   double scale, at::Tensor** y, at::Tensor** lse) {
  return guarded([&] {
    auto out = at::_flash_attention_forward(*q, *k, *v, *bounds, *bounds, longest, longest, 0.0, causal, false, scale,
                                            before(window), after(causal, window));
    // [heads, tokens]; older kernels padded it to the longest sequence.
    TORCH_CHECK(std::get<1>(out).dim() == 2, "the flash kernel's log-sum-exps have another layout");
    *y = new at::Tensor(std::move(std::get<0>(out)));
    *lse = new at::Tensor(std::move(std::get<1>(out)));
  });
}

// Its backward; `d` receives the cotangents of q, k and v.
char* telos_torch_packed_attention_backward(const at::Tensor* dy, const at::Tensor* q, const at::Tensor* k,
                                            const at::Tensor* v, const at::Tensor* y, const at::Tensor* lse,
                                            const at::Tensor* bounds, int64_t longest, bool causal, int64_t window,
                                            double scale, at::Tensor** d) {
  return guarded([&] {
    // There is no dropout, so the state of its generator is never read.
    const auto unused = at::empty({2}, q->options().dtype(at::kUInt64));
    auto out = at::_flash_attention_backward(*dy, *q, *k, *v, *y, *lse, *bounds, *bounds, longest, longest, 0.0, causal,
                                             unused, unused, scale, before(window), after(causal, window));
    d[0] = new at::Tensor(std::move(std::get<0>(out)));
    d[1] = new at::Tensor(std::move(std::get<1>(out)));
    d[2] = new at::Tensor(std::move(std::get<2>(out)));
  });
}

// The input's cotangent of layer norm (with a mean) or RMS norm (without), which `dx` hands over.
char* telos_torch_norm_backward(const at::Tensor* dy, const at::Tensor* x, const at::Tensor* mean,
                                const at::Tensor* rstd, const at::Tensor* weight, at::Tensor** dx) {
  return guarded([&] {
    const int64_t width[] = {x->size(-1)};
    const auto gain = weight ? std::optional<at::Tensor>(*weight) : std::nullopt;
    auto out = mean ? std::get<0>(at::native_layer_norm_backward(*dy, *x, width, *mean, *rstd, gain, std::nullopt,
                                                                 {true, false, false}))
                    : std::get<0>(at::_fused_rms_norm_backward(*dy, *x, width, *rstd, gain, {true, false}));
    *dx = new at::Tensor(std::move(out));
  });
}

// Process-wide switches. Must run before the first product on a CUDA device to have their whole effect.
char* telos_torch_configure(bool tf32, bool deterministic) {
  return guarded([&] {
    auto& context = at::globalContext();
    if (context.deterministicAlgorithms() != deterministic) {
      // cuBLAS reads this once, when its first handle is made.
      if (deterministic) setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", 0);
      context.setDeterministicAlgorithms(deterministic, false);
      // Every output is written whole; filling it beforehand would be lost time.
      context.setDeterministicFillUninitializedMemory(false);
    }
    const auto wanted = tf32 ? at::Float32MatmulPrecision::HIGH : at::Float32MatmulPrecision::HIGHEST;
    if (context.float32MatmulPrecision() != wanted) context.setFloat32MatmulPrecision(tf32 ? "high" : "highest");
  });
}

// Waits for a CUDA device.
char* telos_torch_synchronize(int64_t device) {
  return guarded([&] { at::detail::getCUDAHooks().deviceSynchronize(device); });
}

// The handle of this thread's current stream on a CUDA device.
char* telos_torch_current_stream(int64_t device, void** stream) {
  return guarded([&] {
    const c10::impl::VirtualGuardImpl cuda(c10::DeviceType::CUDA);
    *stream = cuda.getStream(c10::Device(c10::DeviceType::CUDA, c10::DeviceIndex(device))).native_handle();
  });
}

// Gives the CUDA memory that libtorch keeps for later back.
char* telos_torch_trim() {
  return guarded([&] { at::getDeviceAllocator(at::kCUDA)->emptyCache(); });
}

// The instruction set of ATen's own kernels: DEFAULT, AVX2, AVX512 and others. Never fails; not to be given back.
const char* telos_torch_cpu_capability() {
  static const std::string name = at::get_cpu_capability();
  return name.c_str();
}
}
