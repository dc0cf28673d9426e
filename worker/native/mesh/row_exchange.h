// The rows that an all-to-all, or one chunk of it, sends and receives on this rank, whatever
// carries them.
//
// Notation of worker/program/ops.ts: kept[q][e] = min(allCounts[q][e], capacity). Dispatch takes
// rows in expert order (expert by expert, as the router sorted them) to rows in source order (local
// expert by local expert, within each by source rank); combine takes them back. A chunk's rows lie
// where those of the whole exchange lie.
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
  // `op` is a bound dispatch or combine; all_counts: [world, experts]; members: this rank's
  // expert-parallel group. Throws BAD_PEER if a count is negative, BAD_PROGRAM if the rows of the
  // whole exchange do not fit into the op's buffers.
  RowExchange(const ProgramOp& op, const int32_t* all_counts, const Topology& topology,
              const std::vector<int>& members);

  // By member: the rows of in[0] that this rank sends to it, one range for each expert that gets
  // any. Sender and receiver list the same experts in the same order.
  const std::vector<RowRanges>& sends() const { return dispatch_ ? by_expert_ : by_source_; }
  // By member: the rows of out[0] that this rank receives from it, likewise.
  const std::vector<RowRanges>& receives() const { return dispatch_ ? by_source_ : by_expert_; }
  // This rank's position among the members.
  size_t self() const { return self_; }

  const char* source(const RowRange& range) const { return source_ + range.first * row_bytes_; }
  char* target(const RowRange& range) const { return target_ + range.first * row_bytes_; }
  size_t bytes(const RowRange& range) const { return size_t(range.count * row_bytes_); }

 private:
  const bool dispatch_;
  const size_t self_;
  const char* const source_;
  char* const target_;
  const int64_t row_bytes_;
  std::vector<RowRanges> by_expert_, by_source_;
};

// The same rows, with ranges that touch joined.
RowRanges merged(const RowRanges& ranges);

// Copies the rows that this rank sends to itself, in this process's memory.
void copy_own_rows(const RowExchange& rows);

}  // namespace scmoe
