// Activations and sums, element by element along rows.
#include "cuda/ops.cuh"
#include "cuda/rows.cuh"

namespace scmoe::cuda {
namespace {

// --- Functions of one element

struct Gelu {
  static constexpr float kScale = 0.7978845608028654f;  // sqrt(2 / pi)
  __device__ static float tanh_of(float x) { return tanhf(kScale * (x + 0.044715f * x * x * x)); }
  __device__ float operator()(float x) const { return 0.5f * x * (1 + tanh_of(x)); }
  __device__ float operator()(float dy, float x) const {
    const float tanh = tanh_of(x);
    return dy * (0.5f * (1 + tanh) + 0.5f * x * (1 - tanh * tanh) * kScale * (1 + 3 * 0.044715f * x * x));
  }
};

__device__ float sigmoid(float x) {
  return 1 / (1 + expf(-x));
}

struct Swiglu {
  __device__ float operator()(float g, float u) const { return g * sigmoid(g) * u; }
};
struct SwigluGate {  // dy, g, u -> dg
  __device__ float operator()(float dy, float g, float u) const {
    const float s = sigmoid(g);
    return dy * u * s * (1 + g * (1 - s));
  }
};
struct SwigluUp {  // dy, g -> du
  __device__ float operator()(float dy, float g) const { return dy * g * sigmoid(g); }
};
struct Add {
  __device__ float operator()(float a, float b) const { return a + b; }
};
struct Scale {
  float by;
  __device__ float operator()(float x) const { return by * x; }
};
struct GatedAdd {
  float c0, c1;
  __device__ float operator()(float a, float s, float m) const { return a + c0 * s + c1 * m; }
};

// --- Kernels: a block for each row

template <class T>
__global__ void gelu_kernel(T* y, const T* x, Rows rows, int64_t dim) {
  if (blockIdx.x >= rows.count()) return;
  const int64_t at = rows.at(blockIdx.x) * dim;
  map_row(dim, Gelu{}, y + at, x + at);
}

template <class T>
__global__ void gelu_backward_kernel(T* dx, const T* dy, const T* x, Rows rows, int64_t dim) {
  if (blockIdx.x >= rows.count()) return;
  const int64_t at = rows.at(blockIdx.x) * dim;
  map_row(dim, Gelu{}, dx + at, dy + at, x + at);
}

template <class T>
__global__ void swiglu_kernel(T* y, const T* x, Rows rows, int64_t dim) {
  if (blockIdx.x >= rows.count()) return;
  const int64_t row = rows.at(blockIdx.x);
  const T *g = x + row * 2 * dim, *u = g + dim;
  map_row(dim, Swiglu{}, y + row * dim, g, u);
}

template <class T>
__global__ void swiglu_backward_kernel(T* dx, const T* dy, const T* x, Rows rows, int64_t dim) {
  if (blockIdx.x >= rows.count()) return;
  const int64_t row = rows.at(blockIdx.x);
  const T *g = x + row * 2 * dim, *u = g + dim;
  T* dg = dx + row * 2 * dim;
  map_row(dim, SwigluGate{}, dg, dy + row * dim, g, u);
  map_row(dim, SwigluUp{}, dg + dim, dy + row * dim, g);
}

template <class T>
__global__ void add_kernel(T* y, const T* a, const T* b, int64_t dim) {
  const int64_t at = blockIdx.x * dim;
  map_row(dim, Add{}, y + at, a + at, b + at);
}

template <class T>
__global__ void scale_rows_kernel(T* y, const T* x, const float* c, int64_t dim) {
  const int64_t at = blockIdx.x * dim;
  map_row(dim, Scale{c[2 * blockIdx.x + 1]}, y + at, x + at);
}

template <class T>
struct GatedSum {
  T* y;                // [rows, dim]
  const T *a, *s, *m;  // [rows, dim]
  const float* c;      // [rows, coefficients]
  int64_t dim, coefficients;
};
template <class T>
__global__ void gated_add_kernel(GatedSum<T> p) {
  const int64_t at = blockIdx.x * p.dim;
  const float* c = p.c + blockIdx.x * p.coefficients;
  map_row(p.dim, GatedAdd{c[0], p.coefficients == 2 ? c[1] : 1.0f}, p.y + at, p.a + at, p.s + at, p.m + at);
}

// The rows that an activation works on, and how many there can be at most.
struct RowSet {
  Rows rows;
  int64_t most;
};

// all_counts may be null. `room` is the number of rows that the output has room for.
RowSet rows_of(const Attrs& a, const int32_t* all_counts, int64_t room, Stream* stream) {
  if (!all_counts) return {Rows{nullptr, nullptr, 0, a.rows}, a.rows};
  int32_t* memory = scratch_of<int32_t>(stream, segment_elements(a));
  return {rows_of_chunk(stream, a, all_counts, memory), room};
}

}  // namespace

// --- Launchers

void gelu(const OpCall& call, Stream* stream) {
  with_buffers<op::Gelu>(call, [&]<class T>(const op::Gelu<float, T>& io) {
    const int64_t dim = call.attrs->dim;
    const auto [rows, most] = rows_of(*call.attrs, io.allCounts, call.out_elements[0] / dim, stream);
    launch(stream, per_row(most), gelu_kernel<T>, io.y, io.x, rows, dim);
  });
}

void gelu_backward(const OpCall& call, Stream* stream) {
  with_buffers<op::GeluBackward>(call, [&]<class T>(const op::GeluBackward<float, T>& io) {
    const int64_t dim = call.attrs->dim;
    const auto [rows, most] = rows_of(*call.attrs, io.allCounts, call.out_elements[0] / dim, stream);
    launch(stream, per_row(most), gelu_backward_kernel<T>, io.dx, io.dy, io.x, rows, dim);
  });
}

void swiglu(const OpCall& call, Stream* stream) {
  with_buffers<op::Swiglu>(call, [&]<class T>(const op::Swiglu<float, T>& io) {
    const int64_t dim = call.attrs->dim;
    const auto [rows, most] = rows_of(*call.attrs, io.allCounts, call.out_elements[0] / dim, stream);
    launch(stream, per_row(most), swiglu_kernel<T>, io.y, io.x, rows, dim);
  });
}

void swiglu_backward(const OpCall& call, Stream* stream) {
  with_buffers<op::SwigluBackward>(call, [&]<class T>(const op::SwigluBackward<float, T>& io) {
    const int64_t dim = call.attrs->dim;
    const auto [rows, most] = rows_of(*call.attrs, io.allCounts, call.out_elements[0] / (2 * dim), stream);
    launch(stream, per_row(most), swiglu_backward_kernel<T>, io.dx, io.dy, io.x, rows, dim);
  });
}

void add(const OpCall& call, Stream* stream) {
  with_buffers<op::Add>(call, [&]<class T>(const op::Add<float, T>& io) {
    launch(stream, per_row(call.attrs->rows), add_kernel<T>, io.y, io.a, io.b, call.attrs->dim);
  });
}

void scale_rows(const OpCall& call, Stream* stream) {
  with_buffers<op::ScaleRows>(call, [&]<class T>(const op::ScaleRows<float, T>& io) {
    launch(stream, per_row(call.attrs->rows), scale_rows_kernel<T>, io.y, io.x, io.c, call.attrs->dim);
  });
}

void gated_add(const OpCall& call, Stream* stream) {
  with_buffers<op::GatedAdd>(call, [&]<class T>(const op::GatedAdd<float, T>& io) {
    const Attrs& a = *call.attrs;
    const GatedSum<T> p{
        .y = io.y, .a = io.a, .s = io.s, .m = io.m, .c = io.c, .dim = a.dim, .coefficients = a.coefficients};
    launch(stream, per_row(a.rows), gated_add_kernel<T>, p);
  });
}

}  // namespace scmoe::cuda
