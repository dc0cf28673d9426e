// Activations, sums and the coefficient gates of the shared expert.
#include <cmath>
#include <numeric>
#include <vector>

#include "cpu/reference/reference.h"

namespace scmoe::reference {
namespace {

// Rows an activation works on; allCounts, when given, is input i.
std::vector<int64_t> rows_of(const OpCall& call, int i) {
  std::vector<int64_t> rows(call.num_in > i ? 0 : call.attrs->rows);
  std::iota(rows.begin(), rows.end(), 0);
  if (call.num_in > i)
    for (const RoutedRow& r : routed_rows(*call.attrs, in<int32_t>(call, i))) rows.push_back(r.row);
  return rows;
}

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

}  // namespace

template <class Real>
void gelu(const OpCall& call, Stream*) {
  const int64_t dim = call.attrs->dim;
  for (const int64_t row : rows_of(call, 1)) {
    for (int64_t i = row * dim; i < (row + 1) * dim; i++) {
      const double x = in<Real>(call, 0)[i];
      out<Real>(call, 0)[i] = 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    }
  }
}

template <class Real>
void gelu_backward(const OpCall& call, Stream*) {
  const int64_t dim = call.attrs->dim;
  for (const int64_t row : rows_of(call, 2)) {
    for (int64_t i = row * dim; i < (row + 1) * dim; i++) {
      const double x = in<Real>(call, 1)[i], tanh = std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x));
      const double slope =
          0.5 * (1 + tanh) + 0.5 * x * (1 - tanh * tanh) * std::sqrt(2 / M_PI) * (1 + 3 * 0.044715 * x * x);
      out<Real>(call, 0)[i] = in<Real>(call, 0)[i] * slope;
    }
  }
}

template <class Real>
void swiglu(const OpCall& call, Stream*) {
  const int64_t dim = call.attrs->dim;
  for (const int64_t row : rows_of(call, 1)) {
    const Real *g = in<Real>(call, 0) + row * 2 * dim, *u = g + dim;
    for (int64_t j = 0; j < dim; j++) out<Real>(call, 0)[row * dim + j] = g[j] * sigmoid(g[j]) * u[j];
  }
}

template <class Real>
void swiglu_backward(const OpCall& call, Stream*) {
  const int64_t dim = call.attrs->dim;
  for (const int64_t row : rows_of(call, 2)) {
    const Real *dy = in<Real>(call, 0) + row * dim, *g = in<Real>(call, 1) + row * 2 * dim, *u = g + dim;
    Real *dg = out<Real>(call, 0) + row * 2 * dim, *du = dg + dim;
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
  for (int64_t n = 0; n < a.rows; n++) {
    double z[2] = {0, 0};
    for (int64_t i = 0; i < a.coefficients; i++)
      for (int64_t j = 0; j < a.dim; j++)
        z[i] += 1.0 * in<Real>(call, 0)[n * a.dim + j] * in<Real>(call, 1)[i * a.dim + j];
    for (int64_t i = 0; i < a.coefficients; i++)  // of two values, softmax is the sigmoid of their difference
      out<Real>(call, 0)[n * a.coefficients + i] = sigmoid(a.coefficients == 1 ? z[0] : z[i] - z[1 - i]);
  }
}

template <class Real>
void shared_gate_backward(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const int64_t k = a.coefficients;
  for (int64_t n = 0; n < a.rows; n++) {
    const Real *dc = in<Real>(call, 0) + n * k, *c = in<Real>(call, 1) + n * k;
    double dz[2] = {1.0 * dc[0] * c[0] * (1 - c[0]), 0};
    if (k == 2) {
      dz[0] = 1.0 * c[0] * c[1] * (dc[0] - dc[1]);
      dz[1] = -dz[0];
    }
    for (int64_t j = 0; j < a.dim; j++) {
      Real& dx = out<Real>(call, 0)[n * a.dim + j];
      double sum = a.accumulate ? dx : 0;
      for (int64_t i = 0; i < k; i++) {
        sum += dz[i] * in<Real>(call, 3)[i * a.dim + j];
        out<Real>(call, 1)[i * a.dim + j] += dz[i] * in<Real>(call, 2)[n * a.dim + j];
      }
      dx = sum;
    }
  }
}

template <class Real>
void gated_add(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  for (int64_t n = 0; n < a.rows; n++) {
    const Real* c = in<Real>(call, 2) + n * a.coefficients;
    for (int64_t i = n * a.dim; i < (n + 1) * a.dim; i++)
      out<Real>(call, 0)[i] = in<Real>(call, 0)[i] + 1.0 * c[0] * in<Real>(call, 1)[i] +
                              (a.coefficients == 2 ? 1.0 * c[1] : 1.0) * in<Real>(call, 3)[i];
  }
}

template <class Real>
void gated_add_backward(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  for (int64_t n = 0; n < a.rows; n++) {
    double dc[2] = {0, 0};
    for (int64_t j = n * a.dim; j < (n + 1) * a.dim; j++) {
      out<Real>(call, 0)[j] = in<Real>(call, 2)[n * a.coefficients] * in<Real>(call, 0)[j];
      dc[0] += 1.0 * in<Real>(call, 0)[j] * in<Real>(call, 1)[j];
      if (a.coefficients == 2) dc[1] += 1.0 * in<Real>(call, 0)[j] * in<Real>(call, 3)[j];
    }
    for (int64_t i = 0; i < a.coefficients; i++) out<Real>(call, 1)[n * a.coefficients + i] = dc[i];
  }
}

template <class Real>
void scale_rows(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  for (int64_t i = 0; i < a.rows * a.dim; i++)
    out<Real>(call, 0)[i] = in<Real>(call, 1)[i / a.dim * 2 + 1] * in<Real>(call, 0)[i];
}

template <class Real>
void add(const OpCall& call, Stream*) {
  for (int64_t i = 0; i < call.attrs->rows * call.attrs->dim; i++)
    out<Real>(call, 0)[i] = in<Real>(call, 0)[i] + in<Real>(call, 1)[i];
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
