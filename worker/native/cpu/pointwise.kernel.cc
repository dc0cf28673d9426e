// gelu, add, the shared expert's gate (CG-1, arXiv 2404.05019) and the sum it enters.
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

// allCounts, when given, is input i.
int64_t gelu_elements(const OpCall& call, int i) {
  const int64_t rows = call.num_in > i ? rows_of(group_of(*call.attrs), in<int32_t>(call, i)) : call.attrs->rows;
  return rows * call.attrs->dim;
}

}  // namespace

void gelu(const OpCall& call, Stream* stream) {
  const float* x = in(call, 0);
  float* y = out(call, 0);
  parallel_for(stream, gelu_elements(call, 1), kGrain, [=](int64_t begin, int64_t end, int) {
    map(x + begin, y + begin, end - begin, [](Vec v) { return gelu_of(v); });
  });
}

void gelu_backward(const OpCall& call, Stream* stream) {
  const float *dy = in(call, 0), *x = in(call, 1);
  float* dx = out(call, 0);
  parallel_for(stream, gelu_elements(call, 2), kGrain, [=](int64_t begin, int64_t end, int) {
    map(dy + begin, x + begin, dx + begin, end - begin, [](Vec d, Vec v) { return d * gelu_slope(v); });
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

void shared_gate(const OpCall& call, Stream* stream) {
  const int64_t dim = call.attrs->dim;
  const float *x = in(call, 0), *w = in(call, 1);
  float* c = out(call, 0);
  parallel_for(stream, call.attrs->rows, 16, [=](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; n++) c[n] = sigmoid(splat(dot(x + n * dim, w, dim)))[0];
  });
}

void shared_gate_backward(const OpCall& call, Stream* stream) {
  const int64_t rows = call.attrs->rows, dim = call.attrs->dim;
  const bool accumulate = call.attrs->accumulate != 0;
  const float *dc = in(call, 0), *c = in(call, 1), *x = in(call, 2), *w = in(call, 3);
  float *dx = out(call, 0), *dw = out(call, 1);
  parallel_for(stream, dim, 64, [=](int64_t begin, int64_t end, int) {
    for (int64_t n = 0; n < rows; n++) {
      const float dz = dc[n] * c[n] * (1.0f - c[n]);
      const float* v = x + n * dim;
      float* d = dx + n * dim;
      if (accumulate) {
#pragma omp simd
        for (int64_t j = begin; j < end; j++) d[j] += dz * w[j];
      } else {
#pragma omp simd
        for (int64_t j = begin; j < end; j++) d[j] = dz * w[j];
      }
#pragma omp simd
      for (int64_t j = begin; j < end; j++) dw[j] += dz * v[j];
    }
  });
}

void gated_add(const OpCall& call, Stream* stream) {
  const int64_t dim = call.attrs->dim;
  const float *a = in(call, 0), *s = in(call, 1), *c = in(call, 2), *m = in(call, 3);
  float* y = out(call, 0);
  parallel_for(stream, call.attrs->rows, 16, [=](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; n++) {
      const int64_t row = n * dim;
      const float gate = c[n];
#pragma omp simd
      for (int64_t j = row; j < row + dim; j++) y[j] = a[j] + gate * s[j] + m[j];
    }
  });
}

void gated_add_backward(const OpCall& call, Stream* stream) {
  const int64_t dim = call.attrs->dim;
  const float *dy = in(call, 0), *s = in(call, 1), *c = in(call, 2);
  float *ds = out(call, 0), *dc = out(call, 1);
  parallel_for(stream, call.attrs->rows, 16, [=](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; n++) {
      const int64_t row = n * dim;
      const float gate = c[n];
#pragma omp simd
      for (int64_t j = row; j < row + dim; j++) ds[j] = gate * dy[j];
      dc[n] = dot(dy + row, s + row, dim);
    }
  });
}

}  // namespace scmoe::SCMOE_ISA
