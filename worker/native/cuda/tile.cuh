// Matrix products in fp32 by plain fused multiply-adds (no TF32). Each element is summed over
// blocks of the depth in ascending order, each from zero, so the bits of a row do not depend on the
// other rows that are computed with it. For small products, and for experts in fp32.
#pragma once

#include "cuda/device.cuh"

namespace scmoe::cuda {

constexpr int kTile = 64, kDepth = 16;  // rows and columns, and depth of a step, of a block
constexpr int kSumDepth = 256;          // terms that are summed from zero
constexpr int kSide = 4;                // rows and columns of a thread
constexpr int kTileThreads = kTile / kSide * kTile / kSide;

// sum[i][j] of a thread = element (kSide * (thread / 16) + i, kSide * (thread % 16) + j) of the
// tile. a(m, k) and b(k, n) return floats, which are 0 beyond the edges. kAlongDepth: neighbours
// along the depth are neighbours in memory.
template <class A, class B>
__device__ void multiply_tile(float (&sum)[kSide][kSide], A a, B b, int64_t depth) {
  __shared__ float left[kDepth][kTile + 1], right[kDepth][kTile + 1];
  const int row = threadIdx.x / (kTile / kSide) * kSide, column = threadIdx.x % (kTile / kSide) * kSide;
  float part[kSide][kSide] = {};
  for (int64_t base = 0; base < depth; base += kDepth) {
    for (int i = threadIdx.x; i < kTile * kDepth; i += kTileThreads) {
      const int am = A::kAlongDepth ? i / kDepth : i % kTile, ak = A::kAlongDepth ? i % kDepth : i / kTile;
      left[ak][am] = base + ak < depth ? a(am, base + ak) : 0;
      const int bn = B::kAlongDepth ? i / kDepth : i % kTile, bk = B::kAlongDepth ? i % kDepth : i / kTile;
      right[bk][bn] = base + bk < depth ? b(base + bk, bn) : 0;
    }
    __syncthreads();
    for (int k = 0; k < kDepth; k++) {
      float x[kSide], y[kSide];
#pragma unroll
      for (int i = 0; i < kSide; i++) x[i] = left[k][row + i], y[i] = right[k][column + i];
#pragma unroll
      for (int i = 0; i < kSide; i++)
#pragma unroll
        for (int j = 0; j < kSide; j++) part[i][j] += x[i] * y[j];
    }
    __syncthreads();
    if ((base + kDepth) % kSumDepth != 0 && base + kDepth < depth) continue;
#pragma unroll
    for (int i = 0; i < kSide; i++)
#pragma unroll
      for (int j = 0; j < kSide; j++) sum[i][j] += part[i][j], part[i][j] = 0;
  }
}

// Calls body(m, n, sum) for the elements of a thread's part of the tile.
template <class Body>
__device__ void each_element(const float (&sum)[kSide][kSide], const Body& body) {
  const int row = threadIdx.x / (kTile / kSide) * kSide, column = threadIdx.x % (kTile / kSide) * kSide;
#pragma unroll
  for (int i = 0; i < kSide; i++)
#pragma unroll
    for (int j = 0; j < kSide; j++) body(row + i, column + j, sum[i][j]);
}

// Element (i, k) of an operand, where i counts from `first`. Along the depth, elements are
// neighbours in memory if kDepthIsInner; otherwise they are along i. The other stride is `stride`.
template <class T, bool kDepthIsInner>
struct Strided {
  static constexpr bool kAlongDepth = kDepthIsInner;
  const T* data;
  int64_t stride, first, count;

  __device__ float at(int64_t i, int64_t k) const {
    const int64_t row = first + i;
    if (row >= count) return 0;
    return load(kDepthIsInner ? data[row * stride + k] : data[k * stride + row]);
  }
};
template <class T, bool kDepthIsInner>
struct Left : Strided<T, kDepthIsInner> {
  __device__ float operator()(int64_t m, int64_t k) const { return this->at(m, k); }
};
template <class T, bool kDepthIsInner>
struct Right : Strided<T, kDepthIsInner> {
  __device__ float operator()(int64_t k, int64_t n) const { return this->at(n, k); }
};

// c[m, n] (+)= sum over k of a[m, k] b[k, n] + bias[n] + residual[m, n]. Bias and residual may be
// null. With kDepthOfA, a is stored as [rows, depth], otherwise as [depth, rows]. With kDepthOfB, b
// is stored as [columns, depth], otherwise as [depth, columns].
template <class TA, class TB, class TC>
struct Product {
  TC* c;
  const TA* a;
  const TB* b;
  const TC *bias = nullptr, *residual = nullptr;
  int64_t rows, columns, depth;
  bool accumulate = false;
};

template <bool kDepthOfA, bool kDepthOfB, class TA, class TB, class TC>
__global__ void product_kernel(Product<TA, TB, TC> p) {
  const int64_t m0 = static_cast<int64_t>(blockIdx.y) * kTile, n0 = static_cast<int64_t>(blockIdx.x) * kTile;
  float sum[kSide][kSide] = {};
  multiply_tile(sum, Left<TA, kDepthOfA>{{p.a, kDepthOfA ? p.depth : p.rows, m0, p.rows}},
                Right<TB, kDepthOfB>{{p.b, kDepthOfB ? p.depth : p.columns, n0, p.columns}}, p.depth);
  each_element(sum, [&](int m, int n, float value) {
    const int64_t row = m0 + m, column = n0 + n, at = row * p.columns + column;
    if (row >= p.rows || column >= p.columns) return;
    if (p.bias) value += load(p.bias[column]);
    if (p.residual) value += load(p.residual[at]);
    if (p.accumulate) value += load(p.c[at]);
    p.c[at] = rounded<TC>(value);
  });
}

template <bool kDepthOfA, bool kDepthOfB, class TA, class TB, class TC>
void multiply(Stream* stream, const Product<TA, TB, TC>& p) {
  const dim3 blocks(static_cast<unsigned>(ceil_div(p.columns, kTile)), static_cast<unsigned>(ceil_div(p.rows, kTile)));
  launch(stream, {blocks, dim3(kTileThreads)}, product_kernel<kDepthOfA, kDepthOfB, TA, TB, TC>, p);
}

}  // namespace scmoe::cuda
