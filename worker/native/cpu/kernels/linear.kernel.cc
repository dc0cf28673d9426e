// linear and grouped_linear: y = x w^T + b, its gradient with respect to the input (dgrad) and to
// the weights (wgrad).
#include "cpu/gemm.h"
#include "cpu/routing.h"
#include "cpu/vec.h"

namespace scmoe::SCMOE_ISA {
namespace {

struct Shape {
  int64_t rows, in, out;
};

// Bias and residual may be null. If `rows` is null, all rows are meant.
struct Options {
  const float *bias, *residual;
  const Ranges* rows;
};

// y[rows, out] = x[rows, in] w[out, in]^T (+ b[out]) (+ residual[rows, out])
void forward(Shape s, const float* x, const float* w, float* y, const Options& options, Stream* stream) {
  gemm_team({.m = s.rows,
             .n = s.out,
             .k = s.in,
             .a = {x, s.in},
             .b = {w, s.in, true},
             .c = y,
             .ldc = s.out,
             .bias = options.bias,
             .residual = options.residual,
             .rows = options.rows},
            stream);
}

struct DgradBuffers {
  const float *dy, *w;
  float* dx;
};

// dx[rows, in] (+)= dy[rows, out] w[out, in]
void dgrad(Shape s, const DgradBuffers& io, bool accumulate, const Ranges* rows, Stream* stream) {
  gemm_team({.m = s.rows,
             .n = s.in,
             .k = s.out,
             .a = {io.dy, s.out},
             .b = {io.w, s.in},
             .c = io.dx,
             .ldc = s.in,
             .accumulate = accumulate,
             .rows = rows},
            stream);
}

// db[out] += sum over rows of dy[rows, out]
void add_rows(const float* dy, int64_t rows, int64_t dim, float* db, Stream* stream) {
  parallel_for(stream, dim, 64, [=](int64_t begin, int64_t end, int thread) {
    const int64_t width = end - begin;
    float* part = scratch(stream, thread, width);
    each_block(rows, [=](int64_t n, int64_t last) {
      clear(part, width);
      for (; n + 4 <= last; n += 4) {
        const float *a = dy + n * dim + begin, *b = a + dim, *c = b + dim, *d = c + dim;
#pragma omp simd
        for (int64_t j = 0; j < width; j++) part[j] += (a[j] + b[j]) + (c[j] + d[j]);
      }
      for (; n < last; n++) add_scaled(dy + n * dim + begin, 1.0f, part, width);
      add_scaled(part, 1.0f, db + begin, width);
    });
  });
}

struct WgradBuffers {
  const float *dy, *x;
  float *dw, *db;  // db may be null
};

// dw[out, in] += dy[rows, out]^T x[rows, in], db[out] += sum over rows of dy[rows, out]
void wgrad(Shape s, const WgradBuffers& io, Stream* stream) {
  gemm_team({.m = s.out,
             .n = s.in,
             .k = s.rows,
             .a = {io.dy, s.out, true},
             .b = {io.x, s.in},
             .c = io.dw,
             .ldc = s.in,
             .accumulate = true},
            stream);
  if (io.db) add_rows(io.dy, s.rows, s.out, io.db, stream);
}

// Calls body(shape, local expert, rows) for every local expert that got rows. `rows` are those of
// the call's chunk.
template <class Body>
void each_expert(const OpCall& call, const int32_t* all_counts, Stream* stream, const Body& body) {
  const Attrs& a = *call.attrs;
  const Group group = group_of(a);
  Range* const space = static_cast<Range*>(stream_scratch(stream, kShared, group.num_ranks * sizeof(Range)));
  for (int64_t e = 0, row = 0; e < group.local_experts; e++) {
    Ranges rows{space, 0, 0};
    add_rows_of(group, a, all_counts, e, &row, &rows);
    if (rows.rows > 0) body(Shape{rows.rows, a.in, a.out}, e, rows);
  }
}

}  // namespace

void linear(const OpCall& call, Stream* stream) {
  const Attrs& a = *call.attrs;
  const op::Linear<> io(call);
  const Options options{.bias = io.b, .residual = io.residual, .rows = nullptr};
  forward({a.rows, a.in, a.out}, io.x, io.w, io.y, options, stream);
}

void linear_dgrad(const OpCall& call, Stream* stream) {
  const Attrs& a = *call.attrs;
  const op::LinearDgrad<> io(call);
  dgrad({a.rows, a.in, a.out}, {io.dy, io.w, io.dx}, a.accumulate != 0, nullptr, stream);
}

void linear_wgrad(const OpCall& call, Stream* stream) {
  const Attrs& a = *call.attrs;
  const op::LinearWgrad<> io(call);
  wgrad({a.rows, a.in, a.out}, {io.dy, io.x, io.dw, io.db}, stream);
}

void grouped_linear(const OpCall& call, Stream* stream) {
  const op::GroupedLinear<> io(call);
  each_expert(call, io.allCounts, stream, [&](Shape s, int64_t e, const Ranges& rows) {
    const Options options{.bias = io.b ? io.b + e * s.out : nullptr, .residual = nullptr, .rows = &rows};
    forward(s, io.x, io.w + e * s.out * s.in, io.y, options, stream);
  });
}

void grouped_linear_dgrad(const OpCall& call, Stream* stream) {
  const op::GroupedLinearDgrad<> io(call);
  each_expert(call, io.allCounts, stream, [&](Shape s, int64_t e, const Ranges& rows) {
    dgrad(s, {io.dy, io.w + e * s.out * s.in, io.dx}, false, &rows, stream);
  });
}

// The op has no chunks, so the rows of an expert are one range.
void grouped_linear_wgrad(const OpCall& call, Stream* stream) {
  const op::GroupedLinearWgrad<> io(call);
  each_expert(call, io.allCounts, stream, [&](Shape s, int64_t e, const Ranges& rows) {
    const int64_t row = rows.data[0].first;
    float* const db = io.db ? io.db + e * s.out : nullptr;
    wgrad(s, {io.dy + row * s.out, io.x + row * s.in, io.dw + e * s.out * s.in, db}, stream);
  });
}

}  // namespace scmoe::SCMOE_ISA
