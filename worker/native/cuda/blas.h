// Matrix products by cuBLASLt. The algorithm that it chooses for a shape is kept.
#pragma once

#include <cstdint>

#include "backend.h"

namespace scmoe::cuda {

// D [m, n] = op(A) op(B) (+ C) (+ bias), column-major and without gaps: op(A) is [m, k], op(B) is
// [k, n]. A transposed A is stored as [k, m]. A and B have the type `input`; C, D and the bias,
// which has a value for each of the m rows, have the type `output`. With bias_gradient, each column
// of op(B) is summed as it is read, and the fp32 sums are added to the operand bias_gradient.
struct BlasShape {
  int64_t m, n, k;
  bool transpose_a, transpose_b;
  DType input, output;
  bool bias, add, bias_gradient = false;
  auto operator<=>(const BlasShape&) const = default;
};

struct BlasOperands {
  const void *a, *b, *c;  // c is added, and may be d itself; null without
  void* d;
  const void* bias;
  float* bias_gradient = nullptr;  // [n]
};

// Returns false if cuBLASLt has no algorithm for the shape, e.g. for bf16 rows that are not
// multiples of 16 bytes.
bool blas_multiply(Stream* stream, const BlasShape& shape, const BlasOperands& operands);

// Whether the product also computes the sums of columns. SCMOE_CUDA_FUSE=0 turns that off, for
// comparison.
bool blas_sums_columns();

}  // namespace scmoe::cuda
