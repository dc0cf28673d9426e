#include "program.h"

#include <algorithm>
#include <cstdio>
#include <optional>
#include <set>

#include "attributes.h"
#include "error.h"
#include "json_object.h"
#include "op_table.h"

namespace scmoe {
namespace {

using nlohmann::json;
using Object = JsonObject;

constexpr int64_t kMaxBytes = int64_t{1} << 48;  // what an address can say
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
              std::to_string(buffer.elements) + " is past the end of its arena, " + std::to_string(bytes) + " bytes");
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

// One side of an op: what the table says of it and what the file gives.
struct Side {
  const char* name;
  const char* row;
  const std::vector<int>& indices;
  const std::vector<double>& extents;
  std::optional<DType> marked;  // type of what the table marks "*"
};

const char* name_of(DType dtype) {
  return dtype == DType::kI32 ? "i32" : dtype == DType::kBF16 ? "bf16" : "f32";
}

// Buffers that hold indices or counts are i32. What the table marks has one type throughout an op, f32 or bf16, and all
// others are f32.
DType type_of(const ProgramOp& op, const std::string& buffer, std::optional<DType> marked) {
  static const std::set<std::string> kIntegers = {"tokens", "expert", "slot", "counts", "allCounts", "taken"};
  if (op.name != "global_norm" && kIntegers.count(buffer) > 0) return DType::kI32;  // whose `expert` is a norm
  return marked.value_or(DType::kF32);
}

// The type of what the table marks: that of the first of them.
std::optional<DType> marked_type(const Program& program, const ProgramOp& op, const OpSpec& spec) {
  for (const auto& [row, indices] : {std::pair{spec.inputs, &op.inputs}, std::pair{spec.outputs, &op.outputs}}) {
    const std::vector<std::string> names = words(row);
    for (size_t i = 0; i < names.size() && i < indices->size(); ++i) {
      const DType dtype = program.buffers[size_t((*indices)[i])].dtype;
      if (names[i].find('*') != std::string::npos) return dtype == DType::kBF16 ? dtype : DType::kF32;
    }
  }
  return std::nullopt;
}

// The number of buffers, their kind and, where attributes say it, their size.
void check_buffers(const Object& from, const Program& program, const ProgramOp& op, const Side& side) {
  std::vector<std::string> names = words(side.row);
  if (op.name == "linear" && op.attrs.bias == 0) std::erase(names, "b*?");
  const bool any = !names.empty() && names.back().ends_with("...");
  const size_t least = any ? 0 : std::count_if(names.begin(), names.end(), [](auto& n) { return !n.ends_with("?"); });
  if (side.indices.size() < least || (!any && side.indices.size() > names.size())) {
    from.fail(std::string(side.name) + ": " + std::to_string(side.indices.size()) + " buffers given, wants (" +
              side.row + ")");
  }
  for (size_t i = 0; i < side.indices.size(); ++i) {
    const Buffer& buffer = program.buffers[side.indices[i]];
    std::string name = any ? names.back() : names[i];
    const bool is_marked = name.find('*') != std::string::npos;
    if (const size_t mark = name.find_first_of("*?+#."); mark != std::string::npos) name.resize(mark);
    const std::string which = std::string(side.name) + " '" + name + "' (buffer '" + buffer.name + "')";
    const DType type = type_of(op, name, is_marked ? side.marked : std::nullopt);
    if (buffer.dtype != type && op.name != "zero") {
      from.fail(which + " is " + name_of(buffer.dtype) + ", wants " + name_of(type));
    }
    const double wanted = i < side.extents.size() ? side.extents[i] : 0;
    if (double(buffer.elements) >= wanted) continue;
    char number[32];
    std::snprintf(number, sizeof number, "%.0f", std::min(wanted, 1e18));
    from.fail(which + " has " + std::to_string(buffer.elements) + " elements, its attributes say " + number);
  }
}

// One copy of each buffer, as long as it is.
void check_copies(const Object& from, const Program& program, const ProgramOp& op) {
  if (op.inputs.size() != op.outputs.size()) {
    from.fail(std::to_string(op.outputs.size()) + " copies of " + std::to_string(op.inputs.size()) +
              " buffers: wants one of each");
  }
  for (size_t i = 0; i < op.inputs.size(); ++i) {
    const Buffer &buffer = program.buffers[size_t(op.inputs[i])], &copy = program.buffers[size_t(op.outputs[i])];
    if (buffer.elements == copy.elements) continue;
    from.fail("copy '" + copy.name + "' has " + std::to_string(copy.elements) + " elements, '" + buffer.name + "' " +
              std::to_string(buffer.elements));
  }
}

// The collectives read their attributes once a step and trust them, so they are held to the topology here.
void check_collective(const Object& from, const Topology& topology, ProgramOp& op) {
  if (op.name == "all_gather_counts") op.collective = Collective::kAllGatherCounts;
  if (op.name == "all_reduce") {
    op.collective = Collective::kAllReduce;
    if (op.inputs != op.outputs) from.fail("outputs differ from inputs; all_reduce works in place");
  }
  if (op.name != "all_to_all") return;
  const Attrs& attrs = op.attrs;
  if (attrs.experts % topology.expert_parallel_size != 0) {
    from.fail("attr 'experts' is " + std::to_string(attrs.experts) + ", wants a multiple of expertParallelSize, " +
              std::to_string(topology.expert_parallel_size));
  }
  if (op.inputs[0] == op.outputs[0]) from.fail("output 'out' is its input 'rows'; all_to_all does not work in place");
}

void check_topology(const Object& from, const ProgramOp& op, const OpSpec& spec, const Topology& topology) {
  const auto expect = [&](const char* name, int64_t found, int64_t wanted) {
    const std::vector<std::string> known = words(spec.attrs);
    if (!from.at("attrs").contains(name) || std::find(known.begin(), known.end(), name) == known.end()) return;
    if (found == wanted) return;
    from.fail("attr '" + std::string(name) + "' is " + std::to_string(found) + ", the engine's is " +
              std::to_string(wanted));
  };
  expect("rank", op.attrs.rank, topology.rank);
  expect("worldSize", op.attrs.worldSize, topology.world_size);
  expect("expertParallelSize", op.attrs.expertParallelSize, topology.expert_parallel_size);
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
    // The wait is met when the other queue has finished everything up to and including that op.
    const std::vector<int>& queue = program.queues[int(other.queue)];
    const auto position = std::lower_bound(queue.begin(), queue.end(), int(wait)) - queue.begin();
    op.wait_count = std::max(op.wait_count, uint32_t(position) + 1);
  }
}

