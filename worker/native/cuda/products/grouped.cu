// The experts' linear layers over routed rows: one launch has a product for each local expert,
// whose size is read on the device. bf16 goes to tensor cores if rows are multiples of 16 bytes,
// everything else to fp32 multiply-adds.
#include <type_traits>

#include "cuda/ops.cuh"
#include "cuda/rows.cuh"
#include "cuda/tile.cuh"
#include "tensor_tile.cuh"

namespace scmoe::cuda {
namespace {

// The rows of one expert among those of the chunk, counted without gaps.
struct Span {
  int64_t expert, first, count;
};

// The rows of tile `tile`, at most kRows. The count is 0 beyond the last tile.
template <int kRows>
__device__ Span span_of(const Rows& rows, int64_t local_experts, int64_t tile) {
  const int64_t ranks = rows.segments / local_experts;
  for (int64_t e = 0; e < local_experts; e++) {
    const int64_t first = rows.start[e * ranks], count = rows.start[(e + 1) * ranks] - first;
    const int64_t tiles = ceil_div(count, kRows);
    if (tile < tiles) return {e, first + tile * kRows, least<int64_t>(kRows, count - tile * kRows)};
    tile -= tiles;
  }
  return {0, 0, 0};
}

// y[row] = x[row] w_e^T (+ b_e), or dx[row] = dy[row] w_e.
template <class T>
struct Forward {
  T* y;        // [routed, columns]
  const T* x;  // [routed, depth]
  // [local experts, columns, depth], or with kTransposed [local experts, depth, columns]
  const T* w;
  const T* b;  // [local experts, columns] or null
  Rows rows;
  int64_t local_experts, columns, depth;
};

// An operand made of rows of x; rows[m] is the number of the row, or -1 beyond the tile.
template <class T>
struct Gathered {
  static constexpr bool kAlongDepth = true;
  const T* x;
  const int64_t* rows;
  int64_t depth;
  __device__ float operator()(int64_t m, int64_t k) const { return rows[m] < 0 ? 0 : load(x[rows[m] * depth + k]); }
};

template <bool kTransposed, class T>
__global__ void forward_kernel(Forward<T> p) {
  __shared__ int64_t rows[kTile];
  const Span span = span_of<kTile>(p.rows, p.local_experts, blockIdx.y);
  if (span.count == 0) return;
  if (threadIdx.x < kTile) rows[threadIdx.x] = threadIdx.x < span.count ? p.rows.at(span.first + threadIdx.x) : -1;
  __syncthreads();
  const int64_t n0 = static_cast<int64_t>(blockIdx.x) * kTile;
  const T* w = p.w + span.expert * p.columns * p.depth;
  float sum[kSide][kSide] = {};
  multiply_tile(sum, Gathered<T>{p.x, rows, p.depth},
                Right<T, !kTransposed>{{w, kTransposed ? p.columns : p.depth, n0, p.columns}}, p.depth);
  each_element(sum, [&](int m, int n, float value) {
    const int64_t column = n0 + n;
    if (m >= span.count || column >= p.columns) return;
    if (p.b) value += load(p.b[span.expert * p.columns + column]);
    p.y[rows[m] * p.columns + column] = rounded<T>(value);
  });
}

template <bool kTransposed>
__global__ __launch_bounds__(kTensorThreads) void tensor_forward_kernel(Forward<bf16> p) {
  __shared__ int64_t rows[kTensorTile];
  const Span span = span_of<kTensorTile>(p.rows, p.local_experts, blockIdx.y);
  if (span.count == 0) return;
  for (int i = threadIdx.x; i < kTensorTile; i += kTensorThreads)
    rows[i] = i < span.count ? p.rows.at(span.first + i) : -1;
  __syncthreads();
  const int64_t n0 = static_cast<int64_t>(blockIdx.x) * kTensorTile;
  const bf16* w = p.w + span.expert * p.columns * p.depth;
  TensorSums sums = {};
  using Weights = std::conditional_t<kTransposed, OuterRows, InnerRows>;
  multiply_tensor_tile(sums, GatheredRows{p.x, rows, p.depth}, Weights{w, n0, p.columns, p.depth}, p.depth);
  each_pair(sums, [&](int m, int n, float first, float second) {
    const int64_t column = n0 + n;
    if (m >= span.count || column >= p.columns) return;
    if (p.b) {
      first += load(p.b[span.expert * p.columns + column]);
      second += load(p.b[span.expert * p.columns + column + 1]);
    }
    *reinterpret_cast<uint32_t*>(p.y + rows[m] * p.columns + column) = packed(first, second);
  });
}

// dw_e += dy_e^T x_e, db_e += sums of dy_e. The op has no chunks, so an expert's rows have no gaps.
template <class T>
struct Wgrad {
  float *dw, *db;   // [local experts, out, in], [local experts, out] or null
  const T *dy, *x;  // [routed, out], [routed, in]
  Rows rows;
  int64_t local_experts, in, out;

