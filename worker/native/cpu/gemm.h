// The single-precision matrix product: packed panels and one register-blocked kernel, the scheme of
// BLIS (Van Zee, van de Geijn 2015).
//
// An element of C is a sum of sums: each kBlockDepth of k, in order, is a chain of multiply-adds
// that starts from zero, and the sums of these blocks are added one after another to bias, residual
// or C. So k terms lose about as much as sqrt(kBlockDepth + k / kBlockDepth) roundings do, and one
// chain would lose sqrt(k). Neither m, n nor the split over threads changes the order. So results
// do not depend on the number of threads, on the number of rows in a chunk, or on the place of a
// row in it.
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

// A row-major matrix. With `transposed`, the memory holds its transpose.
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
  // The rows of A, C and residual to work on; null means all m. B is packed only once for all
  // ranges.
  const Ranges* rows = nullptr;
};

// A whole B in packed form, to be multiplied many times. A product may use only its leading rows
// and columns.
struct Packed {
  const float* data;
  int64_t n, k;  // as packed
};
int64_t packed_elements(int64_t n, int64_t k);
Packed pack(const Matrix& b, int64_t n, int64_t k, float* out);

// gemm.b is ignored; gemm.n <= b.n and gemm.k <= b.k. `space` is gemm_space() elements that belong
// to this thread.
int64_t gemm_space();
void gemm_packed(const Gemm& gemm, const Packed& b, float* space);

// The product on the whole team. It uses the scratch of every thread.
void gemm_team(const Gemm& gemm, Stream* stream);

}  // namespace scmoe::SCMOE_ISA
