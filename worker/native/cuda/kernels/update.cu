// Ops over parameters and gradients: copies, zero, norms, AdamW.
#include "cuda/ops.cuh"

namespace scmoe::cuda {
namespace {

constexpr int kThreads = 256, kBuffers = 32, kBlocks = 32;
constexpr int kPack = 4;           // elements that a thread copies at once
constexpr int kMostCopies = 1024;  // blocks for one buffer: more than a device runs at once

// As many copies as the parameters of a launch have room for.
template <class T>
struct Copies {
  T* to[kBuffers];
  const float* from[kBuffers];
  int64_t elements[kBuffers];
};

// Blocks (part, buffer). Parts beyond the end of a short buffer have nothing to do.
template <class T>
__global__ void cast_kernel(Copies<T> p) {
  T* to = p.to[blockIdx.y];
  const float* from = p.from[blockIdx.y];
  const int64_t count = p.elements[blockIdx.y], packs = count / kPack;
  for (int64_t i = global_thread(); i < packs; i += all_threads()) {
    const Pack<float, kPack> pack = reinterpret_cast<const Pack<float, kPack>*>(from)[i];
    Pack<T, kPack> result;
#pragma unroll
    for (int j = 0; j < kPack; j++) result.value[j] = rounded<T>(pack.value[j]);
    reinterpret_cast<Pack<T, kPack>*>(to)[i] = result;
  }
  for (int64_t i = packs * kPack + global_thread(); i < count; i += all_threads()) to[i] = rounded<T>(from[i]);
}

// As many buffers as the parameters of a launch have room for.
struct Buffers {
  const float* data[kBuffers];
  int64_t elements[kBuffers];
};

// partials[i, block] = sum of squares of a block's share of buffer i. Blocks (share, buffer).
__global__ void square_partials(Buffers buffers, double* partials) {
  const float* x = buffers.data[blockIdx.y];
  double sum = 0;
  for (int64_t i = global_thread(); i < buffers.elements[blockIdx.y]; i += all_threads())
    sum += static_cast<double>(x[i]) * x[i];
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) partials[blockIdx.y * kBlocks + blockIdx.x] = sum;
}

// Runs in one block.
__global__ void sum_kernel(const double* partials, int64_t count, float* y) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) sum += partials[i];
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) *y = static_cast<float>(sum);
}

__global__ void global_norm_kernel(const float* dense, const float* expert, float* norm) {
  *norm = sqrtf(*dense + *expert);
}

struct Adam {
  float *w, *m, *v;
  const float *g, *hyper, *norm;
  int64_t elements;
  float beta1, beta2, epsilon, decay, clip;
};

__global__ void adamw_kernel(Adam p) {
  const int64_t i = global_thread();
  if (i >= p.elements) return;
  const float rate = p.hyper[0], correction1 = p.hyper[1], correction2 = p.hyper[2];
  const float g = p.g[i] * least(1.0f, p.clip / *p.norm);
  const float m = p.beta1 * p.m[i] + (1 - p.beta1) * g;
  const float v = p.beta2 * p.v[i] + (1 - p.beta2) * g * g;
  p.m[i] = m, p.v[i] = v;
  p.w[i] -= rate * (m / correction1 / (sqrtf(v / correction2) + p.epsilon) + p.decay * p.w[i]);
}

}  // namespace

void cast(const OpCall& call, Stream* stream) {
  with_buffers<op::Cast>(call, [&]<class T>(const op::Cast<float, T>& io) {
    for (int first = 0; first < io.buffers.size; first += kBuffers) {
      Copies<T> copies{};
      const int count = least(kBuffers, io.buffers.size - first);
      int64_t most = 0;
      for (int i = 0; i < count; i++) {
        copies.to[i] = io.copies[first + i], copies.from[i] = io.buffers[first + i];
        copies.elements[i] = io.buffers.elements[first + i];
        most = greatest(most, copies.elements[i]);
      }
      const int64_t parts = least<int64_t>(kMostCopies, ceil_div(most, int64_t{kThreads} * kPack));
      const dim3 blocks(static_cast<unsigned>(parts), static_cast<unsigned>(count));
      launch(stream, {blocks, dim3(kThreads)}, cast_kernel<T>, copies);
    }
  });
}

void zero(const OpCall& call, Stream* stream) {
  const op::Zero<> io(call);
  for (int i = 0; i < io.buffers.size; i++) {
    const size_t width = io.buffers.types[i] == DType::kBF16 ? 2 : 4;
    const size_t bytes = static_cast<size_t>(io.buffers.elements[i]) * width;
    check(cudaMemsetAsync(io.buffers[i], 0, bytes, device(stream).stream), "cudaMemset");
  }
}

void square_sum(const OpCall& call, Stream* stream) {
  const op::SquareSum<> io(call);
  const int64_t size = io.buffers.size;
  double* partials = scratch_of<double>(stream, size * kBlocks);
  for (int first = 0; first < io.buffers.size; first += kBuffers) {
    Buffers buffers{};
    const int count = least(kBuffers, io.buffers.size - first);
    for (int i = 0; i < count; i++) {
      buffers.data[i] = io.buffers[first + i];
      buffers.elements[i] = io.buffers.elements[first + i];
    }
    launch(stream, {dim3(kBlocks, static_cast<unsigned>(count)), dim3(kThreads)}, square_partials, buffers,
           partials + static_cast<int64_t>(first) * kBlocks);
  }
  launch(stream, {dim3(1), dim3(kThreads)}, sum_kernel, static_cast<const double*>(partials), size * kBlocks, io.y);
}

void global_norm(const OpCall& call, Stream* stream) {
  const op::GlobalNorm<> io(call);
  launch(stream, {dim3(1), dim3(1)}, global_norm_kernel, io.dense, io.expert, io.norm);
}

void adamw(const OpCall& call, Stream* stream) {
  const Attrs& a = *call.attrs;
  const op::Adamw<> io(call);
  const Adam p{.w = io.w,
               .m = io.m,
               .v = io.v,
               .g = io.g,
               .hyper = io.hyper,
               .norm = io.norm,
               .elements = a.elements,
               .beta1 = a.beta1,
               .beta2 = a.beta2,
               .epsilon = a.epsilon,
               .decay = a.weightDecay,
               .clip = a.clip};
  launch(stream, grid_of(a.elements), adamw_kernel, p);
}

}  // namespace scmoe::cuda
