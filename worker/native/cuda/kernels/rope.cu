// Rotary positions, in place: a block for each token, which computes its angles once for all heads.
#include "cuda/attention.cuh"
#include "cuda/ops.cuh"

namespace scmoe::cuda {
namespace {

constexpr int kThreads = 128;

template <class T>
__global__ void rope_kernel(T* qkv, Heads s, float base, bool inverse) {
  const int64_t half = s.head_dim / 2, t = blockIdx.x % s.sequence, turned = s.heads + s.shared_heads();
  float *cosines = shared_memory<float>(), *sines = cosines + half;
  for (int64_t j = threadIdx.x; j < half; j += kThreads) {
    // The angle is in double, because the error of a float grows with the position.
    const double angle = static_cast<double>(t) * pow(static_cast<double>(base),
                                                      -2.0 * static_cast<double>(j) / static_cast<double>(s.head_dim));
    cosines[j] = static_cast<float>(cos(angle));
    sines[j] = static_cast<float>(inverse ? -sin(angle) : sin(angle));
  }
  __syncthreads();
  T* row = qkv + blockIdx.x * s.row;
  for (int64_t i = threadIdx.x; i < turned * half; i += kThreads) {
    const int64_t j = i % half;
    T *low = row + i / half * s.head_dim + j, *high = low + half;
    const float x = load(*low), y = load(*high);
    *low = rounded<T>(x * cosines[j] - y * sines[j]);
    *high = rounded<T>(y * cosines[j] + x * sines[j]);
  }
}

}  // namespace

void rope(const OpCall& call, Stream* stream) {
  with_buffers<op::Rope>(call, [&]<class T>(const op::Rope<float, T>& io) {
    const Attrs& a = *call.attrs;
    const Heads s = heads_of(a);
    Grid grid = per_row(a.batch * a.sequence, kThreads);
    grid.shared_bytes = static_cast<size_t>(s.head_dim) * sizeof(float);
    launch(stream, grid, rope_kernel<T>, io.qkv, s, a.base, a.inverse != 0);
  });
}

}  // namespace scmoe::cuda
