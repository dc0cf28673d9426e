// The objects that a loaded program has on a device beside its buffers: events that order its ops
// and take their times, and its graph.
#pragma once

#include <vector>

#include "device.h"
#include "executor/executor.h"
#include "program/program.h"

namespace scmoe {

class Prepared {
 public:
  // Uses the device that the calling thread has chosen.
  Prepared(const Device& device, const Program& program);
  ~Prepared();
  Prepared(const Prepared&) = delete;
  Prepared& operator=(const Prepared&) = delete;

  // By op. `passed` lets the other queue wait for the op; null if no op of that queue does.
  std::vector<Event*> begin, end, passed;
  Event* forked = nullptr;  // recorded on the compute queue before its first op
  Event* joined = nullptr;  // recorded on the comm queue after its last op
  Event* last = nullptr;    // recorded after both queues
  Graph* graph = nullptr;
  bool has_run = false;  // libraries have allocated what they allocate at a first call

 private:
  const Device& device_;
};

inline Prepared& prepared_of(const LoadedProgram& loaded) {
  return *static_cast<Prepared*>(loaded.prepared.get());
}

}  // namespace scmoe
