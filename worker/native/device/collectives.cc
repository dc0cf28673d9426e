#include "device/collectives.h"

#include <cstring>
#include <thread>

#include "error.h"
#include "mesh/all_reduce.h"
#include "mesh/row_exchange.h"

namespace scmoe {
namespace {

constexpr auto kAbortPatience = std::chrono::seconds(2);

// 128 bytes as numbers that a sum of doubles carries exactly: each is one rank's, and all others add 0.
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

DeviceCollectives::DeviceCollectives(const Device& device, const Topology& topology, CollectiveOptions options,
                                     Interrupt& interrupt)
    : device_(device), topology_(topology), options_(options), interrupt_(interrupt) {
  for (const Group group : {Group::kWorld, Group::kExpertParallel, Group::kExpertDataParallel}) {
    groups_[int(group)] = group_ranks(topology, group);
  }
}

DeviceCollectives::~DeviceCollectives() {
  abort();
  for (auto& [place, counts] : counts_) {
    device_.release_pinned(counts.values);
    device_.event_destroy(counts.copied);
  }
  for (void* memory : {padded_[0], padded_[1], segments_}) device_.release(memory);
  for (void* memory : outgrown_) device_.release(memory);
  device_.release_pinned(road_[0]);
  device_.release(road_[1]);
}

void DeviceCollectives::demand(nccl::Result result, const char* name) const {
  if (result == nccl::kSuccess || result == nccl::kInProgress) return;
  interrupt_.check();  // aborted: what NCCL says of it is no news
  throw Error(kDeviceFailed, std::string(name) + " of NCCL " + nccl::version_text(nccl_->version) +
                                 " failed: " + nccl_->error_string(result) + "; NCCL_DEBUG=WARN says more");
}

// A non-blocking communicator takes calls at once and does what they need, such as finding its peers, meanwhile.
void DeviceCollectives::settle(nccl::Comm* comm, const char* name) {
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
    control_->sleep(groups_[int(Group::kWorld)], 1);
    if (Clock::now() > deadline_) {
      throw Error(kPeerTimeout, std::string(name) +
                                    ": the ranks have met, but NCCL did not connect them in time; see "
                                    "NCCL_SOCKET_IFNAME, and NCCL_DEBUG=INFO");
    }
  }
}

nccl::Config DeviceCollectives::config() const {
  nccl::Config config{};
  const bool recent = nccl_->version >= nccl::kCtaPolicy;
  config.size = recent ? sizeof config : offsetof(nccl::Config, traffic_class);
  config.version = unsigned(recent ? nccl::kCtaPolicy : nccl::kLeast);
  if (options_.max_ctas > 0) config.max_ctas = options_.max_ctas;
  if (options_.cta_policy >= 0 && recent) config.cta_policy = options_.cta_policy;
  return config;
}

void DeviceCollectives::make(nccl::Comm** comm, const std::function<nccl::Result(nccl::Comm**)>& call,
                             const char* name) {
  demand(call(comm), name);
  if (comms_[int(Group::kWorld)] != nullptr) settle(comms_[int(Group::kWorld)], name);  // a split is the parent's work
  settle(*comm, name);
  const Lock lock(mutex_);
  own_comms_.push_back(*comm);
}

void DeviceCollectives::connect(Communicator& control, std::chrono::milliseconds timeout) {
  const auto [rank, world_size, expert_parallel_size] = topology_;
  if (world_size == 1) return;
  nccl_ = &nccl::library();
  control_ = &control;
  deadline_ = Clock::now() + timeout;
  nccl::UniqueId id{};
  if (rank == 0) demand(nccl_->get_unique_id(&id), "ncclGetUniqueId");
  std::vector<double> numbers = numbers_of(id);
  control.all_reduce(numbers);
  id = id_of(numbers);

  nccl::Config settings = config();
  nccl::Comm*& world = comms_[int(Group::kWorld)];
  make(
      &world, [&](nccl::Comm** comm) { return nccl_->init_rank_config(comm, world_size, id, rank, &settings); },
      "ncclCommInitRankConfig");
  const auto split = [&](Group group, int color) {
    const size_t size = groups_[int(group)].size();
    if (size == 1) return;
    comms_[int(group)] = world;
    if (int(size) == world_size) return;
    nccl::Comm* part = nullptr;
    make(
        &part, [&](nccl::Comm** comm) { return nccl_->split(world, color, rank, comm, &settings); }, "ncclCommSplit");
    comms_[int(group)] = part;
  };
  split(Group::kExpertParallel, rank / expert_parallel_size);
  split(Group::kExpertDataParallel, rank % expert_parallel_size);
  control_ = nullptr;
}

void DeviceCollectives::abort() {
  Lock lock(mutex_, kAbortPatience);  // a call that holds it for longer hangs, and is what this is to end
  for (nccl::Comm*& comm : comms_) comm = nullptr;
  for (nccl::Comm* comm : std::exchange(own_comms_, {})) nccl_->abort(comm);
}

void DeviceCollectives::check() {
  const Lock lock(mutex_);
  for (nccl::Comm* comm : own_comms_) {
    nccl::Result state = nccl::kSuccess;
    demand(nccl_->async_error(comm, &state), "ncclCommGetAsyncError");
    demand(state, "a collective");
  }
}

template <typename Calls>
void DeviceCollectives::group(nccl::Comm* comm, const char* name, Calls calls) {
  const Lock lock(mutex_);
  interrupt_.check();
  demand(nccl_->group_start(), "ncclGroupStart");
  calls();
  demand(nccl_->group_end(), name);
  settle(comm, name);
}

void DeviceCollectives::begin() {
  for (auto& [place, counts] : counts_) counts.asked = false;
}

// Rows to and from this rank alone need no counts: all that the buffers can hold is copied.
bool DeviceCollectives::needs_counts(const ProgramOp& op) const {
  if (op.collective != Collective::kDispatch && op.collective != Collective::kCombine) return false;
  return !is_padded(op) && (groups_[int(Group::kExpertParallel)].size() > 1 || op.attrs.chunks > 1);
}

bool DeviceCollectives::is_padded(const ProgramOp& op) const {
  const bool exchange = op.collective == Collective::kDispatch || op.collective == Collective::kCombine;
  return options_.padded && exchange && groups_[int(Group::kExpertParallel)].size() > 1;
}

namespace {

// Rows that one rank can send to one expert in one chunk.
int64_t slots_of(const Attrs& attrs) {
  return (attrs.capacity + attrs.chunks - 1) / attrs.chunks;
}

}  // namespace

int64_t DeviceCollectives::padded_bytes(const ProgramOp& op) const {
  return op.attrs.experts * slots_of(op.attrs) * op.attrs.dim * size_of(op.in_types[0]);
}

void DeviceCollectives::prepare(const Program& program) {
  int64_t bytes = padded_bytes_, segments = segments_bytes_;
  for (const ProgramOp& op : program.ops) {
    if (!is_padded(op)) continue;
    bytes = std::max(bytes, padded_bytes(op));
    segments = std::max(segments, (2 * op.attrs.experts + 1) * int64_t(sizeof(int32_t)));
  }
  try {
    const auto grow = [this](void*& memory, int64_t size) {
      if (memory != nullptr) outgrown_.push_back(std::exchange(memory, nullptr));
      memory = device_.allocate(size);
    };
    if (segments > segments_bytes_) grow(segments_, segments);
    segments_bytes_ = segments;
    if (bytes > padded_bytes_) grow(padded_[0], bytes), grow(padded_[1], bytes);
    padded_bytes_ = bytes;
  } catch (const std::bad_alloc&) {
    throw Error(kOutOfMemory, "padded exchanges need two buffers of " + std::to_string(bytes) +
                                  " bytes, which are not free; lower the capacity factor or the batch, or let "
                                  "exchanges carry what the router counted");
  }
}

DeviceCollectives::Counts& DeviceCollectives::counts_at(const void* place, int64_t elements) {
  Counts& counts = counts_[place];
  if (counts.copied == nullptr) counts.copied = device_.event_create();
  if (counts.elements < elements) {
    device_.release_pinned(counts.values);
    counts.values = static_cast<int32_t*>(device_.allocate_pinned(elements * int64_t(sizeof(int32_t))));
    counts.elements = elements;
  }
  return counts;
}

void DeviceCollectives::ask(Counts& counts, const void* place, Stream* stream) {
  device_.copy(counts.values, place, counts.elements * int64_t(sizeof(int32_t)), stream);
  device_.event_record(counts.copied, stream);
  counts.asked = true;
}

bool DeviceCollectives::ready(const ProgramOp& op, Stream* stream) {
  if (!needs_counts(op)) return true;
  Counts& counts = counts_at(op.in[1], op.attrs.experts * topology_.world_size);
  if (!counts.asked) ask(counts, op.in[1], stream);  // no op of this run has gathered them
  return device_.event_done(counts.copied);
}

void DeviceCollectives::await(const ProgramOp& op) {
  device_.event_await(counts_.at(op.in[1]).copied);
}

void DeviceCollectives::issue(const ProgramOp& op, Stream* stream) {
  try {
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
  } catch (Error& error) {
    error.op = op.label;
    throw;
  }
}

void DeviceCollectives::all_gather_counts(const ProgramOp& op, Stream* stream) {
  const size_t experts = size_t(op.attrs.experts);
  nccl::Comm* const comm = comm_of(Group::kWorld);
  if (topology_.world_size == 1) {
    device_.copy(op.out[0], op.in[0], int64_t(experts * sizeof(int32_t)), stream);
  } else {
    group(comm, "ncclAllGather", [&] {
      demand(nccl_->all_gather(op.in[0], op.out[0], experts, nccl::kInt32, comm, device_.stream_handle(stream)),
             "ncclAllGather");
    });
  }
  if (groups_[int(Group::kExpertParallel)].size() > 1 && !options_.padded) {
    ask(counts_at(op.out[0], op.attrs.experts * topology_.world_size), op.out[0], stream);
  }
}

void DeviceCollectives::all_to_all(const ProgramOp& op, Stream* stream) {
  if (is_padded(op)) return exchange_padded(op, stream);
  if (needs_counts(op)) return exchange_rows(op, counts_.at(op.in[1]).values, stream);
  if (options_.own_transfer_microseconds > 0) travel(stream);
  const int64_t elements = std::min(op.in_elements[0], op.out_elements[0]);
  device_.copy(op.out[0], op.in[0], elements * size_of(op.in_types[0]), stream);
}

// Copies between device and host for as long as the transfer is to take, by a speed measured at the first.
void DeviceCollectives::travel(Stream* stream) {
  constexpr int64_t kPiece = int64_t{4} << 20;
  if (road_[0] == nullptr) {
    road_[0] = device_.allocate_pinned(kPiece);
    road_[1] = device_.allocate(kPiece);
    Event *const from = device_.event_create(), *const to = device_.event_create();
    constexpr int kTries = 16;
    for (int i = 0; i <= kTries; ++i) {  // the first warms up
      device_.copy(road_[0], road_[1], kPiece, stream);
      if (i == 0) device_.event_record(from, stream);
    }
    device_.event_record(to, stream);
    device_.event_await(to);
    const double each = std::max(device_.event_microseconds(from, to) / kTries, 1e-3);
    road_bytes_ = int64_t(double(kPiece) * options_.own_transfer_microseconds / each);
    device_.event_destroy(from), device_.event_destroy(to);
  }
  for (int64_t left = road_bytes_; left > 0; left -= kPiece) {
    device_.copy(road_[0], road_[1], std::min(left, kPiece), stream);
  }
}

// One message for each expert of each peer, in the order of experts: sender and receiver cut the rows alike.
void DeviceCollectives::exchange_rows(const ProgramOp& op, const int32_t* counts, Stream* stream) {
  const std::vector<int>& members = groups_[int(Group::kExpertParallel)];
  const RowExchange rows(op.attrs, counts, topology_, members);
  const bool dispatch = op.collective == Collective::kDispatch;
  const std::vector<RowRanges>& from = dispatch ? rows.by_expert() : rows.by_source();
  const std::vector<RowRanges>& to = dispatch ? rows.by_source() : rows.by_expert();
  rows.check_room("rows", dispatch ? rows.rows_by_expert() : rows.rows_by_source(), op.in_elements[0]);
  rows.check_room("out", dispatch ? rows.rows_by_source() : rows.rows_by_expert(), op.out_elements[0]);

  const int64_t row_bytes = op.attrs.dim * size_of(op.in_types[0]);
  const char* const source = static_cast<const char*>(op.in[0]);
  char* const target = static_cast<char*>(op.out[0]);
  void* const handle = device_.stream_handle(stream);
  nccl::Comm* const comm = comm_of(Group::kExpertParallel);
  for (size_t member = 0; member < members.size(); ++member) {
    if (members[member] != topology_.rank) continue;
    for (size_t i = 0; i < from[member].size(); ++i) {  // its own, expert by expert as well
      const RowRange &own = from[member][i], &place = to[member][i];
      device_.copy(target + place.first * row_bytes, source + own.first * row_bytes, own.count * row_bytes, stream);
    }
  }
  if (members.size() == 1) return;
  group(comm, "an all-to-all", [&] {
    for (size_t member = 0; member < members.size(); ++member) {
      if (members[member] == topology_.rank) continue;
      for (const RowRange& range : from[member]) {
        demand(nccl_->send(source + range.first * row_bytes, size_t(range.count * row_bytes), nccl::kInt8, int(member),
                           comm, handle),
               "ncclSend");
      }
      for (const RowRange& range : to[member]) {
        demand(nccl_->receive(target + range.first * row_bytes, size_t(range.count * row_bytes), nccl::kInt8,
                              int(member), comm, handle),
               "ncclRecv");
      }
    }
  });
}

// As much to every peer, whatever the counts. They are read by the device alone.
void DeviceCollectives::exchange_padded(const ProgramOp& op, Stream* stream) {
  const bool dispatch = op.collective == Collective::kDispatch;
  PaddedRows rows{.padded = padded_[0],
                  .rows = const_cast<void*>(op.in[0]),
                  .all_counts = static_cast<const int32_t*>(op.in[1]),
                  .scratch = static_cast<int32_t*>(segments_),
                  .attrs = &op.attrs,
                  .slots = slots_of(op.attrs),
                  .row_bytes = op.attrs.dim * size_of(op.in_types[0]),
                  .by_expert = dispatch,
                  .pack = true};
  device_.move_padded(rows, stream);
  nccl::Comm* const comm = comm_of(Group::kExpertParallel);
  void* const handle = device_.stream_handle(stream);
  const size_t members = groups_[int(Group::kExpertParallel)].size(), part = size_t(padded_bytes(op)) / members;
  group(comm, "an all-to-all", [&] {
    if (nccl_->all_to_all != nullptr) {
      demand(nccl_->all_to_all(padded_[0], padded_[1], part, nccl::kInt8, comm, handle), "ncclAlltoAll");
      return;
    }
    for (size_t member = 0; member < members; ++member) {
      const char* const out = static_cast<const char*>(padded_[0]) + member * part;
      char* const in = static_cast<char*>(padded_[1]) + member * part;
      if (groups_[int(Group::kExpertParallel)][member] == topology_.rank) {
        device_.copy(in, out, int64_t(part), stream);
        continue;
      }
      demand(nccl_->send(out, part, nccl::kInt8, int(member), comm, handle), "ncclSend");
      demand(nccl_->receive(in, part, nccl::kInt8, int(member), comm, handle), "ncclRecv");
    }
  });
  rows.padded = padded_[1], rows.rows = op.out[0], rows.by_expert = !dispatch, rows.pack = false;
  device_.move_padded(rows, stream);
}

void DeviceCollectives::all_reduce(const ProgramOp& op, Stream* stream) {
  if (groups_[int(op.group)].size() == 1) return;
  nccl::Comm* const comm = comm_of(op.group);
  group(comm, "ncclAllReduce", [&] {
    for (const FloatSpan& span : merge_neighbours(op)) {
      demand(nccl_->all_reduce(span.data, span.data, size_t(span.elements), nccl::kFloat32, nccl::kSum, comm,
                               device_.stream_handle(stream)),
             "ncclAllReduce");
    }
  });
}

}  // namespace scmoe
