// Single-precision matrix product: packed panels and one register-blocked kernel, the scheme of BLIS (Van Zee, van de
// Geijn 2015).
//
// An element of C is one chain of multiply-adds over k in order, the same whatever m, n and the split over threads are:
// results do not depend on the number of threads, on how many rows a chunk has, or on the place of a row in it.
#pragma once

#include "cpu/kernels.h"

namespace scmoe::SCMOE_ISA {

#if defined(__AVX512F__)
inline constexpr int kTileRows = 14, kTileVecs = 2, kBlockDepth = 256;
#elif defined(__AVX2__)
inline constexpr int kTileRows = 6, kTileVecs = 2, kBlockDepth = 256;
#else
inline constexpr int kTileRows = 4, kTileVecs = 2, kBlockDepth = 256;
#endif

// Row-major; with `transposed` the memory holds the transpose.
struct Matrix {
  const float* data;
  int64_t stride;
  bool transposed = false;
};

struct Ranges;

// C[m, n] = A[m, k] B[k, n] (+ bias[n]) (+ residual[m, n], stride ldc), or C += with accumulate.
struct Gemm {
  int64_t m, n, k;
  Matrix a, b;
  float* c;
  int64_t ldc;
  bool accumulate = false;
  const float* bias = nullptr;
  const float* residual = nullptr;
  // Rows of A, C and residual to work on, where not all m: as many ranges as there are, with B packed once.
  const Ranges* rows = nullptr;
};

// B packed whole, to be multiplied many times. A leading part of its rows and columns may be used alone.
struct Packed {
  const float* data;
  int64_t n, k;  // as packed
};
int64_t packed_elements(int64_t n, int64_t k);
Packed pack(const Matrix& b, int64_t n, int64_t k, float* out);

// gemm.b is ignored, gemm.n <= b.n, gemm.k <= b.k. space: gemm_space() elements, this thread's own.
int64_t gemm_space();
void gemm_packed(const Gemm& gemm, const Packed& b, float* space);

// The product over the whole team. Uses every thread's scratch.
void gemm_team(const Gemm& gemm, Stream* stream);

}  // namespace scmoe::SCMOE_ISA
