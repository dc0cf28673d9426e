// Activations, over all rows or over a chunk of the routed rows, and sums.
#include "cpu/routing.h"
#include "cpu/vec.h"

namespace scmoe::SCMOE_ISA {
namespace {

// Elements. For fewer, a second thread costs more time than it saves.
constexpr int64_t kGrain = 4096;

// With u = sqrt(2 / pi) (x + 0.044715 x^3): 0.5 (1 + tanh u) = sigmoid(2u), so gelu(x) = x
// sigmoid(2u).
constexpr float kTwiceRoot = 1.5957691216f, kCubic = 0.044715f;

SCMOE_INLINE Vec gelu_of(Vec x) {
  return x * sigmoid(kTwiceRoot * (x + kCubic * x * x * x));
}

SCMOE_INLINE Vec gelu_slope(Vec x) {
  const Vec s = sigmoid(kTwiceRoot * (x + kCubic * x * x * x));
  return s + x * s * (1.0f - s) * kTwiceRoot * (1.0f + 3.0f * kCubic * x * x);
}

// Calls body(first row, rows) over this op's rows, on the whole team. all_counts may be null.
template <class Body>
void activate(const Attrs& a, const int32_t* all_counts, Stream* stream, const Body& body) {
  const Ranges ranges = routed_rows(a, all_counts, stream);
  const int64_t grain = max(1, kGrain / max(1, a.dim));
  parallel_for(stream, ranges.rows, grain,
               [&](int64_t begin, int64_t end, int) { each_piece(ranges, begin, end, body); });
}

}  // namespace

void gelu(const OpCall& call, Stream* stream) {
  const int64_t dim = call.attrs->dim;
  const op::Gelu<> io(call);
  activate(*call.attrs, io.allCounts, stream, [=](int64_t row, int64_t rows) {
    map(io.x + row * dim, io.y + row * dim, rows * dim, [](Vec v) { return gelu_of(v); });
  });
}

void gelu_backward(const OpCall& call, Stream* stream) {
  const int64_t dim = call.attrs->dim;
  const op::GeluBackward<> io(call);
  activate(*call.attrs, io.allCounts, stream, [=](int64_t row, int64_t rows) {
    const int64_t at = row * dim;
    map(io.dy + at, io.x + at, io.dx + at, rows * dim, [](Vec d, Vec v) { return d * gelu_slope(v); });
  });
}

void swiglu(const OpCall& call, Stream* stream) {
  const int64_t dim = call.attrs->dim;
  const op::Swiglu<> io(call);
  activate(*call.attrs, io.allCounts, stream, [=](int64_t row, int64_t rows) {
    for (int64_t n = row; n < row + rows; n++) {
      const float* g = io.x + n * 2 * dim;
      map(g, g + dim, io.y + n * dim, dim, [](Vec a, Vec u) { return a * sigmoid(a) * u; });
    }
  });
}

// With s = sigmoid(g): d silu(g) / dg = s (1 + g (1 - s)).
void swiglu_backward(const OpCall& call, Stream* stream) {
  const int64_t dim = call.attrs->dim;
  const op::SwigluBackward<> io(call);
  activate(*call.attrs, io.allCounts, stream, [=](int64_t row, int64_t rows) {
    for (int64_t n = row; n < row + rows; n++) {
      const float *d = io.dy + n * dim, *g = io.x + n * 2 * dim, *u = g + dim;
      float *dg = io.dx + n * 2 * dim, *du = dg + dim;
      for (int64_t j = 0; j < dim; j += kLanes) {
        const int64_t lanes = min(kLanes, dim - j);
        const Vec up = load_most(d + j, lanes), gate = load_most(g + j, lanes), s = sigmoid(gate);
        store_most(dg + j, up * load_most(u + j, lanes) * s * (1.0f + gate * (1.0f - s)), lanes);
        store_most(du + j, up * gate * s, lanes);
      }
    }
  });
}

void add(const OpCall& call, Stream* stream) {
  const op::Add<> io(call);
  parallel_for(stream, call.attrs->rows * call.attrs->dim, kGrain, [=](int64_t begin, int64_t end, int) {
#pragma omp simd
    for (int64_t i = begin; i < end; i++) io.y[i] = io.a[i] + io.b[i];
  });
}

}  // namespace scmoe::SCMOE_ISA