  __device__ Span span(int64_t e) const {
    const int64_t ranks = rows.segments / local_experts, first = rows.start[e * ranks];
    return {e, first, rows.start[(e + 1) * ranks] - first};
  }
};

template <class T>
__global__ void wgrad_kernel(Wgrad<T> p) {
  const Span span = p.span(blockIdx.z);
  if (span.count == 0) return;
  const int64_t m0 = static_cast<int64_t>(blockIdx.y) * kTile, n0 = static_cast<int64_t>(blockIdx.x) * kTile;
  float sum[kSide][kSide] = {};
  multiply_tile(sum, Left<T, false>{{p.dy + span.first * p.out, p.out, m0, p.out}},
                Right<T, false>{{p.x + span.first * p.in, p.in, n0, p.in}}, span.count);
  float* dw = p.dw + span.expert * p.out * p.in;
  each_element(sum, [&](int m, int n, float value) {
    if (m0 + m < p.out && n0 + n < p.in) dw[(m0 + m) * p.in + n0 + n] += value;
  });
}

__global__ __launch_bounds__(kTensorThreads) void tensor_wgrad_kernel(Wgrad<bf16> p) {
  const Span span = p.span(blockIdx.z);
  if (span.count == 0) return;
  const int64_t m0 = static_cast<int64_t>(blockIdx.y) * kTensorTile;
  const int64_t n0 = static_cast<int64_t>(blockIdx.x) * kTensorTile;
  TensorSums sums = {};
  multiply_tensor_tile(sums, OuterRows{p.dy + span.first * p.out, m0, p.out, span.count},
                       OuterRows{p.x + span.first * p.in, n0, p.in, span.count}, span.count);
  float* dw = p.dw + span.expert * p.out * p.in;
  each_pair(sums, [&](int m, int n, float first, float second) {
    if (m0 + m >= p.out || n0 + n >= p.in) return;
    float* at = dw + (m0 + m) * p.in + n0 + n;
    at[0] += first, at[1] += second;
  });
}

constexpr int kBiasWarps = 8;

// A block of (kWarp, kBiasWarps) threads for kWarp columns of an expert.
template <class T>
__global__ void bias_gradient_kernel(Wgrad<T> p) {
  __shared__ float sums[kBiasWarps][kWarp];
  const Span span = p.span(blockIdx.y);
  const int64_t j = static_cast<int64_t>(blockIdx.x) * kWarp + threadIdx.x;
  LongSum terms;
  for (int64_t n = threadIdx.y; n < span.count && j < p.out; n += kBiasWarps)
    terms.add(load(p.dy[(span.first + n) * p.out + j]));
  float sum = terms.value();
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || j >= p.out) return;
  for (int i = 1; i < kBiasWarps; i++) sum += sums[i][threadIdx.x];
  p.db[span.expert * p.out + j] += sum;
}

template <class T>
bool fits_tensor_tile(int64_t in, int64_t out) {
  return std::is_same_v<T, bf16> && in % kPiece == 0 && out % kPiece == 0;
}

// The most blocks of `tile` columns by `tile` rows that there can be: each expert may have one tile
// that is not full.
dim3 blocks_of(int64_t columns, int64_t rows, int64_t experts, int64_t tile) {
  return dim3(static_cast<unsigned>(ceil_div(columns, tile)), static_cast<unsigned>(rows / tile + experts));
}

Rows rows_of_call(const Attrs& a, const int32_t* all_counts, Stream* stream) {
  return rows_of_chunk(stream, a, all_counts, scratch_of<int32_t>(stream, segment_elements(a)));
}

template <class T>
struct Layer {
  const T *x, *w, *b;
  T* y;
  const int32_t* all_counts;
  int64_t depth, columns, room;  // room: rows that y has room for
};

template <bool kTransposed, class T>
void forward(const Attrs& a, Stream* stream, const Layer<T>& layer) {
  const int64_t local = a.experts / a.expertParallelSize, columns = layer.columns;
  const Forward<T> p{.y = layer.y,
                     .x = layer.x,
                     .w = layer.w,
                     .b = layer.b,
                     .rows = rows_of_call(a, layer.all_counts, stream),
                     .local_experts = local,
                     .columns = columns,
                     .depth = layer.depth};
  if constexpr (std::is_same_v<T, bf16>) {
    if (fits_tensor_tile<T>(layer.depth, columns))
      return launch(stream, {blocks_of(columns, layer.room, local, kTensorTile), dim3(kTensorThreads), kTensorShared},
                    tensor_forward_kernel<kTransposed>, p);
  }
  launch(stream, {blocks_of(columns, layer.room, local, kTile), dim3(kTileThreads)}, forward_kernel<kTransposed, T>, p);
}

}  // namespace

