// Activations, over all rows or over a chunk of the routed ones, and sums.
#include "cpu/routing.h"
#include "cpu/vec.h"

namespace scmoe::SCMOE_ISA {
namespace {

constexpr int64_t kGrain = 4096;  // elements: below this a second thread costs more than it gives

// With u = sqrt(2 / pi) (x + 0.044715 x^3): 0.5 (1 + tanh u) = sigmoid(2u), so gelu(x) = x sigmoid(2u).
constexpr float kTwiceRoot = 1.5957691216f, kCubic = 0.044715f;

SCMOE_INLINE Vec gelu_of(Vec x) {
  return x * sigmoid(kTwiceRoot * (x + kCubic * x * x * x));
}

SCMOE_INLINE Vec gelu_slope(Vec x) {
  const Vec s = sigmoid(kTwiceRoot * (x + kCubic * x * x * x));
  return s + x * s * (1.0f - s) * kTwiceRoot * (1.0f + 3.0f * kCubic * x * x);
}

// body(first row, rows) over this op's rows, on the whole team; allCounts, when given, is input i.
template <class Body>
void activate(const OpCall& call, int i, Stream* stream, const Body& body) {
  const int32_t* all_counts = call.num_in > i ? in<int32_t>(call, i) : nullptr;
  const Ranges ranges = routed_rows(*call.attrs, all_counts, stream);
  const int64_t grain = max(1, kGrain / max(1, call.attrs->dim));
  parallel_for(stream, ranges.rows, grain,
               [&](int64_t begin, int64_t end, int) { each_piece(ranges, begin, end, body); });
}

}  // namespace

void gelu(const OpCall& call, Stream* stream) {
  const int64_t dim = call.attrs->dim;
  const float* x = in(call, 0);
  float* y = out(call, 0);
  activate(call, 1, stream, [=](int64_t row, int64_t rows) {
    map(x + row * dim, y + row * dim, rows * dim, [](Vec v) { return gelu_of(v); });
  });
}

void gelu_backward(const OpCall& call, Stream* stream) {
  const int64_t dim = call.attrs->dim;
  const float *dy = in(call, 0), *x = in(call, 1);
  float* dx = out(call, 0);
  activate(call, 2, stream, [=](int64_t row, int64_t rows) {
    const int64_t at = row * dim;
    map(dy + at, x + at, dx + at, rows * dim, [](Vec d, Vec v) { return d * gelu_slope(v); });
  });
}

void swiglu(const OpCall& call, Stream* stream) {
  const int64_t dim = call.attrs->dim;
  const float* x = in(call, 0);
  float* y = out(call, 0);
  activate(call, 1, stream, [=](int64_t row, int64_t rows) {
    for (int64_t n = row; n < row + rows; n++) {
      const float* g = x + n * 2 * dim;
      map(g, g + dim, y + n * dim, dim, [](Vec a, Vec u) { return a * sigmoid(a) * u; });
    }
  });
}

// With s = sigmoid(g): d silu(g) / dg = s (1 + g (1 - s)).
void swiglu_backward(const OpCall& call, Stream* stream) {
  const int64_t dim = call.attrs->dim;
  const float *dy = in(call, 0), *x = in(call, 1);
  float* dx = out(call, 0);
  activate(call, 2, stream, [=](int64_t row, int64_t rows) {
    for (int64_t n = row; n < row + rows; n++) {
      const float *d = dy + n * dim, *g = x + n * 2 * dim, *u = g + dim;
      float *dg = dx + n * 2 * dim, *du = dg + dim;
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
  const float *a = in(call, 0), *b = in(call, 1);
  float* y = out(call, 0);
  parallel_for(stream, call.attrs->rows * call.attrs->dim, kGrain, [=](int64_t begin, int64_t end, int) {
#pragma omp simd
    for (int64_t i = begin; i < end; i++) y[i] = a[i] + b[i];
  });
}

}  // namespace scmoe::SCMOE_ISA
