#include "device/streams.h"

#include <algorithm>
#include <atomic>
#include <thread>

#include "device/arenas.h"
#include "device/arrivals.h"
#include "device/errors.h"
#include "device/prepared.h"

namespace scmoe {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kWatch{50};               // how often the communication thread looks
constexpr std::chrono::microseconds kSpin{200};  // counts are mostly there by then
constexpr milliseconds kWitness{1000};           // for the watch to say which peer an error of NCCL comes from

std::string name_of(const Device& device, int index) {
  const std::string place = std::string(device.backend->name) + ":" + std::to_string(index);
  DeviceInfo info{};
  on_device(place, [&] {
    device.use(index);
    device.describe(&info);
  });
  return place + " (" + info.name + ")";
}

class DeviceExecutor final : public Executor {
 public:
  DeviceExecutor(const EngineOptions& options, const Device& device, const DeviceOptions& device_options,
                 Communicator& control, Interrupt& interrupt)
      : device_(device),
        options_(device_options),
        topology_(options.topology),
        timeout_(options.timeout),
        name_(name_of(device, device_options.index)),
        control_(control),
        interrupt_(interrupt),
        memory_(device, device_options.index, name_),
        collectives_(device, options.topology, device_options.collectives, interrupt) {}

  std::string description() const override { return name_; }
  const Backend& backend() const override { return *device_.backend; }
  Memory& memory() override { return memory_; }

  void open() override {
    on_device(name_, [this] {
      device_.use(options_.index);
      streams_[int(Queue::kCompute)] = device_.backend->stream_create(1);
      streams_[int(Queue::kComm)] = device_.stream_create(true);
    });
  }
  void close() override {
    collectives_.abort();
    if (streams_[int(Queue::kCompute)] != nullptr) device_.backend->stream_destroy(streams_[int(Queue::kCompute)]);
    if (streams_[int(Queue::kComm)] != nullptr) device_.stream_destroy(streams_[int(Queue::kComm)]);
    streams_[0] = streams_[1] = nullptr;
  }
  void connected() override {
    on_device(name_, [this] {
      device_.use(options_.index);
      collectives_.connect(control_, timeout_);
    });
  }
  void prepare(LoadedProgram& loaded) override {
    on_device(name_, [&] {
      device_.use(options_.index);
      collectives_.prepare(loaded.program);
      loaded.prepared = std::make_shared<Prepared>(device_, options_.index, loaded.program);
    });
  }

  void begin(const LoadedProgram& loaded, RunTimes& times) override;
  void run_compute(const LoadedProgram& loaded) override;
  void run_comm(const LoadedProgram& loaded) override {
    on_device(name_, [&] { watch(loaded); });
  }
  void stop() override { collectives_.abort(); }

 private:
  // Of the run under way. Touched by the compute thread alone.
  struct Issue {
    const Program& program;
    Prepared& prepared;
    size_t next[2] = {};      // by Queue: position of the op to issue next
    uint32_t waited[2] = {};  // by Queue: how many ops of the other it has been told to wait for
  };

  static Prepared& prepared_of(const LoadedProgram& loaded) { return *static_cast<Prepared*>(loaded.prepared.get()); }
  static const ProgramOp* next_op(const Issue& issue, Queue queue);

  bool is_static(const Program& program) const;
  void issue_all(const LoadedProgram& loaded);
  void issue_each(const LoadedProgram& loaded);
  bool issuable(const Issue& issue, Queue queue);
  void await_counts(const Issue& issue);
  void issue_next(Issue& issue, Queue queue);
  void run_op(const ProgramOp& op, Stream* stream);
  void collect_times(const LoadedProgram& loaded);
  void watch(const LoadedProgram& loaded);
  void await_witness() const;
  std::vector<Journeys> roll_call(const LoadedProgram& loaded, bool through, milliseconds timeout);
  void collect_arrivals(const LoadedProgram& loaded);
  [[noreturn]] void time_out(const LoadedProgram& loaded, const std::string& op);

  const Device& device_;
  const DeviceOptions options_;
  const Topology topology_;
  const milliseconds timeout_;
  const std::string name_;
  Communicator& control_;  // of the ranks' hosts
  Interrupt& interrupt_;
  DeviceMemory memory_;
  DeviceCollectives collectives_;
  Stream* streams_[2] = {};  // by Queue

