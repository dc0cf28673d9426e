// Linear layers: cuBLASLt, with bias, residual, what is added to and the bias's gradient fused; the tile kernel and a
// sum over rows where cuBLASLt has nothing for a shape. fp32 is fp32 throughout (no TF32); bf16 is multiplied on tensor
// cores and added up in fp32.
#include "cuda/blas.h"
#include "cuda/kernels/columns.cuh"
#include "cuda/ops.cuh"
#include "tile.cuh"

namespace scmoe::cuda {
namespace {

template <class T>
struct ColumnValue {
  const T* x;
  int64_t columns;
  __device__ float operator()(int64_t n, int64_t j) const { return load(x[n * columns + j]); }
};

}  // namespace

// cuBLASLt's matrices are column-major: its A [m, k], B [k, n], D [m, n] are our rows read as columns.

// y^T [out, rows] = w^T' [out, in] x^T [in, rows]
void linear(const OpCall& call, Stream* stream) {
  const Attrs& a = *call.attrs;
  const DType type = call.out_types[0];
  const void* bias = a.bias ? call.in[2] : nullptr;
  const void* residual = call.num_in > 2 + a.bias ? call.in[2 + a.bias] : nullptr;
  const BlasShape shape{a.out, a.rows, a.in, true, false, type, type, bias != nullptr, residual != nullptr};
  if (blas_multiply(stream, shape, {call.in[1], call.in[0], residual, call.out[0], bias})) return;
  with_type(type, [&](auto sample) {
    using T = decltype(sample);
    multiply<true, true>(stream,
                         Product<T, T, T>{out<T>(call, 0), in<T>(call, 0), in<T>(call, 1), static_cast<const T*>(bias),
                                          static_cast<const T*>(residual), a.rows, a.out, a.in, false});
  });
}

// dx^T [in, rows] = w^T [in, out] dy^T [out, rows]
void linear_dgrad(const OpCall& call, Stream* stream) {
  const Attrs& a = *call.attrs;
  const DType type = call.out_types[0];
  const bool accumulate = a.accumulate != 0;
  const BlasShape shape{a.in, a.rows, a.out, false, false, type, type, false, accumulate};
  if (blas_multiply(stream, shape, {call.in[1], call.in[0], accumulate ? call.out[0] : nullptr, call.out[0], nullptr}))
    return;
  with_type(type, [&](auto sample) {
    using T = decltype(sample);
    multiply<true, false>(stream, Product<T, T, T>{out<T>(call, 0), in<T>(call, 0), in<T>(call, 1), nullptr, nullptr,
                                                   a.rows, a.in, a.out, accumulate});
  });
}

// dw^T [in, out] += x^T [in, rows] dy [rows, out]; db += column sums of dy
void linear_wgrad(const OpCall& call, Stream* stream) {
  const Attrs& a = *call.attrs;
  const DType type = call.in_types[0];
  float* const db = out_if<float>(call, 1);
  BlasShape shape{a.in, a.out, a.rows, false, true, type, DType::kF32, false, true};
  const BlasOperands operands{call.in[1], call.in[0], call.out[0], call.out[0], nullptr, db};
  shape.bias_gradient = db != nullptr && blas_sums_columns();
  if (shape.bias_gradient && blas_multiply(stream, shape, operands)) return;
  shape.bias_gradient = false;
  const bool done = blas_multiply(stream, shape, operands);
  with_type(type, [&](auto sample) {
    using T = decltype(sample);
    if (!done)
      multiply<false, false>(stream, Product<T, T, float>{out<float>(call, 0), in<T>(call, 0), in<T>(call, 1), nullptr,
                                                          nullptr, a.out, a.in, a.rows, true});
    if (db != nullptr) add_column_sums(stream, ColumnValue<T>{in<T>(call, 0), a.out}, {a.rows, a.out}, db);
  });
}

}  // namespace scmoe::cuda
