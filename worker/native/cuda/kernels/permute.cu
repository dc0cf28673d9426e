// Copies tokens to routed rows and back. Rows before dispatch are in order of global expert, then
// slot.
#include "cuda/ops.cuh"

namespace scmoe::cuda {
namespace {

constexpr int kThreads = 128;

struct Routing {
  const int32_t *expert, *slot, *counts;  // [rows, k], [rows, k], [experts]
  int64_t k, capacity;

  // row(n, i) of choice n * k + i, or -1 if it was dropped. All lanes of a warp must ask for the
  // same choice.
  __device__ int64_t row(int64_t choice) const {
    int before = 0;
    for (int e = static_cast<int>(threadIdx.x % kWarp); e < expert[choice]; e += kWarp)
      before += static_cast<int>(least<int64_t>(counts[e], capacity));
    before = warp_sum(before);
    return slot[choice] < 0 ? -1 : before + slot[choice];
  }
};

struct Copy {
  __device__ float operator()(float x) const { return x; }
};
struct Scale {
  float by;
  __device__ float operator()(float x) const { return by * x; }
};
struct Weigh {
  float first, second;
  __device__ float operator()(float x) const { return first * x; }
  __device__ float operator()(float x, float y) const { return first * x + second * y; }
};
struct Sum {
  __device__ float operator()(float x) const { return x; }
  __device__ float operator()(float x, float y) const { return x + y; }
  __device__ float operator()(float x, float y, float z) const { return x + y + z; }
};
struct Nothing {
  __device__ float operator()() const { return 0; }
};

// The rows of a token's choices that were not dropped. first_is is the choice (0 or 1) that the
// first of them was.
template <class T>
struct Kept {
  const T *first = nullptr, *second = nullptr;
  int count = 0, first_is = 0;
};
template <class T>
__device__ Kept<T> kept_of(const T* rows, const Routing& routing, int64_t n, int64_t dim) {
  const int64_t a = routing.row(n * routing.k), b = routing.k > 1 ? routing.row(n * routing.k + 1) : -1;
  if (a >= 0 && b >= 0) return {rows + a * dim, rows + b * dim, 2, 0};
  if (a >= 0) return {rows + a * dim, nullptr, 1, 0};
  if (b >= 0) return {rows + b * dim, nullptr, 1, 1};
  return {};
}

// A block for each choice.
template <class T>
__global__ void permute_kernel(T* rows, const T* x, Routing routing, int64_t dim) {
  const int64_t row = routing.row(blockIdx.x);
  if (row >= 0) map_row(dim, Copy{}, rows + row * dim, x + blockIdx.x / routing.k * dim);
}

// A block for each token.
template <class T>
__global__ void permute_backward_kernel(T* dx, const T* drows, Routing routing, int64_t dim, bool accumulate) {
  const int64_t n = blockIdx.x;
  const Kept<T> kept = kept_of(drows, routing, n, dim);
  T* to = dx + n * dim;
  if (accumulate) {
    if (kept.count == 1) map_row(dim, Sum{}, to, to, kept.first);
    if (kept.count == 2) map_row(dim, Sum{}, to, to, kept.first, kept.second);
  } else {
    if (kept.count == 0) map_row(dim, Nothing{}, to);
    if (kept.count == 1) map_row(dim, Sum{}, to, kept.first);
    if (kept.count == 2) map_row(dim, Sum{}, to, kept.first, kept.second);
  }
}

// A block for each token.
template <class T>
__global__ void unpermute_kernel(T* y, const T* rows, Routing routing, const float* weight, int64_t dim) {
  const int64_t n = blockIdx.x;
  const Kept<T> kept = kept_of(rows, routing, n, dim);
  const float *weights = weight + n * routing.k, first = weights[kept.first_is];
  T* to = y + n * dim;
  if (kept.count == 0) map_row(dim, Nothing{}, to);
  if (kept.count == 1) map_row(dim, Weigh{first, 0}, to, kept.first);
  if (kept.count == 2) map_row(dim, Weigh{first, weights[1]}, to, kept.first, kept.second);
}

template <class T>
struct UnpermuteBackward {
  T* drows;             // [routed, dim]
  float* dweight;       // [rows, k]
  const T *dy, *rows;   // [rows, dim], [routed, dim]
  const float* weight;  // [rows, k]
  Routing routing;
  int64_t dim;
};

// A block for each choice.
template <class T>
__global__ void unpermute_backward_kernel(UnpermuteBackward<T> p) {
  const int64_t choice = blockIdx.x, row = p.routing.row(choice);
  if (row < 0) {
    if (threadIdx.x == 0) p.dweight[choice] = 0;
    return;
  }
  const T *dy = p.dy + choice / p.routing.k * p.dim, *x = p.rows + row * p.dim;
  float inner = 0;
  for (int64_t j = threadIdx.x; j < p.dim; j += kThreads) inner += load(dy[j]) * load(x[j]);
  inner = block_sum<kThreads>(inner);
  if (threadIdx.x == 0) p.dweight[choice] = inner;
  map_row(p.dim, Scale{p.weight[choice]}, p.drows + row * p.dim, dy);
}

// `io` has the buffers expert, slot and counts.
template <class Buffers>
Routing routing_of(const Attrs& a, const Buffers& io) {
  return {.expert = io.expert, .slot = io.slot, .counts = io.counts, .k = a.topK, .capacity = a.capacity};
}

}  // namespace

void permute(const OpCall& call, Stream* stream) {
  with_buffers<op::Permute>(call, [&]<class T>(const op::Permute<float, T>& io) {
    const Attrs& a = *call.attrs;
    launch(stream, per_row(a.rows * a.topK, kThreads), permute_kernel<T>, io.rows, io.x, routing_of(a, io), a.dim);
  });
}

void permute_backward(const OpCall& call, Stream* stream) {
  with_buffers<op::PermuteBackward>(call, [&]<class T>(const op::PermuteBackward<float, T>& io) {
    const Attrs& a = *call.attrs;
    launch(stream, per_row(a.rows, kThreads), permute_backward_kernel<T>, io.dx, io.drows, routing_of(a, io), a.dim,
           a.accumulate != 0);
  });
}

void unpermute(const OpCall& call, Stream* stream) {
  with_buffers<op::Unpermute>(call, [&]<class T>(const op::Unpermute<float, T>& io) {
    const Attrs& a = *call.attrs;
    launch(stream, per_row(a.rows, kThreads), unpermute_kernel<T>, io.y, io.rows, routing_of(a, io), io.weight, a.dim);
  });
}

void unpermute_backward(const OpCall& call, Stream* stream) {
  with_buffers<op::UnpermuteBackward>(call, [&]<class T>(const op::UnpermuteBackward<float, T>& io) {
    const Attrs& a = *call.attrs;
    const UnpermuteBackward<T> p{.drows = io.drows,
                                 .dweight = io.dweight,
                                 .dy = io.dy,
                                 .rows = io.rows,
                                 .weight = io.weight,
                                 .routing = routing_of(a, io),
                                 .dim = a.dim};
    launch(stream, per_row(a.rows * a.topK, kThreads), unpermute_backward_kernel<T>, p);
  });
}

}  // namespace scmoe::cuda
