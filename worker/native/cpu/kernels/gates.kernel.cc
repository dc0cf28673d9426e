// The coefficient gates of the shared expert (arXiv 2404.05019, eqs. 14 to 17) and the sum they enter. One coefficient
// a token (CG-1) weighs the shared expert; of two (CG-2) the second weighs the routed experts.
#include "cpu/vec.h"

namespace scmoe::SCMOE_ISA {
namespace {

// Gradient of the first logit; with two coefficients the second's is its negative.
float logit_gradient(const float* dc, const float* c, int64_t coefficients) {
  return coefficients == 1 ? dc[0] * c[0] * (1.0f - c[0]) : c[0] * c[1] * (dc[0] - dc[1]);
}

}  // namespace

void shared_gate(const OpCall& call, Stream* stream) {
  const int64_t dim = call.attrs->dim;
  const bool two = call.attrs->coefficients == 2;
  const float *x = in(call, 0), *w = in(call, 1);
  float* c = out(call, 0);
  parallel_for(stream, call.attrs->rows, 16, [=](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; n++) {
      const float z = dot(x + n * dim, w, dim);
      if (!two) {
        c[n] = sigmoid(splat(z))[0];
        continue;
      }
      const float rest =
          z - dot(x + n * dim, w + dim, dim);  // softmax of two values is the sigmoid of their difference
      c[2 * n] = sigmoid(splat(rest))[0];
      c[2 * n + 1] = sigmoid(splat(-rest))[0];
    }
  });
}

// dx (+)= dz w, dw += dz x; with two coefficients w is the difference of its rows.
void shared_gate_backward(const OpCall& call, Stream* stream) {
  const int64_t rows = call.attrs->rows, dim = call.attrs->dim, k = call.attrs->coefficients;
  const bool accumulate = call.attrs->accumulate != 0;
  const float *dc = in(call, 0), *c = in(call, 1), *x = in(call, 2), *w = in(call, 3);
  float *dx = out(call, 0), *dw = out(call, 1), *difference = scratch(stream, kShared, dim);
  parallel_for(stream, dim, 64, [=](int64_t begin, int64_t end, int) {
    for (int64_t j = begin; j < end; j++) difference[j] = k == 2 ? w[j] - w[dim + j] : w[j];
    for (int64_t n = 0; n < rows; n++) {
      const float dz = logit_gradient(dc + n * k, c + n * k, k);
      const float* v = x + n * dim + begin;
      (accumulate ? add_scaled : copy_scaled)(difference + begin, dz, dx + n * dim + begin, end - begin);
      add_scaled(v, dz, dw + begin, end - begin);
      if (k == 2) add_scaled(v, -dz, dw + dim + begin, end - begin);
    }
  });
}

void gated_add(const OpCall& call, Stream* stream) {
  const int64_t dim = call.attrs->dim, k = call.attrs->coefficients;
  const float *a = in(call, 0), *s = in(call, 1), *c = in(call, 2), *m = in(call, 3);
  float* y = out(call, 0);
  parallel_for(stream, call.attrs->rows, 16, [=](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; n++) {
      const int64_t row = n * dim;
      const float shared = c[n * k], routed = k == 2 ? c[n * k + 1] : 1.0f;
#pragma omp simd
      for (int64_t j = row; j < row + dim; j++) y[j] = a[j] + shared * s[j] + routed * m[j];
    }
  });
}

void gated_add_backward(const OpCall& call, Stream* stream) {
  const int64_t dim = call.attrs->dim, k = call.attrs->coefficients;
  const float *dy = in(call, 0), *s = in(call, 1), *c = in(call, 2), *m = k == 2 ? in(call, 3) : nullptr;
  float *ds = out(call, 0), *dc = out(call, 1);
  parallel_for(stream, call.attrs->rows, 16, [=](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; n++) {
      const int64_t row = n * dim;
      copy_scaled(dy + row, c[n * k], ds + row, dim);
      dc[n * k] = dot(dy + row, s + row, dim);
      if (m) dc[n * k + 1] = dot(dy + row, m + row, dim);
    }
  });
}

void scale_rows(const OpCall& call, Stream* stream) {
  const int64_t dim = call.attrs->dim;
  const float *x = in(call, 0), *c = in(call, 1);
  float* y = out(call, 0);
  parallel_for(stream, call.attrs->rows, 16, [=](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; n++) copy_scaled(x + n * dim, c[2 * n + 1], y + n * dim, dim);
  });
}

}  // namespace scmoe::SCMOE_ISA
