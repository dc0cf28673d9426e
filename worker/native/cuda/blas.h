// Matrix products by cuBLASLt, its choice of algorithm kept for every shape.
#pragma once

#include <cstdint>

#include "backend.h"

namespace scmoe::cuda {

// D [m, n] = op(A) op(B) (+ C) (+ bias), column-major: op(A) is [m, k], op(B) [k, n]. A transposed A lies as [k, m].
// A and B have `input`, C, D and the bias (a value for each of the m rows) `output`. Matrices lie without gaps.
// With bias_gradient each column of op(B) is summed as it is read, and the sums, fp32, are added to the operand's.
struct BlasShape {
  int64_t m, n, k;
  bool transpose_a, transpose_b;
  DType input, output;
  bool bias, add, bias_gradient = false;
  auto operator<=>(const BlasShape&) const = default;
};

struct BlasOperands {
  const void *a, *b, *c;  // c: what is added, d itself or another; null without
  void* d;
  const void* bias;
  float* bias_gradient = nullptr;  // [n]
};

// False where cuBLASLt has no algorithm for the shape, as for bf16 rows that no 16 bytes divide.
bool blas_multiply(Stream* stream, const BlasShape& shape, const BlasOperands& operands);

// Whether sums of columns are to be left to the product: not with SCMOE_CUDA_FUSE=0, for comparison.
bool blas_sums_columns();

}  // namespace scmoe::cuda
