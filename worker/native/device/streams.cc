#include "device/streams.h"

#include <algorithm>
#include <chrono>

#include "device/errors.h"
#include "error.h"

namespace scmoe {
namespace {

constexpr std::chrono::microseconds kSpin{200};  // in most cases counts arrive within this time

}  // namespace

void Streams::open() {
  streams_[int(Queue::kCompute)] = device_.backend->stream_create(1);
  streams_[int(Queue::kComm)] = device_.stream_create(true);
}

void Streams::close() {
  if (streams_[int(Queue::kCompute)] != nullptr) device_.backend->stream_destroy(streams_[int(Queue::kCompute)]);
  if (streams_[int(Queue::kComm)] != nullptr) device_.stream_destroy(streams_[int(Queue::kComm)]);
  streams_[0] = streams_[1] = nullptr;
}

bool Streams::is_static(const Program& program) const {
  return std::none_of(program.ops.begin(), program.ops.end(),
                      [this](const ProgramOp& op) { return collectives_.needs_counts(op); });
}

// The first run issues the ops one by one, because libraries allocate at a first call, which cannot
// be captured. Later runs use a graph where shapes are static.
void Streams::issue(const LoadedProgram& loaded, RunProgress& progress) {
  Prepared& prepared = prepared_of(loaded);
  Stream* const compute = streams_[int(Queue::kCompute)];
  const bool as_graph = graphs_ && prepared.has_run && is_static(loaded.program);
  collectives_.begin();
  progress.is_graph = as_graph;  // set before the capture: a captured event must not be queried
  if (as_graph && prepared.graph == nullptr) {
    device_.capture_begin(compute);
    issue_each({loaded.program, prepared, progress});
    prepared.graph = device_.capture_end(compute);
  }
  if (as_graph) {
    device_.graph_launch(prepared.graph, compute);
    progress.comm_issued = uint32_t(loaded.program.queues[int(Queue::kComm)].size());
  } else {
    issue_each({loaded.program, prepared, progress});
  }
  device_.event_record(prepared.last, compute);
  prepared.has_run = true;
}

void Streams::issue_each(Pass pass) {
  Stream *const compute = streams_[int(Queue::kCompute)], *const comm = streams_[int(Queue::kComm)];
  device_.event_record(pass.prepared.forked, compute);
  device_.stream_wait(comm, pass.prepared.forked);
  while (next_op(pass, Queue::kCompute) != nullptr || next_op(pass, Queue::kComm) != nullptr) {
    interrupt_.check();
    // Communication goes first: it takes little time to issue and much to run.
    if (issuable(pass, Queue::kComm)) {
      issue_next(pass, Queue::kComm);
    } else if (issuable(pass, Queue::kCompute)) {
      issue_next(pass, Queue::kCompute);
    } else {
      await_counts(pass);
    }
  }
  device_.event_record(pass.prepared.joined, comm);
  device_.stream_wait(compute, pass.prepared.joined);
}

const ProgramOp* Streams::next_op(const Pass& pass, Queue queue) {
  const std::vector<int>& ops = pass.program.queues[int(queue)];
  const size_t next = pass.next[int(queue)];
  return next < ops.size() ? &pass.program.ops[ops[next]] : nullptr;
}

// Whether the ops that it waits for have been issued, and its counts have been read if it needs
// any.
bool Streams::issuable(const Pass& pass, Queue queue) {
  const ProgramOp* const op = next_op(pass, queue);
  if (op == nullptr || op->wait_count > pass.next[1 - int(queue)]) return false;
  return queue == Queue::kCompute || collectives_.ready(*op, streams_[int(queue)]);
}

// Called when nothing else can be issued: compute waits for communication, which waits for counts.
void Streams::await_counts(const Pass& pass) {
  const ProgramOp* const op = next_op(pass, Queue::kComm);
  const auto patience = Clock::now() + kSpin;
  while (Clock::now() < patience) {
    if (collectives_.ready(*op, streams_[int(Queue::kComm)])) return;
  }
  collectives_.await(*op);
}

void Streams::issue_next(Pass& pass, Queue queue) {
  const int index = pass.program.queues[int(queue)][pass.next[int(queue)]++];
  const ProgramOp& op = pass.program.ops[index];
  Stream* const stream = streams_[int(queue)];
  uint32_t& waited = pass.waited[int(queue)];
  if (op.wait_count > waited) {
    waited = op.wait_count;
    device_.stream_wait(stream, pass.prepared.passed[pass.program.queues[1 - int(queue)][waited - 1]]);
  }
  device_.event_stamp(pass.prepared.begin[index], stream);
  run_op(op, stream);
  device_.event_stamp(pass.prepared.end[index], stream);
  if (pass.prepared.passed[index] != nullptr) device_.event_record(pass.prepared.passed[index], stream);
  if (queue == Queue::kComm) pass.progress.comm_issued = uint32_t(pass.next[int(queue)]);
}

void Streams::run_op(const ProgramOp& op, Stream* stream) {
  if (op.queue == Queue::kComm) return collectives_.issue(op, stream);
  try {
    on_device(name_, [&] { op.run(call_of(op), stream); });
  } catch (Error& error) {
    error.op = op.label;
    throw;
  }
}

}  // namespace scmoe
