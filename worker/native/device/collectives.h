// The collectives of the op table on a device: put on the communication stream, moved by NCCL. Rows that only the
// router knows of are counted on the device, and their counts read back before the rows can be put on their way.
#pragma once

#include <atomic>
#include <chrono>
#include <map>
#include <mutex>

#include "device.h"
#include "device/nccl/library.h"
#include "interrupt.h"
#include "mesh/communicator.h"
#include "program/program.h"

namespace scmoe {

// Settings of NCCL; 0 and -1 leave them to it.
struct CollectiveOptions {
  int max_ctas = 0;     // thread blocks that a collective may take from computation
  int cta_policy = -1;  // 0 default, 1 efficiency, 2 zero: ncclConfig_t's, from 2.27 on
  // All-to-alls carry `capacity` rows for each expert, so that no host waits for counts and shapes are static.
  bool padded = false;
  // For benchmarks of one rank: how long an all-to-all to itself is to take. It then goes by host memory, on a copy
  // engine, over and over; 0: a copy within the device.
  double own_transfer_microseconds = 0;
};

class DeviceCollectives {
 public:
  DeviceCollectives(const Device& device, const Topology& topology, CollectiveOptions options, Interrupt& interrupt);
  ~DeviceCollectives();
  DeviceCollectives(const DeviceCollectives&) = delete;
  DeviceCollectives& operator=(const DeviceCollectives&) = delete;

  // Makes the communicators: the unique id travels by `control`. All ranks call it; on a thread that uses the device.
  // Throws DEVICE_MISSING, DEVICE_FAILED, PEER_LOST or PEER_TIMEOUT.
  void connect(Communicator& control, std::chrono::milliseconds timeout);

  // Takes the memory that the program's padded exchanges need. Throws OUT_OF_MEMORY.
  void prepare(const Program& program);

  // Whether the host must have read counts before it can issue the op.
  bool needs_counts(const ProgramOp& op) const;

  // Before a run: counts read earlier are of no use.
  void begin();
  // Whether the op can be issued without waiting for counts; asks for them. Ops in the order of their queue.
  bool ready(const ProgramOp& op, Stream* stream);
  void await(const ProgramOp& op);
  // Puts the op on the stream. Throws with `op` set.
  void issue(const ProgramOp& op, Stream* stream);
  // Throws what NCCL found out since.
  void check();
  // From any thread: what is on its way ends, somehow; nothing can be issued afterwards.
  void abort();

 private:
  // Counts of all ranks, in pinned memory.
  struct Counts {
    int32_t* values = nullptr;
    int64_t elements = 0;
    Event* copied = nullptr;
    bool asked = false;
  };
  using Lock = std::unique_lock<std::timed_mutex>;

  nccl::Config config() const;
  void make(nccl::Comm** comm, const std::function<nccl::Result(nccl::Comm**)>& call, const char* name);
  void settle(nccl::Comm* comm, const char* name);
  void demand(nccl::Result result, const char* name) const;
  template <typename Calls>
  void group(nccl::Comm* comm, const char* name, Calls calls);
  nccl::Comm* comm_of(Group group) const { return comms_[int(group)]; }

  Counts& counts_at(const void* place, int64_t elements);
  void ask(Counts& counts, const void* place, Stream* stream);
  void all_gather_counts(const ProgramOp& op, Stream* stream);
  void all_to_all(const ProgramOp& op, Stream* stream);
  void travel(Stream* stream);
  void exchange_rows(const ProgramOp& op, const int32_t* counts, Stream* stream);
  bool is_padded(const ProgramOp& op) const;
  int64_t padded_bytes(const ProgramOp& op) const;
  void exchange_padded(const ProgramOp& op, Stream* stream);
  void all_reduce(const ProgramOp& op, Stream* stream);

  const Device& device_;
  const Topology topology_;
  const CollectiveOptions options_;
  Interrupt& interrupt_;
  std::vector<int> groups_[3];  // members, by Group
  const nccl::Library* nccl_ = nullptr;
  std::timed_mutex mutex_;                // guards comms_, which abort() takes away
  nccl::Comm* comms_[3] = {};             // by Group; null where a rank is alone. Equal groups share one
  std::vector<nccl::Comm*> own_comms_;    // each once
  Communicator* control_ = nullptr;       // while connecting
  Clock::time_point deadline_{};          // of connecting
  std::map<const void*, Counts> counts_;  // by the place of allCounts on the device
  void* padded_[2] = {};                  // sent, received: the largest exchange of any program
  int64_t padded_bytes_ = 0;              // of each
  void* segments_ = nullptr;              // PaddedRows::scratch
  int64_t segments_bytes_ = 0;
  std::vector<void*> outgrown_;  // of these: recorded graphs may still use them
  void* road_[2] = {};           // for emulated transfers: a piece of pinned memory and one of the device's
  int64_t road_bytes_ = 0;       // that one emulated transfer moves
};

}  // namespace scmoe
