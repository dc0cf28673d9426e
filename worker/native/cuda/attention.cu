// Causal attention in tiles with an online softmax (arXiv 2205.14135, 2307.08691): scores live in registers, one tile
// at a time. This is the plain version, in fp32 multiply-adds, for any head width up to 256; bf16 heads of 64 or 128 go
// to attention_tensor.cu.
#include <stdexcept>
#include <string>
#include <type_traits>

#include "attention.cuh"
#include "ops.cuh"

namespace scmoe::cuda {
namespace {

// A block works on kTile rows, kOwn of them a warp, against kTile others at a time, one a lane.
constexpr int kTile = 32, kWarps = 8, kOwn = kTile / kWarps, kThreads = kWarps * kWarp;

// kTile rows of a head in shared memory, each padded to an odd width so that lanes reading a column hit all banks.
struct TileOf {
  float* data;
  int width;
  __device__ float* row(int i) const { return data + i * width; }
};

__host__ __device__ int padded(int64_t head_dim) {
  return static_cast<int>(head_dim | 1);
}

template <class T>
__device__ void read_tile(const TileOf& tile, const T* from, int64_t first, const Heads& s, int64_t stride) {
  for (int64_t i = threadIdx.x; i < kTile * s.head_dim; i += kThreads) {
    const int64_t r = i / s.head_dim, c = i % s.head_dim;
    tile.row(static_cast<int>(r))[c] = first + r < s.sequence ? load(from[(first + r) * stride + c]) : 0;
  }
}

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

// Blocks (query tile, head, sequence of the batch).
template <int kPer, class T>
__global__ void forward_kernel(AttentionForward<T> p) {
  const Heads& s = p.s;
  const int width = padded(s.head_dim), lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  float* memory = shared_memory<float>();
  const TileOf q{memory, width}, k{memory + kTile * width, width}, v{memory + 2 * kTile * width, width};
  const int64_t b = blockIdx.z, h = blockIdx.y, first = static_cast<int64_t>(blockIdx.x) * kTile;
  read_tile(q, p.qkv + s.query(b, h), first, s, s.row);

  float o[kOwn][kPer] = {}, top[kOwn], total[kOwn] = {};
#pragma unroll
  for (int r = 0; r < kOwn; r++) top[r] = -INFINITY;
  for (int64_t base = 0; base <= first; base += kTile) {
    __syncthreads();
    read_tile(k, p.qkv + s.key(b, h / s.group), base, s, s.row);
    read_tile(v, p.qkv + s.value(b, h / s.group), base, s, s.row);
    __syncthreads();
#pragma unroll
    for (int r = 0; r < kOwn; r++) {
      const int own = warp * kOwn + r;
      const bool seen = base + lane <= first + own;
      const float score = seen ? inner(q.row(own), k.row(lane), s.head_dim) * s.scale() : -INFINITY;
      const float higher = greatest(top[r], warp_max(score)), shrink = expf(top[r] - higher);
      const float weight = expf(score - higher);
      top[r] = higher;
      total[r] = total[r] * shrink + warp_sum(weight);
#pragma unroll
      for (int j = 0; j < kPer; j++) o[r][j] *= shrink;
      add_weighted(o[r], weight, v, s.head_dim);
    }
  }
#pragma unroll
  for (int r = 0; r < kOwn; r++) {
    const int64_t t = first + warp * kOwn + r;
    if (t >= s.sequence) continue;
#pragma unroll
    for (int j = 0; j < kPer; j++) {
      const int64_t c = lane + j * kWarp;
      if (c < s.head_dim) p.o[((b * s.sequence + t) * s.heads + h) * s.head_dim + c] = rounded<T>(o[r][j] / total[r]);
    }
    if (lane == 0 && t < s.sequence) p.lse[(b * s.heads + h) * s.sequence + t] = top[r] + logf(total[r]);
  }
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

// dQ = dS K / sqrt(head_dim) with dS = P (dP - delta). Blocks (query tile, head, sequence of the batch).
template <int kPer, class T>
__global__ void query_gradient_kernel(AttentionBackward<T> p) {
  const Heads& s = p.s;
  const int width = padded(s.head_dim), lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  float* memory = shared_memory<float>();
  const TileOf q{memory, width}, dout{memory + kTile * width, width}, k{memory + 2 * kTile * width, width},
      v{memory + 3 * kTile * width, width};
  const int64_t b = blockIdx.z, h = blockIdx.y, first = static_cast<int64_t>(blockIdx.x) * kTile;
  read_tile(q, p.qkv + s.query(b, h), first, s, s.row);
  read_tile(dout, p.dout_of(b, h), first, s, s.heads * s.head_dim);
  const float *lse = p.of(p.lse, b, h), *delta = p.of(p.delta, b, h);
  float dq[kOwn][kPer] = {};
  for (int64_t base = 0; base <= first; base += kTile) {
    __syncthreads();
    read_tile(k, p.qkv + s.key(b, h / s.group), base, s, s.row);
    read_tile(v, p.qkv + s.value(b, h / s.group), base, s, s.row);
    __syncthreads();
#pragma unroll
    for (int r = 0; r < kOwn; r++) {
      const int own = warp * kOwn + r;
      const int64_t t = first + own;
      float ds = 0;
      if (t < s.sequence && base + lane <= t) {
        const float weight = expf(inner(q.row(own), k.row(lane), s.head_dim) * s.scale() - lse[t]);
        ds = weight * (inner(dout.row(own), v.row(lane), s.head_dim) - delta[t]) * s.scale();
      }
      add_weighted(dq[r], ds, k, s.head_dim);
    }
  }
#pragma unroll
  for (int r = 0; r < kOwn; r++) {
    const int64_t t = first + warp * kOwn + r;
#pragma unroll
    for (int j = 0; j < kPer; j++) {
      const int64_t c = lane + j * kWarp;
      if (c < s.head_dim && t < s.sequence) p.dqkv[s.query(b, h) + t * s.row + c] = rounded<T>(dq[r][j]);
    }
  }
}

// dK = dS^T Q / sqrt(head_dim), dV = P^T dO, summed over the query heads of a group in their order. Blocks (key tile,
// key head, sequence of the batch).
template <int kPer, class T>
__global__ void key_gradient_kernel(AttentionBackward<T> p) {
  const Heads& s = p.s;
  const int width = padded(s.head_dim), lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  float* memory = shared_memory<float>();
  const TileOf q{memory, width}, dout{memory + kTile * width, width}, k{memory + 2 * kTile * width, width},
      v{memory + 3 * kTile * width, width};
  const int64_t b = blockIdx.z, kv = blockIdx.y, first = static_cast<int64_t>(blockIdx.x) * kTile;
  read_tile(k, p.qkv + s.key(b, kv), first, s, s.row);
  read_tile(v, p.qkv + s.value(b, kv), first, s, s.row);
  float dk[kOwn][kPer] = {}, dv[kOwn][kPer] = {};
  for (int64_t h = kv * s.group; h < (kv + 1) * s.group; h++) {
    const float *lse = p.of(p.lse, b, h), *delta = p.of(p.delta, b, h);
    for (int64_t base = first; base < s.sequence; base += kTile) {
      __syncthreads();
      read_tile(q, p.qkv + s.query(b, h), base, s, s.row);
      read_tile(dout, p.dout_of(b, h), base, s, s.heads * s.head_dim);
      __syncthreads();
#pragma unroll
      for (int r = 0; r < kOwn; r++) {
        const int own = warp * kOwn + r;
        const int64_t t = base + lane;
        float weight = 0, ds = 0;
        if (t < s.sequence && first + own <= t) {
          weight = expf(inner(q.row(lane), k.row(own), s.head_dim) * s.scale() - lse[t]);
          ds = weight * (inner(dout.row(lane), v.row(own), s.head_dim) - delta[t]) * s.scale();
        }
        add_weighted(dk[r], ds, q, s.head_dim);
        add_weighted(dv[r], weight, dout, s.head_dim);
      }
    }
  }
#pragma unroll
  for (int r = 0; r < kOwn; r++) {
    const int64_t t = first + warp * kOwn + r;
#pragma unroll
    for (int j = 0; j < kPer; j++) {
      const int64_t c = lane + j * kWarp;
      if (c >= s.head_dim || t >= s.sequence) continue;
      p.dqkv[s.key(b, kv) + t * s.row + c] = rounded<T>(dk[r][j]);
      p.dqkv[s.value(b, kv) + t * s.row + c] = rounded<T>(dv[r][j]);
    }
  }
}

// body(number of values a lane holds of a head's row)
template <class Body>
void with_width(int64_t head_dim, const Body& body) {
  if (head_dim > 256) throw std::runtime_error("heads are " + std::to_string(head_dim) + " wide; wants 256 at most");
  if (head_dim <= 64) return body(std::integral_constant<int, 2>{});
  if (head_dim <= 128) return body(std::integral_constant<int, 4>{});
  body(std::integral_constant<int, 8>{});
}

Grid tiles_of(const Attrs& a, int64_t heads, int tiles) {
  const dim3 blocks(static_cast<unsigned>(ceil_div(a.sequence, kTile)), static_cast<unsigned>(heads),
                    static_cast<unsigned>(a.batch));
  return {blocks, dim3(kThreads), sizeof(float) * kTile * static_cast<size_t>(tiles * padded(a.dim / a.heads))};
}

}  // namespace

void attention(const OpCall& call, Stream* stream) {
  const Attrs& a = *call.attrs;
  with_type(call.out_types[0], [&](auto type) {
    using T = decltype(type);
    const AttentionForward<T> p{out<T>(call, 0), out<float>(call, 1), in<T>(call, 0), heads_of(a)};
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
  with_type(call.out_types[0], [&](auto type) {
    using T = decltype(type);
    const AttentionBackward<T> p{out<T>(call, 0),    in<T>(call, 0), in<T>(call, 1),
                                 in<float>(call, 3), delta,          heads_of(a)};
    launch(stream, warp_per_row(rows), delta_kernel<T>, delta, in<T>(call, 0), in<T>(call, 2), p.s, rows);
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
