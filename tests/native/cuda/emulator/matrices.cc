// Tensor cores: each lane computes its part of the result from the parts of all lanes.
#include "cuda_bf16.h"

namespace scmoe::emulator {
namespace {

float half_of(uint32_t pair, int which) {
  return __bfloat162float({static_cast<uint16_t>(pair >> 16 * which)});
}

}  // namespace

int64_t matrices_multiplied = 0;

void multiply_matrices(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  matrices_multiplied++;
  const uint32_t mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
  const Words* words = exchange(Together::kMatrix, mine, sizeof mine);
  const int g = static_cast<int>(lane() / 4), t = static_cast<int>(lane() % 4);
  for (int i = 0; i < 4; i++) {
    const int lower = i / 2, column = 2 * t + i % 2;  // row g, or g + 8
    for (int k = 0; k < 16; k++) {
      const int of_a = 4 * g + k % 8 / 2, of_b = 4 * column + k % 8 / 2;
      c[i] += half_of(words[of_a][k / 8 * 2 + lower], k % 2) * half_of(words[of_b][4 + k / 8], k % 2);
    }
  }
}

void read_matrices(uint32_t (&r)[4], const void* row, bool turned) {
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0) fail("a matrix row that is not 16-byte aligned");
  const Words* words = exchange(Together::kLoadMatrix, &row, sizeof row);
  const int g = static_cast<int>(lane() / 4), t = static_cast<int>(lane() % 4);
  for (int i = 0; i < 4; i++) {
    uint16_t pair[2];
    for (int j = 0; j < 2; j++) {
      const int at_row = turned ? 2 * t + j : g, at_column = turned ? g : 2 * t + j;
      const uint16_t* from;
      std::memcpy(&from, words[8 * i + at_row], sizeof from);
      pair[j] = from[at_column];
    }
    r[i] = pair[0] | uint32_t{pair[1]} << 16;
  }
}

}  // namespace scmoe::emulator
