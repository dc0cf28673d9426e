#include "columns.cuh"

namespace scmoe::cuda {

__global__ void add_partials(const float* partials, int64_t slices, int64_t columns, float* out) {
  const int64_t j = global_thread();
  if (j >= columns) return;
  float sum = 0;
  for (int64_t s = 0; s < slices; s++) sum += partials[s * columns + j];
  out[j] += sum;
}

}  // namespace scmoe::cuda
