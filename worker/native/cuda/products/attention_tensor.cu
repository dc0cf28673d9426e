// Causal attention on tensor cores, for bf16 heads of 64 or 128: FlashAttention-2 (arXiv
// 2307.08691) with softmax and sums in fp32. Probabilities and their gradients are rounded to bf16
// before they are multiplied. The backward pass is two kernels, one for queries and one for keys
// and values. So nothing is added atomically, and results have the same bits in every run.
#include "cuda/attention.cuh"
#include "matrix.cuh"

namespace scmoe::cuda {
namespace {

constexpr int kOwn = 64, kWarps = kOwn / 16;  // rows of a block, 16 for each warp
constexpr int kThreads = kWarps * kWarp;
constexpr int kStep = 32;  // rows of the other side in one step of the backward pass
constexpr float kLog2E = 1.4426950408889634f;

using Source = HeadRows<const bf16>;

template <int kD>
__device__ void copy_rows(const SharedTile<kD>& tile, const Source& from, int64_t first, int rows) {
  constexpr int kPieces = kD / kPiece;
  for (int i = threadIdx.x; i < rows * kPieces; i += kThreads) {
    const int row = i / kPieces, p = i % kPieces;
    const bf16* at = first + row < from.count ? from.row(first + row) + p * kPiece : nullptr;
    copy_late(tile.piece(row, p), at, from.data);
  }
}

// Two tiles of the other side, step by step, in four tiles of shared memory: while a block works on
// one step, the rows of the next are being copied.
template <int kD, int kRows>
struct Walk {
  bf16* memory;

  __device__ SharedTile<kD> one(int64_t step) const { return {memory + step % 2 * kRows * kD}; }
  __device__ SharedTile<kD> other(int64_t step) const { return {memory + (2 + step % 2) * kRows * kD}; }

  // Calls body(step, one, other). from(step) returns {rows of one, rows of other, the number of the
  // first row}. Copies that the block started earlier have arrived by then too.
  template <class From, class Body>
  __device__ void steps(int64_t count, const From& from, const Body& body) const {
    const auto copy = [&](int64_t step) {
      if (step < count) {
        const auto [of_one, of_other, first] = from(step);
        copy_rows<kD>(one(step), of_one, first, kRows);
        copy_rows<kD>(other(step), of_other, first, kRows);
      }
      commit_copies();
    };
    copy(0);
    for (int64_t step = 0; step < count; step++) {
      copy(step + 1);
      await_copies<1>();
      __syncthreads();
      body(step, one(step), other(step));
      __syncthreads();  // the tiles must be read before the copy after next fills them
    }
  }
};

struct Step {
  Source one, other;
  int64_t first;
};

// s[2n], s[2n + 1] += rows `row` to `row` + 15 of `left` times rows 16 n to 16 n + 15 of `right`.
// Rows are kD wide.
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

// sum [16, kD] += weights [16, kRows] times the rows of `tile`. Lanes hold weights as they hold
// scores.
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

// The maximum and the sum of a row, which four neighbouring lanes hold.
__device__ float row_max(float x) {
  x = greatest(x, __shfl_xor_sync(kAllLanes, x, 1));
  return greatest(x, __shfl_xor_sync(kAllLanes, x, 2));
}
__device__ float row_sum(float x) {
  x += __shfl_xor_sync(kAllLanes, x, 1);
  return x + __shfl_xor_sync(kAllLanes, x, 2);
}

// Writes the 16 rows that a warp holds to rows `first` to `first` + 15 of `to`, as far as there are
// any.
template <int kD>
__device__ void write_rows(const HeadRows<bf16>& to, int64_t first, const float (&sum)[kD / 8][4],
                           const float (&by)[2] = {1, 1}) {
  const int l = threadIdx.x % kWarp;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int64_t row = first + l / 4 + 8 * half;
    if (row >= to.count) continue;
#pragma unroll
    for (int n = 0; n < kD / 8; n++)
      *reinterpret_cast<uint32_t*>(to.row(row) + 8 * n + l % 4 * 2) =
          packed(sum[n][2 * half] * by[half], sum[n][2 * half + 1] * by[half]);
  }
}

// The place of a block. Its own rows are at the start of shared memory, those of the other side
// behind them.
struct Block {
  int64_t b, head, first;

