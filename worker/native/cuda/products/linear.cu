// Linear layers by cuBLASLt, with bias, residual, accumulation and the bias's gradient fused. If
// cuBLASLt has nothing for a shape, the tile kernel and a sum over rows take its place. fp32 is
// fp32 throughout (no TF32); bf16 is multiplied on tensor cores and summed in fp32.
#include "cuda/blas.h"
#include "cuda/columns.cuh"
#include "cuda/ops.cuh"
#include "cuda/tile.cuh"

namespace scmoe::cuda {
namespace {

template <class T>
struct ColumnValue {
  const T* x;
  int64_t columns;
  __device__ float operator()(int64_t n, int64_t j) const { return load(x[n * columns + j]); }
};

}  // namespace

// The matrices of cuBLASLt are column-major: the columns of its A [m, k], B [k, n], D [m, n] are
// rows of ours.

// y^T [out, rows] = w^T' [out, in] x^T [in, rows]
void linear(const OpCall& call, Stream* stream) {
  const Attrs& a = *call.attrs;
  const DType type = op::Linear<>::activation_type(call);
  with_buffers<op::Linear>(call, [&]<class T>(const op::Linear<float, T>& io) {
    const BlasShape shape{.m = a.out,
                          .n = a.rows,
                          .k = a.in,
                          .transpose_a = true,
                          .transpose_b = false,
                          .input = type,
                          .output = type,
                          .bias = io.b != nullptr,
                          .add = io.residual != nullptr};
    if (blas_multiply(stream, shape, {.a = io.w, .b = io.x, .c = io.residual, .d = io.y, .bias = io.b})) return;
    multiply<true, true>(stream, Product<T, T, T>{.c = io.y,
                                                  .a = io.x,
                                                  .b = io.w,
                                                  .bias = io.b,
                                                  .residual = io.residual,
                                                  .rows = a.rows,
                                                  .columns = a.out,
                                                  .depth = a.in});
  });
}

// dx^T [in, rows] = w^T [in, out] dy^T [out, rows]
void linear_dgrad(const OpCall& call, Stream* stream) {
  const Attrs& a = *call.attrs;
  const DType type = op::LinearDgrad<>::activation_type(call);
  const bool accumulate = a.accumulate != 0;
  with_buffers<op::LinearDgrad>(call, [&]<class T>(const op::LinearDgrad<float, T>& io) {
    const BlasShape shape{.m = a.in,
                          .n = a.rows,
                          .k = a.out,
                          .transpose_a = false,
                          .transpose_b = false,
                          .input = type,
                          .output = type,
                          .bias = false,
                          .add = accumulate};
    const BlasOperands operands{.a = io.w, .b = io.dy, .c = accumulate ? io.dx : nullptr, .d = io.dx, .bias = nullptr};
    if (blas_multiply(stream, shape, operands)) return;
    multiply<true, false>(stream, Product<T, T, T>{.c = io.dx,
                                                   .a = io.dy,
                                                   .b = io.w,
                                                   .rows = a.rows,
                                                   .columns = a.in,
                                                   .depth = a.out,
                                                   .accumulate = accumulate});
  });
}

// dw^T [in, out] += x^T [in, rows] dy [rows, out]; db += column sums of dy
void linear_wgrad(const OpCall& call, Stream* stream) {
  const Attrs& a = *call.attrs;
  with_buffers<op::LinearWgrad>(call, [&]<class T>(const op::LinearWgrad<float, T>& io) {
    BlasShape shape{.m = a.in,
                    .n = a.out,
                    .k = a.rows,
                    .transpose_a = false,
                    .transpose_b = true,
                    .input = op::LinearWgrad<>::activation_type(call),
                    .output = DType::kF32,
                    .bias = false,
                    .add = true,
                    .bias_gradient = io.db != nullptr && blas_sums_columns()};
    const BlasOperands operands{.a = io.x, .b = io.dy, .c = io.dw, .d = io.dw, .bias = nullptr, .bias_gradient = io.db};
    if (shape.bias_gradient && blas_multiply(stream, shape, operands)) return;
    shape.bias_gradient = false;
    if (!blas_multiply(stream, shape, operands)) {
      multiply<false, false>(
          stream,
          Product<T, T, float>{
              .c = io.dw, .a = io.dy, .b = io.x, .rows = a.out, .columns = a.in, .depth = a.rows, .accumulate = true});
    }
    if (io.db != nullptr) add_column_sums(stream, ColumnValue<T>{io.dy, a.out}, {a.rows, a.out}, io.db);
  });
}

}  // namespace scmoe::cuda
