// The communicators of NCCL, one for each group of ranks that has more than one member.
#pragma once

#include <chrono>
#include <functional>
#include <mutex>
#include <vector>

#include "device/collectives.h"
#include "device/nccl/library.h"
#include "interrupt.h"
#include "mesh/communicator.h"
#include "program/program.h"

namespace scmoe {

class NcclGroups {
 public:
  NcclGroups(const Topology& topology, const CollectiveOptions& options, Interrupt& interrupt);
  ~NcclGroups() { abort(); }
  NcclGroups(const NcclGroups&) = delete;
  NcclGroups& operator=(const NcclGroups&) = delete;

  // Opens NCCL and connects the groups, unless there is only one rank; see Collectives::connect.
  void connect(Communicator& control, std::chrono::milliseconds timeout);

  // The members in rank order, this rank included.
  const std::vector<int>& members(Group group) const { return members_[int(group)]; }

  // Makes calls of NCCL as one group call: `calls(library, communicator)`. `name` is for messages.
  template <typename Calls>
  void together(Group group, const char* name, Calls calls) {
    const Lock lock(mutex_);
    interrupt_.check();
    nccl::Comm* const comm = comms_[int(group)];
    demand(nccl_->group_start(), "ncclGroupStart");
    calls(*nccl_, comm);
    demand(nccl_->group_end(), name);
    settle(comm, name);
  }
  // Throws DEVICE_FAILED if a call of NCCL did not succeed.
  void demand(nccl::Result result, const char* name) const;

  // Throws the errors that NCCL has found since the calls were made.
  void check();
  // Ends whatever is under way; the communicators are gone afterwards. Any thread may call it.
  void abort();

 private:
  using Lock = std::unique_lock<std::timed_mutex>;
  using Make = std::function<nccl::Result(nccl::Comm** comm)>;

  nccl::Config config() const;
  nccl::UniqueId agree_on_id(Communicator& control) const;
  nccl::Comm* make(const Make& call, const char* name);
  void split(Group group, int color, nccl::Config& settings);
  void settle(nccl::Comm* comm, const char* name);

  const Topology topology_;
  const CollectiveOptions options_;
  Interrupt& interrupt_;
  std::vector<int> members_[3];  // by Group
  const nccl::Library* nccl_ = nullptr;
  std::timed_mutex mutex_;              // guards the communicators, which abort() takes away
  nccl::Comm* comms_[3] = {};           // by Group; null for a single rank. Equal groups share one
  std::vector<nccl::Comm*> own_comms_;  // each communicator once

  // While connecting only.
  Communicator* control_ = nullptr;
  Clock::time_point deadline_{};
};

}  // namespace scmoe
