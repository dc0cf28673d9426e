// LayerNorm and RMSNorm: a warp for each row.
#include "columns.cuh"
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

template <class T>
Backward<T> backward_of(const OpCall& call, const float* mean, const float* rstd) {
  const Attrs& a = *call.attrs;
  return {out<T>(call, 0), in<T>(call, 0), in<T>(call, 1),   in<float>(call, 2), mean, rstd,
          a.rows,          a.dim,          a.accumulate != 0};
}

}  // namespace

void layernorm(const OpCall& call, Stream* stream) {
  with_type(call.out_types[0], [&](auto type) {
    using T = decltype(type);
    const Attrs& a = *call.attrs;
    const Forward<T> p{out<T>(call, 0),
                       out<float>(call, 1),
                       out<float>(call, 2),
                       in<T>(call, 0),
                       in<float>(call, 1),
                       in<float>(call, 2),
                       a.rows,
                       a.dim};
    launch(stream, warp_per_row(a.rows), norm_kernel<true, T>, p);
  });
}

void rmsnorm(const OpCall& call, Stream* stream) {
  with_type(call.out_types[0], [&](auto type) {
    using T = decltype(type);
    const Attrs& a = *call.attrs;
    const Forward<T> p{out<T>(call, 0), nullptr, out<float>(call, 1), in<T>(call, 0), in<float>(call, 1), nullptr,
                       a.rows,          a.dim};
    launch(stream, warp_per_row(a.rows), norm_kernel<false, T>, p);
  });
}

void layernorm_backward(const OpCall& call, Stream* stream) {
  with_type(call.out_types[0], [&](auto type) {
    using T = decltype(type);
    const Attrs& a = *call.attrs;
    const Backward<T> p = backward_of<T>(call, in<float>(call, 3), in<float>(call, 4));
    launch(stream, warp_per_row(a.rows), norm_backward_kernel<true, T>, p);
    add_column_sums(stream, GammaGradient<T>{p}, {a.rows, a.dim}, out<float>(call, 1));
    add_column_sums(stream, BetaGradient<T>{p}, {a.rows, a.dim}, out<float>(call, 2));
  });
}

void rmsnorm_backward(const OpCall& call, Stream* stream) {
  with_type(call.out_types[0], [&](auto type) {
    using T = decltype(type);
    const Attrs& a = *call.attrs;
    const Backward<T> p = backward_of<T>(call, nullptr, in<float>(call, 3));
    launch(stream, warp_per_row(a.rows), norm_backward_kernel<false, T>, p);
    add_column_sums(stream, GammaGradient<T>{p}, {a.rows, a.dim}, out<float>(call, 1));
  });
}

}  // namespace scmoe::cuda
