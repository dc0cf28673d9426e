// One rank's engine: programs, their memory, and the two threads that run them. Knows nothing of Node, and of hardware
// only what an Executor says.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/host_thread.h"
#include "error.h"
#include "executor/executor.h"
#include "executor/memory.h"
#include "interrupt.h"
#include "mesh/communicator.h"
#include "mesh/mesh.h"
#include "program/program.h"

namespace scmoe {

// A persistent buffer. `arena` keeps the memory alive.
struct BufferView {
  std::shared_ptr<Arena> arena;
  int64_t offset = 0;
  int64_t elements = 0;
  DType dtype = DType::kF32;
};

// Calls that take a Done return at once and are one at a time. Methods are for one thread (JavaScript's); Done is
// called once, on any thread. After the first error of such a call the engine is dead: every later call fails with that
// error, until it is closed. Misuse throws std::logic_error or std::invalid_argument.
class Engine {
 public:
  using Done = std::function<void(const Error* error)>;  // nullptr: success

  // Makes the executor of some hardware; throws what it throws.
  using MakeExecutor = std::function<std::unique_ptr<Executor>(const EngineOptions&, Communicator&, Interrupt&)>;

  Engine(const EngineOptions& options, const MakeExecutor& make_executor);
  // In this process's memory.
  Engine(const EngineOptions& options, const Backend* backend);
  ~Engine() { close(); }

  std::string description() const { return executor_->description(); }
  uint64_t bytes_sent() const { return communicator_.bytes_sent(); }
  const Traffic& traffic() const { return communicator_.traffic(); }  // so far; while no call is pending
  int listen(int port);                                               // the port listened on
  void connect(std::vector<PeerAddress> peers, const TokenDigest& token, Done done);
  void load(std::string_view json);
  void run(const std::string& name, Done done);
  const RunTimes& times() const { return times_; }  // of the last run, between its Done and the next run
  // Where this process sees a buffer. On a device what is written there reaches programs with `upload`, and what they
  // wrote is seen after `download`; in this process's memory both see the same.
  BufferView view(const std::string& buffer) const;
  void upload(const std::vector<std::string>& buffers);
  void download(const std::vector<std::string>& buffers);
  int64_t available_memory() const;                                         // bytes, for programs
  void all_reduce(std::shared_ptr<std::vector<double>> values, Done done);  // in place
  void abort();
  void close();

 private:
  using Part = void (Executor::*)(const LoadedProgram& loaded);

  void check_alive() const;
  void check_idle(const char* call) const;
  const Buffer& persistent_buffer(const std::string& name, const char* call) const;
  void begin(Done done);
  void finish();
  void fail(const Error& error);
  void guard(const std::function<void()>& step);
  void check_persistent(const Program& program) const;
  void run_part(const LoadedProgram& loaded, Part part);

  const EngineOptions options_;
  Interrupt interrupt_;
  Communicator communicator_;
  Socket listener_;
  const std::unique_ptr<Executor> executor_;

  std::map<std::string, std::unique_ptr<LoadedProgram>> programs_;
  std::map<std::string, Buffer> persistent_buffers_;

  mutable std::mutex mutex_;  // guards pending_ and failure_
  Done pending_;
  std::optional<Error> failure_;
  bool closed_ = false;

  RunTimes times_;
  std::atomic<int> parts_left_{0};

  HostThread compute_{"scmoe-compute"};
  HostThread comm_{"scmoe-comm"};
};

}  // namespace scmoe
