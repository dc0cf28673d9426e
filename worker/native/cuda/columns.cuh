// Sums over rows, column by column, in an order that never changes: slices of rows first, then the
// slices.
#pragma once

#include "cuda/device.cuh"

namespace scmoe::cuda {

constexpr int kColumnWarps = 8;

// The number of slices of rows, which depends only on the shape.
inline int64_t row_slices(int64_t rows) {
  return least<int64_t>(64, greatest<int64_t>(1, ceil_div(rows, 4 * kColumnWarps)));
}

// partials[slice, j] = sum of value(n, j) over the rows of a slice.
template <class F>
__global__ void column_partials(F value, int64_t rows, int64_t columns, float* partials) {
  __shared__ float sums[kColumnWarps][kWarp];
  const int64_t j = static_cast<int64_t>(blockIdx.x) * kWarp + threadIdx.x;
  LongSum terms;
  const int64_t first = static_cast<int64_t>(blockIdx.y) * kColumnWarps + threadIdx.y;
  for (int64_t n = first; n < rows && j < columns; n += static_cast<int64_t>(gridDim.y) * kColumnWarps)
    terms.add(value(n, j));
  float sum = terms.value();
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || j >= columns) return;
  for (int i = 1; i < kColumnWarps; i++) sum += sums[i][threadIdx.x];
  partials[blockIdx.y * columns + j] = sum;
}

// out[j] += sum over slices. Defined in columns.cu, because it is no template.
__global__ void add_partials(const float* partials, int64_t slices, int64_t columns, float* out);

struct Matrix {
  int64_t rows, columns;
};

// out[j] += sum over n < rows of value(n, j). It uses the stream's scratch.
template <class F>
void add_column_sums(Stream* stream, F value, Matrix shape, float* out) {
  const int64_t slices = row_slices(shape.rows);
  float* partials = scratch_of<float>(stream, slices * shape.columns);
  const dim3 blocks(static_cast<unsigned>(ceil_div(shape.columns, kWarp)), static_cast<unsigned>(slices));
  launch(stream, {blocks, dim3(kWarp, kColumnWarps)}, column_partials<F>, value, shape.rows, shape.columns, partials);
  launch(stream, grid_of(shape.columns), add_partials, static_cast<const float*>(partials), slices, shape.columns, out);
}

}  // namespace scmoe::cuda
