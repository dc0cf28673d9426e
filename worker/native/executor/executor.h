// How loaded programs run on a backend: where their buffers lie, and what the engine's two threads do during a run.
// One implementation for each kind of hardware; the engine knows no other difference.
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
  std::chrono::milliseconds timeout{30'000};  // of connect, and of every collective
};

// Microseconds, by op.
struct RunTimes {
  std::vector<double> start, end;  // from the start of the run
  std::vector<double> ready;       // of a collective: when the last peer had come to it; of others: start
  std::vector<double> cpu;         // processor time that the queue's thread spent on it

  void reset(size_t num_ops);
};

struct LoadedProgram {
  Program program;
  // By position in the comm queue: ranks that the ops from there on need. Others may be through and gone.
  std::vector<std::vector<int>> peers_ahead;
  std::shared_ptr<void> prepared;  // the executor's own
};

// Methods throw Error; what they throw ends the run, and the engine with it.
class Executor {
 public:
  virtual ~Executor() = default;

  // Of this kind of hardware, for people: "cpu-avx512, 1 thread".
  virtual std::string description() const = 0;
  virtual const Backend& backend() const = 0;
  virtual Memory& memory() = 0;

  // On the compute thread: the first call there and the last.
  virtual void open() = 0;
  virtual void close() = 0;

  // On the communication thread, once the mesh stands.
  virtual void connected() {}

  // After the program's buffers were bound, or bound anew.
  virtual void prepare(LoadedProgram&) {}

  // A run: `begin` on the caller's thread, then one call on each of the engine's threads, which return when their part
  // is done or throw.
  virtual void begin(const LoadedProgram& loaded, RunTimes& times) = 0;
  virtual void run_compute(const LoadedProgram& loaded) = 0;
  virtual void run_comm(const LoadedProgram& loaded) = 0;
  // From any thread, after the interrupt was raised: what is under way throws ABORTED at its next step.
  virtual void stop() = 0;
};

// Programs in this process's memory: each queue is a thread.
std::unique_ptr<Executor> make_host_executor(const EngineOptions& options, const Backend* backend,
                                             Communicator& communicator, Interrupt& interrupt);

}  // namespace scmoe
