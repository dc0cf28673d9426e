#include "mesh/all_reduce.h"

#include <algorithm>
#include <cstring>

#include "mesh/members.h"

namespace scmoe {
namespace {

constexpr int64_t kLine = 16;             // floats in 64 bytes
constexpr int64_t kMaxBlock = 64 * 1024;  // floats: 256 KiB stay in cache from arrival to sum
constexpr int64_t kMinBlock = 4 * 1024;
constexpr int64_t kMaxScratch = 2 * 1024 * 1024;  // floats, for all peers together

int64_t round_up(int64_t value, int64_t step) {
  return (value + step - 1) / step * step;
}

}  // namespace

std::vector<FloatSpan> merge_neighbours(const ProgramOp& op) {
  std::vector<FloatSpan> spans;
  for (size_t i = 0; i < op.out.size(); ++i) {
    float* const data = static_cast<float*>(op.out[i]);
    if (!spans.empty() && spans.back().data + spans.back().elements == data) {
      spans.back().elements += op.out_elements[i];
    } else {
      spans.push_back({data, op.out_elements[i]});
    }
  }
  return spans;
}

AllReduce::AllReduce(std::vector<FloatSpan> spans, const std::vector<int>& members, int rank,
                     std::vector<float>& scratch)
    : spans_(std::move(spans)), num_members_(members.size()), self_(place_of(members, rank)), scratch_(scratch) {
  for (const FloatSpan& span : spans_) elements_ += span.elements;
  const int64_t count = int64_t(num_members_), others = count - 1;
  shard_elements_ = round_up((elements_ + count - 1) / count, kLine);
  const int64_t most = std::clamp(kMaxScratch / (kSlots * others) / kLine * kLine, kMinBlock, kMaxBlock);
  block_elements_ = std::min(most, std::max(shard_elements_, kLine));
  num_blocks_ = (shard_elements_ + block_elements_ - 1) / block_elements_;
  const size_t wanted = size_t(others * kSlots * block_elements_);
  if (scratch_.size() < wanted) scratch_.resize(wanted);
}

// Block t of a member's shard. The end of the vector cuts the last shards: they may be short or
// empty.
AllReduce::Range AllReduce::block(size_t member, int64_t t) const {
  const int64_t shard = int64_t(member) * shard_elements_;
  const int64_t begin = shard + t * block_elements_;
  const int64_t end = std::min(begin + block_elements_, shard + shard_elements_);
  return {std::min(begin, elements_), std::min(end, elements_)};
}

// The memory of a range of the vector.
std::vector<FloatSpan> AllReduce::pieces(Range range) const {
  std::vector<FloatSpan> found;
  int64_t start = 0;
  for (const FloatSpan& span : spans_) {
    const int64_t begin = std::max(range.begin, start), end = std::min(range.end, start + span.elements);
    if (begin < end) found.push_back({span.data + (begin - start), end - begin});
    start += span.elements;
  }
  return found;
}

// The order on the wire is terms 0, terms 1, sums 0, terms 2, sums 1, ..., so that a block travels
// while the one before is summed. There is no deadlock: terms t wait for sums t-2 only, and sums t
// for everyone's terms t. The sum may be in place: the sums of a block arrive only after its owner
// has received this rank's terms, so they overwrite nothing that is still to be sent.
void AllReduce::plan(std::vector<Lane>& lanes) {
  marks_.resize(lanes.size());
  for (size_t i = 0; i < lanes.size(); ++i) {
    const size_t member = i + (i >= self_);
    Flow &send = lanes[i].send, &receive = lanes[i].receive;
    for (int64_t t = 0; t <= num_blocks_; ++t) {
      if (t < num_blocks_) {
        for (const FloatSpan& piece : pieces(block(member, t))) send.add(piece.data, piece.elements * sizeof(float));
        marks_[i].terms_begin.push_back(receive.size());
        receive.add(slot(i, t), block(self_, t).size() * sizeof(float));
        marks_[i].terms_end.push_back(receive.size());
      }
      if (t == 0) continue;
      marks_[i].sums_begin.push_back(send.size());
      for (const FloatSpan& piece : pieces(block(self_, t - 1))) send.add(piece.data, piece.elements * sizeof(float));
      for (const FloatSpan& piece : pieces(block(member, t - 1))) {
        receive.add(piece.data, piece.elements * sizeof(float));
      }
    }
  }
  set_limits(lanes);
}

void AllReduce::advance(std::vector<Lane>& lanes) {
  const int64_t before = num_summed_;
  const auto arrived = [&](int64_t t) {
    for (size_t i = 0; i < lanes.size(); ++i) {
      if (lanes[i].receive.finished() < marks_[i].terms_end[t]) return false;
    }
    return true;
  };
  while (num_summed_ < num_blocks_ && arrived(num_summed_)) sum_block(num_summed_++);
  if (num_summed_ != before) set_limits(lanes);
}

void AllReduce::set_limits(std::vector<Lane>& lanes) const {
  for (size_t i = 0; i < lanes.size(); ++i) {
    lanes[i].send.set_limit(num_summed_ < num_blocks_ ? marks_[i].sums_begin[num_summed_] : lanes[i].send.size());
    const int64_t taken = num_summed_ + kSlots;  // the first block whose slot is not free yet
    lanes[i].receive.set_limit(taken < num_blocks_ ? marks_[i].terms_begin[taken] : lanes[i].receive.size());
    // The peer's next sums may depend on what this rank sends once it has these terms.
    lanes[i].receive.set_certain(num_summed_ < num_blocks_ ? marks_[i].terms_end[num_summed_]
                                                           : lanes[i].receive.size());
  }
}

void AllReduce::sum_block(int64_t t) {
  constexpr int64_t kTile = 1024;
  float tile[kTile];
  int64_t done = 0;
  for (const FloatSpan& piece : pieces(block(self_, t))) {
    for (int64_t i = 0; i < piece.elements; i += kTile) {
      const int64_t n = std::min(kTile, piece.elements - i);
      for (size_t member = 0; member < num_members_; ++member) {
        const size_t lane = member - (member > self_);
        const float* const term = member == self_ ? piece.data + i : slot(lane, t) + done + i;
        if (member == 0) std::memcpy(tile, term, n * sizeof(float));
        for (int64_t k = 0; member > 0 && k < n; ++k) tile[k] += term[k];
      }
      std::memcpy(piece.data + i, tile, n * sizeof(float));
    }
    done += piece.elements;
  }
}

}  // namespace scmoe
