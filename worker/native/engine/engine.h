// The engine of one rank: programs, their memory, and the two threads that run them. It knows
// nothing of Node, and of hardware only what an Executor says.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/call.h"
#include "engine/host_thread.h"
#include "engine/programs.h"
#include "error.h"
#include "executor/executor.h"
#include "executor/memory.h"
#include "interrupt.h"
#include "mesh/communicator.h"
#include "mesh/mesh.h"
#include "program/program.h"

namespace scmoe {

// A persistent buffer as this process sees it. `arena` keeps the memory alive.
struct BufferView {
  std::shared_ptr<Arena> arena;
  int64_t offset = 0;
  int64_t elements = 0;
  DType dtype = DType::kF32;
};

// Calls that take a Done return at once; only one may be pending. Methods belong to one thread
// (JavaScript's); Done is called once, on any thread. The first error of such a call ends the
// engine: every later call fails with that error. Misuse throws std::logic_error or
// std::invalid_argument.
class Engine {
 public:
  using Done = scmoe::Done;

  // Makes the executor of some hardware. The engine's constructor throws what this function throws.
  using MakeExecutor = std::function<std::unique_ptr<Executor>(const EngineOptions&, Communicator&, Interrupt&)>;

  Engine(const EngineOptions& options, const MakeExecutor& make_executor);
  // An engine whose programs run in this process's memory.
  Engine(const EngineOptions& options, const Backend* backend);
  ~Engine() { close(); }

  std::string description() const { return executor_->description(); }
  uint64_t bytes_sent() const { return communicator_.bytes_sent(); }
  // The traffic so far. Not to be called while a call is pending.
  const Traffic& traffic() const { return communicator_.traffic(); }
  // Returns the port that the engine listens on; port 0 stands for any free port.
  int listen(int port);
  void connect(std::vector<PeerAddress> peers, const TokenDigest& token, Done done);
  void load(std::string_view json);
  void run(const std::string& name, Done done);
  // The times of the last run; valid from its Done to the next run.
  const RunTimes& times() const { return times_; }
  // The memory through which this process sees a buffer. On a device, programs see what was written
  // there after `upload`, and what programs wrote is seen there after `download`. In this process's
  // memory both see the same.
  BufferView view(const std::string& buffer) const;
  void upload(const std::vector<std::string>& buffers);
  void download(const std::vector<std::string>& buffers);
  int64_t available_memory() const;  // bytes that programs can still take
  // Replaces `values` by their sum over all ranks.
  void all_reduce(std::shared_ptr<std::vector<double>> values, Done done);
  void abort();
  void close();

 private:
  using Part = void (Executor::*)(const LoadedProgram& loaded);

  void check_alive() const;
  const Buffer& persistent_buffer(const std::string& name, const char* call) const;
  void begin(Done done);
  void fail(const Error& error);
  void guard(const std::function<void()>& step);
  void run_part(const LoadedProgram& loaded, Part part);

  const EngineOptions options_;
  Interrupt interrupt_;
  Communicator communicator_;
  Socket listener_;
  const std::unique_ptr<Executor> executor_;
  Programs programs_;
  PendingCall call_;
  bool closed_ = false;

  RunTimes times_;
  std::atomic<int> parts_left_{0};  // of a run: the threads that have not finished

  HostThread compute_{"scmoe-compute"};
  HostThread comm_{"scmoe-comm"};
};

}  // namespace scmoe