void grouped_linear(const OpCall& call, Stream* stream) {
  with_buffers<op::GroupedLinear>(call, [&]<class T>(const op::GroupedLinear<float, T>& io) {
    const Attrs& a = *call.attrs;
    forward<false, T>(a, stream,
                      {.x = io.x,
                       .w = io.w,
                       .b = io.b,
                       .y = io.y,
                       .all_counts = io.allCounts,
                       .depth = a.in,
                       .columns = a.out,
                       .room = call.out_elements[0] / a.out});
  });
}

void grouped_linear_dgrad(const OpCall& call, Stream* stream) {
  with_buffers<op::GroupedLinearDgrad>(call, [&]<class T>(const op::GroupedLinearDgrad<float, T>& io) {
    const Attrs& a = *call.attrs;
    forward<true, T>(a, stream,
                     {.x = io.dy,
                      .w = io.w,
                      .b = nullptr,
                      .y = io.dx,
                      .all_counts = io.allCounts,
                      .depth = a.out,
                      .columns = a.in,
                      .room = call.out_elements[0] / a.in});
  });
}

void grouped_linear_wgrad(const OpCall& call, Stream* stream) {
  with_buffers<op::GroupedLinearWgrad>(call, [&]<class T>(const op::GroupedLinearWgrad<float, T>& io) {
    const Attrs& a = *call.attrs;
    const int64_t local = a.experts / a.expertParallelSize;
    const Wgrad<T> p{.dw = io.dw,
                     .db = io.db,
                     .dy = io.dy,
                     .x = io.x,
                     .rows = rows_of_call(a, io.allCounts, stream),
                     .local_experts = local,
                     .in = a.in,
                     .out = a.out};
    const bool tensor = fits_tensor_tile<T>(a.in, a.out);
    const int64_t tile = tensor ? kTensorTile : kTile;
    const dim3 blocks(static_cast<unsigned>(ceil_div(a.in, tile)), static_cast<unsigned>(ceil_div(a.out, tile)),
                      static_cast<unsigned>(local));
    if constexpr (std::is_same_v<T, bf16>) {
      if (tensor) launch(stream, {blocks, dim3(kTensorThreads), kTensorShared}, tensor_wgrad_kernel, p);
    }
    if (!tensor) launch(stream, {blocks, dim3(kTileThreads)}, wgrad_kernel<T>, p);
    if (!p.db) return;
    const dim3 columns(static_cast<unsigned>(ceil_div(a.out, kWarp)), static_cast<unsigned>(local));
    launch(stream, {columns, dim3(kWarp, kBiasWarps)}, bias_gradient_kernel<T>, p);
  });
}

}  // namespace scmoe::cuda
