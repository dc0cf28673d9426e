// Activations, sums and the coefficient gates of the shared expert.
#include <cmath>
#include <numeric>
#include <vector>

#include "cpu/reference/reference.h"

namespace scmoe::reference {
namespace {

// The rows that an activation works on. all_counts may be null.
std::vector<int64_t> rows_of(const Attrs& a, const int32_t* all_counts) {
  std::vector<int64_t> rows(all_counts ? 0 : a.rows);
  std::iota(rows.begin(), rows.end(), 0);
  if (all_counts)
    for (const RoutedRow& r : routed_rows(a, all_counts)) rows.push_back(r.row);
  return rows;
}

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

}  // namespace

template <class Real>
void gelu(const OpCall& call, Stream*) {
  const op::Gelu<Real> io(call);
  const int64_t dim = call.attrs->dim;
  for (const int64_t row : rows_of(*call.attrs, io.allCounts)) {
    for (int64_t i = row * dim; i < (row + 1) * dim; i++) {
      const double x = io.x[i];
      io.y[i] = 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    }
  }
}

template <class Real>
void gelu_backward(const OpCall& call, Stream*) {
  const op::GeluBackward<Real> io(call);
  const int64_t dim = call.attrs->dim;
  for (const int64_t row : rows_of(*call.attrs, io.allCounts)) {
    for (int64_t i = row * dim; i < (row + 1) * dim; i++) {
      const double x = io.x[i], tanh = std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x));
      const double slope =
          0.5 * (1 + tanh) + 0.5 * x * (1 - tanh * tanh) * std::sqrt(2 / M_PI) * (1 + 3 * 0.044715 * x * x);
      io.dx[i] = io.dy[i] * slope;
    }
  }
}

template <class Real>
void swiglu(const OpCall& call, Stream*) {
  const op::Swiglu<Real> io(call);
  const int64_t dim = call.attrs->dim;
  for (const int64_t row : rows_of(*call.attrs, io.allCounts)) {
    const Real *g = io.x + row * 2 * dim, *u = g + dim;
    for (int64_t j = 0; j < dim; j++) io.y[row * dim + j] = g[j] * sigmoid(g[j]) * u[j];
  }
}

template <class Real>
void swiglu_backward(const OpCall& call, Stream*) {
  const op::SwigluBackward<Real> io(call);
  const int64_t dim = call.attrs->dim;
  for (const int64_t row : rows_of(*call.attrs, io.allCounts)) {
    const Real *dy = io.dy + row * dim, *g = io.x + row * 2 * dim, *u = g + dim;
    Real *dg = io.dx + row * 2 * dim, *du = dg + dim;
    for (int64_t j = 0; j < dim; j++) {
      const double s = sigmoid(g[j]);
      dg[j] = dy[j] * u[j] * s * (1 + g[j] * (1 - s));
      du[j] = dy[j] * g[j] * s;
    }
  }
}

template <class Real>
void shared_gate(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const op::SharedGate<Real> io(call);
  for (int64_t n = 0; n < a.rows; n++) {
    double z[2] = {0, 0};
    for (int64_t i = 0; i < a.coefficients; i++)
      for (int64_t j = 0; j < a.dim; j++) z[i] += 1.0 * io.x[n * a.dim + j] * io.w[i * a.dim + j];
    // The softmax of two values is the sigmoid of their difference.
    for (int64_t i = 0; i < a.coefficients; i++)
      io.c[n * a.coefficients + i] = sigmoid(a.coefficients == 1 ? z[0] : z[i] - z[1 - i]);
  }
}

template <class Real>
void shared_gate_backward(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const op::SharedGateBackward<Real> io(call);
  const int64_t k = a.coefficients;
  for (int64_t n = 0; n < a.rows; n++) {
    const Real *dc = io.dc + n * k, *c = io.c + n * k;
    double dz[2] = {1.0 * dc[0] * c[0] * (1 - c[0]), 0};
    if (k == 2) {
      dz[0] = 1.0 * c[0] * c[1] * (dc[0] - dc[1]);
      dz[1] = -dz[0];
    }
    for (int64_t j = 0; j < a.dim; j++) {
      Real& dx = io.dx[n * a.dim + j];
      double sum = a.accumulate ? dx : 0;
      for (int64_t i = 0; i < k; i++) {
        sum += dz[i] * io.w[i * a.dim + j];
        io.dw[i * a.dim + j] += dz[i] * io.x[n * a.dim + j];
      }
      dx = sum;
    }
  }
}

template <class Real>
void gated_add(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const op::GatedAdd<Real> io(call);
  for (int64_t n = 0; n < a.rows; n++) {
    const Real* c = io.c + n * a.coefficients;
    for (int64_t i = n * a.dim; i < (n + 1) * a.dim; i++)
      io.y[i] = io.a[i] + 1.0 * c[0] * io.s[i] + (a.coefficients == 2 ? 1.0 * c[1] : 1.0) * io.m[i];
  }
}

template <class Real>
void gated_add_backward(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const op::GatedAddBackward<Real> io(call);
  for (int64_t n = 0; n < a.rows; n++) {
    double dc[2] = {0, 0};
    for (int64_t j = n * a.dim; j < (n + 1) * a.dim; j++) {
      io.ds[j] = io.c[n * a.coefficients] * io.dy[j];
      dc[0] += 1.0 * io.dy[j] * io.s[j];
      if (a.coefficients == 2) dc[1] += 1.0 * io.dy[j] * io.m[j];
    }
    for (int64_t i = 0; i < a.coefficients; i++) io.dc[n * a.coefficients + i] = dc[i];
  }
}

template <class Real>
void scale_rows(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const op::ScaleRows<Real> io(call);
  for (int64_t i = 0; i < a.rows * a.dim; i++) io.y[i] = io.c[i / a.dim * 2 + 1] * io.x[i];
}

template <class Real>
void add(const OpCall& call, Stream*) {
  const op::Add<Real> io(call);
  for (int64_t i = 0; i < call.attrs->rows * call.attrs->dim; i++) io.y[i] = io.a[i] + io.b[i];
}

#define SCMOE_INSTANTIATE(name)                      \
  template void name<float>(const OpCall&, Stream*); \
  template void name<double>(const OpCall&, Stream*);
SCMOE_INSTANTIATE(gelu)
SCMOE_INSTANTIATE(gelu_backward)
SCMOE_INSTANTIATE(swiglu)
SCMOE_INSTANTIATE(swiglu_backward)
SCMOE_INSTANTIATE(shared_gate)
SCMOE_INSTANTIATE(shared_gate_backward)
SCMOE_INSTANTIATE(gated_add)
SCMOE_INSTANTIATE(gated_add_backward)
SCMOE_INSTANTIATE(scale_rows)
SCMOE_INSTANTIATE(add)

}  // namespace scmoe::reference
