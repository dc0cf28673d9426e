// Puts the ops of programs on the device: the two queues are two streams, and waits between the
// queues are events. Only the compute thread uses it.
#pragma once

#include <string>

#include "device.h"
#include "device/collectives.h"
#include "device/prepared.h"
#include "device/progress.h"
#include "executor/executor.h"
#include "interrupt.h"

namespace scmoe {

class Streams {
 public:
  // `name` is the device's, for messages. With `graphs`, a program whose shapes are static runs as
  // one graph from its second run on.
  Streams(const Device& device, const std::string& name, bool graphs, Collectives& collectives, Interrupt& interrupt)
      : device_(device), name_(name), graphs_(graphs), collectives_(collectives), interrupt_(interrupt) {}

  void open();
  void close();

  // Puts all ops of the program on the streams; Prepared::last follows them. Throws ABORTED, or
  // with `op` set.
  void issue(const LoadedProgram& loaded, RunProgress& progress);

 private:
  // The state of one pass over the program's ops.
  struct Pass {
    const Program& program;
    Prepared& prepared;
    RunProgress& progress;
    size_t next[2] = {};      // by Queue: position of the op to issue next
    uint32_t waited[2] = {};  // by Queue: number of the other queue's ops that it already waits for
  };

  static const ProgramOp* next_op(const Pass& pass, Queue queue);

  bool is_static(const Program& program) const;
  void issue_each(Pass pass);
  bool issuable(const Pass& pass, Queue queue);
  void await_counts(const Pass& pass);
  void issue_next(Pass& pass, Queue queue);
  void run_op(const ProgramOp& op, Stream* stream);

  const Device& device_;
  const std::string name_;
  const bool graphs_;
  Collectives& collectives_;
  Interrupt& interrupt_;
  Stream* streams_[2] = {};  // by Queue
};

}  // namespace scmoe
