// The language-model head over a chunk of raw logits x w^T: statistics of the softmax in one read, and the cotangent in one pass
// that reads the logits and writes in the compute type.
//
// z = cap(scale (raw + bias)) / temperature: `outer tanh(inner (raw + bias))` with a cap, `outer (raw + bias)` without one.

#include "common.cuh"

// How raw logits become logits.
struct Shape {
  const Acc* raw;
  const Value* bias;  // or null
  i64 raw_stride;
  double inner, outer;
  u64 vocab;
  i32 capped;
  i32 wide;  // rows start at multiples of 16 bytes
};

DEVICE Acc logit(const Shape& s, Acc raw, u64 id) {
  if (s.bias) raw += widen(s.bias[id]);
  return s.capped ? Acc(s.outer) * hyperbolic_tangent(Acc(s.inner) * raw) : Acc(s.outer) * raw;
}

struct HeadStats {
  Shape shape;
  const i64* targets;
  Acc* logp;
  Acc* lse;         // or null
  Acc* entropy;     // or null
  Acc* mean_logit;  // or null
  i64* top1;        // or null
  Value* logits;    // or null
  i64 logits_stride;
};

// Probabilities below exp(NEVER) are 0 in every type; the floor keeps 0 times infinity out of sums.
#define NEVER Acc(-1e4)

struct Largest {
  Acc at;
  __device__ __forceinline__ void add(const Largest& other) {
    if (other.at > at) at = other.at;
  }
};

constexpr u64 NONE = ~u64(0);

// The largest logit and its id, the lowest on ties. NaN counts as the largest.
struct Top {
  Acc value;
  u64 id;
  __device__ __forceinline__ void add(const Top& other) {
    if (other.id == NONE) return;
    const bool nan = value != value, other_nan = other.value != other.value;
    const bool same = nan ? other_nan : other.value == value;
    const bool larger = nan ? false : (other_nan || other.value > value);
    if (id == NONE || larger || (same && other.id < id)) *this = other;
  }
};

// Sums of e = exp(z - top), of e (z - top) and of z, over the logits that a thread has read.
struct Softmax {
  Acc top, e, weighted, z;
};

// The same sums with another `top`.
DEVICE void shift(Softmax& s, Acc top) {
  const Acc by = s.top - top, factor = exponential(by);
  s.weighted = factor > Acc(0) ? factor * (s.weighted + s.e * by) : Acc(0);
  s.e *= factor;
  s.top = top;
}

template <int N>
DEVICE void read(const HeadStats& p, i64 row, u64 first, Softmax& sums, Top& top) {
  Acc z[N];
  load<N>(p.shape.raw + row * p.shape.raw_stride + first, z);
  Acc largest = sums.top;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    z[i] = logit(p.shape, z[i], first + i);
    if (z[i] > largest) largest = z[i];
  }
  if (largest > sums.top) shift(sums, largest);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const Acc below = z[i] - sums.top, e = exponential(below);
    sums.e += e;
    if (p.entropy) sums.weighted += e * (below < NEVER ? NEVER : below);
    sums.z += z[i];
    if (p.top1) top.add(Top{z[i], first + i});
    if (p.logits) narrow(z[i], p.logits[row * p.logits_stride + i64(first) + i]);
  }
}

// Block b computes row b.
KERNEL(head_stats, HeadStats, 512) {
  __shared__ Sums<Acc, 3> sums_of_threads[512];
  __shared__ Top tops[512];
  __shared__ Largest largest[512];
  const i64 row = blockIdx.x;
  Softmax sums = {LOWEST, 0, 0, 0};
  Top top = {0, NONE};
  if (p.shape.wide) {
    // The vocabulary may end inside a pack.
    const u64 whole = p.shape.vocab / WIDE_ACC * WIDE_ACC;
    for (u64 at = u64(threadIdx.x) * WIDE_ACC; at < whole; at += u64(blockDim.x) * WIDE_ACC)
      read<WIDE_ACC>(p, row, at, sums, top);
    if (whole + threadIdx.x < p.shape.vocab) read<1>(p, row, whole + threadIdx.x, sums, top);
  } else {
    for (u64 at = threadIdx.x; at < p.shape.vocab; at += blockDim.x) read<1>(p, row, at, sums, top);
  }
  const Acc most = folded(Largest{sums.top}, largest).at;
  shift(sums, most);
  Sums<Acc, 3> all = {{sums.e, sums.weighted, sums.z}};
  all = folded(all, sums_of_threads);
  if (p.top1) top = folded(top, tops);
  if (threadIdx.x != 0) return;
  const u64 target = u64(p.targets[row]);
  const Acc z = logit(p.shape, p.shape.raw[row * p.shape.raw_stride + i64(target)], target);
  // Without a finite logit there is no probability: 0 / 0.
  const Acc e = all.at[0] > Acc(0) || all.at[0] != all.at[0] ? all.at[0] : Acc(0) / all.at[0];
  const Acc log_e = logarithm(e);
  p.logp[row] = z - most - log_e;
  if (p.lse) p.lse[row] = most + log_e;
  if (p.entropy) p.entropy[row] = log_e - all.at[1] / e;
  if (p.mean_logit) p.mean_logit[row] = all.at[2] / Acc(p.shape.vocab);
  if (p.top1) p.top1[row] = i64(top.id);
}

