// An executor runs loaded programs on one kind of hardware: it owns the memory of their buffers and
// says what the engine's two threads do during a run. The engine knows no other difference between
// kinds of hardware.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "executor/memory.h"
#include "interrupt.h"
#include "mesh/communicator.h"
#include "program/program.h"

namespace scmoe {

struct EngineOptions {
  Topology topology;
  int compute_threads = 1;
  std::chrono::milliseconds timeout{30'000};  // for connect, and for every collective
};

// The times of one run by op, in microseconds.
struct RunTimes {
  std::vector<double> start, end;  // since the start of the run
  std::vector<double> ready;       // arrival of the last peer at a collective; start of other ops
  std::vector<double> cpu;         // processor time that the queue's thread spent on the op

  void reset(size_t num_ops);
};

struct LoadedProgram {
  Program program;
  // By position in the comm queue: the ranks that the ops from there on need. Other ranks may have
  // finished and closed their connections.
  std::vector<std::vector<int>> peers_ahead;
  std::shared_ptr<void> prepared;  // belongs to the executor
};

// Methods throw Error. An error that a run ends with ends the engine too.
class Executor {
 public:
  virtual ~Executor() = default;

  // The hardware in words: "cpu-avx512, 1 thread".
  virtual std::string description() const = 0;
  virtual const Backend& backend() const = 0;
  virtual Memory& memory() = 0;

  // The first and the last call on the compute thread.
  virtual void open() = 0;
  virtual void close() = 0;

  // Called on the communication thread once all ranks are connected.
  virtual void connected() {}

  // Called each time after the program's buffers were bound to memory.
  virtual void prepare(LoadedProgram&) {}

  // The calls of one run: `begin` on the caller's thread, then one call on each of the engine's two
  // threads, which returns when its part is done.
  virtual void begin(const LoadedProgram& loaded, RunTimes& times) = 0;
  virtual void run_compute(const LoadedProgram& loaded) = 0;
  virtual void run_comm(const LoadedProgram& loaded) = 0;
  // Makes the calls of a run throw ABORTED at their next step. Any thread may call it, after the
  // interrupt was raised.
  virtual void stop() = 0;
};

// Runs programs in this process's memory: each queue is a thread.
std::unique_ptr<Executor> make_host_executor(const EngineOptions& options, const Backend* backend,
                                             Communicator& communicator, Interrupt& interrupt);

}  // namespace scmoe
