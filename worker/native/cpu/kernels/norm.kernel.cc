// layernorm and rmsnorm (arXiv 1910.07467), forward and backward.
#include "cpu/vec.h"

namespace scmoe::SCMOE_ISA {
namespace {

constexpr float kEpsilon = 1e-5f;

void forward_row(const float* x, const float* gamma, const float* beta, float* y, int64_t dim, float* mean,
                 float* rstd) {
  const float m = sum(x, dim) / static_cast<float>(dim);
  float variance = 0;
#pragma omp simd reduction(+ : variance)
  for (int64_t j = 0; j < dim; j++) variance += (x[j] - m) * (x[j] - m);
  const float r = 1.0f / __builtin_sqrtf(variance / static_cast<float>(dim) + kEpsilon);
#pragma omp simd
  for (int64_t j = 0; j < dim; j++) y[j] = (x[j] - m) * r * gamma[j] + beta[j];
  *mean = m;
  *rstd = r;
}

// dx (+)= rstd * (g - mean(g) - xhat * mean(g * xhat)), g = dy * gamma, xhat = (x - mean) * rstd
void backward_row(const float* dy, const float* x, const float* gamma, float* dx, int64_t dim, float mean, float rstd,
                  bool accumulate) {
  float sum_g = 0, sum_gx = 0;
#pragma omp simd reduction(+ : sum_g, sum_gx)
  for (int64_t j = 0; j < dim; j++) {
    const float g = dy[j] * gamma[j];
    sum_g += g;
    sum_gx += g * (x[j] - mean);
  }
  const float c0 = sum_g / static_cast<float>(dim), c1 = sum_gx * rstd * rstd / static_cast<float>(dim);
  if (accumulate) {
#pragma omp simd
    for (int64_t j = 0; j < dim; j++) dx[j] += rstd * (dy[j] * gamma[j] - c0 - (x[j] - mean) * c1);
  } else {
#pragma omp simd
    for (int64_t j = 0; j < dim; j++) dx[j] = rstd * (dy[j] * gamma[j] - c0 - (x[j] - mean) * c1);
  }
}

// dx (+)= rstd * (g - xhat * mean(g * xhat)), g = dy * gamma, xhat = x * rstd
void rms_backward_row(const float* dy, const float* x, const float* gamma, float* dx, int64_t dim, float rstd,
                      bool accumulate) {
  float sum_gx = 0;
#pragma omp simd reduction(+ : sum_gx)
  for (int64_t j = 0; j < dim; j++) sum_gx += dy[j] * gamma[j] * x[j];
  const float c = sum_gx * rstd * rstd / static_cast<float>(dim);
  if (accumulate) {
#pragma omp simd
    for (int64_t j = 0; j < dim; j++) dx[j] += rstd * (dy[j] * gamma[j] - x[j] * c);
  } else {
#pragma omp simd
    for (int64_t j = 0; j < dim; j++) dx[j] = rstd * (dy[j] * gamma[j] - x[j] * c);
  }
}

}  // namespace

void layernorm(const OpCall& call, Stream* stream) {
  const int64_t rows = call.attrs->rows, dim = call.attrs->dim;
  const float *x = in(call, 0), *gamma = in(call, 1), *beta = in(call, 2);
  float *y = out(call, 0), *mean = out(call, 1), *rstd = out(call, 2);
  parallel_for(stream, rows, 1, [=](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; n++) forward_row(x + n * dim, gamma, beta, y + n * dim, dim, mean + n, rstd + n);
  });
}

void layernorm_backward(const OpCall& call, Stream* stream) {
  const int64_t rows = call.attrs->rows, dim = call.attrs->dim;
  const bool accumulate = call.attrs->accumulate != 0;
  const float *dy = in(call, 0), *x = in(call, 1), *gamma = in(call, 2), *mean = in(call, 3), *rstd = in(call, 4);
  float *dx = out(call, 0), *dgamma = out(call, 1), *dbeta = out(call, 2);
  parallel_for(stream, rows, 1, [=](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; n++)
      backward_row(dy + n * dim, x + n * dim, gamma, dx + n * dim, dim, mean[n], rstd[n], accumulate);
  });
  parallel_for(stream, dim, 64, [=](int64_t begin, int64_t end, int) {
    for (int64_t n = 0; n < rows; n++) {
      const float *g = dy + n * dim, *v = x + n * dim, m = mean[n], r = rstd[n];
#pragma omp simd
      for (int64_t j = begin; j < end; j++) {
        dbeta[j] += g[j];
        dgamma[j] += g[j] * (v[j] - m) * r;
      }
    }
  });
}

void rmsnorm(const OpCall& call, Stream* stream) {
  const int64_t rows = call.attrs->rows, dim = call.attrs->dim;
  const float *x = in(call, 0), *gamma = in(call, 1);
  float *y = out(call, 0), *rstd = out(call, 1);
  parallel_for(stream, rows, 1, [=](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; n++) {
      const float *v = x + n * dim, square = dot(v, v, dim);
      const float r = 1.0f / __builtin_sqrtf(square / static_cast<float>(dim) + kEpsilon);
#pragma omp simd
      for (int64_t j = 0; j < dim; j++) y[n * dim + j] = v[j] * r * gamma[j];
      rstd[n] = r;
    }
  });
}

void rmsnorm_backward(const OpCall& call, Stream* stream) {
  const int64_t rows = call.attrs->rows, dim = call.attrs->dim;
  const bool accumulate = call.attrs->accumulate != 0;
  const float *dy = in(call, 0), *x = in(call, 1), *gamma = in(call, 2), *rstd = in(call, 3);
  float *dx = out(call, 0), *dgamma = out(call, 1);
  parallel_for(stream, rows, 1, [=](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; n++)
      rms_backward_row(dy + n * dim, x + n * dim, gamma, dx + n * dim, dim, rstd[n], accumulate);
  });
  parallel_for(stream, dim, 64, [=](int64_t begin, int64_t end, int) {
    for (int64_t n = 0; n < rows; n++) {
      const float *g = dy + n * dim, *v = x + n * dim, r = rstd[n];
#pragma omp simd
      for (int64_t j = begin; j < end; j++) dgamma[j] += g[j] * v[j] * r;
    }
  });
}

}  // namespace scmoe::SCMOE_ISA
