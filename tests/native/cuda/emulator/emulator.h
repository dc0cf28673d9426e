// CUDA's device code on the host: every thread of a block is a fiber. Blocks, warps and lanes run
// in an order that is drawn at random (SCMOE_EMULATOR_SEED). Between two __syncthreads the warps
// have an order of precedence: the first runs as far as it can before the second begins, so they
// are as far apart as they can be on a GPU. If a __syncthreads is missing between the write of one
// thread and the read of another, the read finds the old value in some of these orders. One
// operating system thread runs everything, inside the launch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <source_location>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __shared__ static

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace scmoe::emulator {

struct Place {
  uint3 thread, block;
  dim3 threads, blocks;
};
extern Place place;  // the place of the running fiber

// Runs body once for every thread of every block. A block has exactly shared_bytes of shared
// memory, which is poisoned before each block.
void launch(dim3 blocks, dim3 threads, size_t shared_bytes, const std::function<void()>& body);
void* shared_memory();

// The operations that lanes of a warp do together. The words of one exchange can be read until the
// lane's exchange after next.
enum class Together : uint8_t { kSync, kShuffle, kVote, kMatrix, kLoadMatrix };
constexpr size_t kWords = 16;
using Words = uint32_t[kWords];
const Words* exchange(Together what, const void* value, size_t bytes);  // [32], by lane
// A barrier, unless SCMOE_EMULATOR_LEAVE_OUT names it as "FILE.cu:LINE". A test measures the
// emulator by the left-out barriers that it finds.
void block_barrier(const std::source_location& where);
unsigned lane();

// Copies that arrive at once, or when their thread next waits for their group.
void copy_async(void* to, const void* from, size_t bytes, size_t valid_bytes);
void copy_async_commit();
void copy_async_wait(int groups_left);

// Tensor cores. worker/native/cuda/products/matrix.cuh says which parts of the matrices each lane
// holds.
extern int64_t matrices_multiplied;  // by all lanes, since the start
void multiply_matrices(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
void read_matrices(uint32_t (&r)[4], const void* row, bool turned);

uint64_t random();
[[noreturn]] void fail(const char* what);

template <class T>
T shuffle(T value, unsigned source) {
  static_assert(sizeof(T) <= sizeof(Words));
  const Words* words = exchange(Together::kShuffle, &value, sizeof(T));
  std::memcpy(&value, words[source % 32], sizeof(T));
  return value;
}

}  // namespace scmoe::emulator
