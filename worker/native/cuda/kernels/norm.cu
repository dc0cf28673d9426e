// LayerNorm and RMSNorm: a warp for each row.
#include "cuda/columns.cuh"
#include "cuda/ops.cuh"

namespace scmoe::cuda {
namespace {

constexpr float kEpsilon = 1e-5f;

template <class T>
struct Forward {
  T* y;                       // [rows, dim]
  float *mean, *rstd;         // [rows]; RMSNorm has no mean
  const T* x;                 // [rows, dim]
  const float *gamma, *beta;  // [dim]; RMSNorm has no beta
  int64_t rows, dim;
};

template <bool kCentred, class T>
__global__ void norm_kernel(Forward<T> p) {
  const int64_t n = global_warp(), lane = threadIdx.x % kWarp;
  if (n >= p.rows) return;
  const T* x = p.x + n * p.dim;
  float mean = 0, squares = 0;
  if (kCentred) {
    for (int64_t j = lane; j < p.dim; j += kWarp) mean += load(x[j]);
    mean = warp_sum(mean) / static_cast<float>(p.dim);
  }
  for (int64_t j = lane; j < p.dim; j += kWarp) {
    const float d = load(x[j]) - mean;
    squares += d * d;
  }
  const float rstd = 1 / sqrtf(warp_sum(squares) / static_cast<float>(p.dim) + kEpsilon);
  for (int64_t j = lane; j < p.dim; j += kWarp)
    p.y[n * p.dim + j] = rounded<T>((load(x[j]) - mean) * rstd * p.gamma[j] + (kCentred ? p.beta[j] : 0));
  if (lane != 0) return;
  p.rstd[n] = rstd;
  if (kCentred) p.mean[n] = mean;
}

template <class T>
struct Backward {
  T* dx;                     // [rows, dim]
  const T *dy, *x;           // [rows, dim]
  const float* gamma;        // [dim]
  const float *mean, *rstd;  // [rows]
  int64_t rows, dim;
  bool accumulate;

  __device__ float normalised(int64_t n, int64_t j) const {
    return (load(x[n * dim + j]) - (mean ? mean[n] : 0)) * rstd[n];
  }
};

template <bool kCentred, class T>
__global__ void norm_backward_kernel(Backward<T> p) {
  const int64_t n = global_warp(), lane = threadIdx.x % kWarp;
  if (n >= p.rows) return;
  float mean_g = 0, mean_gx = 0;
  for (int64_t j = lane; j < p.dim; j += kWarp) {
    const float g = load(p.dy[n * p.dim + j]) * p.gamma[j];
    mean_g += g;
    mean_gx += g * p.normalised(n, j);
  }
  mean_g = kCentred ? warp_sum(mean_g) / static_cast<float>(p.dim) : 0;
  mean_gx = warp_sum(mean_gx) / static_cast<float>(p.dim);
  for (int64_t j = lane; j < p.dim; j += kWarp) {
    const int64_t at = n * p.dim + j;
    const float g = load(p.dy[at]) * p.gamma[j];
    const float before = p.accumulate ? load(p.dx[at]) : 0;
    p.dx[at] = rounded<T>(before + p.rstd[n] * (g - mean_g - p.normalised(n, j) * mean_gx));
  }
}

template <class T>
struct GammaGradient {
  Backward<T> p;
  __device__ float operator()(int64_t n, int64_t j) const { return load(p.dy[n * p.dim + j]) * p.normalised(n, j); }
};
template <class T>
struct BetaGradient {
  Backward<T> p;
  __device__ float operator()(int64_t n, int64_t j) const { return load(p.dy[n * p.dim + j]); }
};

template <bool kCentred, class T>
void norm_forward(Stream* stream, const Forward<T>& p) {
  launch(stream, warp_per_row(p.rows), norm_kernel<kCentred, T>, p);
}

template <bool kCentred, class T>
void norm_backward(Stream* stream, const Backward<T>& p, float* dgamma) {
  launch(stream, warp_per_row(p.rows), norm_backward_kernel<kCentred, T>, p);
  add_column_sums(stream, GammaGradient<T>{p}, {p.rows, p.dim}, dgamma);
}

}  // namespace

void layernorm(const OpCall& call, Stream* stream) {
  with_buffers<op::Layernorm>(call, [&]<class T>(const op::Layernorm<float, T>& io) {
    const Attrs& a = *call.attrs;
    norm_forward<true, T>(stream, {.y = io.y,
                                   .mean = io.mean,
                                   .rstd = io.rstd,
                                   .x = io.x,
                                   .gamma = io.gamma,
                                   .beta = io.beta,
                                   .rows = a.rows,
                                   .dim = a.dim});
  });
}

void rmsnorm(const OpCall& call, Stream* stream) {
  with_buffers<op::Rmsnorm>(call, [&]<class T>(const op::Rmsnorm<float, T>& io) {
    const Attrs& a = *call.attrs;
    norm_forward<false, T>(stream, {.y = io.y,
                                    .mean = nullptr,
                                    .rstd = io.rstd,
                                    .x = io.x,
                                    .gamma = io.gamma,
                                    .beta = nullptr,
                                    .rows = a.rows,
                                    .dim = a.dim});
  });
}

void layernorm_backward(const OpCall& call, Stream* stream) {
  with_buffers<op::LayernormBackward>(call, [&]<class T>(const op::LayernormBackward<float, T>& io) {
    const Attrs& a = *call.attrs;
    const Backward<T> p{.dx = io.dx,
                        .dy = io.dy,
                        .x = io.x,
                        .gamma = io.gamma,
                        .mean = io.mean,
                        .rstd = io.rstd,
                        .rows = a.rows,
                        .dim = a.dim,
                        .accumulate = a.accumulate != 0};
    norm_backward<true>(stream, p, io.dgamma);
    add_column_sums(stream, BetaGradient<T>{p}, {a.rows, a.dim}, io.dbeta);
  });
}

void rmsnorm_backward(const OpCall& call, Stream* stream) {
  with_buffers<op::RmsnormBackward>(call, [&]<class T>(const op::RmsnormBackward<float, T>& io) {
    const Attrs& a = *call.attrs;
    const Backward<T> p{.dx = io.dx,
                        .dy = io.dy,
                        .x = io.x,
                        .gamma = io.gamma,
                        .mean = nullptr,
                        .rstd = io.rstd,
                        .rows = a.rows,
                        .dim = a.dim,
                        .accumulate = a.accumulate != 0};
    norm_backward<false>(stream, p, io.dgamma);
  });
}

}  // namespace scmoe::cuda
