// One rank's engine: memory, programs, and the two threads that run their queues. Knows nothing of Node.
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

#include "backend.h"
#include "communicator.h"
#include "error.h"
#include "host_thread.h"
#include "interrupt.h"
#include "memory.h"
#include "mesh.h"
#include "program.h"

namespace scmoe {

struct EngineOptions {
  Topology topology;
  int compute_threads = 1;
  std::chrono::milliseconds timeout{30'000};  // of connect, and of every collective
};

// Microseconds, by op.
struct RunTimes {
  std::vector<double> start, end;  // from the start of the run
  std::vector<double> ready;       // of a collective: when the last peer had come to it; of others: start
  std::vector<double> cpu;         // processor time that the queue's thread spent on it

  void reset(size_t num_ops);
};

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

  Engine(const EngineOptions& options, const Backend* backend);
  ~Engine() { close(); }

  std::string description() const;
  uint64_t bytes_sent() const { return communicator_.bytes_sent(); }
  const Traffic& traffic() const { return communicator_.traffic(); }  // so far; while no call is pending
  int listen(int port);                                               // the port listened on
  void connect(std::vector<PeerAddress> peers, const TokenDigest& token, Done done);
  void load(std::string_view json);
  void run(const std::string& name, Done done);
  const RunTimes& times() const { return times_; }  // of the last run, between its Done and the next run
  BufferView view(const std::string& buffer) const;
  void all_reduce(std::shared_ptr<std::vector<double>> values, Done done);  // in place
  void abort();
  void close();

 private:
  struct Loaded {
    Program program;
    // By position in the comm queue: ranks that the ops from there on need. Others may be through and gone.
    std::vector<std::vector<int>> peers_ahead;
  };

  // How far a queue has come: a count of its finished ops, and kStop once nothing more will come.
  using Progress = std::atomic<uint32_t>;
  static constexpr uint32_t kStop = 1u << 31;
  static constexpr uint32_t kNever = ~0u;

  void check_alive() const;
  void begin(Done done);
  void finish();
  void fail(const Error& error);
  void guard(const std::function<void()>& step);
  void allocate(const Program& program);
  void check_persistent(const Program& program) const;
  void run_queue(const Loaded& loaded, Queue queue);
  void run_ops(const Loaded& loaded, Queue queue);
  Clock::time_point run_op(const ProgramOp& op, int index);
  void await_compute(uint32_t count, const std::vector<int>& peers);
  void await_comm(uint32_t count);
  double microseconds(Clock::time_point time) const;

  const EngineOptions options_;
  const Backend* const backend_;
  Stream* stream_ = nullptr;  // the compute thread's
  Interrupt interrupt_;
  Communicator communicator_;
  Socket listener_;

  std::shared_ptr<Arena> persistent_, transient_;
  std::map<std::string, std::unique_ptr<Loaded>> programs_;
  std::map<std::string, Buffer> persistent_buffers_;

  mutable std::mutex mutex_;  // guards pending_ and failure_
  Done pending_;
  std::optional<Error> failure_;
  bool closed_ = false;

  Clock::time_point started_;
  RunTimes times_;
  Progress finished_[2];  // by Queue
  // The count of compute ops that the communication thread sleeps for. Rung for less, it would take the processor from
  // computation after each op.
  std::atomic<uint32_t> comm_sleeps_for_{kNever};
  std::atomic<int> queues_left_{0};

  HostThread compute_{"scmoe-compute"};
  HostThread comm_{"scmoe-comm"};
};

}  // namespace scmoe
