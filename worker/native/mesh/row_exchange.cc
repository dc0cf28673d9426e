#include "mesh/row_exchange.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "chunk.h"
#include "error.h"
#include "mesh/members.h"

namespace scmoe {
namespace {

// Throws BAD_PROGRAM if a buffer of `elements` cannot hold `rows` rows.
void check_room(const char* buffer, int64_t rows, int64_t dim, int64_t elements) {
  if (dim == 0 || rows <= elements / dim) return;
  throw Error(kBadProgram, "buffer '" + std::string(buffer) + "' has " + std::to_string(elements) + " elements, but " +
                               std::to_string(rows) + " rows of " + std::to_string(dim) + " are routed through it");
}

// Walks over the segments of a buffer, each the rows of one (source rank, expert) pair, and notes
// the rows of one chunk.
class ChunkWalk {
 public:
  explicit ChunkWalk(const Attrs& attrs) : attrs_(attrs) {}

  void step(RowRanges& ranges, int64_t rows) {
    const ChunkRange chunk = chunk_range(rows, attrs_.chunk, attrs_.chunks);
    if (chunk.count > 0) ranges.push_back({rows_ + chunk.first, chunk.count});
    rows_ += rows;
  }
  // Rows of the whole exchange up to here.
  int64_t rows() const { return rows_; }

 private:
  const Attrs& attrs_;
  int64_t rows_ = 0;
};

}  // namespace

RowExchange::RowExchange(const ProgramOp& op, const int32_t* all_counts, const Topology& topology,
                         const std::vector<int>& members)
    : dispatch_(op.collective == Collective::kDispatch),
      self_(place_of(members, topology.rank)),
      source_(static_cast<const char*>(op.in[0])),
      target_(static_cast<char*>(op.out[0])),
      row_bytes_(op.attrs.dim * size_of(op.in_types[0])),
      by_expert_(members.size()),
      by_source_(members.size()) {
  const Attrs& attrs = op.attrs;
  const int64_t local_experts = attrs.experts / topology.expert_parallel_size;
  const auto kept = [&](int rank, int64_t expert) {
    const int64_t count = all_counts[rank * attrs.experts + expert];
    if (count >= 0) return std::min(count, attrs.capacity);
    throw Error(kBadPeer,
                "allCounts[" + std::to_string(rank) + "][" + std::to_string(expert) + "] is " + std::to_string(count) +
                    ", expected at least 0",
                rank);
  };

  ChunkWalk expert_order(attrs), source_order(attrs);
  for (size_t member = 0; member < members.size(); ++member) {
    for (int64_t e = 0; e < local_experts; ++e) {
      expert_order.step(by_expert_[member], kept(topology.rank, int64_t(member) * local_experts + e));
    }
  }
  for (int64_t e = 0; e < local_experts; ++e) {
    for (size_t member = 0; member < members.size(); ++member) {
      source_order.step(by_source_[member], kept(members[member], int64_t(self_) * local_experts + e));
    }
  }
  const ChunkWalk &in = dispatch_ ? expert_order : source_order, &out = dispatch_ ? source_order : expert_order;
  check_room("rows", in.rows(), attrs.dim, op.in_elements[0]);
  check_room("out", out.rows(), attrs.dim, op.out_elements[0]);
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

// Both sides list the same experts, so their ranges are equal in number and in length.
void copy_own_rows(const RowExchange& rows) {
  const RowRanges &from = rows.sends()[rows.self()], &to = rows.receives()[rows.self()];
  for (size_t i = 0; i < from.size(); ++i) {
    std::memcpy(rows.target(to[i]), rows.source(from[i]), rows.bytes(from[i]));
  }
}

}  // namespace scmoe
