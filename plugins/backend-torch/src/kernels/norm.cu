// Residual add with RMS or layer norm, and the backward.
//
// A block computes a row at a time; a thread keeps its columns in registers: K packs of V elements, blockDim.x packs apart.

#include "common.cuh"

struct NormForward {
  const Value* x;
  const Value* residual;  // or null
  const Value* weight;    // or null
  const Value* bias;      // or null
  Value* y;
  Value* sum;   // or null
  Acc* stats;   // or null
  i64 x_stride, residual_stride, y_stride, sum_stride, stats_stride;
  double eps, offset;
  i32 cols;
  i32 layer;
};

// s = x + residual; y = norm(s) (offset + weight) + bias. Block b computes row b.
template <int V, int K>
DEVICE void norm_rows(const NormForward& p) {
  __shared__ Sums<Acc, 1> scratch[256];
  const i64 row = blockIdx.x;
  Acc s[K][V];
  Sums<Acc, 1> total = {{0}};
#pragma unroll
  for (int k = 0; k < K; ++k) {
    const i32 col = i32(k * blockDim.x + threadIdx.x) * V;
    if (col >= p.cols) continue;
    load<V>(p.x + row * p.x_stride + col, s[k]);
    if (p.residual) {
      Acc other[V];
      load<V>(p.residual + row * p.residual_stride + col, other);
#pragma unroll
      for (int i = 0; i < V; ++i) s[k][i] = rounded(s[k][i] + other[i]);
    }
    if (p.sum) store<V>(p.sum + row * p.sum_stride + col, s[k]);
#pragma unroll
    for (int i = 0; i < V; ++i) total.at[0] += p.layer ? s[k][i] : s[k][i] * s[k][i];
  }
  total = folded(total, scratch);
  const Acc width = Acc(p.cols);
  Acc mean = 0, variance = total.at[0] / width;
  if (p.layer) {
    mean = total.at[0] / width;
    Sums<Acc, 1> squares = {{0}};
#pragma unroll
    for (int k = 0; k < K; ++k) {
      if (i32(k * blockDim.x + threadIdx.x) * V >= p.cols) continue;
#pragma unroll
      for (int i = 0; i < V; ++i) squares.at[0] += (s[k][i] - mean) * (s[k][i] - mean);
    }
    variance = folded(squares, scratch).at[0] / width;
  }
  const Acc rstd = Acc(1) / root(variance + Acc(p.eps)), offset = Acc(p.offset);
#pragma unroll
  for (int k = 0; k < K; ++k) {
    const i32 col = i32(k * blockDim.x + threadIdx.x) * V;
    if (col >= p.cols) continue;
    Acc y[V];
#pragma unroll
    for (int i = 0; i < V; ++i) y[i] = (s[k][i] - mean) * rstd;
    if (p.weight) {
      Acc weight[V];
      load<V>(p.weight + col, weight);
#pragma unroll
      for (int i = 0; i < V; ++i) y[i] *= weight[i] + offset;
    }
    if (p.bias) {
      Acc bias[V];
      load<V>(p.bias + col, bias);
#pragma unroll
      for (int i = 0; i < V; ++i) y[i] += bias[i];
    }
    store<V>(p.y + row * p.y_stride + col, y);
  }
  if (p.stats && threadIdx.x == 0) {
    p.stats[row * p.stats_stride] = mean;
    p.stats[row * p.stats_stride + 1] = rstd;
  }
}

KERNEL(norm_narrow, NormForward, 256) { norm_rows<WIDE, 1>(p); }
KERNEL(norm_wide, NormForward, 256) { norm_rows<WIDE, 32 / WIDE>(p); }
KERNEL(norm_narrow_single, NormForward, 256) { norm_rows<1, 4>(p); }
KERNEL(norm_wide_single, NormForward, 256) { norm_rows<1, 32>(p); }

struct NormBackward {
  const Value* x;
  const Acc* stats;
  const Value* dy;
  const Value* weight;  // or null
  const Value* dsum;    // or null
  Value* dx;
  Acc* parts;  // or null: the blocks' sums for weight, then for bias, [2, gridDim.x, cols]
  i64 x_stride, stats_stride, dy_stride, dsum_stride, dx_stride;
  double offset;
  i64 rows, rows_per_block;
  i32 cols;
  i32 layer;
};

