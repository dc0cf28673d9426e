// Finds routed rows in the two orders that worker/program/ops.ts describes.
#pragma once

#include "chunk.h"
#include "cpu/kernels.h"

namespace scmoe::SCMOE_ISA {

// The experts of this rank and the ranks that send to them.
struct Group {
  int64_t experts = 0, capacity = 0;
  int64_t local_experts = 0, first_expert = 0;
  int64_t first_rank = 0, num_ranks = 0;
};

inline Group group_of(const Attrs& a) {
  const int64_t size = a.expertParallelSize, local = a.experts / size;
  return {a.experts, a.capacity, local, a.rank % size * local, a.rank / size * size, size};
}

// Rows `first` to `first + count - 1`.
struct Range {
  int64_t first, count;
};

// Ranges in order of rows. Neighbours are joined, and empty ranges are left out.
struct Ranges {
  Range* data;
  int64_t size, rows;

  void add(int64_t first, int64_t count) {
    rows += count;
    if (count > 0 && size > 0 && data[size - 1].first + data[size - 1].count == first) {
      data[size - 1].count += count;
    } else if (count > 0) {
      data[size++] = {first, count};
    }
  }
};

// Adds the rows of a local expert after dispatch that belong to the call's chunk, at most one range
// for each source rank. `row` is the expert's first row before the call, and the next expert's
// after it. all_counts: [world size, experts].
inline void add_rows_of(const Group& group, const Attrs& a, const int32_t* all_counts, int64_t local_expert,
                        int64_t* row, Ranges* ranges) {
  for (int64_t q = group.first_rank; q < group.first_rank + group.num_ranks; q++) {
    const int64_t kept = min(all_counts[q * group.experts + group.first_expert + local_expert], group.capacity);
    const ChunkRange chunk = chunk_range(kept, a.chunk, a.chunks);
    ranges->add(*row + chunk.first, chunk.count);
    *row += kept;
  }
}

// The rows that an activation works on: those of the chunk if all_counts is given, otherwise all.
// The ranges are in shared scratch.
inline Ranges routed_rows(const Attrs& a, const int32_t* all_counts, Stream* stream) {
  const Group group = all_counts ? group_of(a) : Group{.local_experts = 1, .num_ranks = 1};
  const size_t most = static_cast<size_t>(group.local_experts * group.num_ranks);
  Ranges ranges{static_cast<Range*>(stream_scratch(stream, kShared, most * sizeof(Range))), 0, 0};
  if (!all_counts) ranges.add(0, a.rows);
  for (int64_t e = 0, row = 0; all_counts && e < group.local_experts; e++)
    add_rows_of(group, a, all_counts, e, &row, &ranges);
  return ranges;
}

// Calls body(first, count) for the pieces of the ranges that have the rows begin to end - 1,
// counted over all ranges.
template <class Body>
inline void each_piece(const Ranges& ranges, int64_t begin, int64_t end, const Body& body) {
  for (int64_t i = 0, seen = 0; i < ranges.size && seen < end; seen += ranges.data[i++].count) {
    const int64_t from = max(begin - seen, 0), to = min(end - seen, ranges.data[i].count);
    if (from < to) body(ranges.data[i].first + from, to - from);
  }
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
