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

template <class T>
struct AttentionForward {
  T* o;          // [batch, sequence, heads, head_dim]
  float* lse;    // [batch, heads, sequence]
  const T* qkv;  // [batch, sequence, row]
  Heads s;
};

template <class T>
struct AttentionBackward {
  T* dqkv;              // [batch, sequence, row]
  const T *dout, *qkv;  // [batch, sequence, heads, head_dim], [batch, sequence, row]
  const float* lse;     // [batch, heads, sequence]
  const float* delta;   // [batch, heads, sequence] <dO, O>
  Heads s;

  __device__ const T* dout_of(int64_t b, int64_t h) const { return dout + (b * s.sequence * s.heads + h) * s.head_dim; }
  __device__ const float* of(const float* rows, int64_t b, int64_t h) const {
    return rows + (b * s.heads + h) * s.sequence;
  }
};

// On tensor cores (attention_tensor.cu), for the head widths it has.
bool has_tensor_attention(const Attrs& attrs);
void tensor_attention(Stream* stream, const Attrs& attrs, const AttentionForward<bf16>& p);
void tensor_attention_backward(Stream* stream, const Attrs& attrs, const AttentionBackward<bf16>& p);

inline Heads heads_of(const Attrs& a) {
  const int64_t head_dim = a.dim / a.heads;
  return {a.sequence, a.heads, a.heads / a.keyValueHeads, head_dim, (a.heads + 2 * a.keyValueHeads) * head_dim};
}

}  // namespace scmoe::cuda
