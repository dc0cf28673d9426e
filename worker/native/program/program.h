// A program as the engine runs it: the JSON of worker/program/program.ts, checked once and then
// bound to memory.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "backend.h"

namespace scmoe {

// The place of this rank in the world. With size = expert_parallel_size, the expert-parallel (ep)
// group of rank r is the `size` ranks from floor(r / size) * size. Its expert-data-parallel (edp)
// group is the ranks that hold the same experts: r mod size, r mod size + size, and so on.
struct Topology {
  int rank = 0;
  int world_size = 1;
  int expert_parallel_size = 1;
};

enum class Group : uint8_t { kWorld, kExpertParallel, kExpertDataParallel };

// The members of a group in rank order, with this rank.
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

// The numbers of an input by which an op finds elements of other buffers.
struct Indices {
  int input;
  int64_t elements;
  int64_t from, end;  // at least `from`, below `end`
  const char* limit;  // `end` in words
};

// The rows that an op finds by counts, of which no more than `room` may be kept.
struct CountedRows {
  // Inputs, or -1. Before dispatch a choice has the row `slot` of its expert; after dispatch rows
  // are counted alone.
  int counts = -1, expert = -1, slot = -1;
  int64_t room = 0;
};

struct ProgramOp {
  std::string name;   // row of the op table
  std::string label;  // unique within the program
  Queue queue = Queue::kCompute;
  OpFunction run = nullptr;  // compute ops
  Collective collective = Collective::kNone;
  Group group = Group::kWorld;
  Attrs attrs{};
  std::vector<int> inputs, outputs;  // indices into Program::buffers

  // The number of ops of the other queue that must have finished. Queues run in order, so one
  // number stands for the whole list of waits.
  uint32_t wait_count = 0;
  // Identifies this op on the wire, so that ranks that run different programs notice.
  uint32_t fingerprint = 0;

  // Demands on the numbers in its inputs, whenever it runs (indices.h).
  std::vector<Indices> indices;
  CountedRows rows;

  // Filled by `bind`.
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

// Parses a program and checks everything that can be checked before a run. Throws BAD_PROGRAM with
// the op, the field and the value.
Program parse_program(std::string_view json, const Backend& backend, const Topology& topology);

// Fills the pointers of every op. The program must not move afterwards.
void bind(Program& program, char* persistent, char* transient);

// A bound compute op as its function takes it. The result points into the op.
OpCall call_of(const ProgramOp& op);

}  // namespace scmoe