  RunTimes* times_ = nullptr;
  std::atomic<uint32_t> comm_issued_{0};
  std::atomic<bool> is_graph_{false};  // the run under way
  std::atomic<bool> finished_{false};
};

void DeviceExecutor::begin(const LoadedProgram&, RunTimes& times) {
  times_ = &times;
  comm_issued_ = 0;
  is_graph_ = false;
  finished_ = false;
}

void DeviceExecutor::run_compute(const LoadedProgram& loaded) {
  try {
    device_.use(options_.index);
    issue_all(loaded);
    device_.event_await(prepared_of(loaded).last);
    interrupt_.check();
    collectives_.check();
    collect_times(loaded);
  } catch (const Error& error) {
    if (error.code == std::string_view(kDeviceFailed)) await_witness();
    throw;
  } catch (const std::bad_alloc&) {
    throw Error(kOutOfMemory, "the memory of " + name_ + " is full; lower the batch or the sequence length");
  } catch (const std::exception& error) {
    throw Error(kDeviceFailed, name_ + ": " + error.what());
  }
  finished_ = true;
  interrupt_.ring();
}

// A peer's death is an error of NCCL's here and a closed connection there. The latter says whose.
void DeviceExecutor::await_witness() const {
  for (auto left = kWitness; left.count() > 0 && !interrupt_.raised(); left -= milliseconds(10)) {
    std::this_thread::sleep_for(milliseconds(10));
  }
  interrupt_.check();
}

bool DeviceExecutor::is_static(const Program& program) const {
  return std::none_of(program.ops.begin(), program.ops.end(),
                      [this](const ProgramOp& op) { return collectives_.needs_counts(op); });
}

// First one by one: what a library makes at a first call cannot be captured. Then, where shapes are static, as a graph.
void DeviceExecutor::issue_all(const LoadedProgram& loaded) {
  Prepared& prepared = prepared_of(loaded);
  Stream* const compute = streams_[int(Queue::kCompute)];
  const bool capture = options_.graphs && prepared.has_run && is_static(loaded.program);
  collectives_.begin();
  is_graph_ = capture;  // events of a capture may not be asked for
  if (capture && prepared.graph == nullptr) {
    device_.capture_begin(compute);
    issue_each(loaded);
    prepared.graph = device_.capture_end(compute);
  }
  if (capture) {
    device_.graph_launch(prepared.graph, compute);
    comm_issued_ = uint32_t(loaded.program.queues[int(Queue::kComm)].size());
  } else {
    issue_each(loaded);
  }
  device_.event_record(prepared.last, compute);
  prepared.has_run = true;
}

void DeviceExecutor::issue_each(const LoadedProgram& loaded) {
  Issue issue{loaded.program, prepared_of(loaded)};
  Stream *const compute = streams_[int(Queue::kCompute)], *const comm = streams_[int(Queue::kComm)];
  device_.event_record(issue.prepared.forked, compute);
  device_.stream_wait(comm, issue.prepared.forked);
  while (next_op(issue, Queue::kCompute) != nullptr || next_op(issue, Queue::kComm) != nullptr) {
    interrupt_.check();
    // Communication first: it is short to issue and long to do.
    if (issuable(issue, Queue::kComm)) {
      issue_next(issue, Queue::kComm);
    } else if (issuable(issue, Queue::kCompute)) {
      issue_next(issue, Queue::kCompute);
    } else {
      await_counts(issue);
    }
  }
  device_.event_record(issue.prepared.joined, comm);
  device_.stream_wait(compute, issue.prepared.joined);
}

const ProgramOp* DeviceExecutor::next_op(const Issue& issue, Queue queue) {
  const std::vector<int>& ops = issue.program.queues[int(queue)];
  const size_t next = issue.next[int(queue)];
  return next < ops.size() ? &issue.program.ops[ops[next]] : nullptr;
}

// What it waits for has been issued, and its counts have been read where it needs any.
bool DeviceExecutor::issuable(const Issue& issue, Queue queue) {
  const ProgramOp* const op = next_op(issue, queue);
  if (op == nullptr || op->wait_count > issue.next[1 - int(queue)]) return false;
  return queue == Queue::kCompute || collectives_.ready(*op, streams_[int(queue)]);
}

// Nothing else can be issued: compute waits for communication, which waits for its counts.
void DeviceExecutor::await_counts(const Issue& issue) {
  const ProgramOp* const op = next_op(issue, Queue::kComm);
  const auto patience = Clock::now() + kSpin;
  while (Clock::now() < patience) {
    if (collectives_.ready(*op, streams_[int(Queue::kComm)])) return;
  }
  collectives_.await(*op);
}

void DeviceExecutor::issue_next(Issue& issue, Queue queue) {
  const int index = issue.program.queues[int(queue)][issue.next[int(queue)]++];
  const ProgramOp& op = issue.program.ops[index];
  Stream* const stream = streams_[int(queue)];
  uint32_t& waited = issue.waited[int(queue)];
  if (op.wait_count > waited) {
    waited = op.wait_count;
    device_.stream_wait(stream, issue.prepared.passed[issue.program.queues[1 - int(queue)][waited - 1]]);
  }
  device_.event_stamp(issue.prepared.begin[index], stream);
  run_op(op, stream);
  device_.event_stamp(issue.prepared.end[index], stream);
  if (issue.prepared.passed[index] != nullptr) device_.event_record(issue.prepared.passed[index], stream);
  if (queue == Queue::kComm) comm_issued_ = uint32_t(issue.next[int(queue)]);
}

void DeviceExecutor::run_op(const ProgramOp& op, Stream* stream) {
  if (op.queue == Queue::kComm) return collectives_.issue(op, stream);
  try {
    on_device(name_, [&] { op.run(call_of(op), stream); });
  } catch (Error& error) {
    error.op = op.label;
    throw;
  }
}

void DeviceExecutor::collect_times(const LoadedProgram& loaded) {
  const Prepared& prepared = prepared_of(loaded);
  const std::vector<int>& compute = loaded.program.queues[int(Queue::kCompute)];
  const std::vector<int>& comm = loaded.program.queues[int(Queue::kComm)];
  if (compute.empty() && comm.empty()) return;
  Event* const origin = prepared.begin[compute.empty() ? comm.front() : compute.front()];
  double first = 0;  // the other queue may have begun before
  for (size_t i = 0; i < loaded.program.ops.size(); ++i) {
    times_->start[i] = device_.event_microseconds(origin, prepared.begin[i]);
    times_->end[i] = device_.event_microseconds(origin, prepared.end[i]);
    first = std::min(first, times_->start[i]);
  }
  for (size_t i = 0; i < loaded.program.ops.size(); ++i) times_->start[i] -= first, times_->end[i] -= first;
  times_->ready = times_->start;
}

// Beside the run: sees a peer hang up, and a collective that does not end. A graph's ops are not seen one by one: the
// deadline is that of the whole.
void DeviceExecutor::watch(const LoadedProgram& loaded) {
  device_.use(options_.index);
  const Prepared& prepared = prepared_of(loaded);
  const std::vector<int>& comm = loaded.program.queues[int(Queue::kComm)];
  if (comm.empty()) return;
  size_t done = 0;
  bool begun = false;
  Clock::time_point since = Clock::now();
  while (!finished_) {
    control_.sleep(done < comm.size() ? loaded.peers_ahead[done] : std::vector<int>{}, int(kWatch.count()));
    const Clock::time_point now = Clock::now();
    if (!is_graph_) {
      const size_t issued = comm_issued_;
      const size_t before = done;
      while (done < issued && device_.event_done(prepared.end[comm[done]])) ++done;
      const bool begins = done < issued && device_.event_done(prepared.begin[comm[done]]);
      if (done > before || !begun) since = now;
      begun = begins;
    }
    if ((begun || is_graph_) && now - since > timeout_)
      time_out(loaded, loaded.program.ops[comm[std::min(done, comm.size() - 1)]].label);
  }
  collect_arrivals(loaded);
}

// All ranks meet after a run's collectives, over the mesh, and say when theirs began and ended. One that is not
// `through` calls as well, with an empty list: who waits in vain learns who is there. Empty unless all are through.
std::vector<Journeys> DeviceExecutor::roll_call(const LoadedProgram& loaded, bool through, milliseconds timeout) {
  const std::vector<int>& comm = loaded.program.queues[int(Queue::kComm)];
  const size_t ranks = size_t(topology_.world_size), each = 2 * comm.size();
  std::vector<double> values(1 + ranks * each);
  if (through) {
    values[0] = 1;
    double* const own = values.data() + 1 + size_t(topology_.rank) * each;
    for (size_t at = 0; at < comm.size(); ++at) {
      own[at] = times_->start[size_t(comm[at])];
      own[comm.size() + at] = times_->end[size_t(comm[at])];
    }
  }
  control_.all_reduce(values, timeout);
  if (size_t(values[0]) != ranks) return {};
  std::vector<Journeys> journeys(ranks);
  for (size_t rank = 0; rank < ranks; ++rank) {
    const auto begin = values.begin() + 1 + std::ptrdiff_t(rank * each), middle = begin + std::ptrdiff_t(comm.size());
    journeys[rank] = {{begin, middle}, {middle, middle + std::ptrdiff_t(comm.size())}};
  }
  return journeys;
}

// What a collective took before its last member came is the ranks' skew, not transfer.
void DeviceExecutor::collect_arrivals(const LoadedProgram& loaded) {
  if (topology_.world_size == 1) return;
  const std::vector<Journeys> journeys = roll_call(loaded, true, timeout_);
  if (journeys.empty()) return;
  const std::vector<int>& comm = loaded.program.queues[int(Queue::kComm)];
  std::vector<std::vector<int>> peers;
  for (const int op : comm) peers.push_back(control_.peers_of(loaded.program.ops[size_t(op)]));
  const std::vector<double> arrivals = last_arrivals(journeys, topology_.rank, peers);
  for (size_t at = 0; at < comm.size(); ++at) times_->ready[size_t(comm[at])] = arrivals[at];
}

// Which peer NCCL waits for it does not say, so all ranks are called by another way: those that hang too are looking
// out for it, as they have waited as long.
void DeviceExecutor::time_out(const LoadedProgram& loaded, const std::string& op) {
  Error error(kPeerTimeout, "not done within " + std::to_string(timeout_.count()) +
                                " ms, though all ranks answer; NCCL_DEBUG=INFO says what the links are");
  try {
    roll_call(loaded, false, std::max(timeout_ / 4, milliseconds(500)));
  } catch (const Error& missing) {
    error = missing;
  }
  error.op = op;
  throw error;
}

}  // namespace

std::unique_ptr<Executor> make_device_executor(const EngineOptions& options, const Device& device,
                                               const DeviceOptions& device_options, Communicator& control,
                                               Interrupt& interrupt) {
  return std::make_unique<DeviceExecutor>(options, device, device_options, control, interrupt);
}

}  // namespace scmoe
