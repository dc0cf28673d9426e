// Causal attention on tensor cores, for bf16 heads of 64 or 128: FlashAttention-2 (arXiv 2307.08691) with fp32 softmax
// and sums; probabilities and their gradients are rounded to bf16 where they are multiplied. Backward is two kernels,
// one for queries and one for keys and values, so that nothing is added atomically and results keep their bits.
#include "attention.cuh"
#include "matrix.cuh"

namespace scmoe::cuda {
namespace {

constexpr int kOwn = 64, kWarps = kOwn / 16, kThreads = kWarps * kWarp;  // rows of a block, 16 a warp
constexpr int kStep = 32;                                                // rows against which backward works at a time
constexpr float kLog2E = 1.4426950408889634f;

// Rows of a head, as they lie in qkv or in its output.
struct HeadRows {
  const bf16* data;
  int64_t stride, count;
};

template <int kD>
__device__ void copy_rows(const SharedTile<kD>& tile, const HeadRows& from, int64_t first, int rows) {
  constexpr int kPieces = kD / kPiece;
  for (int i = threadIdx.x; i < rows * kPieces; i += kThreads) {
    const int row = i / kPieces, p = i % kPieces;
    const bf16* at = first + row < from.count ? from.data + (first + row) * from.stride + p * kPiece : nullptr;
    copy_late(tile.piece(row, p), at, from.data);
  }
}

// s[2n], s[2n + 1] += rows `row` to + 15 of `left` times rows 16 n to 16 n + 15 of `right`, both kD wide.
template <int kD, int kColumns>
__device__ void add_scores(float (&s)[kColumns / 8][4], const SharedTile<kD>& left, int row,
                           const SharedTile<kD>& right) {
#pragma unroll
  for (int k = 0; k < kD; k += 16) {
    uint32_t a[4], b[4];
    left.left(a, row, k);
#pragma unroll
    for (int n = 0; n < kColumns / 16; n++) {
      right.right(b, k, 16 * n);
      multiply_matrices(s[2 * n], a, b[0], b[1]);
      multiply_matrices(s[2 * n + 1], a, b[2], b[3]);
    }
  }
}

// sum [16, kD] += weights [16, kRows], held as scores are, times the rows of `tile`.
template <int kD, int kRows>
__device__ void add_weighted(float (&sum)[kD / 8][4], const float (&w)[kRows / 8][4], const SharedTile<kD>& tile) {
#pragma unroll
  for (int k = 0; k < kRows / 16; k++) {
    const float(&low)[4] = w[2 * k], (&high)[4] = w[2 * k + 1];
    const uint32_t a[4] = {packed(low[0], low[1]), packed(low[2], low[3]), packed(high[0], high[1]),
                           packed(high[2], high[3])};
#pragma unroll
    for (int n = 0; n < kD / 16; n++) {
      uint32_t b[4];
      tile.right_turned(b, 16 * k, 16 * n);
      multiply_matrices(sum[2 * n], a, b[0], b[1]);
      multiply_matrices(sum[2 * n + 1], a, b[2], b[3]);
    }
  }
}

// Rows that the four lanes of a quarter warp share.
__device__ float row_max(float x) {
  x = greatest(x, __shfl_xor_sync(kAllLanes, x, 1));
  return greatest(x, __shfl_xor_sync(kAllLanes, x, 2));
}
__device__ float row_sum(float x) {
  x += __shfl_xor_sync(kAllLanes, x, 1);
  return x + __shfl_xor_sync(kAllLanes, x, 2);
}

// The 16 rows a warp holds, written to row `first` + 0 to 15 of `to` where they are below `count`.
template <int kD>
__device__ void write_rows(bf16* to, int64_t stride, int64_t first, int64_t count, const float (&sum)[kD / 8][4],
                           float by0, float by1) {
  const int l = threadIdx.x % kWarp;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int64_t row = first + l / 4 + 8 * half;
    if (row >= count) continue;
    const float by = half == 0 ? by0 : by1;
#pragma unroll
    for (int n = 0; n < kD / 8; n++)
      *reinterpret_cast<uint32_t*>(to + row * stride + 8 * n + l % 4 * 2) =
          packed(sum[n][2 * half] * by, sum[n][2 * half + 1] * by);
  }
}

// One tile of keys, already in shared memory, seen by the rows of a warp.
template <int kD>
struct Softmax {
  float o[kD / 8][4] = {};
  float top[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0};  // of rows g and g + 8; total of this lane's keys alone
  float scale;                                               // of scores, times log2 e