struct HeadCotangent {
  Shape shape;
  Value* dz;  // may be the raw logits' own memory
  i64 dz_stride;
  const i64* targets;
  const Acc* lse;
  const Acc* entropy;      // or null
  const Acc* dlogp;        // or null
  const Acc* dlse;         // or null
  const Acc* dmean_logit;  // or null
  const Acc* dentropy;     // or null
  double factor;           // d z / d raw, without the cap's slope
  u64 pieces;              // of a row
  i32 ready;               // raw holds z itself
};

// What is the same in a whole row.
struct RowCotangent {
  u64 target;
  Acc lse, entropy, by_p, at_target, everywhere, by_entropy;
};

template <int N>
DEVICE void write(const HeadCotangent& p, const RowCotangent& r, i64 row, u64 first) {
  Acc z[N];
  load<N>(p.shape.raw + row * p.shape.raw_stride + first, z);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const Acc value = p.ready ? z[i] : logit(p.shape, z[i], first + i);
    const Acc logp = value - r.lse, prob = exponential(logp);
    Acc d = p.dlogp || p.dlse ? prob * r.by_p : Acc(0);
    if (first + i == r.target) d += r.at_target;
    d += r.everywhere;
    if (p.dentropy) d -= prob * ((logp < NEVER ? NEVER : logp) + r.entropy) * r.by_entropy;
    if (p.shape.capped) {
      const Acc t = value / Acc(p.shape.outer);
      d *= Acc(1) - t * t;
    }
    z[i] = d * Acc(p.factor);
  }
  store<N>(p.dz + row * p.dz_stride + first, z);
}

// Packs that a thread writes.
constexpr u32 ROUNDS = 4;

// dz = dlogp (1[target] - p) + dlse p + dmean_logit / V - dentropy p (log p + entropy), carried back to the raw logits. A block
// computes one piece of a row: ROUNDS packs of each thread.
KERNEL(head_cotangent, HeadCotangent, 256) {
  u64 number, piece;
  split(u64(blockIdx.x), p.pieces, number, piece);
  const i64 row = i64(number);
  const Acc dlogp = p.dlogp ? p.dlogp[row] : Acc(0), dlse = p.dlse ? p.dlse[row] : Acc(0);
  RowCotangent r;
  r.target = u64(p.targets[row]);
  r.lse = p.lse[row];
  r.entropy = p.dentropy ? p.entropy[row] : Acc(0);
  r.by_p = dlse - dlogp;
  r.at_target = dlogp;
  r.everywhere = p.dmean_logit ? p.dmean_logit[row] / Acc(p.shape.vocab) : Acc(0);
  r.by_entropy = p.dentropy ? p.dentropy[row] : Acc(0);
#pragma unroll
  for (u32 round = 0; round < ROUNDS; ++round) {
    const u64 pack = (piece * ROUNDS + round) * blockDim.x + threadIdx.x;
    if (!p.shape.wide) {
      if (pack < p.shape.vocab) write<1>(p, r, row, pack);
      continue;
    }
    const u64 first = pack * WIDE;
    if (first + WIDE <= p.shape.vocab) {
      write<WIDE>(p, r, row, first);
    } else {
      for (u64 at = first; at < p.shape.vocab; ++at) write<1>(p, r, row, at);
    }
  }
}
