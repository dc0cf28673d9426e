#include "device/prepared.h"

namespace scmoe {

Prepared::Prepared(const Device& device, const Program& program) : device_(device) {
  const size_t num_ops = program.ops.size();
  begin.resize(num_ops), end.resize(num_ops), passed.resize(num_ops);
  for (size_t i = 0; i < num_ops; ++i) {
    begin[i] = device_.event_create();
    end[i] = device_.event_create();
    const ProgramOp& op = program.ops[i];
    if (op.wait_count == 0) continue;
    const int other = program.queues[1 - int(op.queue)][op.wait_count - 1];
    if (passed[other] == nullptr) passed[other] = device_.event_create();
  }
  forked = device_.event_create();
  joined = device_.event_create();
  last = device_.event_create();
}

Prepared::~Prepared() {
  if (graph != nullptr) device_.graph_destroy(graph);
  for (const std::vector<Event*>* events : {&begin, &end, &passed}) {
    for (Event* event : *events) {
      if (event != nullptr) device_.event_destroy(event);
    }
  }
  for (Event* event : {forked, joined, last}) device_.event_destroy(event);
}

}  // namespace scmoe
