// Matrix products of bf16 on tensor cores, summed in fp32 over the depth in ascending order. A
// block computes a tile of 128 x 128, whose operands are copied to shared memory three steps ahead.
// Rows must be multiples of 16 bytes.
#pragma once

#include "matrix.cuh"

namespace scmoe::cuda {

constexpr int kTensorTile = 128, kTensorDepth = 32, kStages = 4, kTensorThreads = 256;
constexpr int kWarpRows = 64, kWarpColumns = 32;  // a warp's part: 4 x 4 matrices of 16 x 8
constexpr size_t kTensorShared = size_t{2} * kStages * kTensorTile * kTensorDepth * sizeof(bf16);

// The sums of a lane: [i][j] is c of multiply_matrices at rows 16 i, columns 8 j of the warp's
// part.
using TensorSums = float[4][4][4];

// The operands. at(i, k) returns the address of 8 elements, or null beyond the edges. With kInner,
// elements along the depth are neighbours and the 8 are (i, k) to (i, k + 7). Otherwise elements
// along i are neighbours.
struct InnerRows {
  static constexpr bool kInner = true;
  const bf16* data;
  int64_t first, count, depth;
  __device__ const bf16* at(int i, int64_t k) const {
    return first + i < count && k < depth ? data + (first + i) * depth + k : nullptr;
  }
};
struct GatheredRows {
  static constexpr bool kInner = true;
  const bf16* data;
  const int64_t* rows;  // in shared memory; -1 beyond the edge
  int64_t depth;
  __device__ const bf16* at(int i, int64_t k) const {
    return rows[i] >= 0 && k < depth ? data + rows[i] * depth + k : nullptr;
  }
};
struct OuterRows {
  static constexpr bool kInner = false;
  const bf16* data;
  int64_t first, count, depth;
  __device__ const bf16* at(int i, int64_t k) const {
    return first + i < count && k < depth ? data + k * count + first + i : nullptr;
  }
};

// The tile of a stage: [128][32] if the depth is the inner index, otherwise [32][128].
template <bool kInner>
using Stage = SharedTile<kInner ? kTensorDepth : kTensorTile>;

template <class Operand>
__device__ void copy_stage(const Stage<Operand::kInner>& stage, const Operand& operand, int64_t base) {
  constexpr int kPieces = Stage<Operand::kInner>::kPieces;
  for (int i = threadIdx.x; i < kTensorTile * kTensorDepth / kPiece; i += kTensorThreads) {
    const int row = i / kPieces, p = i % kPieces;
    const bf16* from = Operand::kInner ? operand.at(row, base + p * kPiece) : operand.at(p * kPiece, base + row);
    copy_late(stage.piece(row, p), from, operand.data);
  }
}

template <bool kLeftInner, bool kRightInner>
__device__ void multiply_stage(TensorSums& sums, const Stage<kLeftInner>& left, const Stage<kRightInner>& right) {
  const int warp = threadIdx.x / kWarp, row = warp / 4 * kWarpRows, column = warp % 4 * kWarpColumns;
#pragma unroll
  for (int k = 0; k < kTensorDepth; k += 16) {
    uint32_t a[4][4], b[2][4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      if constexpr (kLeftInner) {
        left.left(a[i], row + 16 * i, k);
      } else {
        left.left_turned(a[i], row + 16 * i, k);
      }
    }
#pragma unroll
    for (int j = 0; j < 2; j++) {
      if constexpr (kRightInner) {
        right.right(b[j], k, column + 16 * j);
      } else {
        right.right_turned(b[j], k, column + 16 * j);
      }
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
      for (int j = 0; j < 4; j++) multiply_matrices(sums[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
  }
}

// sums = left [128, depth] right [depth, 128]. It uses kTensorShared bytes of the launch's shared
// memory.
template <class Left, class Right>
__device__ void multiply_tensor_tile(TensorSums& sums, const Left& left, const Right& right, int64_t depth) {
  constexpr int kElements = kTensorTile * kTensorDepth;
  bf16* const memory = shared_memory<bf16>();
  const auto left_stage = [&](int64_t s) { return Stage<Left::kInner>{memory + s % kStages * 2 * kElements}; };
  const auto right_stage = [&](int64_t s) { return Stage<Right::kInner>{memory + (s % kStages * 2 + 1) * kElements}; };
  const int64_t steps = ceil_div(depth, kTensorDepth);
  const auto copy = [&](int64_t s) {
    if (s < steps) {
      copy_stage(left_stage(s), left, s * kTensorDepth);
      copy_stage(right_stage(s), right, s * kTensorDepth);
    }
    commit_copies();
  };
  for (int s = 0; s < kStages - 1; s++) copy(s);
  for (int64_t s = 0; s < steps; s++) {
    await_copies<kStages - 2>();
    // All threads see this step's copies, and all have read the stage that is filled next.
    __syncthreads();
    copy(s + kStages - 1);
    multiply_stage<Left::kInner, Right::kInner>(sums, left_stage(s), right_stage(s));
  }
  await_copies<0>();
}

// Calls body(m, n, first, second) for each pair of neighbours (m, n), (m, n + 1) of the tile that a
// lane holds.
template <class Body>
__device__ void each_pair(const TensorSums& sums, const Body& body) {
  const int warp = threadIdx.x / kWarp, l = threadIdx.x % kWarp;
  const int row = warp / 4 * kWarpRows + l / 4, column = warp % 4 * kWarpColumns + l % 4 * 2;
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
      for (int half = 0; half < 2; half++)
        body(row + 16 * i + 8 * half, column + 8 * j, sums[i][j][2 * half], sums[i][j][2 * half + 1]);
}

}  // namespace scmoe::cuda
