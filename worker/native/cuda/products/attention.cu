// Causal attention in tiles with an online softmax (arXiv 2205.14135, 2307.08691): scores are in
// registers, one tile at a time. This is the plain version in fp32 multiply-adds, for any head
// width up to 256. attention_tensor.cu computes bf16 heads of 64 or 128.
#include <stdexcept>
#include <string>
#include <type_traits>

#include "cuda/attention.cuh"
#include "cuda/ops.cuh"

namespace scmoe::cuda {
namespace {

// A block has kTile rows of its own, kOwn for each warp. It works on kTile rows of the other side
// at a time, one for each lane.
constexpr int kTile = 32, kWarps = 8, kOwn = kTile / kWarps, kThreads = kWarps * kWarp;

// kTile rows of a head in shared memory. Each is padded to an odd width, so that lanes that read a
// column use all banks.
struct TileOf {
  float* data;
  int width;
  __device__ float* row(int i) const { return data + i * width; }
};

__host__ __device__ int padded(int64_t head_dim) {
  return static_cast<int>(head_dim | 1);
}

// The place of a block (tile, head, sequence of the batch). Its own rows begin at `first`.
struct Block {
  const Heads& s;
  const int width, lane, warp;
  const int64_t b, head, first;

  __device__ explicit Block(const Heads& heads)
      : s(heads),
        width(padded(heads.head_dim)),
        lane(static_cast<int>(threadIdx.x % kWarp)),
        warp(static_cast<int>(threadIdx.x / kWarp)),
        b(blockIdx.z),
        head(blockIdx.y),
        first(static_cast<int64_t>(blockIdx.x) * kTile) {}

  // Tile i of the launch's shared memory.
  __device__ TileOf tile(int i) const { return {shared_memory<float>() + i * kTile * width, width}; }

  // Reads the rows from `base` on, and zeros beyond the last.
  template <class T>
  __device__ void read(const TileOf& tile, const HeadRows<T>& from, int64_t base) const {
    for (int64_t i = threadIdx.x; i < kTile * s.head_dim; i += kThreads) {
      const int64_t r = i / s.head_dim, c = i % s.head_dim;
      tile.row(static_cast<int>(r))[c] = base + r < from.count ? load(from.row(base + r)[c]) : 0;
    }
  }

  // Calls body(r, t) for the own rows of this warp that exist: r < kOwn is the row, t its position.
  template <class Body>
  __device__ void each_own(const Body& body) const {
#pragma unroll
    for (int r = 0; r < kOwn; r++) {
      const int64_t t = first + warp * kOwn + r;
      if (t < s.sequence) body(r, t);
    }
  }
};

// Two tiles of the other side: the same rows of two heads.
template <class T>
struct Others {
  const Block& block;
  TileOf one, other;

