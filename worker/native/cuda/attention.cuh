// Heads as they lie in qkv, and the walk over tiles that forward and backward share.
#pragma once

#include "device.cuh"

namespace scmoe::cuda {

// A row of qkv is `heads` query heads, then key heads, then value heads, each shared by `group` query heads.
struct Heads {
  int64_t sequence, heads, group, head_dim, row;

  __host__ __device__ int64_t shared_heads() const { return heads / group; }
  __device__ int64_t query(int64_t b, int64_t h) const { return b * sequence * row + h * head_dim; }
  __device__ int64_t key(int64_t b, int64_t kv) const { return b * sequence * row + (heads + kv) * head_dim; }
  __device__ int64_t value(int64_t b, int64_t kv) const { return key(b, kv) + shared_heads() * head_dim; }
  __device__ float scale() const { return rsqrtf(static_cast<float>(head_dim)); }
};

inline Heads heads_of(const Attrs& a) {
  const int64_t head_dim = a.dim / a.heads;
  return {a.sequence, a.heads, a.heads / a.keyValueHeads, head_dim, (a.heads + 2 * a.keyValueHeads) * head_dim};
}

}  // namespace scmoe::cuda