  __device__ void add(float (&s)[kOwn / 8][4], const SharedTile<kD>& v) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float higher = top[half];
#pragma unroll
      for (int n = 0; n < kOwn / 8; n++) higher = greatest(higher, greatest(s[n][2 * half], s[n][2 * half + 1]));
      higher = row_max(higher);
      const float shrink = exp2f((top[half] - higher) * scale);
      top[half] = higher;
      total[half] *= shrink;
#pragma unroll
      for (int n = 0; n < kOwn / 8; n++) {
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; i++) {
          s[n][i] = exp2f((s[n][i] - higher) * scale);
          total[half] += s[n][i];
        }
      }
#pragma unroll
      for (int n = 0; n < kD / 8; n++) o[n][2 * half] *= shrink, o[n][2 * half + 1] *= shrink;
    }
    add_weighted<kD, kOwn>(o, s, v);
  }
};

// Blocks (query tile, head, sequence of the batch), the longest rows first.
template <int kD>
__global__ __launch_bounds__(kThreads) void tensor_forward_kernel(AttentionForward<bf16> p) {
  const Heads& s = p.s;
  const int64_t b = blockIdx.z, h = blockIdx.y, first = static_cast<int64_t>(gridDim.x - 1 - blockIdx.x) * kOwn;
  const int row = threadIdx.x / kWarp * 16, l = threadIdx.x % kWarp;
  bf16* const memory = shared_memory<bf16>();
  const SharedTile<kD> q{memory};
  const auto k = [&](int64_t j) { return SharedTile<kD>{memory + (1 + j % 2) * kOwn * kD}; };
  const auto v = [&](int64_t j) { return SharedTile<kD>{memory + (3 + j % 2) * kOwn * kD}; };
  const int64_t kv = h / s.group, tiles = first / kOwn + 1;
  const auto copy = [&](int64_t j) {
    if (j < tiles) {
      copy_rows<kD>(k(j), {p.qkv + s.key(b, kv), s.row, s.sequence}, j * kOwn, kOwn);
      copy_rows<kD>(v(j), {p.qkv + s.value(b, kv), s.row, s.sequence}, j * kOwn, kOwn);
    }
    commit_copies();
  };
  copy_rows<kD>(q, {p.qkv + s.query(b, h), s.row, s.sequence}, first, kOwn);
  copy(0);
  Softmax<kD> softmax;
  softmax.scale = s.scale() * kLog2E;
  for (int64_t j = 0; j < tiles; j++) {
    copy(j + 1);
    await_copies<1>();
    __syncthreads();
    float scores[kOwn / 8][4] = {};
    add_scores<kD, kOwn>(scores, q, row, k(j));
    if (j == tiles - 1) {  // on the diagonal: first is j * kOwn
#pragma unroll
      for (int n = 0; n < kOwn / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
          if (8 * n + l % 4 * 2 + i % 2 > row + l / 4 + i / 2 * 8) scores[n][i] = -INFINITY;
    }
    softmax.add(scores, v(j));
    __syncthreads();  // the tile has been read, before the next copy but one fills it
  }
  const float total0 = row_sum(softmax.total[0]), total1 = row_sum(softmax.total[1]);
  bf16* o = p.o + (b * s.sequence * s.heads + h) * kD;
  write_rows<kD>(o, s.heads * kD, first + row, s.sequence, softmax.o, 1 / total0, 1 / total1);
  if (l % 4 != 0) return;
  float* lse = p.lse + (b * s.heads + h) * s.sequence;
  const int64_t t = first + row + l / 4;
  if (t < s.sequence) lse[t] = softmax.top[0] * s.scale() + logf(total0);
  if (t + 8 < s.sequence) lse[t + 8] = softmax.top[1] * s.scale() + logf(total1);
}

// From scores and dO V^T to probabilities and dS; `seen` where the query is below the diagonal, lse and delta of it.
struct Gradient {
  float scale;
  __device__ void operator()(float& score, float& d, bool seen, float lse, float delta) const {
    score = seen ? exp2f((score * scale - lse) * kLog2E) : 0;
    d = score * (d - delta) * scale;
  }
};

// Blocks (query tile, head, sequence of the batch), the longest rows first.
template <int kD>
__global__ __launch_bounds__(kThreads) void tensor_query_gradient_kernel(AttentionBackward<bf16> p) {
  const Heads& s = p.s;
  const int64_t b = blockIdx.z, h = blockIdx.y, first = static_cast<int64_t>(gridDim.x - 1 - blockIdx.x) * kOwn;
  const int row = threadIdx.x / kWarp * 16, l = threadIdx.x % kWarp;
  bf16* const memory = shared_memory<bf16>();
  const SharedTile<kD> q{memory}, dout{memory + kOwn * kD};
  const auto k = [&](int64_t j) { return SharedTile<kD>{memory + 2 * kOwn * kD + j % 2 * kStep * kD}; };
  const auto v = [&](int64_t j) { return SharedTile<kD>{memory + 2 * kOwn * kD + (2 + j % 2) * kStep * kD}; };
  const int64_t kv = h / s.group, steps = least(ceil_div(s.sequence, kStep), (first + kOwn) / kStep);
  const auto copy = [&](int64_t j) {
    if (j < steps) {
      copy_rows<kD>(k(j), {p.qkv + s.key(b, kv), s.row, s.sequence}, j * kStep, kStep);
      copy_rows<kD>(v(j), {p.qkv + s.value(b, kv), s.row, s.sequence}, j * kStep, kStep);
    }
    commit_copies();
  };
  copy_rows<kD>(q, {p.qkv + s.query(b, h), s.row, s.sequence}, first, kOwn);
  copy_rows<kD>(dout, {p.dout_of(b, h), s.heads * kD, s.sequence}, first, kOwn);
  copy(0);
  const int64_t t0 = first + row + l / 4, t1 = t0 + 8;
  const float *lse = p.of(p.lse, b, h), *delta = p.of(p.delta, b, h);
  const float lse0 = t0 < s.sequence ? lse[t0] : 0, lse1 = t1 < s.sequence ? lse[t1] : 0;
  const float delta0 = t0 < s.sequence ? delta[t0] : 0, delta1 = t1 < s.sequence ? delta[t1] : 0;
  const Gradient gradient{s.scale()};
  float dq[kD / 8][4] = {};
  for (int64_t j = 0; j < steps; j++) {
    copy(j + 1);
    await_copies<1>();
    __syncthreads();
    float scores[kStep / 8][4] = {}, d[kStep / 8][4] = {};
    add_scores<kD, kStep>(scores, q, row, k(j));
    add_scores<kD, kStep>(d, dout, row, v(j));
#pragma unroll
    for (int n = 0; n < kStep / 8; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int64_t key = j * kStep + 8 * n + l % 4 * 2 + i % 2, t = i < 2 ? t0 : t1;
        gradient(scores[n][i], d[n][i], key <= t && t < s.sequence, i < 2 ? lse0 : lse1, i < 2 ? delta0 : delta1);
      }
    }
    add_weighted<kD, kStep>(dq, d, k(j));
    __syncthreads();  // the step's tiles have been read
  }
  write_rows<kD>(p.dqkv + s.query(b, h), s.row, first + row, s.sequence, dq, 1, 1);
}

