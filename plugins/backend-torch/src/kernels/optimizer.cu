// The optimizer over flat buffers: the global norm in two stages, and AdamW, which reads norm and rates on the device.

#include "common.cuh"

struct NormParts {
  const Acc* x;
  double* parts;
  u64 count, per_block;
  i32 wide;
};

// Block b sums the squares of elements b per_block and following, in f64.
KERNEL(norm_parts, NormParts, 256) {
  __shared__ Sums<double, 1> scratch[256];
  const u64 first = u64(blockIdx.x) * p.per_block;
  const u64 end = first + p.per_block < p.count ? first + p.per_block : p.count;
  Sums<double, 1> sum = {{0}};
  if (p.wide) {
    for (u64 at = first + u64(threadIdx.x) * WIDE_ACC; at < end; at += u64(blockDim.x) * WIDE_ACC) {
      if (at + WIDE_ACC <= end) {
        Acc x[WIDE_ACC];
        load<WIDE_ACC>(p.x + at, x);
#pragma unroll
        for (int i = 0; i < WIDE_ACC; ++i) sum.at[0] += double(x[i]) * double(x[i]);
      } else {
        for (u64 last = at; last < end; ++last) sum.at[0] += double(p.x[last]) * double(p.x[last]);
      }
    }
  } else {
    for (u64 at = first + threadIdx.x; at < end; at += blockDim.x) sum.at[0] += double(p.x[at]) * double(p.x[at]);
  }
  sum = folded(sum, scratch);
  if (threadIdx.x == 0) p.parts[blockIdx.x] = sum.at[0];
}

struct NormTotal {
  const double* parts;
  Acc* norm;
  u64 count;
};

// The norm, and 1 if it is finite in its own type, else 0. One block.
KERNEL(norm_total, NormTotal, 256) {
  __shared__ Sums<double, 1> scratch[256];
  Sums<double, 1> sum = {{0}};
  for (u64 part = threadIdx.x; part < p.count; part += blockDim.x) sum.at[0] += p.parts[part];
  sum = folded(sum, scratch);
  if (threadIdx.x != 0) return;
  const Acc norm = Acc(root(sum.at[0]));
  p.norm[0] = norm;
  // The difference of infinity or NaN and itself is NaN.
  p.norm[1] = norm - norm == Acc(0) ? Acc(1) : Acc(0);
}

struct AdamW {
  Acc* params;
  const Acc* grads;
  Acc* m;
  Acc* v;
  const Acc* norm;
  const i64* bounds;
  const Acc* hyper;
  void* shadow;  // or null
  i64 hyper_stride;
  double rest1, beta2, rest2, eps, clip, correction1, root2;
  u64 count;
  i32 segments;
  i32 shadow_storage;  // as STORAGE
};

// Elements of a block of the flat buffer, of which a segment has a whole number.
constexpr u64 FLAT_ALIGN = 64;

// The segment that holds block `at`: the last that starts at or before it. Empty segments before it start there too.
DEVICE i32 segment_of(const AdamW& p, i64 at) {
  i32 low = 0, high = p.segments - 1;
  while (low < high) {
    const i32 middle = low + (high - low + 1) / 2;
    if (p.bounds[middle] <= at) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

// A thread updates one pack.
KERNEL(adamw, AdamW, 256) {
  const u64 at = thread_number() * WIDE_ACC;
  if (at >= p.count || p.norm[1] == Acc(0)) return;
  const i32 segment = segment_of(p, i64(at / FLAT_ALIGN));
  const Acc lr = p.hyper[segment * p.hyper_stride], decay = p.hyper[segment * p.hyper_stride + 1];
  const Acc within = Acc(p.clip) / (p.norm[0] + Acc(1e-6));
  const Acc clip = p.clip > 0 && within < Acc(1) ? within : Acc(1);
  const Acc keep = Acc(1) - lr * decay, rate = lr / Acc(p.correction1), root2 = Acc(p.root2);
  const Acc rest1 = Acc(p.rest1), beta2 = Acc(p.beta2), rest2 = Acc(p.rest2), eps = Acc(p.eps);
  Acc w[WIDE_ACC], g[WIDE_ACC], m[WIDE_ACC], v[WIDE_ACC];
  load<WIDE_ACC>(p.params + at, w);
  load<WIDE_ACC>(p.grads + at, g);
  load<WIDE_ACC>(p.m + at, m);
  load<WIDE_ACC>(p.v + at, v);
#pragma unroll
  for (int i = 0; i < WIDE_ACC; ++i) {
    const Acc gradient = g[i] * clip;
    m[i] += rest1 * (gradient - m[i]);
    v[i] = beta2 * v[i] + rest2 * gradient * gradient;
    w[i] = w[i] * keep - rate * m[i] / (root(v[i]) / root2 + eps);
  }
  store<WIDE_ACC>(p.params + at, w);
  store<WIDE_ACC>(p.m + at, m);
  store<WIDE_ACC>(p.v + at, v);
  if (!p.shadow) return;
  if (p.shadow_storage == 1) {
    store<WIDE_ACC>(static_cast<Bf16*>(p.shadow) + at, w);
  } else if (p.shadow_storage == 2) {
    store<WIDE_ACC>(static_cast<double*>(p.shadow) + at, w);
  } else {
    store<WIDE_ACC>(static_cast<float*>(p.shadow) + at, w);
  }
}
