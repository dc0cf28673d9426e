// The base of all kernels: element types, sums over warps and blocks in an order that never
// changes, and launches.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "backend.h"
#include "stream.h"

namespace scmoe::cuda {

using bf16 = __nv_bfloat16;

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// --- Elements. Kernels compute in float, whatever the type of a buffer.

__device__ inline float load(float x) {
  return x;
}
__device__ inline float load(bf16 x) {
  return __bfloat162float(x);
}
template <class T>
__device__ T rounded(float x) {
  if constexpr (sizeof(T) == sizeof(float)) {
    return x;
  } else {
    return __float2bfloat16(x);
  }
}

// Elements that are read or written at once.
template <class T, int kSize>
struct alignas(sizeof(T) * kSize) Pack {
  T value[kSize];
};

// y[i] = f(x[i]...) for i < dim, by all threads of a block. If dim is a multiple of a pack, a
// thread takes 16 bytes of the widest type at a time. Packs are aligned then, because rows begin at
// multiples of dim in 16-byte aligned buffers.
template <class F, class T, class... X>
__device__ void map_row(int64_t dim, F f, T* y, const X*... x) {
  constexpr int kPack = (sizeof(T) == 2 && (... && (sizeof(X) == 2))) ? 8 : 4;
  if (dim % kPack == 0) {
    for (int64_t i = threadIdx.x; i < dim / kPack; i += blockDim.x) {
      Pack<T, kPack> result;
      const auto apply = [&](const auto&... packs) {
#pragma unroll
        for (int j = 0; j < kPack; j++) result.value[j] = rounded<T>(f(load(packs.value[j])...));
      };
      apply(reinterpret_cast<const Pack<X, kPack>*>(x)[i]...);
      reinterpret_cast<Pack<T, kPack>*>(y)[i] = result;
    }
  } else {
    for (int64_t i = threadIdx.x; i < dim; i += blockDim.x) y[i] = rounded<T>(f(load(x[i])...));
  }
}

template <class T>
__host__ __device__ constexpr T least(T a, T b) {
  return b < a ? b : a;
}
template <class T>
__host__ __device__ constexpr T greatest(T a, T b) {
  return a < b ? b : a;
}
__host__ __device__ constexpr int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// A sum of many terms: blocks of kTerms terms, each from zero, are added one after another. One
// float that takes up every term would round each to the size of the whole sum.
class LongSum {
 public:
  __device__ void add(float term) {
    part_ += term;
    if (++terms_ < kTerms) return;
    sum_ += part_;
    part_ = 0, terms_ = 0;
  }
  __device__ float value() const { return sum_ + part_; }

 private:
  static constexpr int kTerms = 256;
  float sum_ = 0, part_ = 0;
  int terms_ = 0;
};

// --- Warps and blocks. All threads of the warp, or of the block, must call; all get the result.

template <class T>
__device__ T warp_sum(T x) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(kAllLanes, x, distance);
  return x;
}

__device__ inline float warp_max(float x) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) x = greatest(x, __shfl_xor_sync(kAllLanes, x, distance));
  return x;
}

// The block must have kThreads threads in x.
template <int kThreads, class T>
__device__ T block_sum(T x) {
  __shared__ T sums[kThreads / kWarp];
  x = warp_sum(x);
  __syncthreads();  // the sums of an earlier call must have been read
  if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp] = x;
  __syncthreads();
  T total = sums[0];
  for (int i = 1; i < kThreads / kWarp; i++) total += sums[i];
  return total;
}

template <int kThreads>
__device__ float block_max(float x) {
  __shared__ float tops[kThreads / kWarp];
  x = warp_max(x);
  __syncthreads();  // the maxima of an earlier call must have been read
  if (threadIdx.x % kWarp == 0) tops[threadIdx.x / kWarp] = x;
  __syncthreads();
  float top = tops[0];
  for (int i = 1; i < kThreads / kWarp; i++) top = greatest(top, tops[i]);
  return top;
}

// The launch's dynamic shared memory, 16-byte aligned.
template <class T>
__device__ T* shared_memory() {
#ifdef SCMOE_EMULATED
  return static_cast<T*>(emulator::shared_memory());
#else
  extern __shared__ __align__(16) unsigned char memory[];
  return reinterpret_cast<T*>(memory);
#endif
}

__device__ inline int64_t global_thread() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ inline int64_t global_warp() {
  return global_thread() / kWarp;
}
__device__ inline int64_t all_threads() {
  return static_cast<int64_t>(gridDim.x) * blockDim.x;
}

// --- Launches.

constexpr size_t kSharedWithoutAsking = 48 * 1024;

struct Grid {
  dim3 blocks, threads;
  size_t shared_bytes = 0;
};

// Enough threads for `count` of them in one dimension.
inline Grid grid_of(int64_t count, int threads = 256) {
  return {dim3(static_cast<unsigned>(ceil_div(count, threads))), dim3(static_cast<unsigned>(threads))};
}

// A block for each row.
inline Grid per_row(int64_t rows, int threads = 128) {
  return {dim3(static_cast<unsigned>(rows)), dim3(static_cast<unsigned>(threads))};
}

// A warp for each row; a block has kRowWarps warps.
constexpr int kRowWarps = 4;
inline Grid warp_per_row(int64_t rows) {
  return {dim3(static_cast<unsigned>(ceil_div(rows, kRowWarps))), dim3(kRowWarps * kWarp)};
}

// If there are no blocks, nothing is launched: a rank may have no rows.
template <class... Parameters, class... Arguments>
void launch(Stream* stream, const Grid& grid, void (*kernel)(Parameters...), Arguments... arguments) {
  if (grid.blocks.x == 0 || grid.blocks.y == 0 || grid.blocks.z == 0) return;
  if (grid.shared_bytes > kSharedWithoutAsking)
    check(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(grid.shared_bytes)),
        "shared memory of a kernel");
#ifdef SCMOE_EMULATED
  (void)stream;
  emulator::launch(grid.blocks, grid.threads, grid.shared_bytes, [&] { kernel(arguments...); });
#else
  cudaLaunchConfig_t config{};
  config.gridDim = grid.blocks, config.blockDim = grid.threads, config.dynamicSmemBytes = grid.shared_bytes;
  config.stream = device(stream).stream;
  check(cudaLaunchKernelEx(&config, kernel, arguments...), "launch of a kernel");
#endif
}

// --- Buffers of a call.

// Calls body with a struct of ops.generated.h whose activations have the type that the call has:
//   with_buffers<op::Gelu>(call, [&]<class T>(const op::Gelu<float, T>& io) { ... });
template <template <class, class> class Buffers, class Body>
void with_buffers(const OpCall& call, const Body& body) {
  if (Buffers<float, float>::activation_type(call) == DType::kBF16) {
    body(Buffers<float, bf16>(call));
  } else {
    body(Buffers<float, float>(call));
  }
}

}  // namespace scmoe::cuda
