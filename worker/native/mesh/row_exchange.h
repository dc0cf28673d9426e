// Which rows go where in an all-to-all, or in one chunk of it. Notation of worker/program/ops.ts: kept[q][e] =
// min(allCounts[q][e], capacity). Rows lie where those of the whole exchange lie, whatever the chunk.
#pragma once

#include <cstdint>
#include <vector>

#include "program/program.h"

namespace scmoe {

struct RowRange {
  int64_t first = 0;
  int64_t count = 0;
};
using RowRanges = std::vector<RowRange>;

class RowExchange {
 public:
  // all_counts: [world, experts]; group: this rank's expert-parallel group. Throws BAD_PEER if a count is negative.
  RowExchange(const Attrs& attrs, const int32_t* all_counts, const Topology& topology, const std::vector<int>& group);

  // For each member of the group: where the chunk's rows for that member's experts lie in expert order; one range for
  // each expert that gets any.
  const std::vector<RowRanges>& by_expert() const { return by_expert_; }
  // For each member: where the chunk's rows that come from it lie in local-expert order, likewise.
  const std::vector<RowRanges>& by_source() const { return by_source_; }
  // Rows of the whole exchange in either order: what their buffers must hold.
  int64_t rows_by_expert() const { return rows_by_expert_; }
  int64_t rows_by_source() const { return rows_by_source_; }

  // Throws BAD_PROGRAM if a buffer of `elements` cannot hold `rows`.
  void check_room(const char* buffer, int64_t rows, int64_t elements) const;

 private:
  int64_t dim_;
  int64_t rows_by_expert_ = 0, rows_by_source_ = 0;
  std::vector<RowRanges> by_expert_, by_source_;
};

// The same rows with ranges that touch made one.
RowRanges merged(const RowRanges& ranges);

// Rows of `from` in order to rows of `to` in order; both have the same number.
void copy_rows(const char* source, const RowRanges& from, char* target, const RowRanges& to, int64_t row_bytes);

}  // namespace scmoe
