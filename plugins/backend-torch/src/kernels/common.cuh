// What all kernels share: element types, packs of 16 bytes, and the fold of a value over a block.
//
// The sources are compiled at run time by NVRTC, without CUDA's headers, once for each type of element: STORAGE is 0 for f32, 1 for
// bf16, 2 for f64. They are also compiled as C++ (emulated.cpp), so they use a small part of CUDA: blocks and threads in x,
// shared memory, __syncthreads. A kernel has one parameter, a struct that fused/params.rs repeats field by field.
//
// Every sum is added in an order that depends on the shape alone, so the same input gives the same bits every time.

#ifndef TELOS_COMMON
#define TELOS_COMMON

#ifdef TELOS_EMULATED
#define KERNEL(NAME, PARAMS, THREADS) static void NAME(const PARAMS& p)
#else
#define KERNEL(NAME, PARAMS, THREADS) \
  extern "C" __global__ void __launch_bounds__(THREADS) NAME(const __grid_constant__ PARAMS p)
#endif
#define DEVICE static __device__ __forceinline__

typedef unsigned short u16;
typedef unsigned int u32;
typedef int i32;
typedef unsigned long long u64;
typedef long long i64;

// The upper half of an f32.
struct Bf16 {
  u16 bits;
};

// Value: the type of element in memory. Acc: the type it is computed in. LOWEST: the lowest finite Acc.
#if STORAGE == 2
typedef double Value;
typedef double Acc;
#define LOWEST (-1.7976931348623157e308)
#elif STORAGE == 1
typedef Bf16 Value;
typedef float Acc;
#define LOWEST (-3.402823466e38f)
#else
typedef float Value;
typedef float Acc;
#define LOWEST (-3.402823466e38f)
#endif

// Elements in 16 bytes.
constexpr int WIDE = 16 / sizeof(Value);
constexpr int WIDE_ACC = 16 / sizeof(Acc);

DEVICE float widen(float x) { return x; }
DEVICE double widen(double x) { return x; }
DEVICE float widen(Bf16 x) { return __uint_as_float(u32(x.bits) << 16); }

DEVICE void narrow(float x, float& to) { to = x; }
DEVICE void narrow(double x, double& to) { to = x; }
DEVICE void narrow(double x, float& to) { to = float(x); }
DEVICE void narrow(float x, double& to) { to = x; }
// Rounds to nearest, ties to even; NaN stays NaN.
DEVICE void narrow(float x, Bf16& to) {
  const u32 bits = __float_as_uint(x);
  to.bits = x != x ? u16(0x7fc0) : u16((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
DEVICE void narrow(double x, Bf16& to) { narrow(float(x), to); }

// An Acc rounded to the type in memory.
DEVICE Acc rounded(Acc x) {
  Value stored;
  narrow(x, stored);
  return widen(stored);
}

DEVICE float exponential(float x) { return expf(x); }
DEVICE double exponential(double x) { return exp(x); }
DEVICE float logarithm(float x) { return logf(x); }
DEVICE double logarithm(double x) { return log(x); }
DEVICE float hyperbolic_tangent(float x) { return tanhf(x); }
DEVICE double hyperbolic_tangent(double x) { return tanh(x); }
DEVICE float error_function(float x) { return erff(x); }
DEVICE double error_function(double x) { return erf(x); }
DEVICE float root(float x) { return sqrtf(x); }
DEVICE double root(double x) { return sqrt(x); }

// N elements that lie together. 16 bytes is the widest alignment that the launcher checks.
template <class T, int N>
struct alignas(N * sizeof(T) < 16 ? N * sizeof(T) : 16) Pack {
  T at[N];
};

template <int N, class T>
DEVICE void load(const T* from, Acc (&to)[N]) {
  const Pack<T, N> pack = *reinterpret_cast<const Pack<T, N>*>(from);
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] = widen(pack.at[i]);
}

template <int N, class T>
DEVICE void store(T* to, const Acc (&from)[N]) {
  Pack<T, N> pack;
#pragma unroll
  for (int i = 0; i < N; ++i) narrow(from[i], pack.at[i]);
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

// index / per_row and the remainder; a division of 64 bits is slow and rarely needed.
DEVICE void split(u64 index, u64 per_row, u64& row, u64& at) {
  if (((index | per_row) >> 32) == 0) {
    row = u32(index) / u32(per_row);
    at = u32(index) - u32(row) * u32(per_row);
  } else {
    row = index / per_row;
    at = index - row * per_row;
  }
}

// The number of this thread in the whole launch.
DEVICE u64 thread_number() { return u64(blockIdx.x) * blockDim.x + threadIdx.x; }

// Threads of the first stage of a fold; every block has a multiple of it.
constexpr u32 LANES = 32;

// Folds the values of a block's threads, in a fixed order, and returns the result to all of them. `scratch` holds one value per
// thread. X has `void add(const X&)`.
template <class X>
DEVICE X folded(X value, X* scratch) {
  const u32 me = threadIdx.x;
  scratch[me] = value;
  __syncthreads();
  if (me < LANES) {
    for (u32 i = me + LANES; i < blockDim.x; i += LANES) value.add(scratch[i]);
    scratch[me] = value;
  }
  __syncthreads();
  X all = scratch[0];
  for (u32 i = 1; i < LANES; ++i) all.add(scratch[i]);
  // The scratch memory can be used again when all threads have read it.
  __syncthreads();
  return all;
}

// N sums at once.
template <class T, int N>
struct Sums {
  T at[N];
  __device__ __forceinline__ void add(const Sums& other) {
#pragma unroll
    for (int i = 0; i < N; ++i) at[i] += other.at[i];
  }
};

#endif
