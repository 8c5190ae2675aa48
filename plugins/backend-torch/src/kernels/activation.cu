// Activation functions, plain and gated, with their derivatives; rows with strides. A thread computes one pack.

#include "common.cuh"

// The numbers of the catalogue.
constexpr int GELU_TANH = 1, GELU_ERF = 2, SILU = 3, RELU = 4;

struct Pointwise {
  const Value* a;
  const Value* b;  // or null
  const Value* c;  // or null
  Value* first;
  Value* second;  // or null
  i64 a_stride, b_stride, c_stride, first_stride, second_stride;
  u64 packs, packs_per_row;
  i32 kind;
  i32 wide;  // a pack has WIDE elements, otherwise one
};

// f(x).
template <int KIND>
DEVICE Acc value_of(Acc x) {
  if (KIND == GELU_TANH) {
    const Acc inner = Acc(0.79788456080286536) * (x + Acc(0.044715) * x * x * x);
    return Acc(0.5) * x * (Acc(1) + hyperbolic_tangent(inner));
  }
  if (KIND == GELU_ERF) return x * Acc(0.5) * (Acc(1) + error_function(x * Acc(0.70710678118654752)));
  if (KIND == SILU) return x / (Acc(1) + exponential(-x));
  // NaN stays NaN.
  return x < Acc(0) ? Acc(0) : x;
}

// dy f'(x).
template <int KIND>
DEVICE Acc backward_of(Acc x, Acc dy) {
  if (KIND == GELU_TANH) {
    const Acc t = hyperbolic_tangent(Acc(0.79788456080286536) * (x + Acc(0.044715) * x * x * x));
    const Acc slope = Acc(0.79788456080286536) * (Acc(1) + Acc(3 * 0.044715) * x * x);
    return dy * (Acc(0.5) * (Acc(1) + t) + Acc(0.5) * x * (Acc(1) - t * t) * slope);
  }
  if (KIND == GELU_ERF) {
    const Acc cdf = Acc(0.5) * (Acc(1) + error_function(x * Acc(0.70710678118654752)));
    return dy * (cdf + x * Acc(0.39894228040143268) * exponential(Acc(-0.5) * x * x));
  }
  if (KIND == SILU) {
    const Acc gate = Acc(1) / (Acc(1) + exponential(-x));
    return dy * gate * (Acc(1) + x * (Acc(1) - gate));
  }
  return x <= Acc(0) ? Acc(0) : dy;
}

struct Forward {
  template <int KIND, int N>
  static __device__ __forceinline__ void compute(const Pointwise& p, u64 row, u64 col) {
    Acc x[N];
    load<N>(p.a + row * p.a_stride + col, x);
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] = value_of<KIND>(x[i]);
    store<N>(p.first + row * p.first_stride + col, x);
  }
};

struct Backward {
  template <int KIND, int N>
  static __device__ __forceinline__ void compute(const Pointwise& p, u64 row, u64 col) {
    Acc x[N], dy[N];
    load<N>(p.a + row * p.a_stride + col, x);
    load<N>(p.b + row * p.b_stride + col, dy);
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] = backward_of<KIND>(x[i], dy[i]);
    store<N>(p.first + row * p.first_stride + col, x);
  }
};

struct Gated {
  template <int KIND, int N>
  static __device__ __forceinline__ void compute(const Pointwise& p, u64 row, u64 col) {
    Acc gate[N], up[N];
    load<N>(p.a + row * p.a_stride + col, gate);
    load<N>(p.b + row * p.b_stride + col, up);
#pragma unroll
    for (int i = 0; i < N; ++i) gate[i] = value_of<KIND>(gate[i]) * up[i];
    store<N>(p.first + row * p.first_stride + col, gate);
  }
};

// All inputs are read before anything is written, because an output may share an input's memory.
struct GatedBackward {
  template <int KIND, int N>
  static __device__ __forceinline__ void compute(const Pointwise& p, u64 row, u64 col) {
    Acc gate[N], up[N], dy[N], dgate[N], dup[N];
    load<N>(p.a + row * p.a_stride + col, gate);
    load<N>(p.b + row * p.b_stride + col, up);
    load<N>(p.c + row * p.c_stride + col, dy);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      dgate[i] = backward_of<KIND>(gate[i], dy[i] * up[i]);
      dup[i] = dy[i] * value_of<KIND>(gate[i]);
    }
    store<N>(p.first + row * p.first_stride + col, dgate);
    store<N>(p.second + row * p.second_stride + col, dup);
  }
};

template <class F, int KIND>
DEVICE void of_kind(const Pointwise& p) {
  const u64 index = thread_number();
  if (index >= p.packs) return;
  u64 row, pack;
  split(index, p.packs_per_row, row, pack);
  if (p.wide) {
    F::template compute<KIND, WIDE>(p, row, pack * WIDE);
  } else {
    F::template compute<KIND, 1>(p, row, pack);
  }
}

template <class F>
DEVICE void of_any_kind(const Pointwise& p) {
  switch (p.kind) {
    case GELU_TANH: return of_kind<F, GELU_TANH>(p);
    case GELU_ERF: return of_kind<F, GELU_ERF>(p);
    case SILU: return of_kind<F, SILU>(p);
    default: return of_kind<F, RELU>(p);
  }
}

KERNEL(activation, Pointwise, 256) { of_any_kind<Forward>(p); }
KERNEL(activation_backward, Pointwise, 256) { of_any_kind<Backward>(p); }
KERNEL(glu, Pointwise, 256) { of_any_kind<Gated>(p); }
KERNEL(glu_backward, Pointwise, 256) { of_any_kind<GatedBackward>(p); }