// Scores turned: a warp's rows are keys. Blocks (key tile, key head, sequence of the batch).
template <int kD>
__global__ __launch_bounds__(kThreads) void tensor_key_gradient_kernel(AttentionBackward<bf16> p) {
  const Heads& s = p.s;
  const int64_t b = blockIdx.z, kv = blockIdx.y, first = static_cast<int64_t>(blockIdx.x) * kOwn;
  const int row = threadIdx.x / kWarp * 16, l = threadIdx.x % kWarp;
  bf16* const memory = shared_memory<bf16>();
  const SharedTile<kD> k{memory}, v{memory + kOwn * kD};
  const auto q = [&](int64_t j) { return SharedTile<kD>{memory + 2 * kOwn * kD + j % 2 * kStep * kD}; };
  const auto dout = [&](int64_t j) { return SharedTile<kD>{memory + 2 * kOwn * kD + (2 + j % 2) * kStep * kD}; };
  const int64_t of_head = ceil_div(s.sequence - first, kStep), steps = s.group * of_head;
  const auto head = [&](int64_t j) { return kv * s.group + j / of_head; };
  const auto base = [&](int64_t j) { return first + j % of_head * kStep; };
  const auto copy = [&](int64_t j) {
    if (j < steps) {
      copy_rows<kD>(q(j), {p.qkv + s.query(b, head(j)), s.row, s.sequence}, base(j), kStep);
      copy_rows<kD>(dout(j), {p.dout_of(b, head(j)), s.heads * kD, s.sequence}, base(j), kStep);
    }
    commit_copies();
  };
  copy_rows<kD>(k, {p.qkv + s.key(b, kv), s.row, s.sequence}, first, kOwn);
  copy_rows<kD>(v, {p.qkv + s.value(b, kv), s.row, s.sequence}, first, kOwn);
  copy(0);
  const Gradient gradient{s.scale()};
  float dk[kD / 8][4] = {}, dv[kD / 8][4] = {};
  for (int64_t j = 0; j < steps; j++) {
    copy(j + 1);
    await_copies<1>();
    __syncthreads();
    const float *lse = p.of(p.lse, b, head(j)), *delta = p.of(p.delta, b, head(j));
    float scores[kStep / 8][4] = {}, d[kStep / 8][4] = {};
    add_scores<kD, kStep>(scores, k, row, q(j));
    add_scores<kD, kStep>(d, v, row, dout(j));
#pragma unroll
    for (int n = 0; n < kStep / 8; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int64_t t = base(j) + 8 * n + l % 4 * 2 + i % 2, key = first + row + l / 4 + i / 2 * 8;
        const bool is = t < s.sequence;
        gradient(scores[n][i], d[n][i], is && key <= t, is ? lse[t] : 0, is ? delta[t] : 0);
      }
    }
    add_weighted<kD, kStep>(dv, scores, dout(j));
    add_weighted<kD, kStep>(dk, d, q(j));
    __syncthreads();  // the step's tiles have been read
  }
  write_rows<kD>(p.dqkv + s.key(b, kv), s.row, first + row, s.sequence, dk, 1, 1);
  write_rows<kD>(p.dqkv + s.value(b, kv), s.row, first + row, s.sequence, dv, 1, 1);
}

