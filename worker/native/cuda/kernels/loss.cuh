// Sums over tokens that end in one number.
#pragma once

#include "cuda/device.cuh"

namespace scmoe::cuda {

constexpr int kLossBlocks = 64, kLossThreads = 256;

// value (+)= scale * sum
struct Loss {
  float* value;
  double scale;
  bool accumulate;
};

template <class F>
__global__ void loss_partials(F value, int64_t count, double* partials) {
  double sum = 0;
  for (int64_t i = global_thread(); i < count; i += all_threads()) sum += value(i);
  sum = block_sum<kLossThreads>(sum);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

// Runs in one thread.
__global__ void finish_loss(const double* partials, int64_t count, Loss loss);

// partials: [kLossBlocks]
template <class F>
void sum_loss(Stream* stream, F value, int64_t count, Loss loss, double* partials) {
  launch(stream, {dim3(kLossBlocks), dim3(kLossThreads)}, loss_partials<F>, value, count, partials);
  launch(stream, {dim3(1), dim3(1)}, finish_loss, static_cast<const double*>(partials),
         static_cast<int64_t>(kLossBlocks), loss);
}

// share[e] = f_e, the share of the world's choices that fell on expert e: [experts]
void load_share(Stream* stream, const Attrs& attrs, const int32_t* all_counts, float* share);

}  // namespace scmoe::cuda