  __device__ explicit Block(int64_t tile) : b(blockIdx.z), head(blockIdx.y), first(tile * kOwn) {}

  template <int kD>
  __device__ SharedTile<kD> own(int i) const {
    return {shared_memory<bf16>() + i * kOwn * kD};
  }
  template <int kD, int kRows>
  __device__ Walk<kD, kRows> walk(int own_tiles) const {
    return {shared_memory<bf16>() + own_tiles * kOwn * kD};
  }
};

// Blocks with the longest rows start first.
__device__ Block last_first() {
  return Block(gridDim.x - 1 - static_cast<int64_t>(blockIdx.x));
}

// One tile of keys, already in shared memory, seen by the rows of a warp.
template <int kD>
struct Softmax {
  float o[kD / 8][4] = {};
  // For rows g and g + 8. The total is over this lane's keys only.
  float top[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0};
  float scale;  // the factor of scores, times log2 e

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

// Blocks (query tile, head, sequence of the batch). Those with the longest rows start first.
template <int kD>
__global__ __launch_bounds__(kThreads) void tensor_forward_kernel(AttentionForward<bf16> p) {
  const Heads& s = p.s;
  const Block block = last_first();
  const int64_t b = block.b, h = block.head, kv = h / s.group, first = block.first;
  const int row = threadIdx.x / kWarp * 16, l = threadIdx.x % kWarp;
  const SharedTile<kD> q = block.own<kD>(0);
  copy_rows<kD>(q, s.queries(p.qkv, b, h), first, kOwn);
  Softmax<kD> softmax;
  softmax.scale = s.scale() * kLog2E;
  const int64_t tiles = first / kOwn + 1;
  const Source keys = s.keys(p.qkv, b, kv), values = s.values(p.qkv, b, kv);
  const auto from = [&](int64_t j) { return Step{keys, values, j * kOwn}; };
  block.walk<kD, kOwn>(1).steps(tiles, from, [&](int64_t j, const SharedTile<kD>& k, const SharedTile<kD>& v) {
    float scores[kOwn / 8][4] = {};
    add_scores<kD, kOwn>(scores, q, row, k);
    if (j == tiles - 1) {  // this tile is on the diagonal: first is j * kOwn
#pragma unroll
      for (int n = 0; n < kOwn / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
          if (8 * n + l % 4 * 2 + i % 2 > row + l / 4 + i / 2 * 8) scores[n][i] = -INFINITY;
    }
    softmax.add(scores, v);
  });
  const float total0 = row_sum(softmax.total[0]), total1 = row_sum(softmax.total[1]);
  write_rows<kD>(s.outputs(p.o, b, h), first + row, softmax.o, {1 / total0, 1 / total1});
  if (l % 4 != 0) return;
  float* lse = p.lse + (b * s.heads + h) * s.sequence;
  const int64_t t = first + row + l / 4;
  if (t < s.sequence) lse[t] = softmax.top[0] * s.scale() + logf(total0);
  if (t + 8 < s.sequence) lse[t + 8] = softmax.top[1] * s.scale() + logf(total1);
}

// Turns a score into its probability, and an element of dO V^T into one of dS. `seen`: the query
// may attend to the key. lse and delta are those of the query.
struct Gradient {
  float scale;
  __device__ void operator()(float& score, float& d, bool seen, float lse, float delta) const {
    score = seen ? exp2f((score * scale - lse) * kLog2E) : 0;
    d = score * (d - delta) * scale;
  }
};

// Blocks (query tile, head, sequence of the batch). Those with the longest rows start first.
template <int kD>
__global__ __launch_bounds__(kThreads) void tensor_query_gradient_kernel(AttentionBackward<bf16> p) {
  const Heads& s = p.s;
  const Block block = last_first();
  const int64_t b = block.b, h = block.head, kv = h / s.group, first = block.first;
  const int row = threadIdx.x / kWarp * 16, l = threadIdx.x % kWarp;
  const SharedTile<kD> q = block.own<kD>(0), dout = block.own<kD>(1);
  copy_rows<kD>(q, s.queries(p.qkv, b, h), first, kOwn);
  copy_rows<kD>(dout, s.outputs(p.dout, b, h), first, kOwn);
  const int64_t t0 = first + row + l / 4, t1 = t0 + 8;
  const float *lse = p.of(p.lse, b, h), *delta = p.of(p.delta, b, h);
  const float lse0 = t0 < s.sequence ? lse[t0] : 0, lse1 = t1 < s.sequence ? lse[t1] : 0;
  const float delta0 = t0 < s.sequence ? delta[t0] : 0, delta1 = t1 < s.sequence ? delta[t1] : 0;
  const Gradient gradient{s.scale()};
  float dq[kD / 8][4] = {};
  const int64_t steps = least(ceil_div(s.sequence, kStep), (first + kOwn) / kStep);
  const auto from = [&](int64_t j) { return Step{s.keys(p.qkv, b, kv), s.values(p.qkv, b, kv), j * kStep}; };
  block.walk<kD, kStep>(2).steps(steps, from, [&](int64_t j, const SharedTile<kD>& k, const SharedTile<kD>& v) {
    float scores[kStep / 8][4] = {}, d[kStep / 8][4] = {};
    add_scores<kD, kStep>(scores, q, row, k);
    add_scores<kD, kStep>(d, dout, row, v);
#pragma unroll
    for (int n = 0; n < kStep / 8; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int64_t key = j * kStep + 8 * n + l % 4 * 2 + i % 2, t = i < 2 ? t0 : t1;
        gradient(scores[n][i], d[n][i], key <= t && t < s.sequence, i < 2 ? lse0 : lse1, i < 2 ? delta0 : delta1);
      }
    }
    add_weighted<kD, kStep>(dq, d, k);
  });
  write_rows<kD>(s.queries(p.dqkv, b, h), first + row, dq);
}

// Scores are transposed: the rows of a warp are keys. Blocks (key tile, key head, sequence of the
// batch).
template <int kD>
__global__ __launch_bounds__(kThreads) void tensor_key_gradient_kernel(AttentionBackward<bf16> p) {
  const Heads& s = p.s;
  const Block block(blockIdx.x);
  const int64_t b = block.b, kv = block.head, first = block.first;
  const int row = threadIdx.x / kWarp * 16, l = threadIdx.x % kWarp;
  const SharedTile<kD> k = block.own<kD>(0), v = block.own<kD>(1);
  copy_rows<kD>(k, s.keys(p.qkv, b, kv), first, kOwn);
  copy_rows<kD>(v, s.values(p.qkv, b, kv), first, kOwn);
  const Gradient gradient{s.scale()};
  float dk[kD / 8][4] = {}, dv[kD / 8][4] = {};
  const int64_t of_head = ceil_div(s.sequence - first, kStep);
  const auto head = [&](int64_t j) { return kv * s.group + j / of_head; };
  const auto base = [&](int64_t j) { return first + j % of_head * kStep; };
  const auto from = [&](int64_t j) {
    return Step{s.queries(p.qkv, b, head(j)), s.outputs(p.dout, b, head(j)), base(j)};
  };
  const auto add = [&](int64_t j, const SharedTile<kD>& q, const SharedTile<kD>& dout) {
    const float *lse = p.of(p.lse, b, head(j)), *delta = p.of(p.delta, b, head(j));
    float scores[kStep / 8][4] = {}, d[kStep / 8][4] = {};
    add_scores<kD, kStep>(scores, k, row, q);
    add_scores<kD, kStep>(d, v, row, dout);
#pragma unroll
    for (int n = 0; n < kStep / 8; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int64_t t = base(j) + 8 * n + l % 4 * 2 + i % 2, key = first + row + l / 4 + i / 2 * 8;
        const bool is = t < s.sequence;
        gradient(scores[n][i], d[n][i], is && key <= t, is ? lse[t] : 0, is ? delta[t] : 0);
      }
    }
    add_weighted<kD, kStep>(dv, scores, dout);
    add_weighted<kD, kStep>(dk, d, q);
  };
  block.walk<kD, kStep>(2).steps(s.group * of_head, from, add);
  write_rows<kD>(s.keys(p.dqkv, b, kv), first + row, dk);
  write_rows<kD>(s.values(p.dqkv, b, kv), first + row, dv);
}

Grid tiles_of(const Attrs& a, int64_t heads, int64_t rows) {
  return {head_tiles(a, heads, kOwn), dim3(kThreads), static_cast<size_t>(rows * (a.dim / a.heads)) * sizeof(bf16)};
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
