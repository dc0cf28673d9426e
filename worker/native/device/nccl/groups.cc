#include "device/nccl/groups.h"

#include <cstdint>
#include <cstring>
#include <string>
#include <thread>
#include <utility>

#include "error.h"

namespace scmoe {
namespace {

constexpr auto kAbortPatience = std::chrono::seconds(2);

// An id as numbers that a sum of doubles carries exactly: one rank contributes them, all others
// add 0.
constexpr size_t kBytesEach = 4;
std::vector<double> numbers_of(const nccl::UniqueId& id) {
  std::vector<double> numbers;
  for (size_t i = 0; i < sizeof id.bytes; i += kBytesEach) {
    uint32_t word;
    std::memcpy(&word, id.bytes + i, kBytesEach);
    numbers.push_back(word);
  }
  return numbers;
}
nccl::UniqueId id_of(const std::vector<double>& numbers) {
  nccl::UniqueId id{};
  for (size_t i = 0; i < numbers.size(); ++i) {
    const auto word = uint32_t(numbers[i]);
    std::memcpy(id.bytes + i * kBytesEach, &word, kBytesEach);
  }
  return id;
}

}  // namespace

NcclGroups::NcclGroups(const Topology& topology, const CollectiveOptions& options, Interrupt& interrupt)
    : topology_(topology), options_(options), interrupt_(interrupt) {
  for (const Group group : {Group::kWorld, Group::kExpertParallel, Group::kExpertDataParallel}) {
    members_[int(group)] = group_ranks(topology, group);
  }
}

void NcclGroups::demand(nccl::Result result, const char* name) const {
  if (result == nccl::kSuccess || result == nccl::kInProgress) return;
  interrupt_.check();  // after an abort NCCL reports an error, which is only its consequence
  throw Error(kDeviceFailed, std::string(name) + " of NCCL " + nccl::version_text(nccl_->version) +
                                 " failed: " + nccl_->error_string(result) +
                                 "; set NCCL_DEBUG=WARN to see the reason in NCCL's own words");
}

// Waits until a communicator has done what it was called for. A non-blocking communicator takes a
// call at once and works on it, such as finding its peers, in the background.
void NcclGroups::settle(nccl::Comm* comm, const char* name) {
  for (;;) {
    nccl::Result state = nccl::kSuccess;
    demand(nccl_->async_error(comm, &state), name);
    demand(state, name);
    if (state != nccl::kInProgress) return;
    interrupt_.check();
    if (control_ == nullptr) {
      std::this_thread::yield();
      continue;
    }
    control_->sleep(members(Group::kWorld), 1);
    if (Clock::now() > deadline_) {
      throw Error(kPeerTimeout, std::string(name) +
                                    ": the hosts of all ranks are connected, but NCCL did not connect their devices "
                                    "in time; check NCCL_SOCKET_IFNAME, and set NCCL_DEBUG=INFO to see which network "
                                    "NCCL uses");
    }
  }
}

nccl::Config NcclGroups::config() const {
  nccl::Config config{};
  const bool recent = nccl_->version >= nccl::kCtaPolicy;
  config.size = recent ? sizeof config : offsetof(nccl::Config, traffic_class);
  config.version = unsigned(recent ? nccl::kCtaPolicy : nccl::kLeast);
  if (options_.max_ctas > 0) config.max_ctas = options_.max_ctas;
  if (options_.cta_policy >= 0 && recent) config.cta_policy = options_.cta_policy;
  return config;
}

// Rank 0's id, on every rank.
nccl::UniqueId NcclGroups::agree_on_id(Communicator& control) const {
  nccl::UniqueId id{};
  if (topology_.rank == 0) demand(nccl_->get_unique_id(&id), "ncclGetUniqueId");
  std::vector<double> numbers = numbers_of(id);
  control.all_reduce(numbers);
  return id_of(numbers);
}

nccl::Comm* NcclGroups::make(const Make& call, const char* name) {
  nccl::Comm* comm = nullptr;
  nccl::Comm* const parent = comms_[int(Group::kWorld)];
  demand(call(&comm), name);
  if (parent != nullptr) settle(parent, name);  // the parent does the work of a split
  settle(comm, name);
  const Lock lock(mutex_);
  own_comms_.push_back(comm);
  return comm;
}

void NcclGroups::split(Group group, int color, nccl::Config& settings) {
  nccl::Comm* const world = comms_[int(Group::kWorld)];
  const size_t size = members(group).size();
  if (size == 1) return;
  if (int(size) == topology_.world_size) {
    comms_[int(group)] = world;
    return;
  }
  comms_[int(group)] = make(
      [&](nccl::Comm** comm) { return nccl_->split(world, color, topology_.rank, comm, &settings); }, "ncclCommSplit");
}

void NcclGroups::connect(Communicator& control, std::chrono::milliseconds timeout) {
  const auto [rank, world_size, expert_parallel_size] = topology_;
  if (world_size == 1) return;
  nccl_ = &nccl::library();
  control_ = &control;
  deadline_ = Clock::now() + timeout;
  const nccl::UniqueId id = agree_on_id(control);
  nccl::Config settings = config();
  comms_[int(Group::kWorld)] =
      make([&, rank = rank,
            size = world_size](nccl::Comm** comm) { return nccl_->init_rank_config(comm, size, id, rank, &settings); },
           "ncclCommInitRankConfig");
  split(Group::kExpertParallel, rank / expert_parallel_size, settings);
  split(Group::kExpertDataParallel, rank % expert_parallel_size, settings);
  control_ = nullptr;
}

void NcclGroups::abort() {
  // Waits no longer than this, because a call that hangs holds the lock and has to be ended.
  const Lock lock(mutex_, kAbortPatience);
  for (nccl::Comm*& comm : comms_) comm = nullptr;
  for (nccl::Comm* comm : std::exchange(own_comms_, {})) nccl_->abort(comm);
}

void NcclGroups::check() {
  const Lock lock(mutex_);
  for (nccl::Comm* comm : own_comms_) {
    nccl::Result state = nccl::kSuccess;
    demand(nccl_->async_error(comm, &state), "ncclCommGetAsyncError");
    demand(state, "a collective");
  }
}

}  // namespace scmoe
