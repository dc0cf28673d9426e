// The places of heads in qkv, and the parameters that both sets of kernels (attention.cu,
// attention_tensor.cu) take.
#pragma once

#include "cuda/device.cuh"

namespace scmoe::cuda {

// The rows of one head, in qkv or in the output.
template <class T>
struct HeadRows {
  T* data;
  int64_t stride, count;
  __device__ T* row(int64_t t) const { return data + t * stride; }
};

// A row of qkv is `heads` query heads, then key heads, then value heads, each shared by `group`
// query heads.
struct Heads {
  int64_t sequence, heads, group, head_dim, row;

  __host__ __device__ int64_t shared_heads() const { return heads / group; }
  // The rows of query head h, or of key and value head kv.
  template <class T>
  __device__ HeadRows<T> queries(T* qkv, int64_t b, int64_t h) const {
    return {qkv + b * sequence * row + h * head_dim, row, sequence};
  }
  template <class T>
  __device__ HeadRows<T> keys(T* qkv, int64_t b, int64_t kv) const {
    return queries(qkv, b, heads + kv);
  }
  template <class T>
  __device__ HeadRows<T> values(T* qkv, int64_t b, int64_t kv) const {
    return {keys(qkv, b, kv).data + shared_heads() * head_dim, row, sequence};
  }
  template <class T>
  __device__ HeadRows<T> outputs(T* o, int64_t b, int64_t h) const {
    return {o + (b * sequence * heads + h) * head_dim, heads * head_dim, sequence};
  }
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

  __device__ const float* of(const float* rows, int64_t b, int64_t h) const {
    return rows + (b * s.heads + h) * s.sequence;
  }
};

// Attention on tensor cores (attention_tensor.cu). Only some head widths have it.
bool has_tensor_attention(const Attrs& attrs);
void tensor_attention(Stream* stream, const Attrs& attrs, const AttentionForward<bf16>& p);
void tensor_attention_backward(Stream* stream, const Attrs& attrs, const AttentionBackward<bf16>& p);

inline Heads heads_of(const Attrs& a) {
  const int64_t head_dim = a.dim / a.heads;
  return {a.sequence, a.heads, a.heads / a.keyValueHeads, head_dim, (a.heads + 2 * a.keyValueHeads) * head_dim};
}

// A grid of blocks (tile of `rows` rows, head, sequence of the batch).
inline dim3 head_tiles(const Attrs& a, int64_t heads, int rows) {
  return dim3(static_cast<unsigned>(ceil_div(a.sequence, rows)), static_cast<unsigned>(heads),
              static_cast<unsigned>(a.batch));
}

}  // namespace scmoe::cuda
