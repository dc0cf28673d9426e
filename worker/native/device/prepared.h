// What a program needs on a device beside its buffers: events that order its ops and take their times, its graph.
#pragma once

#include <vector>

#include "device.h"
#include "program/program.h"

namespace scmoe {

class Prepared {
 public:
  Prepared(const Device& device, int index, const Program& program);
  ~Prepared();
  Prepared(const Prepared&) = delete;
  Prepared& operator=(const Prepared&) = delete;

  // By op. `passed` orders the other queue's ops after it; null where none waits for it.
  std::vector<Event*> begin, end, passed;
  Event* forked = nullptr;  // compute queue, before its first op
  Event* joined = nullptr;  // comm queue, after its last
  Event* last = nullptr;    // both queues
  Graph* graph = nullptr;
  bool has_run = false;  // everything that is made at a first call has been

 private:
  const Device& device_;
};

}  // namespace scmoe
