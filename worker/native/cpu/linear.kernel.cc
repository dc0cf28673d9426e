// linear and grouped_linear: y = x w^T + b, its gradient to the input (dgrad) and to the weights (wgrad).
#include "cpu/gemm.h"
#include "cpu/routing.h"
#include "cpu/vec.h"

namespace scmoe::SCMOE_ISA {
namespace {

struct Shape {
  int64_t rows, in, out;
};

// y[rows, out] = x[rows, in] w[out, in]^T + b[out] (+ residual[rows, out])
void forward(Shape s, const float* x, const float* w, const float* b, const float* residual, float* y, Stream* stream) {
  gemm_team({.m = s.rows,
             .n = s.out,
             .k = s.in,
             .a = {x, s.in},
             .b = {w, s.in, true},
             .c = y,
             .ldc = s.out,
             .bias = b,
             .residual = residual},
            stream);
}

// dx[rows, in] (+)= dy[rows, out] w[out, in]
void dgrad(Shape s, const float* dy, const float* w, float* dx, bool accumulate, Stream* stream) {
  gemm_team({.m = s.rows,
             .n = s.in,
             .k = s.out,
             .a = {dy, s.out},
             .b = {w, s.in},
             .c = dx,
             .ldc = s.in,
             .accumulate = accumulate},
            stream);
}

// db[out] += sum over rows of dy[rows, out]
void add_rows(const float* dy, int64_t rows, int64_t dim, float* db, Stream* stream) {
  parallel_for(stream, dim, 64, [=](int64_t begin, int64_t end, int) {
    int64_t n = 0;
    for (; n + 4 <= rows; n += 4) {
      const float *a = dy + n * dim, *b = a + dim, *c = b + dim, *d = c + dim;
#pragma omp simd
      for (int64_t j = begin; j < end; j++) db[j] += (a[j] + b[j]) + (c[j] + d[j]);
    }
    for (; n < rows; n++) {
#pragma omp simd
      for (int64_t j = begin; j < end; j++) db[j] += dy[n * dim + j];
    }
  });
}

// dw[out, in] += dy[rows, out]^T x[rows, in]; db as add_rows
void wgrad(Shape s, const float* dy, const float* x, float* dw, float* db, Stream* stream) {
  gemm_team({.m = s.out,
             .n = s.in,
             .k = s.rows,
             .a = {dy, s.out, true},
             .b = {x, s.in},
             .c = dw,
             .ldc = s.in,
             .accumulate = true},
            stream);
  add_rows(dy, s.rows, s.out, db, stream);
}

// body(shape, local expert, first row) for every local expert that got rows.
template <class Body>
void each_expert(const OpCall& call, const int32_t* all_counts, const Body& body) {
  const Group group = group_of(*call.attrs);
  int64_t row = 0;
  for (int64_t e = 0; e < group.local_experts; e++) {
    const int64_t rows = rows_of(group, all_counts, e);
    if (rows > 0) body(Shape{rows, call.attrs->in, call.attrs->out}, e, row);
    row += rows;
  }
}

}  // namespace

void linear(const OpCall& call, Stream* stream) {
  const Attrs& a = *call.attrs;
  const float* residual = call.num_in > 3 ? in(call, 3) : nullptr;
  forward({a.rows, a.in, a.out}, in(call, 0), in(call, 1), in(call, 2), residual, out(call, 0), stream);
}

void linear_dgrad(const OpCall& call, Stream* stream) {
  const Attrs& a = *call.attrs;
  dgrad({a.rows, a.in, a.out}, in(call, 0), in(call, 1), out(call, 0), a.accumulate != 0, stream);
}

void linear_wgrad(const OpCall& call, Stream* stream) {
  const Attrs& a = *call.attrs;
  wgrad({a.rows, a.in, a.out}, in(call, 0), in(call, 1), out(call, 0), out(call, 1), stream);
}

void grouped_linear(const OpCall& call, Stream* stream) {
  each_expert(call, in<int32_t>(call, 3), [&](Shape s, int64_t e, int64_t row) {
    forward(s, in(call, 0) + row * s.in, in(call, 1) + e * s.out * s.in, in(call, 2) + e * s.out, nullptr,
            out(call, 0) + row * s.out, stream);
  });
}

void grouped_linear_dgrad(const OpCall& call, Stream* stream) {
  each_expert(call, in<int32_t>(call, 2), [&](Shape s, int64_t e, int64_t row) {
    dgrad(s, in(call, 0) + row * s.out, in(call, 1) + e * s.out * s.in, out(call, 0) + row * s.in, false, stream);
  });
}

void grouped_linear_wgrad(const OpCall& call, Stream* stream) {
  each_expert(call, in<int32_t>(call, 2), [&](Shape s, int64_t e, int64_t row) {
    wgrad(s, in(call, 0) + row * s.out, in(call, 1) + row * s.in, out(call, 0) + e * s.out * s.in,
          out(call, 1) + e * s.out, stream);
  });
}

}  // namespace scmoe::SCMOE_ISA