Grid tiles_of(const Attrs& a, int64_t heads, int64_t rows) {
  const dim3 blocks(static_cast<unsigned>(ceil_div(a.sequence, kOwn)), static_cast<unsigned>(heads),
                    static_cast<unsigned>(a.batch));
  return {blocks, dim3(kThreads), static_cast<size_t>(rows * (a.dim / a.heads)) * sizeof(bf16)};
}

}  // namespace

bool has_tensor_attention(const Attrs& a) {
  return a.dim / a.heads == 64 || a.dim / a.heads == 128;
}

void tensor_attention(Stream* stream, const Attrs& a, const AttentionForward<bf16>& p) {
  const bool narrow = a.dim / a.heads == 64;
  launch(stream, tiles_of(a, a.heads, 5 * kOwn), narrow ? tensor_forward_kernel<64> : tensor_forward_kernel<128>, p);
}

void tensor_attention_backward(Stream* stream, const Attrs& a, const AttentionBackward<bf16>& p) {
  const bool narrow = a.dim / a.heads == 64;
  const int64_t rows = 2 * kOwn + 4 * kStep;
  launch(stream, tiles_of(a, a.heads, rows),
         narrow ? tensor_query_gradient_kernel<64> : tensor_query_gradient_kernel<128>, p);
  launch(stream, tiles_of(a, a.keyValueHeads, rows),
         narrow ? tensor_key_gradient_kernel<64> : tensor_key_gradient_kernel<128>, p);
}

}  // namespace scmoe::cuda
