// program_fuzz COUNT SEED: loads COUNT programs of one op each, most of them damaged in a few
// places, and runs those that the loader takes: on the fast kernels and on the loops that define
// the op, from the same memory. Prints "refused R, ran N", and a line for every program that was
// refused without saying why, that wrote outside its outputs, or that gave other numbers. Runs
// under sanitizers, which find accesses outside the memory.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>

#include "cpu/reference/reference.h"
#include "error.h"
#include "program/indices.h"

namespace scmoe::test {
namespace {

using nlohmann::json;

std::mt19937_64 random_engine;

int64_t draw(int64_t least, int64_t most) {
  return std::uniform_int_distribution<int64_t>(least, most)(random_engine);
}
bool chance(int percent) {
  return draw(1, 100) <= percent;
}

// --- A valid program.

struct Built {
  const OpSpec* spec;
  Topology topology;
  Attrs attrs{};
  std::vector<const scmoe::BufferSpec*> inputs, outputs;
  json program;
};

void set_integer(Built& built, const AttrSpec& attr) {
  int64_t value = draw(std::max<int64_t>(attr.least, 1), 9);
  if (attr.name == std::string_view("rows")) value = draw(0, 20);
  if (attr.name == std::string_view("capacity")) value = draw(0, 8);
  if (attr.name == std::string_view("topK")) value = draw(1, 3);
  if (attr.name == std::string_view("experts")) value = draw(2, 4) * built.topology.expert_parallel_size;
  if (attr.name == std::string_view("chunks")) value = draw(1, 3);
  if (attr.most < 3) value = draw(attr.least, attr.most);
  if (attr.equals != nullptr) value = built.topology.*attr.equals;
  built.attrs.*attr.integer = value;
}

Sizes sizes_of(const Built& built) {
  return {built.attrs, built.topology.world_size, built.inputs.size()};
}

void keep_rules(Built& built, const std::vector<Rule>& rules) {
  for (const Rule& rule : rules) {
    int64_t& value = built.attrs.*attr_spec(rule.attr).integer;
    const int64_t size = rule.size(sizes_of(built)).value();
    value = rule.kind == Rule::kAtMost ? std::min(value, size) : size * draw(1, 3);
  }
}

bool is_routed(const Built& built) {
  return built.spec->routed_by >= 0 && built.inputs.size() > size_t(built.spec->routed_by);
}

// The buffers of one side, with some of the optional ones.
std::vector<const scmoe::BufferSpec*> side_of(const std::vector<scmoe::BufferSpec>& specs, const Attrs& attrs) {
  if (!specs.empty() && specs.back().repeated) return given(specs, size_t(draw(1, 3)), attrs);
  std::vector<const scmoe::BufferSpec*> found;
  for (size_t count = specs.size() + 1; count-- > 0 && found.empty();) {
    if (count > 0 && chance(50)) continue;
    found = given(specs, count, attrs);
  }
  for (size_t count = 0; count <= specs.size() && found.empty(); ++count) found = given(specs, count, attrs);
  return found;
}

json json_of(const Built& built) {
  json attrs = json::object();
  const auto add = [&](const char* name) {
    const AttrSpec& attr = attr_spec(name);
    if (attr.integer != nullptr) attrs[name] = built.attrs.*attr.integer;
    if (attr.real != nullptr) attrs[name] = built.attrs.*attr.real;
    if (attr.word != Word::kNone) attrs[name] = attr.words[size_t(draw(0, int64_t(attr.words.size()) - 1))];
  };
  for (const char* name : built.spec->attrs) add(name);
  if (is_routed(built)) {
    for (const char* name : built.spec->routed_attrs) add(name);
  }
  return attrs;
}

int64_t elements_of(const Built& built, const scmoe::BufferSpec& spec, int64_t routed_rows, int64_t place) {
  if (spec.extent == Extent::kAny || spec.extent == Extent::kAsInputs) return 3 + 5 * place;
  const int64_t size = spec.elements(sizes_of(built)).value();
  return spec.extent == Extent::kRouted ? size * routed_rows : size;
}

Built build(const OpSpec& spec) {
  const Topology topologies[] = {{0, 1, 1}, {1, 4, 2}, {1, 2, 2}};
  Built built{.spec = &spec, .topology = topologies[draw(0, 2)], .inputs = {}, .outputs = {}, .program = {}};
  for (const auto* names : {&spec.attrs, &spec.routed_attrs}) {
    for (const char* name : *names) {
      const AttrSpec& attr = attr_spec(name);
      if (attr.integer != nullptr) set_integer(built, attr);
      if (attr.real != nullptr) built.attrs.*attr.real = 0.01f * float(draw(1, 99));
    }
  }
  built.inputs = side_of(spec.inputs, built.attrs);
  built.outputs = side_of(spec.outputs, built.attrs);
  if (!built.outputs.empty() && built.outputs[0]->extent == Extent::kAsInputs)
    built.outputs.assign(built.inputs.size(), built.outputs[0]);
  keep_rules(built, spec.rules);
  if (is_routed(built)) keep_rules(built, spec.routed_rules);
  if (!is_routed(built)) built.attrs.chunk = 0, built.attrs.chunks = 1;
  const int64_t rows = is_routed(built) ? std::max(built.attrs.rows, draw(0, 30)) : built.attrs.rows;

  int64_t ends[2] = {0, 0};
  json buffers = json::array(), inputs = json::array(), outputs = json::array();
  const auto add = [&](const std::vector<const scmoe::BufferSpec*>& side, json& indices) {
    for (size_t i = 0; i < side.size(); ++i) {
      const int64_t elements = elements_of(built, *side[i], rows, int64_t(i)), arena = draw(0, 1);
      indices.push_back(buffers.size());
      buffers.push_back({{"name", "buffer" + std::to_string(buffers.size())},
                         {"dtype", side[i]->type == BufferType::kI32 ? "i32" : "f32"},
                         {"elements", elements},
                         {"arena", arena == 0 ? "persistent" : "transient"},
                         {"offset", ends[arena]}});
      ends[arena] = (ends[arena] + 4 * elements + 63) / 64 * 64;
    }
  };
  add(built.inputs, inputs);
  if (spec.place == Place::kShared) {
    outputs = inputs;
  } else {
    add(built.outputs, outputs);
  }
  built.program = {{"version", 1},
                   {"name", "fuzz"},
                   {"rank", built.topology.rank},
                   {"worldSize", built.topology.world_size},
                   {"expertParallelSize", built.topology.expert_parallel_size},
                   {"persistentBytes", ends[0]},
                   {"transientBytes", ends[1]},
                   {"buffers", buffers},
                   {"ops", json::array({{{"op", spec.name},
                                         {"label", "the op"},
                                         {"queue", spec.is_comm() ? "comm" : "compute"},
                                         {"inputs", inputs},
                                         {"outputs", outputs},
                                         {"attrs", json_of(built)},
                                         {"waits", json::array()}}})}};
  return built;
}

// --- Damage.

int64_t odd_number(int64_t number) {
  const int64_t odd[] = {
      0, 1, 2, number + 1, number - 1, 2 * number, 64, 1'000'000, int64_t{1} << 31, int64_t{1} << 40, int64_t{1} << 53};
  return odd[draw(0, std::size(odd) - 1)];
}

json& any_of(json& list) {
  return list[size_t(draw(0, int64_t(list.size()) - 1))];
}

void damage(json& program) {
  json &op = program["ops"][0], &buffers = program["buffers"];
  json& indices = chance(50) ? op["inputs"] : op["outputs"];
  switch (draw(0, 6)) {
    case 0: {  // an attribute
      if (op["attrs"].empty()) return;
      auto at = op["attrs"].begin();
      std::advance(at, draw(0, int64_t(op["attrs"].size()) - 1));
      if (at->is_number_integer()) *at = odd_number(at->get<int64_t>());
      return;
    }
    case 1:  // a size
      if (json& buffer = any_of(buffers); true) buffer["elements"] = odd_number(buffer["elements"]);
      return;
    case 2:  // a place: on or near that of another buffer
      if (json& buffer = any_of(buffers); true) {
        const json& other = any_of(buffers);
        buffer["arena"] = other["arena"];
        buffer["offset"] = other["offset"].get<int64_t>() + 64 * draw(0, 1);
      }
      return;
    case 3:  // another buffer
      if (!indices.empty()) any_of(indices) = draw(0, int64_t(buffers.size()) - 1);
      return;
    case 4:  // one buffer fewer or more
      if (chance(50) && !indices.empty()) {
        indices.erase(indices.size() - 1);
      } else {
        indices.push_back(draw(0, int64_t(buffers.size()) - 1));
      }
      return;
    case 5:  // a type
      any_of(buffers)["dtype"] = chance(50) ? "i32" : "f32";
      return;
    default:  // an arena
      program[chance(50) ? "persistentBytes" : "transientBytes"] = 64 * draw(0, 20);
  }
}

// --- Memory of a program, exactly as large as it says.

struct Memory {
  explicit Memory(const Program& program) : sizes{size_t(program.persistent_bytes), size_t(program.transient_bytes)} {
    for (int i = 0; i < 2; ++i) arenas[i].reset(static_cast<char*>(std::aligned_alloc(64, (sizes[i] + 63) / 64 * 64)));
  }
  struct Free {
    void operator()(char* memory) const { std::free(memory); }
  };
  char* at(const Buffer& buffer) const { return arenas[buffer.persistent ? 0 : 1].get() + buffer.offset; }
  size_t sizes[2];
  std::unique_ptr<char, Free> arenas[2];
};

void fill(const Program& program, Memory& memory) {
  std::normal_distribution<float> normal;
  // Moments of squares, rates and norms are never negative.
  const bool positive = program.ops[0].name == "adamw";
  for (int i = 0; i < 2; ++i) std::memset(memory.arenas[i].get(), 0x3e, memory.sizes[i]);
  for (const Buffer& buffer : program.buffers) {
    for (int64_t i = 0; i < buffer.elements; ++i) {
      const float real = normal(random_engine);
      if (buffer.dtype == DType::kF32)
        reinterpret_cast<float*>(memory.at(buffer))[i] = positive ? std::abs(real) + 0.1f : real;
      if (buffer.dtype == DType::kI32) reinterpret_cast<int32_t*>(memory.at(buffer))[i] = int32_t(draw(0, 1));
    }
  }
}

// Experts, slots and counts as a router writes them, or counts that fit; then perhaps damaged.
void fill_indices(const Program& program, Memory& memory) {
  const ProgramOp& op = program.ops[0];
  const auto numbers = [&](int input) {
    return reinterpret_cast<int32_t*>(memory.at(program.buffers[size_t(op.inputs[size_t(input)])]));
  };
  for (const Indices& indices : op.indices) {
    for (int64_t i = 0; i < indices.elements; ++i)
      numbers(indices.input)[i] = int32_t(draw(0, std::min<int64_t>(std::max<int64_t>(indices.end - 1, 0), 2)));
  }
  if (op.rows.slot >= 0) {
    std::memset(numbers(op.rows.counts), 0, size_t(op.attrs.experts) * 4);
    for (int64_t i = 0; i < op.attrs.topK; ++i) {
      for (int64_t n = 0; n < op.attrs.rows; ++n) {
        const int64_t choice = n * op.attrs.topK + i;
        const int32_t expert = numbers(op.rows.expert)[choice];
        if (expert < 0 || expert >= op.attrs.experts) continue;  // the counts lie on the experts
        const int32_t place = numbers(op.rows.counts)[expert]++;
        numbers(op.rows.slot)[choice] = place < op.attrs.capacity ? place : -1;
      }
    }
  }
  if (op.indices.empty() || !chance(30)) return;
  const Indices& damaged = op.indices[size_t(draw(0, int64_t(op.indices.size()) - 1))];
  if (damaged.elements == 0) return;
  const int64_t odd[] = {-1, -2, INT32_MIN, INT32_MAX, damaged.end, damaged.end - 1, 1000, 0};
  numbers(damaged.input)[draw(0, damaged.elements - 1)] = int32_t(odd[draw(0, std::size(odd) - 1)]);
}

// --- The comparison.

std::string run_on(const Backend& backend, const json& file, const Topology& topology, Memory& memory, int threads) {
  Program program = parse_program(file.dump(), backend, topology);
  bind(program, memory.arenas[0].get(), memory.arenas[1].get());
  try {
    check_indices(program, program.ops[0]);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  Stream* stream = backend.stream_create(threads);
  program.ops[0].run(call_of(program.ops[0]), stream);
  backend.stream_destroy(stream);
  return "";
}

bool differ(float got, float want, double typical) {
  if (!std::isfinite(want)) return std::isfinite(got);
  return !(std::abs(double(got) - double(want)) <= 1e-3 * std::max({1.0, double(std::abs(want)), typical}));
}

// The gradient of attention is defined only for the outputs of its forward op, which random numbers
// are not. tests/native/ops compares it.
bool is_defined(const Program& program) {
  return program.ops[0].name != "attention_backward";
}

std::string difference(const Program& program, const Memory& got, const Memory& want, const Memory& before) {
  std::vector<std::vector<char>> is_output;
  for (const size_t size : got.sizes) is_output.emplace_back(size, 0);
  for (const int index : program.ops[0].outputs) {
    const Buffer& buffer = program.buffers[size_t(index)];
    // An arena without a byte has no address.
    if (buffer.elements > 0)
      std::memset(is_output[buffer.persistent ? 0 : 1].data() + buffer.offset, 1, size_t(bytes_of(buffer)));
    double squares = 0;
    for (int64_t i = 0; i < buffer.elements && buffer.dtype == DType::kF32; ++i)
      squares += std::pow(reinterpret_cast<const float*>(want.at(buffer))[i], 2.0);
    const double typical = buffer.elements > 0 ? std::sqrt(squares / double(buffer.elements)) : 0;
    for (int64_t i = 0; i < buffer.elements && is_defined(program); ++i) {
      const auto *a = reinterpret_cast<const float*>(got.at(buffer)) + i,
                 *b = reinterpret_cast<const float*>(want.at(buffer)) + i;
      if (buffer.dtype == DType::kI32 ? std::memcmp(a, b, 4) != 0 : differ(*a, *b, typical))
        return buffer.name + "[" + std::to_string(i) + "] is " + std::to_string(*a) + ", not " + std::to_string(*b);
    }
  }
  for (int arena = 0; arena < 2; ++arena) {
    for (size_t i = 0; i < got.sizes[arena]; ++i) {
      if (!is_output[size_t(arena)][i] && got.arenas[arena].get()[i] != before.arenas[arena].get()[i])
        return "byte " + std::to_string(i) + " of arena " + std::to_string(arena) + " was written";
    }
  }
  return "";
}

struct Tally {
  int refused = 0, ran = 0, wrong = 0;
  std::map<std::string, int> ran_by_op;
};

void try_program(const Built& built, const json& file, Tally& tally) {
  const auto report = [&](const std::string& problem) {
    ++tally.wrong;
    std::printf("wrong: %s: %s\n", problem.c_str(), file.dump().c_str());
  };
  std::unique_ptr<Program> parsed;
  try {
    parsed = std::make_unique<Program>(parse_program(file.dump(), *cpu_backend(), built.topology));
  } catch (const Error& error) {
    ++tally.refused;
    if (error.code != std::string_view("BAD_PROGRAM") || std::strlen(error.what()) < 20) report(error.what());
    return;
  }
  if (parsed->ops[0].queue == Queue::kComm || parsed->persistent_bytes + parsed->transient_bytes > 1 << 20) return;
  Memory before(*parsed), fast(*parsed), slow(*parsed);
  fill(*parsed, before);
  fill_indices(*parsed, before);
  for (Memory* copy : {&fast, &slow}) {
    for (int i = 0; i < 2; ++i) std::memcpy(copy->arenas[i].get(), before.arenas[i].get(), before.sizes[i]);
  }
  const std::string refusal = run_on(*cpu_backend(), file, built.topology, fast, int(draw(1, 3)));
  if (!refusal.empty()) {
    ++tally.refused;
    if (refusal.find(built.spec->name) == std::string::npos) report(refusal);
    return;
  }
  ++tally.ran;
  ++tally.ran_by_op[built.spec->name];
  run_on(*reference_backend(), file, built.topology, slow, 1);
  const std::string problem = difference(*parsed, fast, slow, before);
  if (!problem.empty()) report(problem);
}

int fuzz(int count, uint64_t seed) {
  random_engine.seed(seed);
  Tally tally;
  for (int i = 0; i < count; ++i) {
    const OpSpec& spec = op_table()[size_t(i) % op_table().size()];
    Built built = build(spec);
    json file = built.program;
    for (int64_t times = draw(0, 3); times > 0; --times) damage(file);
    try_program(built, file, tally);
  }
  for (const OpSpec& spec : op_table()) {
    if (!spec.is_comm() && tally.ran_by_op[spec.name] == 0) std::printf("never ran: %s\n", spec.name);
  }
  std::printf("refused %d, ran %d\n", tally.refused, tally.ran);
  return tally.wrong == 0 ? 0 : 1;
}

}  // namespace
}  // namespace scmoe::test

int main(int count, char** words) {
  if (count != 3) {
    std::fprintf(stderr, "usage: program_fuzz COUNT SEED\n");
    return 64;
  }
  return scmoe::test::fuzz(std::atoi(words[1]), std::strtoull(words[2], nullptr, 10));
}
