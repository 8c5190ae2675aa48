// Rotary position embedding. A thread rotates one pack of pairs of one head, or copies one pack behind the pairs.

#include "common.cuh"

struct Rotary {
  const Value* x;
  Value* y;
  const i64* positions;
  const Acc* cos;
  const Acc* sin;
  i64 x_stride, y_stride, cos_stride, sin_stride;
  u64 units;           // of the whole launch
  u64 units_per_head;  // those that rotate, then those that copy
  u64 rotating;
  i32 heads, head_dim, pairs;
  i32 interleaved, inverse, wide;
};

// Rotates N pairs, of which `first` is the first.
template <int N>
DEVICE void halves(const Rotary& p, const Value* x, Value* y, const Acc* cos, const Acc* sin, i32 first) {
  Acc a[N], b[N], left[N], right[N];
  load<N>(x + first, a);
  load<N>(x + p.pairs + first, b);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const Acc c = cos[first + i], s = p.inverse ? -sin[first + i] : sin[first + i];
    left[i] = a[i] * c - b[i] * s;
    right[i] = b[i] * c + a[i] * s;
  }
  store<N>(y + first, left);
  store<N>(y + p.pairs + first, right);
}

// Rotates the N / 2 pairs that lie in one pack.
template <int N>
DEVICE void adjacent(const Rotary& p, const Value* x, Value* y, const Acc* cos, const Acc* sin, i32 pack) {
  Acc v[N];
  load<N>(x + pack * N, v);
#pragma unroll
  for (int i = 0; i < N / 2; ++i) {
    const i32 pair = pack * (N / 2) + i;
    const Acc c = cos[pair], s = p.inverse ? -sin[pair] : sin[pair], a = v[2 * i], b = v[2 * i + 1];
    v[2 * i] = a * c - b * s;
    v[2 * i + 1] = b * c + a * s;
  }
  store<N>(y + pack * N, v);
}

template <int N>
DEVICE void copied(const Value* x, Value* y, i32 at) {
  Acc v[N];
  load<N>(x + at, v);
  store<N>(y + at, v);
}

KERNEL(rotary, Rotary, 256) {
  u64 head, unit, token, of_token;
  const u64 index = thread_number();
  if (index >= p.units) return;
  split(index, p.units_per_head, head, unit);
  split(head, u64(p.heads), token, of_token);
  const i64 position = p.positions[token];
  const Acc *cos = p.cos + position * p.cos_stride, *sin = p.sin + position * p.sin_stride;
  const Value* x = p.x + i64(token) * p.x_stride + i64(of_token) * p.head_dim;
  Value* y = p.y + i64(token) * p.y_stride + i64(of_token) * p.head_dim;
  if (unit >= p.rotating) {
    const i32 rest = i32(unit - p.rotating);
    return p.wide ? copied<WIDE>(x, y, 2 * p.pairs + rest * WIDE) : copied<1>(x, y, 2 * p.pairs + rest);
  }
  // One pair at a time lies at the alignment of one element.
  if (p.interleaved && !p.wide) {
    const i32 pair = i32(unit);
    const Acc c = cos[pair], s = p.inverse ? -sin[pair] : sin[pair];
    const Acc a = widen(x[2 * pair]), b = widen(x[2 * pair + 1]);
    narrow(a * c - b * s, y[2 * pair]);
    narrow(b * c + a * s, y[2 * pair + 1]);
  } else if (p.interleaved) {
    adjacent<WIDE>(p, x, y, cos, sin, i32(unit));
  } else if (p.wide) {
    halves<WIDE>(p, x, y, cos, sin, i32(unit) * WIDE);
  } else {
    halves<1>(p, x, y, cos, sin, i32(unit));
  }
}
