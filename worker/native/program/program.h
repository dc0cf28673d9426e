// A program as the engine runs it: the JSON of worker/program/program.ts, checked once, then bound to memory.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "backend.h"

namespace scmoe {

// Where this rank stands. The expert-parallel (ep) group of rank r is the expert_parallel_size ranks from floor(r /
// size) * size; its expert-data-parallel (edp) group is the ranks that hold the same experts: r mod size, + size, + 2
// size, ...
struct Topology {
  int rank = 0;
  int world_size = 1;
  int expert_parallel_size = 1;
};

enum class Group : uint8_t { kWorld, kExpertParallel, kExpertDataParallel };

// Members in rank order, this rank included.
std::vector<int> group_ranks(const Topology& topology, Group group);

enum class Queue : uint8_t { kCompute, kComm };
enum class Collective : uint8_t { kNone, kAllGatherCounts, kDispatch, kCombine, kAllReduce };

struct Buffer {
  std::string name;
  DType dtype = DType::kF32;
  bool persistent = false;
  int64_t elements = 0;
  int64_t offset = 0;  // bytes from the start of its arena
};

inline int64_t size_of(DType dtype) {
  return dtype == DType::kBF16 ? 2 : 4;
}
inline int64_t bytes_of(const Buffer& buffer) {
  return buffer.elements * size_of(buffer.dtype);
}

struct ProgramOp {
  std::string name;   // row of the op table
  std::string label;  // unique within the program
  Queue queue = Queue::kCompute;
  OpFunction run = nullptr;  // compute ops
  Collective collective = Collective::kNone;
  Group group = Group::kWorld;
  Attrs attrs{};
  std::vector<int> inputs, outputs;  // indices into Program::buffers

  // How many ops of the other queue must have finished. Queues run in order, so one number stands for the whole list of
  // waits.
  uint32_t wait_count = 0;
  // Names this op on the wire, so that ranks running different programs notice.
  uint32_t fingerprint = 0;

  // Bound by `bind`.
  std::vector<const void*> in;
  std::vector<void*> out;
  std::vector<int64_t> in_elements, out_elements;
  std::vector<DType> in_types, out_types;
};

struct Program {
  std::string name;
  int64_t persistent_bytes = 0;
  int64_t transient_bytes = 0;
  std::vector<Buffer> buffers;
  std::vector<ProgramOp> ops;
  std::vector<int> queues[2];  // indices into ops, by Queue, in the order they run
};

// Parses and checks everything that can be checked without running; throws BAD_PROGRAM naming op, field and value.
Program parse_program(std::string_view json, const Backend& backend, const Topology& topology);

// Fills the pointers of every op. The program must not move afterwards.
void bind(Program& program, char* persistent, char* transient);

// A bound compute op as its function takes it; points into the op.
OpCall call_of(const ProgramOp& op);

}  // namespace scmoe
