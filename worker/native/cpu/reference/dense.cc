// The ops of the backbone: embedding, norms, linear layers.
#include <cmath>

#include "cpu/reference/reference.h"

namespace scmoe::reference {

template <class Real>
void embedding(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const int32_t* tokens = in<int32_t>(call, 0);
  for (int64_t b = 0; b < a.batch; b++) {
    for (int64_t t = 0; t < a.sequence; t++) {
      for (int64_t j = 0; j < a.dim; j++) {
        Real x = in<Real>(call, 1)[tokens[b * (a.sequence + 1) + t] * a.dim + j];
        if (call.num_in > 2) x += in<Real>(call, 2)[t * a.dim + j];
        out<Real>(call, 0)[(b * a.sequence + t) * a.dim + j] = x;
      }
    }
  }
}

template <class Real>
void embedding_backward(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const int32_t* tokens = in<int32_t>(call, 0);
  for (int64_t b = 0; b < a.batch; b++) {
    for (int64_t t = 0; t < a.sequence; t++) {
      for (int64_t j = 0; j < a.dim; j++) {
        const Real d = in<Real>(call, 1)[(b * a.sequence + t) * a.dim + j];
        out<Real>(call, 0)[tokens[b * (a.sequence + 1) + t] * a.dim + j] += d;
        if (call.num_out > 1) out<Real>(call, 1)[t * a.dim + j] += d;
      }
    }
  }
}

template <class Real>
void layernorm(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  for (int64_t n = 0; n < a.rows; n++) {
    const Real* x = in<Real>(call, 0) + n * a.dim;
    double mean = 0, variance = 0;
    for (int64_t j = 0; j < a.dim; j++) mean += x[j];
    mean /= a.dim;
    for (int64_t j = 0; j < a.dim; j++) variance += (x[j] - mean) * (x[j] - mean);
    const double rstd = 1 / std::sqrt(variance / a.dim + 1e-5);
    for (int64_t j = 0; j < a.dim; j++)
      out<Real>(call, 0)[n * a.dim + j] = (x[j] - mean) * rstd * in<Real>(call, 1)[j] + in<Real>(call, 2)[j];
    out<Real>(call, 1)[n] = mean;
    out<Real>(call, 2)[n] = rstd;
  }
}

template <class Real>
void layernorm_backward(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const Real* gamma = in<Real>(call, 2);
  for (int64_t n = 0; n < a.rows; n++) {
    const Real *dy = in<Real>(call, 0) + n * a.dim, *x = in<Real>(call, 1) + n * a.dim;
    const double mean = in<Real>(call, 3)[n], rstd = in<Real>(call, 4)[n];
    double mean_g = 0, mean_gx = 0;
    for (int64_t j = 0; j < a.dim; j++) {
      mean_g += 1.0 * dy[j] * gamma[j] / a.dim;
      mean_gx += 1.0 * dy[j] * gamma[j] * (x[j] - mean) * rstd / a.dim;
    }
    for (int64_t j = 0; j < a.dim; j++) {
      const double xhat = (x[j] - mean) * rstd;
      Real& dx = out<Real>(call, 0)[n * a.dim + j];
      dx = (a.accumulate ? dx : 0) + rstd * (1.0 * dy[j] * gamma[j] - mean_g - xhat * mean_gx);
      out<Real>(call, 1)[j] += dy[j] * xhat;
      out<Real>(call, 2)[j] += dy[j];
    }
  }
}

template <class Real>
void rmsnorm(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  for (int64_t n = 0; n < a.rows; n++) {
    const Real* x = in<Real>(call, 0) + n * a.dim;
    double square = 0;
    for (int64_t j = 0; j < a.dim; j++) square += 1.0 * x[j] * x[j];
    const double rstd = 1 / std::sqrt(square / a.dim + 1e-5);
    for (int64_t j = 0; j < a.dim; j++) out<Real>(call, 0)[n * a.dim + j] = x[j] * rstd * in<Real>(call, 1)[j];
    out<Real>(call, 1)[n] = rstd;
  }
}

template <class Real>
void rmsnorm_backward(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const Real* gamma = in<Real>(call, 2);
  for (int64_t n = 0; n < a.rows; n++) {
    const Real *dy = in<Real>(call, 0) + n * a.dim, *x = in<Real>(call, 1) + n * a.dim;
    const double rstd = in<Real>(call, 3)[n];
    double mean_gx = 0;
    for (int64_t j = 0; j < a.dim; j++) mean_gx += 1.0 * dy[j] * gamma[j] * x[j] * rstd / a.dim;
    for (int64_t j = 0; j < a.dim; j++) {
      const double xhat = x[j] * rstd;
      Real& dx = out<Real>(call, 0)[n * a.dim + j];
      dx = (a.accumulate ? dx : 0) + rstd * (1.0 * dy[j] * gamma[j] - xhat * mean_gx);
      out<Real>(call, 1)[j] += dy[j] * xhat;
    }
  }
}

template <class Real>
void linear(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const Real* b = a.bias ? in<Real>(call, 2) : nullptr;
  const Real* residual = call.num_in > 2 + a.bias ? in<Real>(call, 2 + static_cast<int>(a.bias)) : nullptr;
  for (int64_t n = 0; n < a.rows; n++) {
    for (int64_t o = 0; o < a.out; o++) {
      double y = b ? b[o] : 0;
      for (int64_t i = 0; i < a.in; i++) y += 1.0 * in<Real>(call, 0)[n * a.in + i] * in<Real>(call, 1)[o * a.in + i];
      if (residual) y += residual[n * a.out + o];
      out<Real>(call, 0)[n * a.out + o] = y;
    }
  }
}

template <class Real>
void linear_dgrad(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  for (int64_t n = 0; n < a.rows; n++) {
    for (int64_t i = 0; i < a.in; i++) {
      Real& dx = out<Real>(call, 0)[n * a.in + i];
      double sum = a.accumulate ? dx : 0;
      for (int64_t o = 0; o < a.out; o++)
        sum += 1.0 * in<Real>(call, 0)[n * a.out + o] * in<Real>(call, 1)[o * a.in + i];
      dx = sum;
    }
  }
}

template <class Real>
void linear_wgrad(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  for (int64_t o = 0; o < a.out; o++) {
    double db = 0;
    for (int64_t n = 0; n < a.rows; n++) db += in<Real>(call, 0)[n * a.out + o];
    if (call.num_out > 1) out<Real>(call, 1)[o] += db;
    for (int64_t i = 0; i < a.in; i++) {
      double dw = out<Real>(call, 0)[o * a.in + i];
      for (int64_t n = 0; n < a.rows; n++)
        dw += 1.0 * in<Real>(call, 0)[n * a.out + o] * in<Real>(call, 1)[n * a.in + i];
      out<Real>(call, 0)[o * a.in + i] = dw;
    }
  }
}

#define SCMOE_INSTANTIATE(name)                      \
  template void name<float>(const OpCall&, Stream*); \
  template void name<double>(const OpCall&, Stream*);
SCMOE_INSTANTIATE(embedding)
SCMOE_INSTANTIATE(embedding_backward)
SCMOE_INSTANTIATE(layernorm)
SCMOE_INSTANTIATE(layernorm_backward)
SCMOE_INSTANTIATE(rmsnorm)
SCMOE_INSTANTIATE(rmsnorm_backward)
SCMOE_INSTANTIATE(linear)
SCMOE_INSTANTIATE(linear_dgrad)
SCMOE_INSTANTIATE(linear_wgrad)

}  // namespace scmoe::reference
