#include "device/nccl/padded.h"

#include <algorithm>
#include <new>
#include <string>
#include <utility>

#include "error.h"

namespace scmoe {
namespace {

// Rows that one rank can send to one expert in one chunk.
int64_t slots_of(const Attrs& attrs) {
  return (attrs.capacity + attrs.chunks - 1) / attrs.chunks;
}

int64_t bytes_of(const ProgramOp& op) {
  return op.attrs.experts * slots_of(op.attrs) * op.attrs.dim * size_of(op.in_types[0]);
}

}  // namespace

PaddedExchange::~PaddedExchange() {
  for (void* memory : {sent_, received_, segments_}) device_.release(memory);
  for (void* memory : outgrown_) device_.release(memory);
}

void PaddedExchange::grow(void*& memory, int64_t bytes) {
  if (memory != nullptr) outgrown_.push_back(std::exchange(memory, nullptr));
  memory = device_.allocate(bytes);
}

void PaddedExchange::prepare(const Program& program) {
  int64_t bytes = bytes_, segments = segments_bytes_;
  for (const ProgramOp& op : program.ops) {
    if (op.collective != Collective::kDispatch && op.collective != Collective::kCombine) continue;
    bytes = std::max(bytes, bytes_of(op));
    segments = std::max(segments, (2 * op.attrs.experts + 1) * int64_t(sizeof(int32_t)));
  }
  try {
    if (segments > segments_bytes_) grow(segments_, segments);
    segments_bytes_ = segments;
    if (bytes > bytes_) grow(sent_, bytes), grow(received_, bytes);
    bytes_ = bytes;
  } catch (const std::bad_alloc&) {
    throw Error(kOutOfMemory, "padded all-to-alls need two buffers of " + std::to_string(bytes) +
                                  " bytes, and the device has not that much free memory; lower the capacity factor or "
                                  "the batch, or turn padded all-to-alls off");
  }
}

void PaddedExchange::issue(const ProgramOp& op, Stream* stream) {
  const bool dispatch = op.collective == Collective::kDispatch;
  PaddedRows rows{.padded = sent_,
                  .rows = const_cast<void*>(op.in[0]),
                  .all_counts = static_cast<const int32_t*>(op.in[1]),
                  .scratch = static_cast<int32_t*>(segments_),
                  .attrs = &op.attrs,
                  .slots = slots_of(op.attrs),
                  .row_bytes = op.attrs.dim * size_of(op.in_types[0]),
                  .by_expert = dispatch,
                  .pack = true};
  device_.move_padded(rows, stream);
  exchange(size_t(bytes_of(op)) / groups_.members(Group::kExpertParallel).size(), stream);
  rows.padded = received_, rows.rows = op.out[0], rows.by_expert = !dispatch, rows.pack = false;
  device_.move_padded(rows, stream);
}

// Sends part i of `sent_` to member i, and receives part i of `received_` from member i.
void PaddedExchange::exchange(size_t bytes_each, Stream* stream) {
  const std::vector<int>& members = groups_.members(Group::kExpertParallel);
  void* const handle = device_.stream_handle(stream);
  groups_.together(Group::kExpertParallel, "an all-to-all", [&](const nccl::Library& nccl, nccl::Comm* comm) {
    if (nccl.all_to_all != nullptr) {
      groups_.demand(nccl.all_to_all(sent_, received_, bytes_each, nccl::kInt8, comm, handle), "ncclAlltoAll");
      return;
    }
    for (size_t member = 0; member < members.size(); ++member) {
      const char* const out = static_cast<const char*>(sent_) + member * bytes_each;
      char* const in = static_cast<char*>(received_) + member * bytes_each;
      if (members[member] == rank_) {
        device_.copy(in, out, int64_t(bytes_each), stream);
        continue;
      }
      groups_.demand(nccl.send(out, bytes_each, nccl::kInt8, int(member), comm, handle), "ncclSend");
      groups_.demand(nccl.receive(in, bytes_each, nccl::kInt8, int(member), comm, handle), "ncclRecv");
    }
  });
}

}  // namespace scmoe