// With xhat = (x - mean) rstd and g = dy gain: dx = rstd (g - [mean(g)] - xhat mean(g xhat)) + dsum, the bracket in layer norm
// only. A block computes consecutive rows and writes their sums of dy xhat and dy.
template <int V, int K>
DEVICE void norm_rows_backward(const NormBackward& p) {
  __shared__ Sums<Acc, 2> scratch[256];
  Acc dweight[K][V] = {}, dbias[K][V] = {};
  const i64 first = i64(blockIdx.x) * p.rows_per_block;
  const i64 end = first + p.rows_per_block < p.rows ? first + p.rows_per_block : p.rows;
  const Acc width = Acc(p.cols), offset = Acc(p.offset);
  for (i64 row = first; row < end; ++row) {
    const Acc mean = p.layer ? p.stats[row * p.stats_stride] : Acc(0), rstd = p.stats[row * p.stats_stride + 1];
    Acc xhat[K][V], g[K][V];
    Sums<Acc, 2> along = {{0, 0}};
#pragma unroll
    for (int k = 0; k < K; ++k) {
      const i32 col = i32(k * blockDim.x + threadIdx.x) * V;
      if (col >= p.cols) continue;
      load<V>(p.x + row * p.x_stride + col, xhat[k]);
      load<V>(p.dy + row * p.dy_stride + col, g[k]);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        xhat[k][i] = (xhat[k][i] - mean) * rstd;
        dweight[k][i] += g[k][i] * xhat[k][i];
        dbias[k][i] += g[k][i];
      }
      if (p.weight) {
        Acc weight[V];
        load<V>(p.weight + col, weight);
#pragma unroll
        for (int i = 0; i < V; ++i) g[k][i] *= weight[i] + offset;
      }
#pragma unroll
      for (int i = 0; i < V; ++i) {
        along.at[0] += g[k][i] * xhat[k][i];
        along.at[1] += g[k][i];
      }
    }
    along = folded(along, scratch);
    const Acc by_xhat = along.at[0] / width, by_one = p.layer ? along.at[1] / width : Acc(0);
#pragma unroll
    for (int k = 0; k < K; ++k) {
      const i32 col = i32(k * blockDim.x + threadIdx.x) * V;
      if (col >= p.cols) continue;
      Acc dx[V];
#pragma unroll
      for (int i = 0; i < V; ++i) dx[i] = rstd * (g[k][i] - by_one - xhat[k][i] * by_xhat);
      if (p.dsum) {
        Acc dsum[V];
        load<V>(p.dsum + row * p.dsum_stride + col, dsum);
#pragma unroll
        for (int i = 0; i < V; ++i) dx[i] += dsum[i];
      }
      store<V>(p.dx + row * p.dx_stride + col, dx);
    }
  }
  if (!p.parts) return;
#pragma unroll
  for (int k = 0; k < K; ++k) {
    const i32 col = i32(k * blockDim.x + threadIdx.x) * V;
    if (col >= p.cols) continue;
#pragma unroll
    for (int i = 0; i < V; ++i) {
      p.parts[i64(blockIdx.x) * p.cols + col + i] = dweight[k][i];
      p.parts[(i64(gridDim.x) + blockIdx.x) * p.cols + col + i] = dbias[k][i];
    }
  }
}

KERNEL(norm_backward_narrow, NormBackward, 256) { norm_rows_backward<WIDE, 1>(p); }
KERNEL(norm_backward_wide, NormBackward, 256) { norm_rows_backward<WIDE, 32 / WIDE>(p); }
KERNEL(norm_backward_narrow_single, NormBackward, 256) { norm_rows_backward<1, 4>(p); }
KERNEL(norm_backward_wide_single, NormBackward, 256) { norm_rows_backward<1, 32>(p); }

struct ColumnSums {
  const Acc* parts;  // [count, cols]
  Acc* to;
  i32 count, cols;
};

constexpr u32 COLUMNS = 32, GROUPS = 16;

// to[c] += the sum of column c. A block sums 32 columns: 16 groups of threads take parts in turn, and one adds the groups.
KERNEL(column_sums, ColumnSums, 512) {
  __shared__ Acc groups[GROUPS][COLUMNS];
  const u32 lane = threadIdx.x % COLUMNS, group = threadIdx.x / COLUMNS;
  const i32 col = i32(blockIdx.x * COLUMNS + lane);
  Acc sum = 0;
  if (col < p.cols) {
#pragma unroll 4
    for (i32 part = i32(group); part < p.count; part += i32(GROUPS)) sum += p.parts[i64(part) * p.cols + col];
  }
  groups[group][lane] = sum;
  __syncthreads();
  if (group != 0 || col >= p.cols) return;
  for (u32 other = 1; other < GROUPS; ++other) sum += groups[other][lane];
  p.to[col] += sum;
}
