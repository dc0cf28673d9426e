// The part of <cuda_runtime.h> that the sources of worker/native/cuda use, on the host. Streams run
// their work at once, in order.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "emulator.h"

#define threadIdx (::scmoe::emulator::place.thread)
#define blockIdx (::scmoe::emulator::place.block)
#define blockDim (::scmoe::emulator::place.threads)
#define gridDim (::scmoe::emulator::place.blocks)

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

inline void __syncthreads(std::source_location where = std::source_location::current()) {
  scmoe::emulator::block_barrier(where);
}
inline void __syncwarp() {
  scmoe::emulator::exchange(scmoe::emulator::Together::kSync, nullptr, 0);
}
template <class T>
T __shfl_sync(unsigned, T value, int source) {
  return scmoe::emulator::shuffle(value, static_cast<unsigned>(source));
}
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return scmoe::emulator::shuffle(value, scmoe::emulator::lane() ^ static_cast<unsigned>(mask));
}
// Lanes below the distance keep their own value.
template <class T>
T __shfl_up_sync(unsigned, T value, unsigned distance) {
  const unsigned lane = scmoe::emulator::lane();
  return scmoe::emulator::shuffle(value, lane < distance ? lane : lane - distance);
}
inline unsigned __ballot_sync(unsigned, int predicate) {
  const uint32_t word = predicate != 0;
  const auto* words = scmoe::emulator::exchange(scmoe::emulator::Together::kVote, &word, sizeof word);
  unsigned votes = 0;
  for (unsigned i = 0; i < 32; i++) votes |= words[i][0] << i;
  return votes;
}
inline int __popc(unsigned x) {
  return __builtin_popcount(x);
}
inline int __ffs(unsigned x) {
  return __builtin_ffs(static_cast<int>(x));
}

inline float __expf(float x) {
  return std::exp(x);
}
inline float __fdividef(float x, float y) {
  return x / y;
}
inline float rsqrtf(float x) {
  return 1 / std::sqrt(x);
}
inline void sincosf(float x, float* sine, float* cosine) {
  *sine = std::sin(x);
  *cosine = std::cos(x);
}

struct CUstream_st;
using cudaStream_t = CUstream_st*;
enum cudaError_t { cudaSuccess = 0, cudaErrorMemoryAllocation = 2 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
inline const char* cudaGetErrorString(cudaError_t) {
  return "an error";
}
inline cudaError_t cudaGetLastError() {
  return cudaSuccess;
}
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel*, cudaFuncAttribute, int) {
  return cudaSuccess;
}
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = nullptr;
  return cudaSuccess;
}
constexpr unsigned cudaStreamNonBlocking = 1;
inline cudaError_t cudaStreamDestroy(cudaStream_t) {
  return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) {
  return cudaSuccess;
}
inline cudaError_t cudaMalloc(void** memory, size_t bytes) {
  *memory = std::malloc(bytes);
  return *memory ? cudaSuccess : cudaErrorMemoryAllocation;
}
inline cudaError_t cudaFree(void* memory) {
  std::free(memory);
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t) {
  std::memset(memory, value, bytes);
  return cudaSuccess;
}
