#include "mesh/row_exchange.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "chunk.h"
#include "error.h"

namespace scmoe {

RowExchange::RowExchange(const Attrs& attrs, const int32_t* all_counts, const Topology& topology,
                         const std::vector<int>& group)
    : dim_(attrs.dim), by_expert_(group.size()), by_source_(group.size()) {
  const int64_t local_experts = attrs.experts / topology.expert_parallel_size;
  const auto kept = [&](int rank, int64_t expert) {
    const int64_t count = all_counts[rank * attrs.experts + expert];
    if (count >= 0) return std::min(count, attrs.capacity);
    throw Error(kBadPeer,
                "allCounts[" + std::to_string(rank) + "][" + std::to_string(expert) + "] is " + std::to_string(count),
                rank);
  };

  // Steps over the rows of one (source, expert) segment and notes those of the chunk.
  const auto take = [&](RowRanges& ranges, int64_t& row, int64_t rows) {
    const ChunkRange chunk = chunk_range(rows, attrs.chunk, attrs.chunks);
    const int64_t first = row + chunk.first;
    row += rows;
    if (chunk.count > 0) ranges.push_back({first, chunk.count});
  };

  for (size_t member = 0; member < group.size(); ++member) {
    const int64_t first_expert = int64_t(member) * local_experts;
    for (int64_t e = 0; e < local_experts; ++e) {
      take(by_expert_[member], rows_by_expert_, kept(topology.rank, first_expert + e));
    }
  }
  const int64_t first_expert = (topology.rank % topology.expert_parallel_size) * local_experts;
  for (int64_t e = 0; e < local_experts; ++e) {
    for (size_t member = 0; member < group.size(); ++member) {
      take(by_source_[member], rows_by_source_, kept(group[member], first_expert + e));
    }
  }
}

void RowExchange::check_room(const char* buffer, int64_t rows, int64_t elements) const {
  if (dim_ == 0 || rows <= elements / dim_) return;
  throw Error(kBadProgram, "buffer '" + std::string(buffer) + "' has " + std::to_string(elements) + " elements, but " +
                               std::to_string(rows) + " rows of " + std::to_string(dim_) + " are routed through it");
}

RowRanges merged(const RowRanges& ranges) {
  RowRanges result;
  for (const RowRange& range : ranges) {
    if (!result.empty() && result.back().first + result.back().count == range.first) {
      result.back().count += range.count;
    } else {
      result.push_back(range);
    }
  }
  return result;
}

void copy_rows(const char* source, const RowRanges& from, char* target, const RowRanges& to, int64_t row_bytes) {
  size_t i = 0, j = 0;
  int64_t from_done = 0, to_done = 0;
  while (i < from.size() && j < to.size()) {
    const int64_t count = std::min(from[i].count - from_done, to[j].count - to_done);
    if (count > 0) {
      std::memcpy(target + (to[j].first + to_done) * row_bytes, source + (from[i].first + from_done) * row_bytes,
                  count * row_bytes);
    }
    from_done += count;
    to_done += count;
    if (from_done == from[i].count) ++i, from_done = 0;
    if (j < to.size() && to_done == to[j].count) ++j, to_done = 0;
  }
}

}  // namespace scmoe
