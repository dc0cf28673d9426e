// Direct all-reduce: each member of the group owns one shard of the vector, receives that shard from all others, sums
// in rank order, and sends the sum to all others. Each element is summed by one rank, so all get the same bits, however
// many ranks and blocks there are. Both halves are cut into blocks and overlap; scratch memory does not grow with the
// vector.
#pragma once

#include <cstdint>
#include <vector>

#include "mesh/exchange.h"
#include "program/program.h"

namespace scmoe {

struct FloatSpan {
  float* data = nullptr;
  int64_t elements = 0;
};

// The buffers of an all_reduce op; those that touch in memory become one.
std::vector<FloatSpan> merge_neighbours(const ProgramOp& op);

class AllReduce {
 public:
  // The vector is the spans one after another. `scratch` is grown as needed and may be kept for the next time.
  AllReduce(std::vector<FloatSpan> spans, const std::vector<int>& group, int rank, std::vector<float>& scratch);

  // Fills one lane for each other member, in group order.
  void plan(std::vector<Lane>& lanes);

  // Sums the blocks that have arrived from everyone, and lets what depends on them travel.
  void advance(std::vector<Lane>& lanes);

 private:
  struct Range {
    int64_t begin = 0, end = 0;
    int64_t size() const { return end - begin; }
  };
  // Indices of segments, by block, where something may have to stop.
  struct Marks {
    std::vector<size_t> sums_begin;              // send: this rank's sums of block t
    std::vector<size_t> terms_begin, terms_end;  // receive: the peer's terms of block t
  };

  Range block(size_t member, int64_t t) const;
  std::vector<FloatSpan> pieces(Range range) const;
  float* slot(size_t lane, int64_t t) { return &scratch_[(lane * kSlots + t % kSlots) * block_elements_]; }
  void sum_block(int64_t t);
  void set_limits(std::vector<Lane>& lanes) const;

  static constexpr int64_t kSlots = 2;  // one block is summed while the next arrives

  const std::vector<FloatSpan> spans_;
  const size_t num_members_;
  const size_t self_;  // this rank's place in the group
  int64_t elements_ = 0;
  int64_t shard_elements_ = 0;
  int64_t block_elements_ = 0;
  int64_t num_blocks_ = 0;
  int64_t summed_ = 0;  // blocks
  std::vector<Marks> marks_;
  std::vector<float>& scratch_;
};

}  // namespace scmoe
