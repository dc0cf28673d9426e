// The coefficient gates of the shared expert (arXiv 2404.05019, eqs. 14 to 17) and the sum in which
// they are used. With one coefficient for each token (CG-1) it weighs the shared expert. With two
// (CG-2) the second weighs the routed experts.
#include "cpu/vec.h"

namespace scmoe::SCMOE_ISA {
namespace {

// The gradient of the first logit. With two coefficients the second logit has the negative
// gradient.
float logit_gradient(const float* dc, const float* c, int64_t coefficients) {
  return coefficients == 1 ? dc[0] * c[0] * (1.0f - c[0]) : c[0] * c[1] * (dc[0] - dc[1]);
}

}  // namespace

void shared_gate(const OpCall& call, Stream* stream) {
  const int64_t dim = call.attrs->dim;
  const bool two = call.attrs->coefficients == 2;
  const op::SharedGate<> io(call);
  parallel_for(stream, call.attrs->rows, 16, [=](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; n++) {
      const float* x = io.x + n * dim;
      const float z = dot(x, io.w, dim);
      if (!two) {
        io.c[n] = sigmoid(splat(z))[0];
        continue;
      }
      // The softmax of two values is the sigmoid of their difference.
      const float rest = z - dot(x, io.w + dim, dim);
      io.c[2 * n] = sigmoid(splat(rest))[0];
      io.c[2 * n + 1] = sigmoid(splat(-rest))[0];
    }
  });
}

// dx (+)= dz w, dw += dz x. With two coefficients, the difference of the two rows of w takes the
// place of w.
void shared_gate_backward(const OpCall& call, Stream* stream) {
  const int64_t rows = call.attrs->rows, dim = call.attrs->dim, k = call.attrs->coefficients;
  const bool accumulate = call.attrs->accumulate != 0;
  const op::SharedGateBackward<> io(call);
  float* difference = scratch(stream, kShared, dim);
  parallel_for(stream, dim, 64, [=](int64_t begin, int64_t end, int thread) {
    const int64_t width = end - begin;
    float* dw = scratch(stream, thread, width);
    for (int64_t j = begin; j < end; j++) difference[j] = k == 2 ? io.w[j] - io.w[dim + j] : io.w[j];
    each_block(rows, [=](int64_t n, int64_t last) {
      clear(dw, width);
      for (; n < last; n++) {
        const float dz = logit_gradient(io.dc + n * k, io.c + n * k, k);
        (accumulate ? add_scaled : copy_scaled)(difference + begin, dz, io.dx + n * dim + begin, width);
        add_scaled(io.x + n * dim + begin, dz, dw, width);
      }
      add_scaled(dw, 1.0f, io.dw + begin, width);
      if (k == 2) add_scaled(dw, -1.0f, io.dw + dim + begin, width);
    });
  });
}

void gated_add(const OpCall& call, Stream* stream) {
  const int64_t dim = call.attrs->dim, k = call.attrs->coefficients;
  const op::GatedAdd<> io(call);
  parallel_for(stream, call.attrs->rows, 16, [=](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; n++) {
      const int64_t row = n * dim;
      const float shared = io.c[n * k], routed = k == 2 ? io.c[n * k + 1] : 1.0f;
#pragma omp simd
      for (int64_t j = row; j < row + dim; j++) io.y[j] = io.a[j] + shared * io.s[j] + routed * io.m[j];
    }
  });
}

void gated_add_backward(const OpCall& call, Stream* stream) {
  const int64_t dim = call.attrs->dim, k = call.attrs->coefficients;
  const op::GatedAddBackward<> io(call);
  parallel_for(stream, call.attrs->rows, 16, [=](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; n++) {
      const int64_t row = n * dim;
      copy_scaled(io.dy + row, io.c[n * k], io.ds + row, dim);
      io.dc[n * k] = dot(io.dy + row, io.s + row, dim);
      if (io.m) io.dc[n * k + 1] = dot(io.dy + row, io.m + row, dim);
    }
  });
}

void scale_rows(const OpCall& call, Stream* stream) {
  const int64_t dim = call.attrs->dim;
  const op::ScaleRows<> io(call);
  parallel_for(stream, call.attrs->rows, 16, [=](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; n++) copy_scaled(io.x + n * dim, io.c[2 * n + 1], io.y + n * dim, dim);
  });
}

}  // namespace scmoe::SCMOE_ISA