uint32_t fingerprint(const std::string& program, const ProgramOp& op) {
  uint32_t hash = 2166136261u;  // FNV-1a: tells programs apart by mistake, not by malice
  for (const std::string& part : {program, op.label, op.name}) {
    for (const char c : part + '\n') hash = (hash ^ uint8_t(c)) * 16777619u;
  }
  return hash;
}

ProgramOp parse_op(const Object& from, const Program& program, const Backend& backend, const Topology& topology) {
  ProgramOp op;
  op.label = from.text("label");
  op.name = from.text("op");
  const OpSpec* spec = find_op(op.name);
  if (spec == nullptr) from.fail("op", from.at("op"), "a name from the op table");
  op.queue = from.word("queue", from.at("queue"), {"compute", "comm"}) == 0 ? Queue::kCompute : Queue::kComm;
  if (spec->comm != (op.queue == Queue::kComm)) {
    from.fail("queue", from.at("queue"), spec->comm ? "'comm' for " + op.name : "'compute' for " + op.name);
  }
  op.inputs = parse_indices(from, "inputs", program.buffers.size());
  op.outputs = parse_indices(from, "outputs", program.buffers.size());
  parse_attrs(from, *spec, op);
  check_topology(from, op, *spec, topology);
  const Extents extents = spec->extents(op.attrs, topology.world_size);
  const std::optional<DType> marked = marked_type(program, op, *spec);
  check_buffers(from, program, op, {"inputs", spec->inputs, op.inputs, extents.in, marked});
  check_buffers(from, program, op, {"outputs", spec->outputs, op.outputs, extents.out, marked});
  if (op.name == "cast") check_copies(from, program, op);
  if (spec->comm) {
    check_collective(from, topology, op);
  } else {
    for (int i = 0; i < backend.num_ops; ++i) {
      if (op.name == backend.ops[i].name) op.run = backend.ops[i].run;
    }
    if (op.run == nullptr) from.fail("op '" + op.name + "' is not implemented by backend " + backend.name);
  }
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
    if (!names.insert(program.buffers.back().name).second) buffer.fail("name is taken by an earlier buffer");
  }
  std::set<std::string> labels;
  for (const json& value : from.list("ops")) {
    const int index = int(program.ops.size());
    Object op(value, from.name + ", op " + std::to_string(index));
    op.name = from.name + ", op '" + op.text("label") + "'";
    program.ops.push_back(parse_op(op, program, backend, topology));
    program.queues[int(program.ops.back().queue)].push_back(index);
    if (!labels.insert(program.ops.back().label).second) op.fail("label is taken by an earlier op");
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
