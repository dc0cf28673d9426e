// Coefficient gates of the shared expert: a warp for each row.
#include "cuda/columns.cuh"
#include "cuda/ops.cuh"

namespace scmoe::cuda {
namespace {

template <class T>
struct Gate {
  float* c;        // [rows, k]
  const T* x;      // [rows, dim]
  const float* w;  // [k, dim]
  int64_t rows, dim, k;
};

__device__ float sigmoid(float x) {
  return 1 / (1 + expf(-x));
}

template <class T>
__global__ void shared_gate_kernel(Gate<T> p) {
  const int64_t n = global_warp(), lane = threadIdx.x % kWarp;
  if (n >= p.rows) return;
  float z[2] = {0, 0};
  for (int64_t j = lane; j < p.dim; j += kWarp) {
    const float x = load(p.x[n * p.dim + j]);
    z[0] += x * p.w[j];
    if (p.k == 2) z[1] += x * p.w[p.dim + j];
  }
  z[0] = warp_sum(z[0]), z[1] = warp_sum(z[1]);
  // The softmax of two values is the sigmoid of their difference.
  if (lane < p.k) p.c[n * p.k + lane] = sigmoid(p.k == 1 ? z[0] : lane == 0 ? z[0] - z[1] : z[1] - z[0]);
}

template <class T>
struct GateBackward {
  T* dx;                // [rows, dim]
  const float *dc, *c;  // [rows, k]
  const T* x;           // [rows, dim]
  const float* w;       // [k, dim]
  int64_t dim, k;
  bool accumulate;

  // The gradient of logit i.
  __device__ float dz(int64_t n, int64_t i) const {
    const float *d = dc + n * k, *g = c + n * k;
    if (k == 1) return d[0] * g[0] * (1 - g[0]);
    const float first = g[0] * g[1] * (d[0] - d[1]);
    return i == 0 ? first : -first;
  }
};

template <class T>
__global__ void shared_gate_backward_kernel(GateBackward<T> p) {
  const int64_t n = blockIdx.x;
  for (int64_t j = threadIdx.x; j < p.dim; j += blockDim.x) {
    float sum = p.accumulate ? load(p.dx[n * p.dim + j]) : 0;
    for (int64_t i = 0; i < p.k; i++) sum += p.dz(n, i) * p.w[i * p.dim + j];
    p.dx[n * p.dim + j] = rounded<T>(sum);
  }
}

template <class T>
struct GateWeightGradient {
  GateBackward<T> p;
  __device__ float operator()(int64_t n, int64_t ij) const {
    return p.dz(n, ij / p.dim) * load(p.x[n * p.dim + ij % p.dim]);
  }
};

template <class T>
struct GatedAddBackward {
  T* ds;                // [rows, dim]
  float* dc;            // [rows, k]
  const T *dy, *s, *m;  // [rows, dim]; m is null if k is 1
  const float* c;       // [rows, k]
  int64_t rows, dim, k;
};

template <class T>
__global__ void gated_add_backward_kernel(GatedAddBackward<T> p) {
  const int64_t n = global_warp(), lane = threadIdx.x % kWarp;
  if (n >= p.rows) return;
  float dc[2] = {0, 0};
  for (int64_t j = lane; j < p.dim; j += kWarp) {
    const int64_t at = n * p.dim + j;
    const float dy = load(p.dy[at]);
    p.ds[at] = rounded<T>(p.c[n * p.k] * dy);
    dc[0] += dy * load(p.s[at]);
    if (p.k == 2) dc[1] += dy * load(p.m[at]);
  }
  dc[0] = warp_sum(dc[0]), dc[1] = warp_sum(dc[1]);
  if (lane < p.k) p.dc[n * p.k + lane] = lane == 0 ? dc[0] : dc[1];
}

}  // namespace

void shared_gate(const OpCall& call, Stream* stream) {
  with_buffers<op::SharedGate>(call, [&]<class T>(const op::SharedGate<float, T>& io) {
    const Attrs& a = *call.attrs;
    const Gate<T> p{.c = io.c, .x = io.x, .w = io.w, .rows = a.rows, .dim = a.dim, .k = a.coefficients};
    launch(stream, warp_per_row(a.rows), shared_gate_kernel<T>, p);
  });
}

void shared_gate_backward(const OpCall& call, Stream* stream) {
  with_buffers<op::SharedGateBackward>(call, [&]<class T>(const op::SharedGateBackward<float, T>& io) {
    const Attrs& a = *call.attrs;
    const GateBackward<T> p{.dx = io.dx,
                            .dc = io.dc,
                            .c = io.c,
                            .x = io.x,
                            .w = io.w,
                            .dim = a.dim,
                            .k = a.coefficients,
                            .accumulate = a.accumulate != 0};
    launch(stream, per_row(a.rows), shared_gate_backward_kernel<T>, p);
    add_column_sums(stream, GateWeightGradient<T>{p}, {a.rows, a.coefficients * a.dim}, io.dw);
  });
}

void gated_add_backward(const OpCall& call, Stream* stream) {
  with_buffers<op::GatedAddBackward>(call, [&]<class T>(const op::GatedAddBackward<float, T>& io) {
    const Attrs& a = *call.attrs;
    const GatedAddBackward<T> p{.ds = io.ds,
                                .dc = io.dc,
                                .dy = io.dy,
                                .s = io.s,
                                .m = io.m,
                                .c = io.c,
                                .rows = a.rows,
                                .dim = a.dim,
                                .k = a.coefficients};
    launch(stream, warp_per_row(a.rows), gated_add_backward_kernel<T>, p);
  });
}

}  // namespace scmoe::cuda
