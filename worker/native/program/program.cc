#include "program.h"

#include <algorithm>
#include <set>

#include "attributes.h"
#include "buffers.h"
#include "error.h"
#include "indices.h"
#include "json_object.h"
#include "op_table.h"

namespace scmoe {
namespace {

using nlohmann::json;
using Object = JsonObject;

constexpr int64_t kMaxBytes = int64_t{1} << 48;  // the size of the address space
constexpr int64_t kAlignment = 64;

Buffer parse_buffer(const Object& from, const Program& program, const Backend& backend) {
  Buffer buffer;
  buffer.name = from.text("name");
  buffer.dtype = DType(from.word("dtype", from.at("dtype"), {"f32", "i32", "bf16"}));
  if (buffer.dtype == DType::kBF16 && !backend.has_bf16) {
    from.fail(std::string("dtype is bf16, and backend ") + backend.name +
              " computes in f32 alone: train with training.precision float32, or on a GPU");
  }
  buffer.persistent = from.word("arena", from.at("arena"), {"persistent", "transient"}) == 0;
  const int64_t bytes = buffer.persistent ? program.persistent_bytes : program.transient_bytes;
  const int64_t width = size_of(buffer.dtype);
  buffer.elements = from.integer("elements", 0, kMaxBytes / width);
  buffer.offset = from.integer("offset", 0, kMaxBytes);
  if (buffer.offset % kAlignment != 0) from.fail("offset", from.at("offset"), "a multiple of 64");
  if (buffer.offset + bytes_of(buffer) > bytes) {
    from.fail("offset " + std::to_string(buffer.offset) + " + " + std::to_string(width) + " * elements " +
              std::to_string(buffer.elements) + " is past the end of its arena, " + std::to_string(bytes) +
              " bytes: enlarge the arena or move the buffer");
  }
  return buffer;
}

std::vector<int> parse_indices(const Object& from, const char* field, size_t count) {
  std::vector<int> indices;
  for (const json& index : from.list(field)) {
    indices.push_back(int(from.integer(field, index, 0, int64_t(count) - 1)));
  }
  return indices;
}

void parse_waits(const Object& from, const Program& program, ProgramOp& op) {
  const int index = int(program.ops.size());
  for (const json& value : from.list("waits")) {
    const int64_t wait = from.integer("waits", value, 0, int64_t{1} << 31);
    if (wait >= index) from.fail("waits", value, "an op before this one, which is op " + std::to_string(index));
    const ProgramOp& other = program.ops[wait];
    if (other.queue == op.queue) {
      from.fail("waits", value, "an op of the other queue; '" + other.label + "' is on this op's own");
    }
    // The wait ends when the other queue has finished everything up to and including that op.
    const std::vector<int>& queue = program.queues[int(other.queue)];
    const auto position = std::lower_bound(queue.begin(), queue.end(), int(wait)) - queue.begin();
    op.wait_count = std::max(op.wait_count, uint32_t(position) + 1);
  }
}

uint32_t fingerprint(const std::string& program, const ProgramOp& op) {
  uint32_t hash = 2166136261u;  // FNV-1a: finds mistakes, not attacks
  for (const std::string& part : {program, op.label, op.name}) {
    for (const char c : part + '\n') hash = (hash ^ uint8_t(c)) * 16777619u;
  }
  return hash;
}

OpFunction function_of(const Object& from, const Backend& backend, const std::string& op) {
  for (int i = 0; i < backend.num_ops; ++i) {
    if (op == backend.ops[i].name) return backend.ops[i].run;
  }
  from.fail("op '" + op + "' is not implemented by backend " + backend.name + ": choose another backend");
}

ProgramOp parse_op(const Object& from, const Program& program, const Backend& backend, const Topology& topology) {
  ProgramOp op;
  op.label = from.text("label");
  op.name = from.text("op");
  const OpSpec* const spec = find_op(op.name);
  if (spec == nullptr) from.fail("op", from.at("op"), "the name of an op in worker/program/ops.ts");
  op.queue = from.word("queue", from.at("queue"), {"compute", "comm"}) == 0 ? Queue::kCompute : Queue::kComm;
  if (spec->is_comm() != (op.queue == Queue::kComm)) {
    from.fail("queue", from.at("queue"), spec->is_comm() ? "'comm' for " + op.name : "'compute' for " + op.name);
  }
  op.inputs = parse_indices(from, "inputs", program.buffers.size());
  op.outputs = parse_indices(from, "outputs", program.buffers.size());
  parse_attrs(from, *spec, topology, op);
  check_buffers({from, program.buffers, *spec, op, topology});
  find_indices(program.buffers, *spec, topology, op);
  if (!spec->is_comm()) op.run = function_of(from, backend, op.name);
  parse_waits(from, program, op);
  op.fingerprint = fingerprint(program.name, op);
  return op;
}

}  // namespace

std::vector<int> group_ranks(const Topology& topology, Group group) {
  const int size = topology.expert_parallel_size;
  std::vector<int> ranks;
  for (int rank = 0; rank < topology.world_size; ++rank) {
    if (group == Group::kExpertParallel && rank / size != topology.rank / size) continue;
    if (group == Group::kExpertDataParallel && rank % size != topology.rank % size) continue;
    ranks.push_back(rank);
  }
  return ranks;
}

Program parse_program(std::string_view text, const Backend& backend, const Topology& topology) {
  const json file = parse_json(text);
  Object from(file, "program");
  from.integer("version", 1, 1);
  Program program;
  program.name = from.text("name");
  from.name = "program '" + program.name + "'";
  from.integer("rank", topology.rank, topology.rank);
  from.integer("worldSize", topology.world_size, topology.world_size);
  from.integer("expertParallelSize", topology.expert_parallel_size, topology.expert_parallel_size);
  program.persistent_bytes = from.integer("persistentBytes", 0, kMaxBytes);
  program.transient_bytes = from.integer("transientBytes", 0, kMaxBytes);

  std::set<std::string> names;
  for (const json& value : from.list("buffers")) {
    const std::string name = "buffer " + std::to_string(program.buffers.size());
    Object buffer(value, from.name + ", " + name);
    buffer.name = from.name + ", buffer '" + buffer.text("name") + "'";
    program.buffers.push_back(parse_buffer(buffer, program, backend));
    if (!names.insert(program.buffers.back().name).second)
      buffer.fail("name is taken by an earlier buffer: choose another");
  }
  std::set<std::string> labels;
  for (const json& value : from.list("ops")) {
    const int index = int(program.ops.size());
    Object op(value, from.name + ", op " + std::to_string(index));
    op.name = from.name + ", op '" + op.text("label") + "'";
    program.ops.push_back(parse_op(op, program, backend, topology));
    program.queues[int(program.ops.back().queue)].push_back(index);
    if (!labels.insert(program.ops.back().label).second) op.fail("label is taken by an earlier op: choose another");
  }
  return program;
}

void bind(Program& program, char* persistent, char* transient) {
  const auto address = [&](int index) {
    const Buffer& buffer = program.buffers[index];
    return (buffer.persistent ? persistent : transient) + buffer.offset;
  };
  for (ProgramOp& op : program.ops) {
    op.in.clear(), op.in_elements.clear(), op.in_types.clear();
    op.out.clear(), op.out_elements.clear(), op.out_types.clear();
    for (const int index : op.inputs) {
      op.in.push_back(address(index));
      op.in_elements.push_back(program.buffers[index].elements);
      op.in_types.push_back(program.buffers[index].dtype);
    }
    for (const int index : op.outputs) {
      op.out.push_back(address(index));
      op.out_elements.push_back(program.buffers[index].elements);
      op.out_types.push_back(program.buffers[index].dtype);
    }
  }
}

OpCall call_of(const ProgramOp& op) {
  return {op.in.data(),           op.in_elements.data(), op.in_types.data(), int(op.in.size()), op.out.data(),
          op.out_elements.data(), op.out_types.data(),   int(op.out.size()), &op.attrs};
}

}  // namespace scmoe
