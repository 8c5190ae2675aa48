// What tch leaves out of libtorch: the fused optimizer step and the global norm on flat buffers, process-wide switches,
// waiting for a device and giving its cached memory back.
//
// Every function returns null, or a message that `telos_torch_free` takes back: no exception crosses.

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/headeronly/version.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <vector>

// The loops below have no reduction across lanes, so a wider vector unit gives the same bits, only sooner.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define WIDEST __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define WIDEST
#endif

namespace {

template <typename F>
char* guarded(F&& f) {
  try {
    f();
    return nullptr;
  } catch (const c10::Error& e) {
    return strdup(e.what_without_backtrace());
  } catch (const std::exception& e) {
    return strdup(e.what());
  } catch (...) {
    return strdup("an exception that is no std::exception");
  }
}

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

void adamw_device(at::Tensor& p, const at::Tensor& g, at::Tensor& m, at::Tensor& v, const Step& s, double step) {
  const auto count = at::full({}, step, p.options().dtype(at::kFloat));
  const auto clipped = s.clip == 1.0 ? g : g.mul(s.clip);
  at::_fused_adamw_({p}, {clipped}, {m}, {v}, {}, {count}, s.lr, s.beta1, s.beta2, s.decay, s.eps, false, false);
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

// One AdamW step of a contiguous piece, all tensors f32 or all f64; `step` counts from 1.
char* telos_torch_adamw(at::Tensor* p, const at::Tensor* g, at::Tensor* m, at::Tensor* v, double beta1, double beta2,
                        double eps, double lr, double decay, double clip, double step) {
  return guarded([&] {
    const Step s{beta1, beta2, eps, lr, decay, clip, 1 - std::pow(beta1, step), 1 - std::pow(beta2, step)};
    if (p->is_cpu()) {
      adamw_cpu(*p, *g, *m, *v, s);
    } else {
      adamw_device(*p, *g, *m, *v, s, step);
    }
  });
}

// The sum of squares of a contiguous f32 or f64 tensor on the processor, in f64.
char* telos_torch_squares(const at::Tensor* x, double* sum) {
  return guarded([&] { *sum = squares_cpu(*x); });
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

// Gives the CUDA memory that libtorch keeps for later back.
char* telos_torch_trim() {
  return guarded([&] { at::getDeviceAllocator(at::kCUDA)->emptyCache(); });
}
}
