// Where routed rows lie: the two orders of worker/program/ops.ts.
#pragma once

#include "cpu/kernels.h"

namespace scmoe::SCMOE_ISA {

// The experts of this rank and the ranks that send to them.
struct Group {
  int64_t experts, capacity;
  int64_t local_experts, first_expert;
  int64_t first_rank, num_ranks;
};

inline Group group_of(const Attrs& a) {
  const int64_t size = a.expertParallelSize, local = a.experts / size;
  return {a.experts, a.capacity, local, a.rank % size * local, a.rank / size * size, size};
}

// Rows of a local expert after dispatch. all_counts: [world size, experts].
inline int64_t rows_of(const Group& group, const int32_t* all_counts, int64_t local_expert) {
  int64_t rows = 0;
  for (int64_t q = group.first_rank; q < group.first_rank + group.num_ranks; q++)
    rows += min(all_counts[q * group.experts + group.first_expert + local_expert], group.capacity);
  return rows;
}

// Routed rows of this rank after dispatch.
inline int64_t rows_of(const Group& group, const int32_t* all_counts) {
  int64_t rows = 0;
  for (int64_t e = 0; e < group.local_experts; e++) rows += rows_of(group, all_counts, e);
  return rows;
}

// first[e] = first routed row of expert e before dispatch.
inline void first_rows(const int32_t* counts, int64_t experts, int64_t capacity, int64_t* first) {
  int64_t row = 0;
  for (int64_t e = 0; e < experts; e++) {
    first[e] = row;
    row += min(counts[e], capacity);
  }
}

}  // namespace scmoe::SCMOE_ISA
