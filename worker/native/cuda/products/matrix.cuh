// Tensor cores for bf16: the warp-wide instructions of sm_80 and later, and tiles in shared memory
// in the layout that these read.
#pragma once

#include "cuda/device.cuh"

namespace scmoe::cuda {

// --- Instructions. Below, g = l / 4 and t = l % 4 for lane l.

// c [16, 8] += a [16, 16] b [16, 8], summed in float. Each lane holds these parts:
//   a   rows g and g + 8 at columns 2t, 2t + 1 (a[0], a[1]) and at 2t + 8, 2t + 9 (a[2], a[3])
//   b   column g at rows 2t, 2t + 1 (b[0]) and at rows 2t + 8, 2t + 9 (b[1])
//   c   row g at columns 2t, 2t + 1 (c[0], c[1]), and row g + 8 there (c[2], c[3])
__device__ inline void multiply_matrices(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#ifdef SCMOE_EMULATED
  emulator::multiply_matrices(c, a, b0, b1);
#else
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

// Reads four matrices of 8 x 8. Lane l gives the address of row l % 8 of matrix l / 8. r[i] is row
// g of matrix i at columns 2t, 2t + 1, or, turned, column g at rows 2t, 2t + 1.
template <bool kTurned>
__device__ void read_matrices(uint32_t (&r)[4], const bf16* row) {
#ifdef SCMOE_EMULATED
  emulator::read_matrices(r, row, kTurned);
#else
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (kTurned) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
  }
#endif
}

// Starts to copy 16 bytes from global to shared memory; await_copies waits for them. If `from` is
// null, zeros are written. `somewhere` is any valid address.
__device__ inline void copy_late(bf16* to, const bf16* from, const bf16* somewhere) {
  const int bytes = from ? 16 : 0;
  const bf16* source = from ? from : somewhere;
#ifdef SCMOE_EMULATED
  emulator::copy_async(to, source, 16, static_cast<size_t>(bytes));
#else
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(source), "r"(bytes) : "memory");
#endif
}

// The copies that this thread has started since the last call become a group.
__device__ inline void commit_copies() {
#ifdef SCMOE_EMULATED
  emulator::copy_async_commit();
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most kLeft of this thread's groups are unfinished. Other threads see its copies
// after the next __syncthreads.
template <int kLeft>
__device__ void await_copies() {
#ifdef SCMOE_EMULATED
  emulator::copy_async_wait(kLeft);
#else
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
#endif
}

__device__ inline uint32_t packed(float low, float high) {
  union {
    __nv_bfloat162 pair;
    uint32_t bits;
  } both;
  both.pair = __floats2bfloat162_rn(low, high);
  return both.bits;
}

// --- Tiles in shared memory: rows of kColumns elements, whose 16-byte pieces are exchanged so that
// eight rows at one column are in eight different banks.

constexpr int kPiece = 8;  // elements

template <int kColumns>
struct SharedTile {
  static constexpr int kPieces = kColumns / kPiece;
  static_assert(kPieces == 4 || kPieces % 8 == 0);
  bf16* data;

  __device__ bf16* piece(int row, int p) const {
    const int exchanged = kPieces == 4 ? p ^ (row >> 1 & 3) : p ^ (row & 7);
    return data + row * kColumns + exchanged * kPiece;
  }

  // Reads `a` of multiply_matrices: rows `row` to `row` + 15 of this tile at columns `column` to
  // `column` + 15.
  __device__ void left(uint32_t (&a)[4], int row, int column) const {
    const int l = threadIdx.x % kWarp, i = l / 8;
    read_matrices<false>(a, piece(row + i % 2 * 8 + l % 8, column / kPiece + i / 2));
  }
  // The same from the transpose of the tile: rows are the tile's columns.
  __device__ void left_turned(uint32_t (&a)[4], int row, int column) const {
    const int l = threadIdx.x % kWarp, i = l / 8;
    read_matrices<true>(a, piece(column + i / 2 * 8 + l % 8, row / kPiece + i % 2));
  }
  // Reads `b` of multiply_matrices twice: columns `column` to `column` + 7 (b[0], b[1]) and the
  // next eight (b[2], b[3]), at depths `depth` to `depth` + 15. The tile's rows are the columns of
  // b.
  __device__ void right(uint32_t (&b)[4], int depth, int column) const {
    const int l = threadIdx.x % kWarp, i = l / 8;
    read_matrices<false>(b, piece(column + i / 2 * 8 + l % 8, depth / kPiece + i % 2));
  }
  // The same for a tile whose rows are the depth of b.
  __device__ void right_turned(uint32_t (&b)[4], int depth, int column) const {
    const int l = threadIdx.x % kWarp, i = l / 8;
    read_matrices<true>(b, piece(depth + i % 2 * 8 + l % 8, column / kPiece + i / 2));
  }
};

}  // namespace scmoe::cuda