  // Waits until no thread uses the old rows, and returns when all threads see the new ones.
  __device__ void read(const HeadRows<const T>& of_one, const HeadRows<const T>& of_other, int64_t base) const {
    __syncthreads();
    block.read(one, of_one, base);
    block.read(other, of_other, base);
    __syncthreads();
  }
};

__device__ float inner(const float* a, const float* b, int64_t head_dim) {
  float sum = 0;
  for (int64_t c = 0; c < head_dim; c++) sum += a[c] * b[c];
  return sum;
}

// sum[j] += weight of every lane times its row's value at lane + 32 j.
template <int kPer>
__device__ void add_weighted(float (&sum)[kPer], float weight, const TileOf& tile, int64_t head_dim) {
  for (int i = 0; i < kTile; i++) {
    const float w = __shfl_sync(kAllLanes, weight, i);
#pragma unroll
    for (int j = 0; j < kPer; j++) {
      const int64_t c = threadIdx.x % kWarp + j * kWarp;
      if (c < head_dim) sum[j] += w * tile.row(i)[c];
    }
  }
}

// Writes a lane's values of a row: those at lane + 32 j.
template <int kPer, class T>
__device__ void write_row(T* row, const float (&value)[kPer], int64_t head_dim) {
#pragma unroll
  for (int j = 0; j < kPer; j++) {
    const int64_t c = threadIdx.x % kWarp + j * kWarp;
    if (c < head_dim) row[c] = rounded<T>(value[j]);
  }
}

// Blocks (query tile, head, sequence of the batch).
template <int kPer, class T>
__global__ void forward_kernel(AttentionForward<T> p) {
  const Heads& s = p.s;
  const Block block(s);
  const int64_t b = block.b, h = block.head, first = block.first;
  const TileOf q = block.tile(0), k = block.tile(1), v = block.tile(2);
  const Others<T> keys{block, k, v};
  block.read(q, s.queries(p.qkv, b, h), first);

  float o[kOwn][kPer] = {}, top[kOwn], total[kOwn] = {};
#pragma unroll
  for (int r = 0; r < kOwn; r++) top[r] = -INFINITY;
  for (int64_t base = 0; base <= first; base += kTile) {
    keys.read(s.keys(p.qkv, b, h / s.group), s.values(p.qkv, b, h / s.group), base);
#pragma unroll
    for (int r = 0; r < kOwn; r++) {
      const int own = block.warp * kOwn + r;
      const bool seen = base + block.lane <= first + own;
      const float score = seen ? inner(q.row(own), k.row(block.lane), s.head_dim) * s.scale() : -INFINITY;
      const float higher = greatest(top[r], warp_max(score)), shrink = expf(top[r] - higher);
      const float weight = expf(score - higher);
      top[r] = higher;
      total[r] = total[r] * shrink + warp_sum(weight);
#pragma unroll
      for (int j = 0; j < kPer; j++) o[r][j] *= shrink;
      add_weighted(o[r], weight, v, s.head_dim);
    }
  }
  const HeadRows<T> out = s.outputs(p.o, b, h);
  block.each_own([&](int r, int64_t t) {
#pragma unroll
    for (int j = 0; j < kPer; j++) o[r][j] /= total[r];
    write_row(out.row(t), o[r], s.head_dim);
    if (block.lane == 0) p.lse[(b * s.heads + h) * s.sequence + t] = top[r] + logf(total[r]);
  });
}

// A warp for each row of a head.
template <class T>
__global__ void delta_kernel(float* delta, const T* dout, const T* o, Heads s, int64_t rows) {
  const int64_t at = global_warp();  // ((b * sequence) + t) * heads + h
  if (at >= rows) return;
  float sum = 0;
  for (int64_t c = threadIdx.x % kWarp; c < s.head_dim; c += kWarp)
    sum += load(dout[at * s.head_dim + c]) * load(o[at * s.head_dim + c]);
  sum = warp_sum(sum);
  const int64_t h = at % s.heads, t = at / s.heads % s.sequence, b = at / s.heads / s.sequence;
  if (threadIdx.x % kWarp == 0) delta[(b * s.heads + h) * s.sequence + t] = sum;
}

// dQ = dS K / sqrt(head_dim) with dS = P (dP - delta). Blocks (query tile, head, sequence of the
// batch).
template <int kPer, class T>
__global__ void query_gradient_kernel(AttentionBackward<T> p) {
  const Heads& s = p.s;
  const Block block(s);
  const int64_t b = block.b, h = block.head, first = block.first;
  const TileOf q = block.tile(0), dout = block.tile(1), k = block.tile(2), v = block.tile(3);
  const Others<T> keys{block, k, v};
  block.read(q, s.queries(p.qkv, b, h), first);
  block.read(dout, s.outputs(p.dout, b, h), first);
  const float *lse = p.of(p.lse, b, h), *delta = p.of(p.delta, b, h);
  float dq[kOwn][kPer] = {};
  for (int64_t base = 0; base <= first; base += kTile) {
    keys.read(s.keys(p.qkv, b, h / s.group), s.values(p.qkv, b, h / s.group), base);
#pragma unroll
    for (int r = 0; r < kOwn; r++) {
      const int own = block.warp * kOwn + r;
      const int64_t t = first + own;
      float ds = 0;
      if (t < s.sequence && base + block.lane <= t) {
        const float weight = expf(inner(q.row(own), k.row(block.lane), s.head_dim) * s.scale() - lse[t]);
        ds = weight * (inner(dout.row(own), v.row(block.lane), s.head_dim) - delta[t]) * s.scale();
      }
      add_weighted(dq[r], ds, k, s.head_dim);
    }
  }
  const HeadRows<T> out = s.queries(p.dqkv, b, h);
  block.each_own([&](int r, int64_t t) { write_row(out.row(t), dq[r], s.head_dim); });
}

// dK = dS^T Q / sqrt(head_dim), dV = P^T dO, summed over the query heads of a group in their order.
// Blocks (key tile, key head, sequence of the batch).
template <int kPer, class T>
__global__ void key_gradient_kernel(AttentionBackward<T> p) {
  const Heads& s = p.s;
  const Block block(s);
  const int64_t b = block.b, kv = block.head, first = block.first;
  const TileOf q = block.tile(0), dout = block.tile(1), k = block.tile(2), v = block.tile(3);
  const Others<T> queries{block, q, dout};
  block.read(k, s.keys(p.qkv, b, kv), first);
  block.read(v, s.values(p.qkv, b, kv), first);
  float dk[kOwn][kPer] = {}, dv[kOwn][kPer] = {};
  for (int64_t h = kv * s.group; h < (kv + 1) * s.group; h++) {
    const float *lse = p.of(p.lse, b, h), *delta = p.of(p.delta, b, h);
    for (int64_t base = first; base < s.sequence; base += kTile) {
      queries.read(s.queries(p.qkv, b, h), s.outputs(p.dout, b, h), base);
#pragma unroll
      for (int r = 0; r < kOwn; r++) {
        const int own = block.warp * kOwn + r;
        const int64_t t = base + block.lane;
        float weight = 0, ds = 0;
        if (t < s.sequence && first + own <= t) {
          weight = expf(inner(q.row(block.lane), k.row(own), s.head_dim) * s.scale() - lse[t]);
          ds = weight * (inner(dout.row(block.lane), v.row(own), s.head_dim) - delta[t]) * s.scale();
        }
        add_weighted(dk[r], ds, q, s.head_dim);
        add_weighted(dv[r], weight, dout, s.head_dim);
      }
    }
  }
  const HeadRows<T> keys = s.keys(p.dqkv, b, kv), values = s.values(p.dqkv, b, kv);
  block.each_own([&](int r, int64_t t) {
    write_row(keys.row(t), dk[r], s.head_dim);
    write_row(values.row(t), dv[r], s.head_dim);
  });
}

// Calls body with the number of values that a lane holds of a head's row.
template <class Body>
void with_width(int64_t head_dim, const Body& body) {
  if (head_dim > 256)
    throw std::runtime_error("heads are " + std::to_string(head_dim) + " wide (dim / heads), wants at most 256");
  if (head_dim <= 64) return body(std::integral_constant<int, 2>{});
  if (head_dim <= 128) return body(std::integral_constant<int, 4>{});
  body(std::integral_constant<int, 8>{});
}

Grid tiles_of(const Attrs& a, int64_t heads, int tiles) {
  return {head_tiles(a, heads, kTile), dim3(kThreads),
          sizeof(float) * kTile * static_cast<size_t>(tiles * padded(a.dim / a.heads))};
}

}  // namespace

void attention(const OpCall& call, Stream* stream) {
  const Attrs& a = *call.attrs;
  with_buffers<op::Attention>(call, [&]<class T>(const op::Attention<float, T>& io) {
    const AttentionForward<T> p{.o = io.o, .lse = io.lse, .qkv = io.qkv, .s = heads_of(a)};
    if constexpr (std::is_same_v<T, bf16>) {
      if (has_tensor_attention(a)) return tensor_attention(stream, a, p);
    }
    with_width(p.s.head_dim,
               [&](auto per) { launch(stream, tiles_of(a, a.heads, 3), forward_kernel<decltype(per)::value, T>, p); });
  });
}

void attention_backward(const OpCall& call, Stream* stream) {
  const Attrs& a = *call.attrs;
  const int64_t rows = a.batch * a.sequence * a.heads;
  float* delta = scratch_of<float>(stream, rows);
  with_buffers<op::AttentionBackward>(call, [&]<class T>(const op::AttentionBackward<float, T>& io) {
    const AttentionBackward<T> p{
        .dqkv = io.dqkv, .dout = io.do_, .qkv = io.qkv, .lse = io.lse, .delta = delta, .s = heads_of(a)};
    launch(stream, warp_per_row(rows), delta_kernel<T>, delta, io.do_, io.o, p.s, rows);
    if constexpr (std::is_same_v<T, bf16>) {
      if (has_tensor_attention(a)) return tensor_attention_backward(stream, a, p);
    }
    with_width(p.s.head_dim, [&](auto per) {
      launch(stream, tiles_of(a, a.heads, 4), query_gradient_kernel<decltype(per)::value, T>, p);
      launch(stream, tiles_of(a, a.keyValueHeads, 4), key_gradient_kernel<decltype(per)::value, T>, p);
    });
  });
}

}  // namespace scmoe::cuda
