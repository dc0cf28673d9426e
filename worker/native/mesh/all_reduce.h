// Direct all-reduce: each member of the group owns one shard of the vector, receives that shard
// from all others, sums in rank order, and sends the sum to all others. One rank sums each element,
// so all members get the same bits, however many ranks and blocks there are. Both halves are cut
// into blocks and overlap; scratch memory does not grow with the vector.
#pragma once

#include <cstdint>
#include <vector>

#include "mesh/flow.h"
#include "program/program.h"

namespace scmoe {

struct FloatSpan {
  float* data = nullptr;
  int64_t elements = 0;
};

// The buffers of an all_reduce op. Buffers that touch in memory are joined.
std::vector<FloatSpan> merge_neighbours(const ProgramOp& op);

class AllReduce {
 public:
  // The vector is the spans one after another. `scratch` grows as needed; passing the same vector
  // to the next all-reduce saves its allocation.
  AllReduce(std::vector<FloatSpan> spans, const std::vector<int>& members, int rank, std::vector<float>& scratch);

  // Adds the segments to `lanes`, which has one lane for each other member, in rank order.
  void plan(std::vector<Lane>& lanes);

  // Sums the blocks that have arrived from everyone and releases the segments that depend on them.
  void advance(std::vector<Lane>& lanes);

 private:
  struct Range {
    int64_t begin = 0, end = 0;
    int64_t size() const { return end - begin; }
  };
  // Indices of one lane's segments, by block t: the places at which a flow may have to stop.
  struct Marks {
    std::vector<size_t> sums_begin;              // send: this rank's sums of block t
    std::vector<size_t> terms_begin, terms_end;  // receive: the peer's terms of block t
  };

  Range block(size_t member, int64_t t) const;
  std::vector<FloatSpan> pieces(Range range) const;
  float* slot(size_t lane, int64_t t) { return &scratch_[(lane * kSlots + t % kSlots) * block_elements_]; }
  void sum_block(int64_t t);
  void set_limits(std::vector<Lane>& lanes) const;

  static constexpr int64_t kSlots = 2;  // per lane: one block is summed while the next arrives

  const std::vector<FloatSpan> spans_;
  const size_t num_members_;
  const size_t self_;  // this rank's place among the members
  int64_t elements_ = 0;
  int64_t shard_elements_ = 0;
  int64_t block_elements_ = 0;
  int64_t num_blocks_ = 0;
  int64_t num_summed_ = 0;  // blocks
  std::vector<Marks> marks_;
  std::vector<float>& scratch_;
};

}  // namespace scmoe
