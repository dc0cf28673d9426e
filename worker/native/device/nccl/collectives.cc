#include "device/nccl/collectives.h"

#include <algorithm>

#include "device/nccl/counts.h"
#include "device/nccl/groups.h"
#include "device/nccl/padded.h"
#include "error.h"
#include "mesh/all_reduce.h"
#include "mesh/row_exchange.h"

namespace scmoe {
namespace {

class NcclCollectives final : public Collectives {
 public:
  NcclCollectives(const Device& device, const Topology& topology, const CollectiveOptions& options,
                  Interrupt& interrupt)
      : device_(device),
        topology_(topology),
        padded_exchanges_(options.padded && topology.expert_parallel_size > 1),
        groups_(topology, options, interrupt),
        counts_(device),
        padded_(device, topology, groups_) {}

  void connect(Communicator& control, std::chrono::milliseconds timeout) override { groups_.connect(control, timeout); }
  void prepare(const Program& program) override {
    if (padded_exchanges_) padded_.prepare(program);
  }
  bool needs_counts(const ProgramOp& op) const override;
  void begin() override { counts_.begin(); }
  bool ready(const ProgramOp& op, Stream* stream) override;
  void await(const ProgramOp& op) override { counts_.await(op.in[1]); }
  void issue(const ProgramOp& op, Stream* stream) override;
  void check() override { groups_.check(); }
  void abort() override { groups_.abort(); }

 private:
  void put(const ProgramOp& op, Stream* stream);
  void all_gather_counts(const ProgramOp& op, Stream* stream);
  void all_to_all(const ProgramOp& op, Stream* stream);
  void exchange_rows(const ProgramOp& op, Stream* stream);
  void send_and_receive(const RowExchange& rows, Stream* stream);
  void all_reduce(const ProgramOp& op, Stream* stream);
  int64_t num_counts(const ProgramOp& op) const { return op.attrs.experts * topology_.world_size; }

  const Device& device_;
  const Topology topology_;
  const bool padded_exchanges_;
  NcclGroups groups_;
  HostCounts counts_;
  PaddedExchange padded_;
};

// Rows that stay on this rank need no counts: everything that the buffers can hold is copied.
bool NcclCollectives::needs_counts(const ProgramOp& op) const {
  if (op.collective != Collective::kDispatch && op.collective != Collective::kCombine) return false;
  return !padded_exchanges_ && (topology_.expert_parallel_size > 1 || op.attrs.chunks > 1);
}

bool NcclCollectives::ready(const ProgramOp& op, Stream* stream) {
  return !needs_counts(op) || counts_.ready(op.in[1], num_counts(op), stream);
}

void NcclCollectives::issue(const ProgramOp& op, Stream* stream) {
  try {
    put(op, stream);
  } catch (Error& error) {
    error.op = op.label;
    throw;
  }
}

void NcclCollectives::put(const ProgramOp& op, Stream* stream) {
  switch (op.collective) {
    case Collective::kAllGatherCounts:
      return all_gather_counts(op, stream);
    case Collective::kDispatch:
    case Collective::kCombine:
      return all_to_all(op, stream);
    case Collective::kAllReduce:
      return all_reduce(op, stream);
    case Collective::kNone:
      return;
  }
}

void NcclCollectives::all_gather_counts(const ProgramOp& op, Stream* stream) {
  const size_t experts = size_t(op.attrs.experts);
  if (topology_.world_size == 1) {
    device_.copy(op.out[0], op.in[0], int64_t(experts * sizeof(int32_t)), stream);
  } else {
    groups_.together(Group::kWorld, "ncclAllGather", [&](const nccl::Library& nccl, nccl::Comm* comm) {
      groups_.demand(nccl.all_gather(op.in[0], op.out[0], experts, nccl::kInt32, comm, device_.stream_handle(stream)),
                     "ncclAllGather");
    });
  }
  // The host will need the counts to issue the all-to-alls, so the copy starts as early as it can.
  if (topology_.expert_parallel_size > 1 && !padded_exchanges_) counts_.ask(op.out[0], num_counts(op), stream);
}

void NcclCollectives::all_to_all(const ProgramOp& op, Stream* stream) {
  if (needs_counts(op)) return exchange_rows(op, stream);
  if (padded_exchanges_) return padded_.issue(op, stream);
  const int64_t elements = std::min(op.in_elements[0], op.out_elements[0]);
  device_.copy(op.out[0], op.in[0], elements * size_of(op.in_types[0]), stream);
}

void NcclCollectives::exchange_rows(const ProgramOp& op, Stream* stream) {
  const std::vector<int>& members = groups_.members(Group::kExpertParallel);
  const RowExchange rows(op, counts_.values(op.in[1]), topology_, members);
  const RowRanges &from = rows.sends()[rows.self()], &to = rows.receives()[rows.self()];
  for (size_t i = 0; i < from.size(); ++i) {
    device_.copy(rows.target(to[i]), rows.source(from[i]), int64_t(rows.bytes(from[i])), stream);
  }
  if (members.size() > 1) send_and_receive(rows, stream);
}

// Sends one message for each expert of each peer. The ranges are not merged: sender and receiver
// must cut the rows into the same messages.
void NcclCollectives::send_and_receive(const RowExchange& rows, Stream* stream) {
  void* const handle = device_.stream_handle(stream);
  groups_.together(Group::kExpertParallel, "an all-to-all", [&](const nccl::Library& nccl, nccl::Comm* comm) {
    for (size_t member = 0; member < rows.sends().size(); ++member) {
      if (member == rows.self()) continue;
      for (const RowRange& range : rows.sends()[member]) {
        groups_.demand(nccl.send(rows.source(range), rows.bytes(range), nccl::kInt8, int(member), comm, handle),
                       "ncclSend");
      }
      for (const RowRange& range : rows.receives()[member]) {
        groups_.demand(nccl.receive(rows.target(range), rows.bytes(range), nccl::kInt8, int(member), comm, handle),
                       "ncclRecv");
      }
    }
  });
}

void NcclCollectives::all_reduce(const ProgramOp& op, Stream* stream) {
  if (groups_.members(op.group).size() == 1) return;
  void* const handle = device_.stream_handle(stream);
  groups_.together(op.group, "ncclAllReduce", [&](const nccl::Library& nccl, nccl::Comm* comm) {
    for (const FloatSpan& span : merge_neighbours(op)) {
      groups_.demand(
          nccl.all_reduce(span.data, span.data, size_t(span.elements), nccl::kFloat32, nccl::kSum, comm, handle),
          "ncclAllReduce");
    }
  });
}

}  // namespace

std::unique_ptr<Collectives> make_nccl_collectives(const Device& device, const Topology& topology,
                                                   const CollectiveOptions& options, Interrupt& interrupt) {
  return std::make_unique<NcclCollectives>(device, topology, options, interrupt);
}

}  // namespace scmoe
