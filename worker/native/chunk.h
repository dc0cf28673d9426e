// Chunks of routed rows (worker/program/ops.ts). Of the K rows that one source rank sends to one
// expert, chunk i of c has the slots floor(K i / c) .. floor(K (i + 1) / c) - 1. The all-to-all and
// the kernels share this formula.
#pragma once

#include <cstdint>

namespace scmoe {

struct ChunkRange {
  int64_t first, count;
};

// rows < 2^31, 0 <= chunk < chunks <= 1024. Always inlined, because kernel files, which are
// compiled for several instruction sets, must not share a function.
__attribute__((always_inline)) inline ChunkRange chunk_range(int64_t rows, int64_t chunk, int64_t chunks) {
  const int64_t first = rows * chunk / chunks;
  return {first, rows * (chunk + 1) / chunks - first};
}

}  // namespace scmoe
