// The ops of the backbone: embedding, norms, linear layers.
#include <cmath>

#include "cpu/reference/reference.h"

namespace scmoe::reference {

template <class Real>
void embedding(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const op::Embedding<Real> io(call);
  for (int64_t b = 0; b < a.batch; b++) {
    for (int64_t t = 0; t < a.sequence; t++) {
      for (int64_t j = 0; j < a.dim; j++) {
        Real x = io.wte[io.tokens[b * (a.sequence + 1) + t] * a.dim + j];
        if (io.wpe) x += io.wpe[t * a.dim + j];
        io.x[(b * a.sequence + t) * a.dim + j] = x;
      }
    }
  }
}

template <class Real>
void embedding_backward(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const op::EmbeddingBackward<Real> io(call);
  for (int64_t b = 0; b < a.batch; b++) {
    for (int64_t t = 0; t < a.sequence; t++) {
      for (int64_t j = 0; j < a.dim; j++) {
        const Real d = io.dx[(b * a.sequence + t) * a.dim + j];
        io.dwte[io.tokens[b * (a.sequence + 1) + t] * a.dim + j] += d;
        if (io.dwpe) io.dwpe[t * a.dim + j] += d;
      }
    }
  }
}

template <class Real>
void layernorm(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const op::Layernorm<Real> io(call);
  for (int64_t n = 0; n < a.rows; n++) {
    const Real* x = io.x + n * a.dim;
    double mean = 0, variance = 0;
    for (int64_t j = 0; j < a.dim; j++) mean += x[j];
    mean /= a.dim;
    for (int64_t j = 0; j < a.dim; j++) variance += (x[j] - mean) * (x[j] - mean);
    const double rstd = 1 / std::sqrt(variance / a.dim + 1e-5);
    for (int64_t j = 0; j < a.dim; j++) io.y[n * a.dim + j] = (x[j] - mean) * rstd * io.gamma[j] + io.beta[j];
    io.mean[n] = mean;
    io.rstd[n] = rstd;
  }
}

template <class Real>
void layernorm_backward(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const op::LayernormBackward<Real> io(call);
  for (int64_t n = 0; n < a.rows; n++) {
    const Real *dy = io.dy + n * a.dim, *x = io.x + n * a.dim;
    const double mean = io.mean[n], rstd = io.rstd[n];
    double mean_g = 0, mean_gx = 0;
    for (int64_t j = 0; j < a.dim; j++) {
      mean_g += 1.0 * dy[j] * io.gamma[j] / a.dim;
      mean_gx += 1.0 * dy[j] * io.gamma[j] * (x[j] - mean) * rstd / a.dim;
    }
    for (int64_t j = 0; j < a.dim; j++) {
      const double xhat = (x[j] - mean) * rstd;
      Real& dx = io.dx[n * a.dim + j];
      dx = (a.accumulate ? dx : 0) + rstd * (1.0 * dy[j] * io.gamma[j] - mean_g - xhat * mean_gx);
      io.dgamma[j] += dy[j] * xhat;
      io.dbeta[j] += dy[j];
    }
  }
}

template <class Real>
void rmsnorm(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const op::Rmsnorm<Real> io(call);
  for (int64_t n = 0; n < a.rows; n++) {
    const Real* x = io.x + n * a.dim;
    double square = 0;
    for (int64_t j = 0; j < a.dim; j++) square += 1.0 * x[j] * x[j];
    const double rstd = 1 / std::sqrt(square / a.dim + 1e-5);
    for (int64_t j = 0; j < a.dim; j++) io.y[n * a.dim + j] = x[j] * rstd * io.gamma[j];
    io.rstd[n] = rstd;
  }
}

template <class Real>
void rmsnorm_backward(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const op::RmsnormBackward<Real> io(call);
  for (int64_t n = 0; n < a.rows; n++) {
    const Real *dy = io.dy + n * a.dim, *x = io.x + n * a.dim;
    const double rstd = io.rstd[n];
    double mean_gx = 0;
    for (int64_t j = 0; j < a.dim; j++) mean_gx += 1.0 * dy[j] * io.gamma[j] * x[j] * rstd / a.dim;
    for (int64_t j = 0; j < a.dim; j++) {
      const double xhat = x[j] * rstd;
      Real& dx = io.dx[n * a.dim + j];
      dx = (a.accumulate ? dx : 0) + rstd * (1.0 * dy[j] * io.gamma[j] - xhat * mean_gx);
      io.dgamma[j] += dy[j] * xhat;
    }
  }
}

template <class Real>
void linear(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const op::Linear<Real> io(call);
  for (int64_t n = 0; n < a.rows; n++) {
    for (int64_t o = 0; o < a.out; o++) {
      double y = io.b ? io.b[o] : 0;
      for (int64_t i = 0; i < a.in; i++) y += 1.0 * io.x[n * a.in + i] * io.w[o * a.in + i];
      if (io.residual) y += io.residual[n * a.out + o];
      io.y[n * a.out + o] = y;
    }
  }
}

template <class Real>
void linear_dgrad(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const op::LinearDgrad<Real> io(call);
  for (int64_t n = 0; n < a.rows; n++) {
    for (int64_t i = 0; i < a.in; i++) {
      Real& dx = io.dx[n * a.in + i];
      double sum = a.accumulate ? dx : 0;
      for (int64_t o = 0; o < a.out; o++) sum += 1.0 * io.dy[n * a.out + o] * io.w[o * a.in + i];
      dx = sum;
    }
  }
}

template <class Real>
void linear_wgrad(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const op::LinearWgrad<Real> io(call);
  for (int64_t o = 0; o < a.out; o++) {
    double db = 0;
    for (int64_t n = 0; n < a.rows; n++) db += io.dy[n * a.out + o];
    if (io.db) io.db[o] += db;
    for (int64_t i = 0; i < a.in; i++) {
      double dw = io.dw[o * a.in + i];
      for (int64_t n = 0; n < a.rows; n++) dw += 1.0 * io.dy[n * a.out + o] * io.x[n * a.in + i];
      io.dw[o * a.in + i] = dw;
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
