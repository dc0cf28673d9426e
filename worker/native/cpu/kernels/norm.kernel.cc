// layernorm and rmsnorm (arXiv 1910.07467), forward and backward.
#include "cpu/vec.h"

namespace scmoe::SCMOE_ISA {
namespace {

constexpr float kEpsilon = 1e-5f;

void forward_row(const float* x, const float* gamma, const float* beta, float* y, int64_t dim, float* mean,
                 float* rstd) {
  const float m = sum(x, dim) / static_cast<float>(dim);
  const float variance = sum_of_blocks(dim, [=](int64_t first, int64_t count) {
    float part = 0;
#pragma omp simd reduction(+ : part)
    for (int64_t j = first; j < first + count; j++) part += (x[j] - m) * (x[j] - m);
    return part;
  });
  const float r = 1.0f / __builtin_sqrtf(variance / static_cast<float>(dim) + kEpsilon);
#pragma omp simd
  for (int64_t j = 0; j < dim; j++) y[j] = (x[j] - m) * r * gamma[j] + beta[j];
  *mean = m;
  *rstd = r;
}

// dx (+)= rstd * (g - mean(g) - xhat * mean(g * xhat)), g = dy * gamma, xhat = (x - mean) * rstd
void backward_row(const float* dy, const float* x, const float* gamma, float* dx, int64_t dim, float mean, float rstd,
                  bool accumulate) {
  float sum_gx = 0;
  const float sum_g = sum_of_blocks(dim, [&](int64_t first, int64_t count) {
    float part_g = 0, part_gx = 0;
#pragma omp simd reduction(+ : part_g, part_gx)
    for (int64_t j = first; j < first + count; j++) {
      const float g = dy[j] * gamma[j];
      part_g += g;
      part_gx += g * (x[j] - mean);
    }
    sum_gx += part_gx;
    return part_g;
  });
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
  const float sum_gx = sum_of_blocks(dim, [=](int64_t first, int64_t count) {
    float part = 0;
#pragma omp simd reduction(+ : part)
    for (int64_t j = first; j < first + count; j++) part += dy[j] * gamma[j] * x[j];
    return part;
  });
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
  const op::Layernorm<> io(call);
  parallel_for(stream, rows, 1, [=](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; n++)
      forward_row(io.x + n * dim, io.gamma, io.beta, io.y + n * dim, dim, io.mean + n, io.rstd + n);
  });
}

void layernorm_backward(const OpCall& call, Stream* stream) {
  const int64_t rows = call.attrs->rows, dim = call.attrs->dim;
  const bool accumulate = call.attrs->accumulate != 0;
  const op::LayernormBackward<> io(call);
  parallel_for(stream, rows, 1, [=](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; n++)
      backward_row(io.dy + n * dim, io.x + n * dim, io.gamma, io.dx + n * dim, dim, io.mean[n], io.rstd[n], accumulate);
  });
  parallel_for(stream, dim, 64, [=](int64_t begin, int64_t end, int thread) {
    const int64_t width = end - begin;
    float *dbeta = scratch(stream, thread, 2 * width), *dgamma = dbeta + width;
    each_block(rows, [=](int64_t n, int64_t last) {
      clear(dbeta, 2 * width);
      for (; n < last; n++) {
        const float *g = io.dy + n * dim + begin, *v = io.x + n * dim + begin, m = io.mean[n], r = io.rstd[n];
#pragma omp simd
        for (int64_t j = 0; j < width; j++) {
          dbeta[j] += g[j];
          dgamma[j] += g[j] * (v[j] - m) * r;
        }
      }
      add_scaled(dbeta, 1.0f, io.dbeta + begin, width);
      add_scaled(dgamma, 1.0f, io.dgamma + begin, width);
    });
  });
}

void rmsnorm(const OpCall& call, Stream* stream) {
  const int64_t rows = call.attrs->rows, dim = call.attrs->dim;
  const op::Rmsnorm<> io(call);
  parallel_for(stream, rows, 1, [=](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; n++) {
      const float *v = io.x + n * dim, square = dot(v, v, dim);
      const float r = 1.0f / __builtin_sqrtf(square / static_cast<float>(dim) + kEpsilon);
#pragma omp simd
      for (int64_t j = 0; j < dim; j++) io.y[n * dim + j] = v[j] * r * io.gamma[j];
      io.rstd[n] = r;
    }
  });
}

void rmsnorm_backward(const OpCall& call, Stream* stream) {
  const int64_t rows = call.attrs->rows, dim = call.attrs->dim;
  const bool accumulate = call.attrs->accumulate != 0;
  const op::RmsnormBackward<> io(call);
  parallel_for(stream, rows, 1, [=](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; n++)
      rms_backward_row(io.dy + n * dim, io.x + n * dim, io.gamma, io.dx + n * dim, dim, io.rstd[n], accumulate);
  });
  parallel_for(stream, dim, 64, [=](int64_t begin, int64_t end, int thread) {
    const int64_t width = end - begin;
    float* dgamma = scratch(stream, thread, width);
    each_block(rows, [=](int64_t n, int64_t last) {
      clear(dgamma, width);
      for (; n < last; n++) {
        const float *g = io.dy + n * dim + begin, *v = io.x + n * dim + begin, r = io.rstd[n];
#pragma omp simd
        for (int64_t j = 0; j < width; j++) dgamma[j] += g[j] * v[j] * r;
      }
      add_scaled(dgamma, 1.0f, io.dgamma + begin, width);
    });
  });
}

}  // namespace scmoe::SCMOE_ISA
