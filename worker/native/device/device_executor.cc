#include "device/device_executor.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <thread>

#include "device/arenas.h"
#include "device/errors.h"
#include "device/prepared.h"
#include "device/progress.h"
#include "device/streams.h"
#include "device/watch.h"
#include "program/indices.h"

namespace scmoe {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kWitness{1000};  // in which the watch can name the peer behind NCCL's error

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
  DeviceExecutor(const ExecutorContext& context, const Device& device, const DeviceOptions& options)
      : device_(device),
        index_(options.index),
        timeout_(context.options.timeout),
        name_(name_of(device, options.index)),
        control_(context.communicator),
        interrupt_(context.interrupt),
        memory_(device, options.index, name_),
        collectives_(
            options.make_collectives(device, context.options.topology, options.collectives, context.interrupt)),
        streams_(device, {name_, options.graphs}, *collectives_, context.interrupt),
        watch_(device, context.options, context.communicator) {}

  std::string description() const override { return name_; }
  const Backend& backend() const override { return *device_.backend; }
  Memory& memory() override { return memory_; }

  void open() override {
    call([this] { streams_.open(); });
  }
  void close() override {
    collectives_->abort();
    streams_.close();
  }
  void connected() override {
    call([this] { collectives_->connect(control_, timeout_); });
  }
  void prepare(LoadedProgram& loaded) override {
    call([&] {
      collectives_->prepare(loaded.program);
      loaded.prepared = std::make_shared<Prepared>(device_, loaded.program);
    });
  }

  void begin(const LoadedProgram&, RunTimes& times) override {
    times_ = &times;
    progress_.reset();
  }
  void run_compute(const LoadedProgram& loaded) override;
  void run_comm(const LoadedProgram& loaded) override {
    call([&] { watch_.run(loaded, progress_, *times_); });
  }
  void stop() override { collectives_->abort(); }

 private:
  // Makes calls on the device; it becomes the calling thread's.
  template <typename Calls>
  void call(Calls calls) {
    on_device(name_, [&] {
      device_.use(index_);
      calls();
    });
  }
  void await_witness() const;
  void collect_times(const LoadedProgram& loaded);

  const Device& device_;
  const int index_;
  const milliseconds timeout_;
  const std::string name_;
  Communicator& control_;  // between the hosts of the ranks
  Interrupt& interrupt_;
  DeviceMemory memory_;
  const std::unique_ptr<Collectives> collectives_;
  Streams streams_;
  Watch watch_;
  RunTimes* times_ = nullptr;
  RunProgress progress_;
};

void DeviceExecutor::run_compute(const LoadedProgram& loaded) {
  try {
    check_uploaded(loaded.program, memory_.host()->data());
    device_.use(index_);
    streams_.issue(loaded, progress_);
    device_.event_await(prepared_of(loaded).last);
    interrupt_.check();
    collectives_->check();
    collect_times(loaded);
  } catch (const Error& error) {
    if (error.code == std::string_view(kDeviceFailed)) await_witness();
    throw;
  } catch (const std::bad_alloc&) {
    throw Error(kOutOfMemory, "the memory of " + name_ + " is full; lower the batch or the sequence length");
  } catch (const std::exception& error) {
    throw Error(kDeviceFailed, name_ + ": " + error.what());
  }
  progress_.finished = true;
  interrupt_.ring();
}

// A peer's death is an error of NCCL on this thread and a closed connection on the communication
// thread. Only the latter names the peer, so it gets time to end the run first.
void DeviceExecutor::await_witness() const {
  for (auto left = kWitness; left.count() > 0 && !interrupt_.raised(); left -= milliseconds(10)) {
    std::this_thread::sleep_for(milliseconds(10));
  }
  interrupt_.check();
}

void DeviceExecutor::collect_times(const LoadedProgram& loaded) {
  const Prepared& prepared = prepared_of(loaded);
  const std::vector<int>& compute = loaded.program.queues[int(Queue::kCompute)];
  const std::vector<int>& comm = loaded.program.queues[int(Queue::kComm)];
  if (compute.empty() && comm.empty()) return;
  Event* const origin = prepared.begin[compute.empty() ? comm.front() : compute.front()];
  double first = 0;  // negative if the other queue began before
  for (size_t i = 0; i < loaded.program.ops.size(); ++i) {
    times_->start[i] = device_.event_microseconds(origin, prepared.begin[i]);
    times_->end[i] = device_.event_microseconds(origin, prepared.end[i]);
    first = std::min(first, times_->start[i]);
  }
  for (size_t i = 0; i < loaded.program.ops.size(); ++i) times_->start[i] -= first, times_->end[i] -= first;
  times_->ready = times_->start;
}

}  // namespace

std::unique_ptr<Executor> make_device_executor(const ExecutorContext& context, const Device& device,
                                               const DeviceOptions& options) {
  return std::make_unique<DeviceExecutor>(context, device, options);
}

}  // namespace scmoe
